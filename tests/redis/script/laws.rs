//! Whatever calls are made in whatever order, the script does what the law says.

use std::cell::RefCell;

use bolna_rate_limit::Endpoint;
use bolna_rate_limit::store::Entry;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use redis::{Value, from_redis_value};

use super::model::Model;
use super::{Bench, Call, Reply, Run, entry, key, read};

const BUCKETS: [Endpoint; 3] = [Endpoint::CALL, Endpoint::AGENT, Endpoint::DEFAULT];

#[derive(Clone, Debug)]
enum Step {
    Call {
        runs: Vec<Draft>,
        /// More buckets, which are only read.
        read: Vec<Endpoint>,
        is_estimate: bool,
    },
    /// Time goes on by so many thousandths of the interval, and a few microseconds more or less.
    Wait(u32, i64),
    /// Time goes back by so many thousandths of the interval.
    Back(u32),
    /// Another program writes a value.
    Write(Endpoint, &'static str),
}

/// A run whose quotas are known by their numbers, and whose times are in thousandths of the
/// interval.
#[derive(Clone, Debug)]
enum Draft {
    Charge(u32, Vec<Part>),
    Settle(Part),
    Refund(Part),
    Block(Endpoint, u32),
    Reset(Endpoint),
}

#[derive(Clone, Debug)]
struct Part {
    bucket: Endpoint,
    quota: usize,
    cost: u32,
    shadow: bool,
}

/// The quotas as multiples of the interval, and bursts.
const QUOTAS: [(u64, u32); 5] = [(1, 10), (1, 1), (3, 4), (1, 500), (7, 20)];

const WRITTEN: [&str; 12] = [
    "",
    "nonsense",
    "nan",
    "7",
    "7+8",
    "7!",
    "6300000000000000",
    "9007199254740992",
    "7+6300000000000000",
    "6300000000000000+6300000000000000!6300000000000000",
    "7!9007199254740992",
    "7!8+9",
];

fn any_part() -> impl Strategy<Value = Part> {
    let cost = prop_oneof![3 => Just(1), 1 => 1..=6_u32];
    (select(&BUCKETS), 0..QUOTAS.len(), cost, prop::bool::weighted(0.3))
        .prop_map(|(bucket, quota, cost, shadow)| Part { bucket, quota, cost, shadow })
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let count = || prop_oneof![2 => Just(1), 1 => 1..=30_u32];
    let one = (count(), any_part())
        .prop_map(|(count, part)| Draft::Charge(count, vec![Part { shadow: false, ..part }]));
    let parts = subsequence(&BUCKETS, 1..=3).prop_shuffle();
    let several = (count(), parts, prop::collection::vec(any_part(), 3)).prop_map(
        |(count, buckets, parts)| {
            let parts = buckets.into_iter().zip(parts);
            Draft::Charge(count, parts.map(|(bucket, part)| Part { bucket, ..part }).collect())
        },
    );
    prop_oneof![
        6 => one,
        6 => several,
        2 => any_part().prop_map(Draft::Settle),
        2 => any_part().prop_map(Draft::Refund),
        1 => (select(&BUCKETS), prop_oneof![Just(0), 0..5000_u32])
            .prop_map(|(bucket, time)| Draft::Block(bucket, time)),
        1 => select(&BUCKETS).prop_map(Draft::Reset),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let runs = prop_oneof![
        1 => Just(Vec::new()),
        4 => any_draft().prop_map(|run| vec![run]),
        2 => prop::collection::vec(any_draft(), 2..6),
    ];
    let read = prop_oneof![4 => Just(Vec::new()), 1 => subsequence(&BUCKETS, 0..=3)];
    prop_oneof![
        12 => (runs, read, any::<bool>())
            .prop_map(|(runs, read, is_estimate)| Step::Call { runs, read, is_estimate }),
        6 => prop_oneof![
            (0..4_u32).prop_map(|units| units * 1000),
            0..3000_u32,
            Just(100_000),
        ].prop_flat_map(|wait| (-1..=1_i64).prop_map(move |off_by| Step::Wait(wait, off_by))),
        1 => (0..20_000_u32).prop_map(Step::Back),
        1 => (select(&BUCKETS), select(&WRITTEN)).prop_map(|(at, text)| Step::Write(at, text)),
    ]
}

pub(super) fn any_interval() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(120_000), 1..=1000_u64, 1..=60_000_000_u64, 1..=86_400_000_000_u64]
}

