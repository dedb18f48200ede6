//! Sources of time for stores in this process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A source of time for a store that counts in this process.
///
/// A store uses one clock for its whole life, so the clock's origin does not matter. The clock must
/// not go back. If it goes back all the same,
///
/// * no caller becomes unlimited,
/// * no caller is refused for longer than the quota's [`refill_time`](crate::Quota::refill_time)
///   and one second because of that, and
/// * no [block](crate::store::Command::Block) goes on for longer than its period and one second.
///
/// But a bucket that was full at a time to which the clock had jumped ahead may have been dropped
/// then. When the clock has gone back, it is full.
///
/// The default, [`MonotonicClock`], asks the operating system, which knows whether the processor's
/// counter can be trusted. This takes some 25 ns. If you know your machines, a clock that reads the
/// counter itself, as [`quanta`](https://docs.rs/quanta) does, saves some 20 ns per request:
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::MemoryStore;
/// use bolna_rate_limit::values::clock::Clock;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
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
/// let limiter = Limiter::with_clock(Policy::default(), counter);
/// let layer = BolnaRateLimitLayer::with_limiter(limiter);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The time since an origin of the clock's choice. Readings of more than 146 years are clamped
    /// to 146 years.
    fn now(&self) -> Duration;
}

/// The operating system's monotonic clock. Its origin is the moment in which it was made.
///
/// The [example of `Clock`](Clock) puts another clock in its place.
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

/// A clock for tests, which moves only when it is told to. Clones share the time.
///
/// A limiter with it is a `Limiter<MemoryStore<ManualClock>>`. A struct without a generic parameter
/// can hold a [`Limiter<AnyStore>`](crate::guide::testing#one-type-for-every-store).
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::values::clock::ManualClock;
/// use bolna_rate_limit::{Account, Limiter, Policy};
///
/// let clock = ManualClock::new();
/// let limiter = Limiter::with_clock(Policy::default(), clock.clone());
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
    /// A clock whose time is zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward, at most to the largest time that fits in 64 bits of nanoseconds: 584
    /// years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // This can't fail, because the closure never returns `None`.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
    }

    /// Sets the time, forward or back.
    pub fn set(&self, now: Duration) {
        self.0.store(nanos(now), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    #[inline]
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
