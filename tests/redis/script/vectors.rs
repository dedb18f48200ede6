//! The decisions of the test vectors of one bucket.

use bolna_rate_limit::{Endpoint, Principal};
use redis::from_redis_value;

use super::model::replay;
use super::{Bench, Call, Reply, Run, entry, key, micros, read};
use crate::read::{GcraVector, gcra};

/// All requests of a vector at once, in microseconds, and the TAT after each.
fn check(bench: &mut Bench, vector: &GcraVector) {
    let (tag, start) = (bench.fresh(), bench.start);
    let time = |nanos| start + nanos / 1000;
    let entry = entry(Endpoint::CALL, vector.policy.interval_ns / 1000, vector.policy.burst);
    let caller = Principal::user("u").unwrap();
    let call = |now| Call::one(&tag, Run::charge(1, entry), time(now));
    let commands: Vec<_> = vector
        .unfolded()
        .flat_map(|(now, _)| {
            [call(now).command(&bench.hash), redis::Cmd::get(key(&tag, Endpoint::CALL))]
        })
        .collect();
    let answers = bench.at_once(commands);
    for (number, ((_, row), answers)) in vector.unfolded().zip(answers.chunks(2)).enumerate() {
        let Some(row) = row else { continue };
        let at = format!("{}, request {number}", vector.id);
        let Reply::Done { now, mut states } = read(&answers[0]) else { panic!("{at}: late") };
        assert_eq!(now, time(row.t_ns), "{at}");
        let call = call(row.t_ns);
        let decisions = replay(&caller, &call.buckets, &call.runs, &mut states);
        let decision = decisions[0].first();
        let tat: String = from_redis_value(answers[1].clone()).unwrap();
        let expected = (row.allowed, row.remaining, time(row.tat_after_ns).to_string());
        assert_eq!((decision.is_allowed(), decision.remaining(), tat), expected, "{at}");
        // Only where nothing was rounded.
        if row.t_ns % 1000 == 0 && row.tat_after_ns % 1000 == 0 {
            let got = (
                decision.retry_after().map_or(0, micros),
                micros(decision.next_unit()),
                micros(decision.reset()),
            );
            let expected =
                (row.retry_after_ns / 1000, row.next_unit_ns / 1000, row.reset_full_ns / 1000);
            assert_eq!(got, expected, "{at}");
        }
    }
}

#[test]
fn every_decision_is_the_vectors() {
    let mut bench = Bench::new();
    let vectors = gcra();
    // Its store waits out a small step of the clock, which the script corrects at once.
    let fit = vectors.iter().filter(|vector| vector.id != "G28_clock_back_within_slack");
    let whole: Vec<_> = fit.filter(|vector| vector.policy.interval_ns % 1000 == 0).collect();
    assert!(whole.iter().any(|vector| vector.id == "G31_big_epoch"));
    assert!(2 * whole.len() > vectors.len(), "{} of {}", whole.len(), vectors.len());
    for vector in whole {
        check(&mut bench, vector);
    }
}
