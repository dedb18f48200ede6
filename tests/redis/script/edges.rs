//! What the script writes, how exactly and for how long, and what it does with values that do not
//! belong there.

use super::{Bench, DAY, Reply, Take, read};

const SLACK: u64 = 1_000_000;
const INTERVAL: u64 = 1_000_000;
const BURST: u32 = 10;
const TOLERANCE: u64 = 10_000_000;

#[test]
fn nothing_is_charged_past_the_deadline() {
    let mut bench = Bench::new();
    let (key, now) = (bench.fresh(), bench.start);
    let take = Take::one(INTERVAL, BURST, now);
    assert_eq!(bench.take(&key, take.by(now - 1)), Reply { granted: -1, used: 0, now });
    assert_eq!(bench.stored(&key), None);
    assert_eq!(bench.take(&key, take.by(now)), Reply { granted: 1, used: INTERVAL, now });
    let tat = bench.stored(&key);
    assert_eq!(bench.take(&key, take.by(now - 1)), Reply { granted: -1, used: 0, now });
    assert_eq!(bench.stored(&key), tat);
    // A value that is not a time is not replaced either.
    bench.ask::<()>(&["SET", &key, "nonsense"]);
    assert_eq!(bench.take(&key, take.by(now - 1)).granted, -1);
    assert_eq!(bench.stored(&key).unwrap(), "nonsense");
}

#[test]
fn a_look_writes_nothing() {
    let mut bench = Bench::new();
    let (key, now) = (bench.fresh(), bench.start);
    let take = Take::one(INTERVAL, BURST, now);
    assert_eq!(bench.take(&key, take.units(0)), Reply { granted: 0, used: 0, now });
    assert_eq!(bench.stored(&key), None);
    bench.take(&key, take.units(3));
    let tat = bench.stored(&key);
    // A write would set another expiry.
    bench.ask::<()>(&["PEXPIREAT", &key, "4000000000000"]);
    assert_eq!(
        bench.take(&key, take.units(0).at(now + 1)),
        Reply { granted: 0, used: 3 * INTERVAL - 1, now: now + 1 }
    );
    assert_eq!(bench.stored(&key), tat);
    assert_eq!(bench.ask::<u64>(&["PEXPIRETIME", &key]), 4_000_000_000_000);
}

#[test]
fn a_denial_writes_nothing() {
    let mut bench = Bench::new();
    let (key, now) = (bench.fresh(), bench.start);
    let take = Take::one(INTERVAL, BURST, now);
    assert_eq!(bench.take(&key, take.units(99)), Reply { granted: 10, used: TOLERANCE, now });
    bench.ask::<()>(&["PEXPIREAT", &key, "4000000000000"]);
    assert_eq!(bench.take(&key, take), Reply { granted: 0, used: TOLERANCE, now });
    assert_eq!(bench.stored(&key).unwrap(), (now + TOLERANCE).to_string());
    assert_eq!(bench.ask::<u64>(&["PEXPIRETIME", &key]), 4_000_000_000_000);
}

#[test]
fn a_time_too_far_ahead_is_a_drained_bucket_from_then_on() {
    let mut bench = Bench::new();
    let now = bench.start;
    let take = Take::one(INTERVAL, BURST, now);
    let drained = Reply { granted: 0, used: TOLERANCE, now };

    // A time within the slack stays, and the bucket is limited until then.
    let key = bench.fresh();
    let within = (now + TOLERANCE + SLACK).to_string();
    bench.ask::<()>(&["SET", &key, &within]);
    assert_eq!(bench.take(&key, take), Reply { used: TOLERANCE + SLACK, ..drained });
    assert_eq!(bench.stored(&key).unwrap(), within);

    let beyond = (now + TOLERANCE + SLACK + 1).to_string();
    bench.ask::<()>(&["SET", &key, &beyond]);
    assert_eq!(bench.take(&key, take.units(0)), drained);
    assert_eq!(bench.stored(&key).unwrap(), beyond);
    assert_eq!(bench.take(&key, take), drained);
    assert_eq!(bench.stored(&key).unwrap(), (now + TOLERANCE).to_string());
    assert_eq!(bench.ask::<u64>(&["PEXPIRETIME", &key]), (now + TOLERANCE) / 1000 + 1);
    assert_eq!(bench.take(&key, take.at(now + INTERVAL)).granted, 1);
}

