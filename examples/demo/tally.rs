//! What the limiter has decided, counted by an observer, and how it went in the last minute.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bolna_rate_limit::observe::{Observation, Observer};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

pub(crate) const ATTACKER: &str = "attacker";
pub(crate) const CUSTOMER: &str = "customer";
pub(crate) const YOU: &str = "you";
/// The callers that the page shows. Only these are counted, so that the memory is bounded.
pub(crate) const CALLERS: [&str; 3] = [ATTACKER, CUSTOMER, YOU];

/// A sample is taken twice a second, and a minute of them is kept.
const SAMPLE: Duration = Duration::from_millis(500);
const SAMPLES: usize = 120;
/// Rates are those of the last two seconds.
const SMOOTHED: usize = 4;
/// Latencies are those of the last ten seconds.
const RECENT: Duration = Duration::from_secs(10);

/// Counts what the limiter decides about each caller, without a lock.
#[derive(Default)]
pub(crate) struct Tally {
    counters: [Counters; CALLERS.len()],
    answers: Mutex<VecDeque<(Instant, Duration)>>,
    history: Mutex<History>,
}

/// How many requests were decided how.
#[derive(Default)]
struct Counters {
    admitted: AtomicU64,
    over: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct History {
    /// The counts at the last samples.
    counts: VecDeque<(Instant, [Counts; CALLERS.len()])>,
    samples: VecDeque<Sample>,
}

/// How many requests of a caller were decided how since the start.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Counts {
    /// Within the limits.
    admitted: u64,
    /// Admitted though they were over a limit, since it was not enforced.
    over: u64,
    refused: u64,
}

/// How it went at one moment of the last minute.
#[derive(Clone, Serialize)]
pub(crate) struct Sample {
    /// For each caller, requests per second.
    rates: [Rates; CALLERS.len()],
    /// Of the customer's requests. `None` if none has been answered recently.
    latency: Option<Latency>,
}

#[derive(Clone, Copy, Serialize)]
struct Rates {
    admitted: f64,
    over: f64,
    refused: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Latency {
    median_ms: f64,
    p99_ms: f64,
}

impl Observer for Tally {
    fn on_decision(&self, observation: &Observation<'_>) {
        let Some(principal) = observation.principal else { return };
        let is_shown = |name: &&str| *name == principal.id().as_str();
        let Some(caller) = CALLERS.iter().position(is_shown) else { return };
        let (counters, ruling) = (&self.counters[caller], observation.ruling);
        let counter = match (ruling.is_admitted(), ruling.is_allowed()) {
            (false, _) => &counters.refused,
            (true, true) => &counters.admitted,
            (true, false) => &counters.over,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally {
    /// The counts of each caller now.
    pub(crate) fn counts(&self) -> [Counts; CALLERS.len()] {
        self.counters.each_ref().map(|counters| {
            let [admitted, over, refused] = [&counters.admitted, &counters.over, &counters.refused]
                .map(|counter| counter.load(Ordering::Relaxed));
            Counts { admitted, over, refused }
        })
    }

    /// The samples of the last minute, the newest last.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.history).samples.iter().cloned().collect()
    }

    /// A request of the customer was answered after that time.
    pub(crate) fn answered(&self, after: Duration) {
        lock(&self.answers).push_back((Instant::now(), after));
    }

    fn take_sample(&self, now: Instant) {
        let latency = self.latency(now);
        let counts = self.counts();
        let mut history = lock(&self.history);
        if let Some((since, before)) = history.counts.front() {
            let elapsed = now - *since;
            let caller = |at: usize| counts[at].since(&before[at]).per_second(elapsed);
            let sample = Sample { rates: std::array::from_fn(caller), latency };
            history.samples.push_back(sample);
        }
        history.counts.push_back((now, counts));
        if history.counts.len() > SMOOTHED {
            history.counts.pop_front();
        }
        if history.samples.len() > SAMPLES {
            history.samples.pop_front();
        }
    }

    fn latency(&self, now: Instant) -> Option<Latency> {
        let mut answers = lock(&self.answers);
        while answers.front().is_some_and(|(at, _)| now.duration_since(*at) > RECENT) {
            answers.pop_front();
        }
        let mut sorted: Vec<Duration> = answers.iter().map(|(_, after)| *after).collect();
        drop(answers);
        sorted.sort_unstable();
        let of_100 = |part: usize| {
            let place = (sorted.len() * part).div_ceil(100).checked_sub(1)?;
            Some(sorted.get(place)?.div_duration_f64(Duration::from_millis(1)))
        };
        Some(Latency { median_ms: of_100(50)?, p99_ms: of_100(99)? })
    }
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        Self {
            admitted: self.admitted - before.admitted,
            over: self.over - before.over,
            refused: self.refused - before.refused,
        }
    }

    fn per_second(self, elapsed: Duration) -> Rates {
        let [admitted, over, refused] = [self.admitted, self.over, self.refused]
            .map(|count| Duration::from_secs(count).div_duration_f64(elapsed));
        Rates { admitted, over, refused }
    }
}

/// Takes samples for ever.
pub(crate) async fn sample(tally: Arc<Tally>) {
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tally.take_sample(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
