//! The script decides as the store in this process does.

use std::cell::RefCell;
use std::time::Duration;

use bolna_rate_limit::store::{Bucket, Charge, Command, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal};
use proptest::prelude::*;
use tokio_test::block_on;

use super::laws::{any_interval, for_any};
use super::model::replay;
use super::{Bench, Call, Reply, Run, entry, read};

const BUCKETS: [Endpoint; 2] = [Endpoint::CALL, Endpoint::AGENT];

/// The caller of the script knows each decision from the states that the script replies.
#[test]
fn the_states_before_a_call_tell_every_decision() {
    let bench = RefCell::new(Bench::new());
    let part = || (1..=4_u32, any::<bool>());
    let what = prop_oneof![
        8 => (1..=12_u32).prop_map(|count| (0, count)),
        1 => Just((1, 0)),
        1 => Just((2, 0)),
        1 => (0..4000_u32).prop_map(|time| (3, time)),
        1 => Just((4, 0)),
    ];
    let step = (what, part(), part(), 1..=2_usize, 0..3000_u64);
    let bursts = (4..=20_u32, 4..=20_u32);
    let steps = prop::collection::vec(step, 1..40);
    for_any(200, &(any_interval(), bursts, steps), |(interval, bursts, steps)| {
        let mut bench = bench.borrow_mut();
        let (tag, mut now) = (bench.fresh(), bench.start);
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(clock.clone());
        let caller = Principal::user("u").unwrap();
        let (mut commands, mut expected) = (Vec::new(), Vec::new());
        for ((what, number), first, second, entries, pause) in steps {
            now += interval * pause / 1000;
            clock.set(Duration::from_micros(now));
            let part = |bucket, interval, burst, (cost, shadow)| {
                let entry = entry(bucket, interval, burst).with_cost(cost).unwrap();
                if shadow { entry.shadow() } else { entry }
            };
            let parts: Vec<Entry> = [
                part(BUCKETS[0], interval, bursts.0, first),
                part(BUCKETS[1], 3 * interval, bursts.1, second),
            ]
            .into_iter()
            .take(entries)
            .collect();
            let mut decisions = Vec::new();
            let run = match what {
                0 => {
                    for _ in 0..number {
                        let charge = Charge::new(&caller, &parts).unwrap();
                        decisions.push(store.check(charge).now().unwrap().unwrap());
                    }
                    Run::Charge { count: number, entries: parts }
                }
                1 | 2 => {
                    let charge = Charge::of_one(&caller, &parts[0]);
                    let (command, run) = if what == 1 {
                        (Command::Settle(charge), Run::Settle(parts[0]))
                    } else {
                        (Command::Refund(charge), Run::Refund(parts[0]))
                    };
                    block_on(store.command(command)).unwrap();
                    run
                }
                3 => {
                    let time = interval * u64::from(number) / 1000;
                    let period = Duration::from_micros(time);
                    let bucket = Bucket::of_account(&caller, BUCKETS[0]);
                    block_on(store.command(Command::block(bucket, period))).unwrap();
                    Run::Block(BUCKETS[0], time)
                }
                _ => {
                    let bucket = Bucket::of_account(&caller, BUCKETS[0]);
                    block_on(store.command(Command::Reset(bucket))).unwrap();
                    Run::Reset(BUCKETS[0])
                }
            };
            let call = Call::one(&tag, run, now);
            commands.push(call.command(&bench.hash));
            expected.push((call, decisions));
        }
        for (reply, (call, expected)) in bench.at_once(commands).iter().zip(expected) {
            let Reply::Done { mut states, .. } = read(reply) else { panic!("{call:?} was late") };
            let decisions = replay(&caller, &call.buckets, &call.runs, &mut states);
            assert_eq!(decisions, expected, "{call:?}");
        }
    });
}
