//! The scripts that charge a bucket or change it by hand, and the commands that run them.

use std::sync::LazyLock;

use redis::{Cmd, Script};

use crate::values::Rate;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(TAKE_CODE));
const TAKE_CODE: &str = include_str!("take.lua");

static AMEND: LazyLock<Script> = LazyLock::new(|| Script::new(AMEND_CODE));
const AMEND_CODE: &str = include_str!("amend.lua");

/// A charge of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Take {
    /// Its times are whole microseconds.
    pub(super) rate: Rate,
    /// The number of units; 0 reads the bucket without charging it.
    pub(super) units: usize,
    /// The time after which nothing is charged, in microseconds of the server's clock; 0 means that
    /// there is none.
    pub(super) deadline: i64,
}

/// The server's answer: a result, a duration and the server's time, both in microseconds.
/// * Result 0 or more: the units charged, and the duration until the bucket is full.
/// * Result -1: nothing was charged because the deadline had passed; the duration is 0.
/// * Result -2 ([`BLOCKED`]): the duration until the bucket can have a unit.
pub(super) type ScriptReply = (i64, i64, i64);

/// The result in the server's answer if the bucket is blocked.
pub(super) const BLOCKED: i64 = -2;

/// A change of a bucket by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amendment {
    /// Fills the bucket up and lifts a block.
    Forget,
    /// Refunds units: the bucket is full this many microseconds earlier.
    Grant { micros: u64, rate: Rate },
    /// Blocks the bucket for this many microseconds; 0 lifts the block.
    Block { micros: u64 },
}

impl Take {
    /// The call by the script's hash, which the server knows once it has run the script's text.
    pub(super) fn by_hash(&self, key: &str) -> Cmd {
        self.call("EVALSHA", TAKE.get_hash(), key)
    }

    /// The call by the script's text, from which the server learns the hash.
    pub(super) fn by_text(&self, key: &str) -> Cmd {
        self.call("EVAL", TAKE_CODE, key)
    }

    fn call(&self, command: &str, script: &str, key: &str) -> Cmd {
        let mut cmd = Cmd::with_capacity(8, script.len() + key.len() + 96);
        cmd.arg(command)
            .arg(script)
            .arg(1)
            .arg(key)
            .arg(self.rate.interval() / 1000)
            .arg(self.rate.refill() / 1000)
            .arg(self.units)
            .arg(self.deadline);
        cmd
    }
}

impl Amendment {
    /// The call by the script's hash, or a command that needs no script. After the deadline, in
    /// microseconds of the server's clock, a script changes nothing; 0 means that there is none.
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
            Self::Grant { micros, rate } => ("grant", micros, rate.refill() / 1000),
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
