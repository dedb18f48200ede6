//! The limiter against an independent model: a bucket of tokens, while the limiter keeps a time.

use std::time::{Duration, UNIX_EPOCH};

use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Limiter, Policy};
use proptest::prelude::*;

use crate::support::{DecideNow, organization, stopped_limiter, uniform};

/// A token bucket in exact integers. Its `fill` is in nanoseconds of refill, and a token takes
/// `token` of them.
#[derive(Debug)]
struct Model {
    token: u128,
    capacity: u128,
    fill: u128,
    now: u128,
}

impl Model {
    fn new(quota: AnyQuota) -> Self {
        let period = quota.period.as_nanos();
        let limit = u128::from(quota.limit);
        // The smallest whole number of nanoseconds for a token with which at most `limit` tokens
        // come back in a period.
        let token = (1.max(period / limit)..).find(|token| token * limit >= period).unwrap();
        let capacity = token * u128::from(quota.burst);
        Self { token, capacity, fill: capacity, now: 0 }
    }

    fn advance(&mut self, by: Duration) {
        self.now += by.as_nanos();
        self.fill = self.capacity.min(self.fill + by.as_nanos());
    }

    fn take(&mut self) -> bool {
        let has = self.fill >= self.token;
        if has {
            self.fill -= self.token;
        }
        has
    }

    fn assert_agrees(&self, allowed: bool, decision: &Decision) {
        assert_eq!(decision.is_allowed(), allowed);
        assert_eq!(u128::from(decision.remaining()), self.fill / self.token);
        assert_eq!(decision.reset().as_nanos(), self.capacity - self.fill);
        assert_eq!(decision.next_unit().as_nanos(), self.token - self.fill % self.token);
        assert_eq!(
            decision.retry_after().map(|wait| wait.as_nanos()),
            (!allowed).then(|| self.token - self.fill)
        );
    }
}

#[derive(Clone, Copy, Debug)]
struct AnyQuota {
    limit: u32,
    period: Duration,
    burst: u32,
}

impl AnyQuota {
    fn limiter(self) -> (Limiter<MemoryStore<ManualClock>>, ManualClock) {
        stopped_limiter(uniform(self.limit, self.period, self.burst).build().unwrap())
    }
}

fn any_quota() -> impl Strategy<Value = AnyQuota> {
    let limit = prop_oneof![4 => 1..=50_u32, 2 => Just(500), 1 => 1..=u32::MAX];
    let period = prop_oneof![
        2 => Just(60_000_000_000),
        2 => 1..=1_000_000_000_u64,
        1 => Just(3_600_000_000_000),
        1 => 1..=86_400_000_000_000_u64,
    ];
    let burst = prop_oneof![4 => 1..=20_u32, 1 => Just(500)];
    (limit, period, burst).prop_map(|(limit, period, burst)| AnyQuota {
        limit,
        period: Duration::from_nanos(period),
        burst,
    })
}

/// A quota so small that 200 requests meet both a full and a drained bucket.
fn small_quota() -> impl Strategy<Value = AnyQuota> {
    (1..=20_u32, 1..=60_000_000_000_u64, 1..=20_u32).prop_map(|(limit, period, burst)| AnyQuota {
        limit,
        period: Duration::from_nanos(period),
        burst,
    })
}

/// A pause, relative to the time in which a token comes back, since the edges are there.
#[derive(Clone, Copy, Debug)]
enum Pause {
    None,
    Nanosecond,
    OneToken { off_by: i64 },
    Thousandths(u16),
    Refill,
}

impl Pause {
    fn of(self, model: &Model) -> Duration {
        let nanos = match self {
            Self::None => 0,
            Self::Nanosecond => 1,
            Self::OneToken { off_by } => model.token.saturating_add_signed(i128::from(off_by)),
            Self::Thousandths(thousandths) => model.token * u128::from(thousandths) / 1000,
            Self::Refill => model.capacity,
        };
        Duration::from_nanos(u64::try_from(nanos).unwrap())
    }
}

fn any_pause() -> impl Strategy<Value = Pause> {
    prop_oneof![
        8 => Just(Pause::None),
        1 => Just(Pause::Nanosecond),
        2 => (-1..=1_i64).prop_map(|off_by| Pause::OneToken { off_by }),
        4 => (0..3000_u16).prop_map(Pause::Thousandths),
        1 => Just(Pause::Refill),
    ]
}

