//! The scripts on a real server, with times that the test sets.

use std::time::UNIX_EPOCH;

use redis::{Client, Connection, FromRedisValue, Pipeline, RedisResult};

use crate::servers::Server;

mod amend;
mod edges;
mod laws;
mod vectors;

const SCRIPT: &str = include_str!("../../../src/store/redis/take.lua");
const AMEND: &str = include_str!("../../../src/store/redis/amend.lua");
const READS_TIME: &str = "\nlocal time = redis.call('TIME')\n";
const DAY: u64 = 86_400_000_000;

/// A server that knows the scripts: the charging script as it is shipped, and both scripts with a
/// time that the caller sets.
struct Bench {
    _server: Server,
    connection: Connection,
    shipped: String,
    timed: String,
    amends: String,
    /// A midnight in the future, so that no key expires during a test.
    start: u64,
    keys: u32,
}

/// A charge, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Take {
    interval: u64,
    tolerance: u64,
    wanted: u32,
    deadline: u64,
    now: u64,
}

/// A change of a bucket by hand, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Amend {
    what: &'static str,
    micros: u64,
    tolerance: u64,
    deadline: u64,
    now: u64,
}

impl Amend {
    fn refund(micros: u64, tolerance: u64, now: u64) -> Self {
        Self { what: "grant", micros, tolerance, deadline: 0, now }
    }

    fn block(micros: u64, now: u64) -> Self {
        Self { what: "block", micros, tolerance: 0, deadline: 0, now }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Reply {
    granted: i64,
    used: u64,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(Server::start());
        let mut connection = Client::open(server.url()).unwrap().get_connection().unwrap();
        let timed = |script: &str| {
            assert_eq!(script.matches(READS_TIME).count(), 1);
            script.replace(READS_TIME, "\nlocal time = {ARGV[5], ARGV[6]}\n")
        };
        let mut load =
            |text: &str| redis::cmd("SCRIPT").arg("LOAD").arg(text).query(&mut connection).unwrap();
        let (shipped, timed, amends) = (load(SCRIPT), load(&timed(SCRIPT)), load(&timed(AMEND)));
        let today = UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
        Self {
            connection,
            shipped,
            timed,
            amends,
            start: (today + 2) * DAY,
            _server: server,
            keys: 0,
        }
    }

    /// The key of a full bucket.
    fn fresh(&mut self) -> String {
        self.keys += 1;
        format!("bucket-{}", self.keys)
    }

    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection).unwrap()
    }

    /// The TAT of the bucket as it is stored.
    fn stored(&mut self, key: &str) -> Option<String> {
        self.ask(&["GET", key])
    }

    fn try_take(&mut self, key: &str, take: Take) -> RedisResult<Reply> {
        let mut pipeline = redis::pipe();
        self.add(&mut pipeline, key, take);
        Ok(read(pipeline.query::<[(i64, u64, u64); 1]>(&mut self.connection)?[0]))
    }

    fn take(&mut self, key: &str, take: Take) -> Reply {
        self.try_take(key, take).unwrap()
    }

    fn try_amend(&mut self, key: &str, amend: Amend) -> RedisResult<i64> {
        let Amend { what, micros, tolerance, deadline, now } = amend;
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.amends).arg(1).arg(key).arg(what).arg(micros).arg(tolerance).arg(deadline);
        call.arg(now / 1_000_000).arg(now % 1_000_000).query(&mut self.connection)
    }

    fn amend(&mut self, key: &str, amend: Amend) -> i64 {
        self.try_amend(key, amend).unwrap()
    }

    /// Makes all charges in one round trip, since the times are known before.
    fn take_all(&mut self, takes: impl IntoIterator<Item = (String, Take)>) -> Vec<Reply> {
        let mut pipeline = redis::pipe();
        for (key, take) in takes {
            self.add(&mut pipeline, &key, take);
        }
        let replies: Vec<_> = pipeline.query(&mut self.connection).unwrap();
        replies.into_iter().map(read).collect()
    }

    fn add(&self, pipeline: &mut Pipeline, key: &str, take: Take) {
        let Take { interval, tolerance, wanted, deadline, now } = take;
        let call = pipeline.cmd("EVALSHA").arg(&self.timed).arg(1).arg(key);
        call.arg(interval)
            .arg(tolerance)
            .arg(wanted)
            .arg(deadline)
            .arg(now / 1_000_000)
            .arg(now % 1_000_000);
    }
}

fn read((granted, used, now): (i64, u64, u64)) -> Reply {
    Reply { granted, used, now }
}

impl Take {
    /// A charge of one unit of a bucket that holds `burst`.
    fn one(interval: u64, burst: u32, now: u64) -> Self {
        Self { interval, tolerance: interval * u64::from(burst), wanted: 1, deadline: 0, now }
    }

    fn units(self, wanted: u32) -> Self {
        Self { wanted, ..self }
    }

    fn at(self, now: u64) -> Self {
        Self { now, ..self }
    }

    fn by(self, deadline: u64) -> Self {
        Self { deadline, ..self }
    }

    fn remaining(self, reply: Reply) -> u64 {
        self.tolerance.saturating_sub(reply.used) / self.interval
    }

    fn next_unit(self, reply: Reply) -> u64 {
        (reply.used + (self.remaining(reply) + 1) * self.interval)
            .checked_sub(self.tolerance)
            .unwrap()
    }
}
