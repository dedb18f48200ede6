//! The script on a real server, with times that the test sets.

use std::time::{Duration, UNIX_EPOCH};

use bolna_rate_limit::store::{BucketState, Entry};
use bolna_rate_limit::{Endpoint, Quota};
use redis::{Client, Cmd, Connection, FromRedisValue, RedisResult, Value, from_redis_value};

use crate::servers::Server;

mod beside;
mod charges;
mod edges;
mod expiry;
mod laws;
mod model;
mod process;
mod vectors;

const SCRIPT: &str = include_str!("../../../src/store/remote/redis/bucket.lua");
const DAY: u64 = 86_400_000_000;
const CENTURY: u64 = 36_525 * DAY;

/// A server that knows the script.
struct Bench {
    _server: Server,
    connection: Connection,
    hash: String,
    /// A midnight.
    start: u64,
    tags: u32,
}

/// What is done to buckets, as the script is told.
#[derive(Clone, Debug)]
enum Run {
    Charge { count: u32, entries: Vec<Entry> },
    Settle(Entry),
    Refund(Entry),
    Block(Endpoint, u64),
    Reset(Endpoint),
}

/// A call of the script, in microseconds.
#[derive(Clone, Debug)]
struct Call {
    /// What the keys of the buckets begin with.
    tag: String,
    buckets: Vec<Endpoint>,
    runs: Vec<Run>,
    deadline: u64,
    /// 0 for the server's time.
    now: u64,
    /// Whether the time is an estimate.
    is_estimate: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Done { now: u64, states: Vec<BucketState> },
    Late { now: u64 },
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(Server::start());
        let mut connection = Client::open(server.url()).unwrap().get_connection().unwrap();
        let hash = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut connection).unwrap();
        let today = UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
        Self { connection, hash, start: today * DAY, _server: server, tags: 0 }
    }

    /// The tag of buckets that are full.
    fn fresh(&mut self) -> String {
        self.tags += 1;
        format!("{{{}}}", self.tags)
    }

    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection).unwrap()
    }

    fn try_call(&mut self, call: &Call) -> RedisResult<Reply> {
        call.command(&self.hash).query(&mut self.connection).map(|value| read(&value))
    }

    fn call(&mut self, call: &Call) -> Reply {
        self.try_call(call).unwrap()
    }

    /// The states before the runs.
    fn states(&mut self, call: &Call) -> Vec<BucketState> {
        match self.call(call) {
            Reply::Done { states, .. } => states,
            Reply::Late { now } => panic!("it was late at {now}"),
        }
    }

    fn get(&mut self, tag: &str, bucket: Endpoint) -> Option<String> {
        self.ask(&["GET", &key(tag, bucket)])
    }

    fn set(&mut self, tag: &str, bucket: Endpoint, value: &str) {
        self.ask::<()>(&["SET", &key(tag, bucket), value]);
    }

    /// Carries out all commands as if at one instant. The expiry of a key is relative to the
    /// server's clock, so that keys would expire while the time that the test sets stands still.
    /// During a transaction no key expires.
    fn at_once(&mut self, commands: impl IntoIterator<Item = Cmd>) -> Vec<Value> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.query(&mut self.connection).unwrap()
    }
}

impl Call {
    /// One run, of buckets with that tag.
    fn one(tag: &str, run: Run, now: u64) -> Self {
        Self::of(tag, vec![run], now)
    }

    fn of(tag: &str, runs: Vec<Run>, now: u64) -> Self {
        let mut buckets = Vec::new();
        for bucket in runs.iter().flat_map(Run::buckets) {
            if !buckets.contains(&bucket) {
                buckets.push(bucket);
            }
        }
        Self { tag: tag.to_owned(), buckets, runs, deadline: 0, now, is_estimate: false }
    }

    /// Reads the bucket only.
    fn read(tag: &str, bucket: Endpoint, now: u64) -> Self {
        Self { buckets: vec![bucket], ..Self::of(tag, Vec::new(), now) }
    }

