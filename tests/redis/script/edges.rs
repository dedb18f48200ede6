//! What the script writes and what it does not, and what it makes of values that do not belong
//! there.

use bolna_rate_limit::Endpoint;
use bolna_rate_limit::store::BucketState;

use super::{Bench, CENTURY, Call, DAY, Reply, Run, SCRIPT, entry, state_of};

const CALL: Endpoint = Endpoint::CALL;
const AGENT: Endpoint = Endpoint::AGENT;
const INTERVAL: u64 = 60_000_000;
const BURST: u32 = 10;
const REFILL: u64 = 600_000_000;
/// An expiry that no call sets, in milliseconds: it tells whether a call has written.
const FOREVER: u64 = 4_000_000_000_000;

fn one(count: u32) -> Run {
    Run::charge(count, entry(CALL, INTERVAL, BURST))
}

/// The same as `one`, in the form for several entries.
fn two(count: u32) -> Run {
    let entries = [CALL, AGENT].map(|bucket| entry(bucket, INTERVAL, BURST));
    Run::Charge { count, entries: entries.into() }
}

fn drained() -> BucketState {
    state_of(REFILL, 0, 0)
}

impl Bench {
    fn last_forever(&mut self, tag: &str) {
        self.ask::<()>(&["PEXPIRE", &super::key(tag, CALL), &FOREVER.to_string()]);
    }

    fn lasts_forever(&mut self, tag: &str) -> bool {
        self.ask::<u64>(&["PTTL", &super::key(tag, CALL)]) > FOREVER / 2
    }

    fn calls_of(&mut self, command: &str) -> u64 {
        let stats: redis::InfoDict = self.ask(&["INFO", "commandstats"]);
        let line: Option<String> = stats.get(&format!("cmdstat_{command}"));
        line.map_or(0, |line| line.split(['=', ',']).nth(1).unwrap().parse().unwrap())
    }
}

#[test]
fn nothing_is_done_past_the_deadline() {
    let mut bench = Bench::new();
    let (tag, now) = (bench.fresh(), bench.start);
    let entry = entry(CALL, INTERVAL, BURST);
    let runs = [one(1), two(1), Run::Settle(entry), Run::Refund(entry), Run::Block(CALL, DAY)];
    for value in [None, Some("nonsense".to_owned()), Some((now + 7).to_string())] {
        if let Some(value) = &value {
            bench.set(&tag, CALL, value);
        }
        for run in runs.iter().cloned().chain([Run::Reset(CALL)]) {
            let call = Call::one(&tag, run, now).by(now - 1);
            assert_eq!(bench.call(&call), Reply::Late { now });
            assert_eq!(bench.get(&tag, CALL), value);
        }
    }
    let tag = bench.fresh();
    let call = Call::one(&tag, one(1), now).by(now);
    assert_eq!(bench.call(&call), Reply::Done { now, states: vec![BucketState::default()] });
    assert_eq!(bench.get(&tag, CALL), Some((now + INTERVAL).to_string()));
}

/// Two replicas whose estimates differ call in turn. If the one that is behind corrected the bucket
/// each time, the other one would find units in it.
#[test]
fn an_estimate_of_the_time_that_is_behind_gives_no_units_away() {
    const OFF: u64 = 900_000;
    let mut bench = Bench::new();
    for run in [one as fn(u32) -> Run, two] {
        let (tag, now) = (bench.fresh(), bench.start);
        bench.states(&Call::one(&tag, run(BURST), now).about());
        let full_at = bench.get(&tag, CALL);
        for _ in 0..3 {
            let behind = bench.states(&Call::one(&tag, run(1), now - OFF).about());
            assert_eq!(behind[0], state_of(REFILL + OFF, 0, 0));
            assert_eq!(bench.states(&Call::one(&tag, run(1), now).about())[0], drained());
            assert_eq!(bench.get(&tag, CALL), full_at);
        }
        // What is off by more than a second is impossible all the same.
        bench.states(&Call::one(&tag, run(1), now - 1_100_000).about());
        assert_eq!(bench.get(&tag, CALL), Some((now - 1_100_000 + REFILL).to_string()));
    }
}

