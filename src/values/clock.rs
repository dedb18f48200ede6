//! Where the time comes from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A source of time for a store that counts in this process.
///
/// One clock serves a store for its whole life, so its origin does not matter; that it does not go
/// back does. When it does all the same, nobody becomes unlimited and nobody stays locked out for
/// longer than the quota's [`refill_time`](crate::Quota::refill_time) and a second, nor
/// [blocked](crate::store::Store::block) again for longer than the block was made for.
///
/// The default asks the operating system, which knows whether the processor's counter can be
/// trusted, and takes some 25 ns for it. Who knows the machines can read the counter itself, as [`quanta`](https://docs.rs/quanta) does, and save 20 ns
/// of each request:
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy, clock::Clock, store::MemoryStore};
///
/// struct Counter { clock: quanta::Clock, start: quanta::Instant }
///
/// impl Clock for Counter {
///     fn now(&self) -> Duration {
///         self.clock.now().duration_since(self.start)
///     }
/// }
///
/// let clock = quanta::Clock::new();
/// let counter = Counter { start: clock.now(), clock };
/// let limiter = Limiter::with_store(Policy::default(), MemoryStore::with_clock(counter));
/// let layer = BolnaRateLimitLayer::with_limiter(limiter);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The time since an origin of the clock's own choice. Readings past 146 years count as 146
    /// years.
    fn now(&self) -> Duration;
}

/// The operating system's monotonic clock, measured from when this value was made.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(Instant);

impl Default for MonotonicClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still until it is told to move, for tests. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::{Account, Limiter, ManualClock, Policy, store::MemoryStore};
///
/// let clock = ManualClock::new();
/// let limiter = Limiter::with_store(Policy::default(), MemoryStore::with_clock(clock.clone()));
/// let caller = Account::user("u-17");
/// let admitted = || limiter.check_now(&caller, "/call").is_some_and(|it| it.is_admitted());
///
/// assert_eq!((0..600).filter(|_| admitted()).count(), 500);
/// clock.advance(Duration::from_millis(120));
/// assert!(admitted());
/// assert!(!admitted());
/// ```
#[derive(Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward. It stops at the largest time that fits 64 bits of nanoseconds, 584
    /// years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // The closure always answers, so this can't fail.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
    }

    /// Sets the time, which may go back.
    pub fn set(&self, now: Duration) {
        self.0.store(nanos(now), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
