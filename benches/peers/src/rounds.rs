//! Filling the buckets, and the interleaved rounds.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::calls::Callers;
use crate::runner::Runner;

/// The calls that are timed together.
pub const BATCH: usize = 100;

/// One competitor in one case.
pub struct Lane {
    pub runner: Box<dyn Runner>,
    /// The answer to every call that is timed.
    pub answer: StatusCode,
    /// Whether the first call of every caller is admitted before.
    pub uses_up: bool,
}

/// The competitor of that number has given wrong answers.
pub struct Failure {
    pub competitor: usize,
    pub wrong: usize,
    pub expected: StatusCode,
}

/// Gives every caller a bucket, and sees to it that each is answered as it will have to be.
pub fn fill(lanes: &mut [Lane], callers: &Callers) -> Result<(), Failure> {
    for (competitor, lane) in lanes.iter_mut().enumerate() {
        for expected in [StatusCode::OK, lane.answer].into_iter().skip(usize::from(!lane.uses_up)) {
            for first in (0..callers.len()).step_by(BATCH) {
                let some = first..callers.len().min(first + BATCH);
                let wrong = lane
                    .runner
                    .batch(some.map(|caller| callers.call(caller)).collect(), expected)
                    .wrong;
                verify(competitor, wrong, expected, 0)?;
            }
        }
    }
    Ok(())
}

/// The median time of a call, in nanoseconds, of each competitor. All threads call the same one at
/// the same time.
pub fn medians(
    lanes: &[Lane],
    callers: &Callers,
    threads: usize,
    rounds: usize,
) -> Result<Vec<f64>, Failure> {
    let meeting = &Meeting { threads, arrived: AtomicUsize::new(0) };
    let times = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let lanes: Vec<_> =
                    lanes.iter().map(|lane| (lane.runner.fork(), lane.answer)).collect();
                scope.spawn(move || {
                    rounds_of(lanes, callers, &callers.shuffled(thread), meeting, rounds)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("the thread ends"))
            .collect::<Vec<_>>()
    });

    let mut merged = vec![Vec::new(); lanes.len()];
    for times in times {
        for (all, some) in merged.iter_mut().zip(times?) {
            all.extend(some);
        }
    }
    Ok(merged.into_iter().map(median).collect())
}

/// Nanoseconds a batch, for each competitor.
fn rounds_of(
    mut lanes: Vec<(Box<dyn Runner>, StatusCode)>,
    callers: &Callers,
    order: &[usize],
    meeting: &Meeting,
    rounds: usize,
) -> Result<Vec<Vec<u64>>, Failure> {
    let mut times = vec![Vec::with_capacity(rounds); lanes.len()];
    let mut wrong = vec![0; lanes.len()];
    for round in 0..rounds {
        for turn in 0..lanes.len() {
            let competitor = (round + turn) % lanes.len();
            let (runner, answer) = &mut lanes[competitor];
            let callers_now = (0..BATCH).map(|nth| order[(round * BATCH + nth) % order.len()]);
            let calls = callers_now.map(|caller| callers.call(caller)).collect();
            meeting.wait();
            let batch = runner.batch(calls, *answer);
            times[competitor].push(batch.nanos);
            wrong[competitor] += batch.wrong;
        }
    }
    // Where one unit a second comes back, it is admitted. And a bucket that refills within 5 us
    // looks empty to a thread that is put aside for longer after it has read the clock, while
    // the other goes on.
    let tolerated = rounds * BATCH / 1000;
    // Not before: a thread that stopped early would leave the others waiting.
    for (competitor, (&wrong, (_, answer))) in wrong.iter().zip(&lanes).enumerate() {
        verify(competitor, wrong, *answer, tolerated)?;
    }
    Ok(times)
}

fn verify(
    competitor: usize,
    wrong: usize,
    expected: StatusCode,
    tolerated: usize,
) -> Result<(), Failure> {
    if wrong <= tolerated { Ok(()) } else { Err(Failure { competitor, wrong, expected }) }
}

fn median(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64 / BATCH as f64
}

/// Where threads wait for each other. `std::sync::Barrier` puts them to sleep, and wakes them
/// further apart than a batch is long.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
}

impl Meeting {
    fn wait(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = arrived.next_multiple_of(self.threads);
        let start = Instant::now();
        while self.arrived.load(Ordering::Acquire) < all {
            if start.elapsed() > Duration::from_millis(1) {
                thread::yield_now();
            } else {
                spin_loop();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the other thread has ended");
        }
    }
}