fn any_pauses() -> impl Strategy<Value = Vec<Pause>> {
    prop::collection::vec(any_pause(), 1..200)
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_token_bucket(quota in any_quota(), pauses in any_pauses()) {
        let (limiter, clock) = quota.limiter();
        let mut model = Model::new(quota);
        for pause in pauses {
            let pause = pause.of(&model);
            clock.advance(pause);
            model.advance(pause);
            let decision = limiter.decide_now(&organization("o"), "/").unwrap();
            let allowed = model.take();
            model.assert_agrees(allowed, &decision);
        }
    }

    #[test]
    fn a_restart_is_a_pause_to_a_token_bucket(
        quota in any_quota(),
        pauses in prop::collection::vec((any_pause(), any::<bool>()), 1..200),
    ) {
        let (mut limiter, mut clock) = quota.limiter();
        let mut model = Model::new(quota);
        for (pause, restarts) in pauses {
            let pause = pause.of(&model);
            model.advance(pause);
            if restarts {
                let (policy, wall) = (limiter.policy(), UNIX_EPOCH + Duration::from_secs(7));
                let snapshot = limiter.store().snapshot_at(wall);
                clock = ManualClock::new();
                let mut store = MemoryStore::with_clock(clock.clone());
                store.restore_at(&snapshot, wall + pause).unwrap();
                limiter = Limiter::with_store(policy, store).unwrap();
            } else {
                clock.advance(pause);
            }
            let decision = limiter.decide_now(&organization("o"), "/").unwrap();
            let allowed = model.take();
            model.assert_agrees(allowed, &decision);
        }
    }

    #[test]
    fn the_wait_is_true_to_the_nanosecond(quota in any_quota(), pauses in any_pauses()) {
        let (limiter, clock) = quota.limiter();
        let model = Model::new(quota);
        for pause in pauses {
            clock.advance(pause.of(&model));
            let Some(wait) = limiter.decide_now(&organization("o"), "/").unwrap().retry_after() else { continue };
            prop_assert!(wait > Duration::ZERO);
            clock.advance(wait - Duration::from_nanos(1));
            prop_assert!(!limiter.decide_now(&organization("o"), "/").unwrap().is_allowed());
            clock.advance(Duration::from_nanos(1));
            prop_assert!(limiter.decide_now(&organization("o"), "/").unwrap().is_allowed());
        }
    }

    #[test]
    fn what_remains_never_rises_while_time_stands_still(quota in any_quota(), pauses in any_pauses()) {
        let (limiter, clock) = quota.limiter();
        let model = Model::new(quota);
        let mut remaining = None;
        for pause in pauses {
            let pause = pause.of(&model);
            clock.advance(pause);
            let now = limiter.decide_now(&organization("o"), "/").unwrap().remaining();
            if let Some(before) = remaining.filter(|_| pause.is_zero()) {
                prop_assert!(now <= before, "{now} > {before}");
            }
            remaining = Some(now);
        }
    }

    #[test]
    fn no_period_sees_more_than_limit_and_burst_less_one(quota in small_quota(), pauses in any_pauses()) {
        let (limiter, clock) = quota.limiter();
        let mut model = Model::new(quota);
        let mut admitted = Vec::new();
        for pause in pauses {
            let pause = pause.of(&model);
            clock.advance(pause);
            model.advance(pause);
            if limiter.decide_now(&organization("o"), "/").unwrap().is_allowed() {
                admitted.push(model.now);
            }
        }
        let most = usize::try_from(u64::from(quota.limit) + u64::from(quota.burst) - 1).unwrap();
        for window in admitted.windows(most + 1) {
            prop_assert!(window[most] - window[0] >= quota.period.as_nanos());
        }
    }

    #[test]
    fn who_keeps_to_the_documented_limit_is_never_refused(
        which in prop_oneof![Just(("/call", 500)), Just(("/user/me", 1000))],
        pauses in prop::collection::vec(prop_oneof![6 => Just(0), 2 => 0..=240_u64, 1 => 0..=30_000_u64], 1..3000),
    ) {
        let (path, limit) = which;
        let (limiter, clock) = stopped_limiter(Policy::default());
        let mut sent = Vec::new();
        let mut now = 0;
        for pause in pauses {
            now += pause;
            // At most `limit` requests in every 60 s: `limit` requests ago was at least 60 s ago.
            if let Some(index) = sent.len().checked_sub(limit) {
                now = now.max(sent[index] + 60_000);
            }
            sent.push(now);
            clock.set(Duration::from_millis(now));
            prop_assert!(limiter.decide_now(&organization("o"), path).unwrap().is_allowed(), "request {}", sent.len());
        }
    }
}

/// A caller who sends as fast as possible gets the burst, and then exactly the units that come
/// back.
#[test]
fn who_hammers_gets_999_in_the_first_minute_and_500_in_every_other() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let mut admitted = [0; 10];
    for millisecond in 0..600_000_u32 {
        clock.set(Duration::from_millis(millisecond.into()));
        while limiter.decide_now(&organization("o"), "/call").unwrap().is_allowed() {
            admitted[(millisecond / 60_000) as usize] += 1;
        }
    }
    assert_eq!(admitted, [999, 500, 500, 500, 500, 500, 500, 500, 500, 500]);
}
