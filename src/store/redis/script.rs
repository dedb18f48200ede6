//! The scripts that charge a bucket and change it by hand, and the commands that run them.

use std::sync::LazyLock;

use redis::{Cmd, Script};

use crate::quota::Quota;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(TAKE_CODE));
const TAKE_CODE: &str = include_str!("take.lua");

static AMEND: LazyLock<Script> = LazyLock::new(|| Script::new(AMEND_CODE));
const AMEND_CODE: &str = include_str!("amend.lua");

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

/// What the server answers: units granted or -1 for too late, microseconds until the bucket is
/// full, and its time. -2 for blocked, and microseconds until it may grant a unit.
pub(super) type Taken = (i64, i64, i64);

/// The first of what the server answers if the bucket is blocked.
pub(super) const BLOCKED: i64 = -2;

/// A change by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amendment {
    /// Fills the bucket up, and lifts a block.
    Forget,
    /// Lets the bucket be full by so many microseconds earlier.
    Grant { micros: u64, quota: Quota },
    /// Refuses for so many microseconds; 0 lifts the block.
    Block { micros: u64 },
}

impl Take {
    /// The call by the script's hash, which is known to the server from the second call on.
    pub(super) fn by_hash(&self, key: &str) -> Cmd {
        self.call("EVALSHA", TAKE.get_hash(), key)
    }

    /// The call by the script's text, which makes the server know it.
    pub(super) fn by_text(&self, key: &str) -> Cmd {
        self.call("EVAL", TAKE_CODE, key)
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

impl Amendment {
    /// The call by the script's hash, or one that needs no script. Past the deadline, in
    /// microseconds of the server's clock, a script does nothing; 0: never.
    pub(super) fn by_hash(self, key: &str, deadline: i64) -> Cmd {
        self.call("EVALSHA", AMEND.get_hash(), key, deadline)
    }

    /// The call by the script's text.
    pub(super) fn by_text(self, key: &str, deadline: i64) -> Cmd {
        self.call("EVAL", AMEND_CODE, key, deadline)
    }

    fn call(self, command: &str, script: &str, key: &str, deadline: i64) -> Cmd {
        let (what, micros, tolerance) = match self {
            Self::Forget => return forget(key),
            Self::Grant { micros, quota } => ("grant", micros, quota.refill_nanos() / 1000),
            Self::Block { micros } => ("block", micros, 0),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(script).arg(1).arg(key).arg(what).arg(micros).arg(tolerance).arg(deadline);
        cmd
    }
}

pub(super) fn forget(key: &str) -> Cmd {
    let mut cmd = redis::cmd("DEL");
    cmd.arg(key);
    cmd
}
