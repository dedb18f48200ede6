//! The decisions of the test vectors.

use redis::{Value, from_redis_value};

use super::{Bench, Take, read};
use crate::read::{GcraVector, gcra};

/// All requests of a vector at once, with nanoseconds divided by `per` and rounded down, and the
/// TAT after each.
fn replay(bench: &mut Bench, vector: &GcraVector, per: u64) {
    let key = bench.fresh();
    let start = bench.start;
    let time = |nanos| start + nanos / per;
    let (interval, tolerance) =
        (vector.policy.interval_ns / per, vector.policy.burst_span_ns / per);
    let take = Take { interval, tolerance, wanted: 1, deadline: 0, now: 0 };
    let mut pipeline = redis::pipe();
    for (now, _) in vector.unfolded() {
        bench.add(&mut pipeline, &key, take.at(time(now)));
        pipeline.cmd("GET").arg(&key);
    }
    let answers: Vec<Value> = pipeline.query(&mut bench.connection).unwrap();
    for (number, ((_, row), answers)) in vector.unfolded().zip(answers.chunks(2)).enumerate() {
        let Some(row) = row else { continue };
        let reply = read(from_redis_value(answers[0].clone()).unwrap());
        let tat: String = from_redis_value(answers[1].clone()).unwrap();
        let (now, tat_after) = (time(row.t_ns), time(row.tat_after_ns));
        let got = (reply.granted == 1, take.remaining(reply), reply.used, reply.now, tat);
        let expected =
            (row.allowed, row.remaining.into(), tat_after - now, now, tat_after.to_string());
        assert_eq!(got, expected, "{}, request {number}", vector.id);
        // Only where nothing was rounded.
        if row.t_ns % per == 0 && row.tat_after_ns % per == 0 {
            let next_unit = take.next_unit(reply);
            let got = (if row.allowed { 0 } else { next_unit }, next_unit, reply.used);
            let expected =
                (row.retry_after_ns / per, row.next_unit_ns / per, row.reset_full_ns / per);
            assert_eq!(got, expected, "{}, request {number}", vector.id);
        }
    }
}

/// The script adds and compares, whatever the unit. But its slack is a second, and its epoch has to
/// fit into 53 bits.
#[test]
fn every_decision_is_the_vectors_to_the_nanosecond() {
    let mut bench = Bench::new();
    let vectors = gcra();
    let (others, fit): (Vec<_>, Vec<_>) = vectors.iter().partition(|vector| {
        ["G28_clock_back_within_slack", "G31_big_epoch"].contains(&&*vector.id)
    });
    assert_eq!(others.len(), 2);
    for vector in fit {
        replay(&mut bench, vector, 1);
    }
}

#[test]
fn every_decision_is_the_vectors_in_microseconds() {
    let mut bench = Bench::new();
    let vectors = gcra();
    let whole = vectors.iter().filter(|vector| vector.policy.interval_ns % 1000 == 0);
    let ids: Vec<_> =
        whole.map(|vector| (replay(&mut bench, vector, 1000), &*vector.id).1).collect();
    assert!(
        ids.contains(&"G28_clock_back_within_slack") && ids.contains(&"G31_big_epoch"),
        "{ids:?}"
    );
}