pub(super) fn for_any<S: Strategy>(cases: u32, inputs: &S, test: impl Fn(S::Value)) {
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(inputs, |input| (test(input), Ok(())).1).unwrap();
}

fn thousandths(interval: u64, thousandths: u32) -> u64 {
    interval * u64::from(thousandths) / 1000
}

impl Part {
    fn entry(&self, interval: u64) -> Entry {
        let (factor, burst) = QUOTAS[self.quota];
        let entry = entry(self.bucket, interval * factor, burst);
        let entry = entry.with_cost(self.cost.min(burst)).unwrap();
        if self.shadow { entry.shadow() } else { entry }
    }
}

impl Draft {
    fn run(&self, interval: u64) -> Run {
        match self {
            Self::Charge(count, parts) => {
                let entries = parts.iter().map(|part| part.entry(interval)).collect();
                Run::Charge { count: *count, entries }
            }
            Self::Settle(part) => Run::Settle(part.entry(interval)),
            Self::Refund(part) => Run::Refund(part.entry(interval)),
            Self::Block(bucket, time) => Run::Block(*bucket, thousandths(interval, *time)),
            Self::Reset(bucket) => Run::Reset(*bucket),
        }
    }
}

/// After every call each bucket has exactly the value that the law says, on the server too, and the
/// replied states are those before the runs. So it is if the time is an estimate.
#[test]
fn a_call_leaves_what_the_law_says() {
    let bench = RefCell::new(Bench::new());
    let steps = prop::collection::vec(any_step(), 1..40);
    for_any(400, &(any_interval(), steps), |(interval, steps)| {
        // A short bucket lives for 1.5 ms on the server. If a busy machine stands still for longer
        // in the middle of a case, the bucket is gone. A script that is wrong is so each time.
        let mut found = None;
        for _ in 0..5 {
            found = difference(&mut bench.borrow_mut(), interval, &steps);
            if found.is_none() {
                return;
            }
        }
        panic!("{}", found.unwrap_or_default());
    });
}

/// Where the script and the law differ, if they do.
fn difference(bench: &mut Bench, interval: u64, steps: &[Step]) -> Option<String> {
    let (tag, mut now, mut model) = (bench.fresh(), bench.start, Model::new(&BUCKETS));
    let (mut commands, mut expected) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Call { runs, read, is_estimate } => {
                let runs: Vec<_> = runs.iter().map(|draft| draft.run(interval)).collect();
                let mut call = Call { is_estimate: *is_estimate, ..Call::of(&tag, runs, now) };
                let more = read.iter().filter(|bucket| !call.buckets.contains(bucket));
                let more: Vec<_> = more.copied().collect();
                call.buckets.extend(more);
                if call.buckets.is_empty() {
                    continue;
                }
                let states = call.buckets.iter().map(|bucket| model.state(*bucket, now));
                let reply = Reply::Done { now, states: states.collect() };
                model.run(&call);
                commands.push(call.command(&bench.hash));
                for bucket in BUCKETS {
                    commands.push(redis::Cmd::get(key(&tag, bucket)));
                }
                let value = |bucket| model.value(bucket).map(str::to_owned);
                expected.push((call, reply, BUCKETS.map(value)));
            }
            Step::Wait(wait, off_by) => {
                now += thousandths(interval, *wait);
                now = now.saturating_add_signed(*off_by);
            }
            Step::Back(back) => now -= thousandths(interval, *back).min(now / 2),
            Step::Write(bucket, value) => {
                model.set(*bucket, value);
                commands.push(redis::Cmd::set(key(&tag, *bucket), *value));
            }
        }
    }
    let replies = bench.at_once(commands);
    let mut replies = replies.iter().filter(|reply| **reply != Value::Okay);
    for (call, reply, values) in expected {
        let got = read(replies.next().unwrap());
        if got != reply {
            return Some(format!("replied {got:?} and not {reply:?}: {call:?}"));
        }
        for value in values {
            let got: Option<String> = from_redis_value(replies.next().unwrap().clone()).unwrap();
            if got != value {
                return Some(format!("left {got:?} and not {value:?}: {call:?}"));
            }
        }
    }
    None
}