#[test]
fn a_read_and_a_refusal_write_nothing() {
    let mut bench = Bench::new();
    let (tag, now) = (bench.fresh(), bench.start);
    assert_eq!(bench.states(&Call::read(&tag, CALL, now)), [BucketState::default()]);
    assert_eq!(bench.get(&tag, CALL), None);
    assert_eq!(bench.states(&Call::one(&tag, one(99), now)), [BucketState::default()]);
    bench.last_forever(&tag);
    assert_eq!(bench.states(&Call::read(&tag, CALL, now + 1)), [state_of(REFILL - 1, 0, 0)]);
    for run in [one(1), one(99)] {
        assert_eq!(bench.states(&Call::one(&tag, run, now)), [drained()]);
    }
    let both = bench.states(&Call::one(&tag, two(9), now));
    assert_eq!(both, [drained(), BucketState::default()]);
    // What cancels out writes nothing either.
    let entry = entry(CALL, INTERVAL, BURST);
    let runs = vec![Run::Refund(entry), one(1), Run::Block(CALL, 7), Run::Block(CALL, 0)];
    bench.call(&Call::of(&tag, runs, now));
    assert!(bench.lasts_forever(&tag));
    assert_eq!(bench.get(&tag, CALL), Some((now + REFILL).to_string()));
    assert_eq!(bench.get(&tag, AGENT), None);
}

#[test]
fn an_impossible_time_is_corrected_at_once() {
    let mut bench = Bench::new();
    let now = bench.start;
    let beyond = (now + REFILL + 1).to_string();
    for run in [
        one(1),
        two(1),
        Run::Charge { count: 1, entries: vec![entry(CALL, INTERVAL, BURST).shadow()] },
    ] {
        let tag = bench.fresh();
        bench.set(&tag, CALL, &beyond);
        let read = bench.states(&Call::read(&tag, CALL, now));
        assert_eq!(read, [state_of(REFILL + 1, 0, 0)]);
        assert_eq!(bench.get(&tag, CALL).as_ref(), Some(&beyond));
        assert_eq!(bench.states(&Call::one(&tag, run, now))[0], read[0]);
        assert_eq!(bench.get(&tag, CALL), Some((now + REFILL).to_string()));
    }
}

/// This includes values that Lua takes for numbers.
#[test]
fn what_another_program_wrote_is_a_drained_bucket_from_then_on() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (long, fraction) = ("9".repeat(400), format!("{now}.5"));
    let long_block = format!("7!{long}");
    let long_overdraft = format!("7+{long}");
    let mixed = format!("{long}x");
    let nonsense = [
        "",
        "abc",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1e300",
        "0x10",
        "-5",
        " 7",
        "7\n",
        "7\0",
        "\0",
        "\u{ff17}",
        "7!",
        "!7",
        "!",
        "7+",
        "+7",
        "+",
        "7+!7",
        "7!7!7",
        "7+7+7",
        "7!7+7",
        "-7!7",
        "7!-7",
        "7! 7",
        "7!nan",
        "7!0x10",
        "7+1e3",
        "7+7!",
        "9007199254740992",
        "7!9007199254740992",
        "7+9007199254740992",
        "7!7\n",
        &long,
        &fraction,
        &long_block,
        &long_overdraft,
        &mixed,
    ];
    let foreign = state_of(CENTURY, 0, 0);
    for value in nonsense {
        for run in [one(99), two(99)] {
            let tag = bench.fresh();
            bench.set(&tag, CALL, value);
            assert_eq!(bench.states(&Call::read(&tag, CALL, now)), [foreign], "{value:?}");
            assert_eq!(bench.get(&tag, CALL).unwrap(), value);
            assert_eq!(bench.states(&Call::one(&tag, run, now))[0], foreign, "{value:?}");
            assert_eq!(bench.get(&tag, CALL), Some((now + REFILL).to_string()), "{value:?}");
        }
        let tag = bench.fresh();
        bench.set(&tag, CALL, value);
        bench.call(&Call::one(&tag, Run::Block(CALL, 7), now));
        let text = format!("{}!{}", now + CENTURY, now + 7);
        assert_eq!(bench.get(&tag, CALL), Some(text), "{value:?}");
        bench.set(&tag, CALL, value);
        bench.call(&Call::one(&tag, Run::Reset(CALL), now));
        assert_eq!(bench.get(&tag, CALL), None, "{value:?}");
    }
}

/// A value that is not a time never drains, so it is replaced even if the number stays.
#[test]
fn a_bucket_that_takes_a_century_to_fill_is_not_drained_for_ever() {
    let mut bench = Bench::new();
    let now = bench.start;
    let slow = |bucket| entry(bucket, CENTURY, 1);
    for run in [
        Run::charge(1, slow(CALL)),
        Run::Charge { count: 1, entries: vec![slow(CALL), slow(AGENT)] },
    ] {
        let tag = bench.fresh();
        bench.set(&tag, CALL, "nonsense");
        bench.call(&Call::one(&tag, run, now));
        assert_eq!(bench.get(&tag, CALL), Some((now + CENTURY).to_string()));
        assert_eq!(bench.get(&tag, AGENT), None);
    }
}

