//! How long a key lasts.

use bolna_rate_limit::Endpoint;

use super::{Bench, Call, DAY, Run, entry};

const CALL: Endpoint = Endpoint::CALL;

impl Bench {
    /// How long, in milliseconds, the key of the bucket lasts after that call. Both are sent at
    /// once; the key may have lasted up to `within` milliseconds longer.
    fn lasts(&mut self, call: &Call) -> (u64, u64) {
        let clock = |value: (u64, u64)| value.0 * 1000 + value.1 / 1000;
        let before = clock(self.ask(&["TIME"]));
        self.call(call);
        let left: i64 = self.ask(&["PTTL", &super::key(&call.tag, CALL)]);
        let within = clock(self.ask(&["TIME"])) - before;
        (u64::try_from(left).unwrap(), within)
    }
}

/// From the end of the bucket on, a key lasts at most 2 ms longer, and never ends before.
#[test]
fn a_key_lasts_until_the_bucket_is_full_and_hardly_longer() {
    let mut bench = Bench::new();
    for micros in [0, 1, 499, 500, 501, 999, 1000] {
        for now in [0, bench.start, bench.start + 400] {
            let tag = bench.fresh();
            let life = 90_000_000 + micros;
            let entry = entry(CALL, life, 10);
            let runs = [
                (Run::charge(1, entry), life),
                (Run::Block(CALL, 2 * life), 2 * life),
                (Run::Block(CALL, DAY), DAY),
                (Run::Block(CALL, 0), life),
                (Run::charge(3, entry), 4 * life),
                (Run::Settle(entry.with_cost(10).unwrap()), 14 * life),
                (Run::Refund(entry.with_cost(5).unwrap()), 9 * life),
            ];
            for (run, life) in runs {
                let (left, within) = bench.lasts(&Call::one(&tag, run.clone(), now));
                // Of a bucket that is measured by the server's time, a little has passed.
                let earlier = if now == 0 { 7 * (within + 1000) } else { 0 };
                assert!(
                    1000 * (left + within + earlier) >= life + 1000 && 1000 * left <= life + 2000,
                    "{left} ms of {life} us, {run:?}"
                );
            }
        }
    }
}

/// On the server's own clock, which ends the key.
#[test]
fn a_key_that_has_ended_was_of_a_full_bucket() {
    let mut bench = Bench::new();
    for round in 0..40 {
        let (tag, life) = (bench.fresh(), 2000 + 137 * round);
        let charge = Call::one(&tag, Run::charge(1, entry(CALL, life, 1)), 0);
        let super::Reply::Done { now: charged_at, .. } = bench.call(&charge) else { panic!() };
        let look = Call::read(&tag, CALL, 0);
        loop {
            let super::Reply::Done { now, states } = bench.call(&look) else { panic!() };
            let left = super::micros(states[0].until_full());
            assert_eq!(left, (charged_at + life).saturating_sub(now), "{life} us");
            if left == 0 {
                break;
            }
        }
        while bench.get(&tag, CALL).is_some() {
            let (seconds, micros): (u64, u64) = bench.ask(&["TIME"]);
            assert!(seconds * 1_000_000 + micros < charged_at + life + 1_000_000);
        }
    }
}