/// This includes values that Lua takes for numbers.
#[test]
fn what_is_not_a_time_is_a_drained_bucket_from_then_on() {
    let mut bench = Bench::new();
    let now = bench.start;
    let take = Take::one(INTERVAL, BURST, now);
    let (long, fraction) = ("9".repeat(400), format!("{now}.5"));
    let nonsense = [
        "", "abc", "nan", "-nan", "inf", "-inf", "1e300", "0x10", "-5", " 7", "7\n", "7\0",
        "\u{ff17}", &long, &fraction,
    ];
    for value in nonsense {
        let key = bench.fresh();
        bench.ask::<()>(&["SET", &key, value]);
        let drained = Reply { granted: 0, used: TOLERANCE, now };
        assert_eq!(bench.take(&key, take.units(0)), drained, "{value:?}");
        assert_eq!(bench.stored(&key).unwrap(), value);
        assert_eq!(bench.take(&key, take.units(99)), drained, "{value:?}");
        assert_eq!(bench.stored(&key).unwrap(), (now + TOLERANCE).to_string(), "{value:?}");
        assert_eq!(bench.take(&key, take.units(99).at(now + TOLERANCE)).granted, 10, "{value:?}");
    }
}

#[test]
fn a_time_long_past_is_a_full_bucket() {
    let mut bench = Bench::new();
    let now = bench.start;
    for value in ["0", "7", "1000000000000000"] {
        let key = bench.fresh();
        bench.ask::<()>(&["SET", &key, value]);
        let reply = bench.take(&key, Take::one(INTERVAL, BURST, now).units(99));
        assert_eq!(reply, Reply { granted: 10, used: TOLERANCE, now });
    }
}

#[test]
fn a_key_of_another_kind_is_an_error_and_left_alone() {
    let mut bench = Bench::new();
    let key = bench.fresh();
    bench.ask::<()>(&["RPUSH", &key, "another's"]);
    for wanted in [0, 1] {
        let take = Take::one(INTERVAL, BURST, bench.start).units(wanted);
        let error = bench.try_take(&key, take).unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    }
    assert_eq!(bench.ask::<Vec<String>>(&["LRANGE", &key, "0", "-1"]), ["another's"]);
}

#[test]
fn a_key_lasts_until_the_bucket_is_full_and_hardly_longer() {
    let mut bench = Bench::new();
    for micros in [0, 1, 499, 500, 999, 1000] {
        let key = bench.fresh();
        let take = Take::one(INTERVAL + micros, BURST, bench.start);
        let reply = bench.take(&key, take);
        let expires = 1000 * bench.ask::<u64>(&["PEXPIRETIME", &key]);
        let full = reply.now + reply.used;
        assert!((full..=full + 2000).contains(&expires), "{expires} {full}");
    }
}

/// By default Lua writes 14 digits: hundredths of a second, at the present time.
#[test]
fn times_are_exact_for_a_hundred_years() {
    let mut bench = Bench::new();
    let century = 36_525 * DAY;
    for start in [bench.start, bench.start + century] {
        let key = bench.fresh();
        // A bucket that takes a century to fill, to the microsecond.
        let take = Take::one(century / 7 - 1, 7, start + 1);
        let first = bench.take(&key, take);
        assert_eq!((first.granted, first.used, first.now), (1, take.interval, take.now));
        assert_eq!(bench.stored(&key).unwrap(), (take.now + take.interval).to_string());
        assert_eq!(
            bench.take(&key, take.units(99)),
            Reply { granted: 6, used: take.tolerance, now: take.now }
        );
        assert_eq!(bench.stored(&key).unwrap(), (take.now + take.tolerance).to_string());
        let second = take.at(take.now + take.interval);
        assert_eq!(bench.take(&key, second.at(second.now - 1)).granted, 0);
        assert_eq!(bench.take(&key, second).granted, 1);
    }
}

/// With the script as it is shipped, where nothing is replaced.
#[test]
fn the_time_is_the_servers() {
    let mut bench = Bench::new();
    let (key, script) = (bench.fresh(), bench.shipped.clone());
    let mut take = |deadline: u64| {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        let call = ["1", &key, "1000000", "10000000", "1", &deadline.to_string()];
        pipeline.cmd("EVALSHA").arg(&script).arg(&call);
        pipeline.cmd("TIME");
        let (before, reply, after) = pipeline.query(&mut bench.connection).unwrap();
        let reply = read(reply);
        let micros = |(seconds, micros): (u64, u64)| seconds * 1_000_000 + micros;
        assert!(
            (micros(before)..=micros(after)).contains(&reply.now),
            "{before:?} {reply:?} {after:?}"
        );
        reply
    };
    let first = take(0);
    assert_eq!((first.granted, first.used), (1, INTERVAL));
    assert_eq!(take(first.now).granted, -1);
    assert_eq!(take(first.now + DAY).granted, 1);
    let second = bench.stored(&key).unwrap();
    assert_eq!(second, (first.now + 2 * INTERVAL).to_string());
    assert_eq!(bench.ask::<u64>(&["PEXPIRETIME", &key]), (first.now + 2 * INTERVAL) / 1000 + 1);
}
