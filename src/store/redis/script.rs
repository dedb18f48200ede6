//! The script that charges a bucket, and the commands that run it.

use std::sync::LazyLock;

use redis::{Cmd, Script};

use crate::quota::Quota;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
const CODE: &str = include_str!("take.lua");

/// What a bucket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Take {
    /// In whole microseconds.
    pub(super) quota: Quota,
    /// How many units; 0 only looks.
    pub(super) units: usize,
    /// When it is too late to charge, in microseconds of the server's clock. 0: never.
    pub(super) deadline: i64,
}

/// What the server answers: units granted or -1 for too late, microseconds until the bucket is full, and its time.
pub(super) type Taken = (i64, i64, i64);

impl Take {
    /// The call by the script's hash, which is known to the server from the second call on.
    pub(super) fn by_hash(&self, key: &str) -> Cmd {
        self.call("EVALSHA", TAKE.get_hash(), key)
    }

    /// The call by the script's text, which makes the server know it.
    pub(super) fn by_text(&self, key: &str) -> Cmd {
        self.call("EVAL", CODE, key)
    }

    fn call(&self, command: &str, script: &str, key: &str) -> Cmd {
        let mut cmd = Cmd::with_capacity(8, script.len() + key.len() + 96);
        cmd.arg(command)
            .arg(script)
            .arg(1)
            .arg(key)
            .arg(self.quota.interval_nanos() / 1000)
            .arg(self.quota.refill_nanos() / 1000)
            .arg(self.units)
            .arg(self.deadline);
        cmd
    }
}

pub(super) fn forget(key: &str) -> Cmd {
    let mut cmd = redis::cmd("DEL");
    cmd.arg(key);
    cmd
}