#[test]
fn a_time_long_past_is_a_full_bucket() {
    let mut bench = Bench::new();
    let now = bench.start;
    for value in ["0", "7", "007", "1000000000000000", "7+7", "7!7", "7+7!7", "7+9007199254740991"]
    {
        let tag = bench.fresh();
        bench.set(&tag, CALL, value);
        assert_eq!(bench.states(&Call::one(&tag, one(99), now)), [BucketState::default()]);
        assert_eq!(bench.get(&tag, CALL), Some((now + REFILL).to_string()), "{value}");
    }
}

#[test]
fn a_value_names_the_overdraft_and_the_block_if_there_are_any() {
    let mut bench = Bench::new();
    let (tag, now) = (bench.fresh(), bench.start);
    let cost = |cost| entry(CALL, INTERVAL, BURST).with_cost(cost).unwrap();
    let mut after = |run| {
        bench.call(&Call::one(&tag, run, now));
        bench.get(&tag, CALL)
    };
    let at = |intervals: u64| now + intervals * INTERVAL;
    assert_eq!(after(Run::Settle(cost(4))), Some(at(4).to_string()));
    assert_eq!(after(Run::Settle(cost(9))), Some(format!("{}+{}", at(13), at(3))));
    assert_eq!(after(one(1)), Some(format!("{}+{}", at(13), at(3))));
    assert_eq!(after(Run::Settle(cost(10))), Some(format!("{}+{}", at(20), at(10))));
    let blocked = format!("{}+{}!{}", at(20), at(10), now + DAY);
    assert_eq!(after(Run::Block(CALL, DAY)), Some(blocked));
    assert_eq!(after(Run::Refund(cost(8))), Some(format!("{}+{}!{}", at(12), at(2), now + DAY)));
    assert_eq!(after(Run::Refund(cost(2))), Some(format!("{}!{}", at(10), now + DAY)));
    assert_eq!(after(one(1)), Some(format!("{}!{}", at(10), now + DAY)));
    assert_eq!(after(Run::Refund(cost(10))), Some(format!("{now}!{}", now + DAY)));
    assert_eq!(after(Run::Block(CALL, 0)), None);
    assert_eq!(after(Run::Block(CALL, 7)), Some(format!("{now}!{}", now + 7)));
    assert_eq!(after(Run::Reset(CALL)), None);
}

#[test]
fn a_key_of_another_kind_is_an_error_and_all_is_left_alone() {
    let mut bench = Bench::new();
    let (tag, now) = (bench.fresh(), bench.start);
    let list = super::key(&tag, AGENT);
    bench.ask::<()>(&["RPUSH", &list, "another's"]);
    let agent = Run::charge(1, entry(AGENT, INTERVAL, BURST));
    for call in [
        Call::read(&tag, AGENT, now),
        Call::one(&tag, agent.clone(), now),
        Call::one(&tag, two(1), now),
        Call::of(&tag, vec![one(1), agent], now),
        Call::of(&tag, vec![Run::Reset(CALL), Run::Reset(AGENT)], now),
    ] {
        let error = bench.try_call(&call).unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    }
    assert_eq!(bench.ask::<Vec<String>>(&["LRANGE", &list, "0", "-1"]), ["another's"]);
    assert_eq!(bench.get(&tag, CALL), None);
}

#[test]
fn a_run_that_is_unknown_is_an_error_and_nothing_is_done() {
    let mut bench = Bench::new();
    let key = super::key(&bench.fresh(), CALL);
    let hash = bench.hash.clone();
    for words in ["x 1 60 600", "0 1 60 600", "2 1 60 600", "c 1 1 2 60 600", "c 1", "1"] {
        let run: Vec<_> = ["1", "1", "60", "600"].into_iter().chain(words.split(' ')).collect();
        let mut call = redis::cmd("EVALSHA");
        call.arg(&hash).arg(1).arg(&key).arg(0).arg(0).arg(&run);
        let error = call.query::<redis::Value>(&mut bench.connection).unwrap_err();
        assert!(!error.is_io_error(), "{words}: {error}");
        assert_eq!(bench.ask::<Option<String>>(&["GET", &key]), None, "{words}");
    }
}