    /// At a time that is an estimate.
    fn about(self) -> Self {
        Self { is_estimate: true, ..self }
    }

    fn by(self, deadline: u64) -> Self {
        Self { deadline, ..self }
    }

    fn command(&self, hash: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(hash).arg(self.buckets.len());
        for bucket in &self.buckets {
            command.arg(key(&self.tag, *bucket));
        }
        let now = i64::try_from(self.now).unwrap();
        command.arg(if self.is_estimate { -now } else { now }).arg(self.deadline);
        for run in &self.runs {
            self.encode(&mut command, run);
        }
        command
    }

    fn encode(&self, command: &mut Cmd, run: &Run) {
        let number = |bucket: Endpoint| {
            let place = self.buckets.iter().position(|other| *other == bucket).unwrap();
            i64::try_from(place + 1).unwrap()
        };
        match run {
            Run::Charge { count, entries } => match &entries[..] {
                [entry] if entry.is_binding() => {
                    command.arg(number(bucket_of(entry))).arg(count).arg(&times(entry));
                }
                _ => {
                    command.arg("c").arg(count).arg(entries.len());
                    for entry in entries {
                        let number = number(bucket_of(entry));
                        command.arg(if entry.is_binding() { number } else { -number });
                        command.arg(&times(entry));
                    }
                }
            },
            Run::Settle(entry) => {
                command.arg("s").arg(number(bucket_of(entry))).arg(&times(entry));
            }
            Run::Refund(entry) => {
                command.arg("r").arg(number(bucket_of(entry))).arg(&times(entry));
            }
            Run::Block(bucket, time) => {
                command.arg("b").arg(number(*bucket)).arg(*time);
            }
            Run::Reset(bucket) => {
                command.arg("d").arg(number(*bucket));
            }
        }
    }
}

impl Run {
    fn charge(count: u32, entry: Entry) -> Self {
        Self::Charge { count, entries: vec![entry] }
    }

    fn buckets(&self) -> Vec<Endpoint> {
        match self {
            Self::Charge { entries, .. } => entries.iter().map(bucket_of).collect(),
            Self::Settle(entry) | Self::Refund(entry) => vec![bucket_of(entry)],
            Self::Block(bucket, _) | Self::Reset(bucket) => vec![*bucket],
        }
    }
}

/// The bucket of an entry. All limits of these tests have the names of endpoints.
fn bucket_of(entry: &Entry) -> Endpoint {
    Endpoint::new(entry.name().name()).unwrap()
}

/// The time of the cost and the refill.
fn times(entry: &Entry) -> [u64; 2] {
    let interval = micros(entry.quota().emission_interval());
    [interval * u64::from(entry.cost()), interval * u64::from(entry.quota().burst())]
}

fn key(tag: &str, bucket: Endpoint) -> String {
    format!("{tag}:{bucket}")
}

fn read(value: &Value) -> Reply {
    let numbers: Vec<i64> = from_redis_value(value.clone()).unwrap();
    let time = |number: i64| u64::try_from(number).unwrap();
    match numbers[..] {
        [late] => Reply::Late { now: time(-late) },
        [now, ref states @ ..] => {
            let states = states.chunks(3).map(|state| {
                let [debt, overdraft, blocked] = state else { panic!("{numbers:?}") };
                state_of(time(*debt), time(*overdraft), time(*blocked))
            });
            Reply::Done { now: time(now), states: states.collect() }
        }
        [] => panic!("no numbers"),
    }
}

/// In microseconds.
fn state_of(debt: u64, overdraft: u64, blocked: u64) -> BucketState {
    BucketState::default()
        .full_after(Duration::from_micros(debt))
        .overdrawn(Duration::from_micros(overdraft))
        .blocked_for(Duration::from_micros(blocked))
}

/// A binding entry of one unit. The interval is in microseconds.
fn entry(bucket: Endpoint, interval: u64, burst: u32) -> Entry {
    let quota = Quota::per(1, Duration::from_micros(interval)).burst(burst);
    Entry::new(bucket, quota.build().unwrap())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