/// By default Lua writes 14 digits: hundredths of a second, at the present time.
#[test]
fn times_are_exact_for_a_hundred_years() {
    let mut bench = Bench::new();
    for now in [bench.start + 1, bench.start + 1 + CENTURY] {
        let tag = bench.fresh();
        // A bucket that takes a century to fill, to the microsecond.
        let slow = entry(CALL, CENTURY / 7 - 1, 7);
        let [interval, refill] = super::times(&slow);
        let charge = |count, now| Call::one(&tag, Run::charge(count, slow), now);
        assert_eq!(bench.states(&charge(1, now)), [BucketState::default()]);
        assert_eq!(bench.get(&tag, CALL), Some((now + interval).to_string()));
        assert_eq!(bench.states(&charge(99, now)), [state_of(interval, 0, 0)]);
        assert_eq!(bench.get(&tag, CALL), Some((now + refill).to_string()));
        let early = bench.states(&charge(1, now + interval - 1));
        assert_eq!(early, [state_of(refill - interval + 1, 0, 0)]);
        assert_eq!(bench.get(&tag, CALL), Some((now + refill).to_string()));
        bench.call(&charge(1, now + interval));
        assert_eq!(bench.get(&tag, CALL), Some((now + refill + interval).to_string()));
    }
    // With an overdraft of another century.
    let (tag, now, slow) = (bench.fresh(), bench.start + 1, entry(CALL, CENTURY, 1));
    for _ in 0..3 {
        bench.call(&Call::one(&tag, Run::Settle(slow), now));
    }
    let text = format!("{}+{}", now + 2 * CENTURY, now + CENTURY);
    assert_eq!(bench.get(&tag, CALL), Some(text));
    let states = bench.states(&Call::read(&tag, CALL, now + 1));
    assert_eq!(states, [state_of(2 * CENTURY - 1, CENTURY - 1, 0)]);
}

#[test]
fn the_time_is_the_servers_unless_it_is_given() {
    let mut bench = Bench::new();
    let tag = bench.fresh();
    let mut call = |deadline| {
        let clock = |(seconds, micros): (u64, u64)| seconds * 1_000_000 + micros;
        let before = clock(bench.ask(&["TIME"]));
        let reply = bench.call(&Call::one(&tag, one(1), 0).by(deadline));
        let after = clock(bench.ask(&["TIME"]));
        let (Reply::Done { now, .. } | Reply::Late { now }) = reply;
        assert!((before..=after).contains(&now), "{before} {now} {after}");
        (now, reply)
    };
    let (now, first) = call(0);
    assert_eq!(first, Reply::Done { now, states: vec![BucketState::default()] });
    assert!(matches!(call(now), (_, Reply::Late { .. })));
    let (later, second) = call(now + DAY);
    let states = vec![state_of(now + INTERVAL - later, 0, 0)];
    assert_eq!(second, Reply::Done { now: later, states });
    assert_eq!(bench.get(&tag, CALL), Some((now + 2 * INTERVAL).to_string()));

    let asked = bench.calls_of("time");
    for run in [one(1), two(1), Run::Block(CALL, 7), Run::Reset(CALL)] {
        bench.call(&Call::one(&tag, run, now).by(now + 1));
        bench.call(&Call::read(&tag, CALL, now).by(now - 1));
    }
    assert_eq!(bench.calls_of("time"), asked);
}

/// The permissions that a user of the server needs.
#[test]
fn six_commands_suffice() {
    let mut bench = Bench::new();
    let tag = bench.fresh();
    let allowed = ["+evalsha", "+eval", "+time", "+get", "+set", "+del"];
    let user = ["ACL", "SETUSER", "default", "-@all"];
    let words: Vec<_> = user.into_iter().chain(allowed).collect();
    bench.ask::<()>(&words);
    let entry = entry(CALL, INTERVAL, BURST);
    for run in [
        one(1),
        two(1),
        Run::Settle(entry.with_cost(10).unwrap()),
        Run::Block(CALL, DAY),
        Run::Refund(entry),
        Run::Reset(CALL),
        one(1),
    ] {
        bench.call(&Call::one(&tag, run, 0));
        bench.call(&Call::read(&tag, CALL, 0));
    }
    let call = ["EVAL", SCRIPT, "1", &super::key(&tag, CALL), "0", "0"];
    assert_eq!(bench.ask::<Vec<i64>>(&call).len(), 4);
    assert!(bench.get(&tag, CALL).is_some());
}
