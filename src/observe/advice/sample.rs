//! Which requests are looked at closely after the first ones.

use std::cell::Cell;

/// Of the requests of a thread, one in so many is in the sample. It is a prime, so that with two or
/// three copies of a limiter the sample alternates between the copies. With an even number it could
/// always be at the inner one, whose mark is never found.
const PERIOD: u32 = 127;
/// After one of the sample, so many requests of the thread are searched for a mark. The first of
/// them is nearly always the marked request, at the inner copy. If it waits, or changes its thread,
/// before it gets there, about one mark in eight is found all the same.
const SEARCHED: u32 = 16;

thread_local! {
    /// How many requests of this thread are left until the next one in the sample. Each thread has
    /// its own count, so that threads do not wait for each other.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// What is done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// It is in the sample, and all is looked at.
    Chosen,
    /// It is searched for a mark.
    Searched,
    /// Nothing.
    PassedOver,
}

impl Sample {
    /// What is done about the next request of this thread.
    #[inline(always)]
    pub(super) fn next() -> Self {
        let left = LEFT.get();
        // Nearly all requests, so in one comparison.
        if (1..PERIOD - SEARCHED).contains(&left) {
            LEFT.set(left - 1);
            return Self::PassedOver;
        }
        Self::next_looked_at(left)
    }

    #[inline(never)]
    fn next_looked_at(left: u32) -> Self {
        if let Some(fewer) = left.checked_sub(1) {
            LEFT.set(fewer);
            return Self::Searched;
        }
        LEFT.set(PERIOD - 1);
        Self::Chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_each_request_passes_two_copies_or_three_the_mark_of_the_outer_one_is_found() {
        for copies in 1..=3 {
            // How often each copy finds a request in the sample.
            let mut chosen = vec![0; copies];
            for _ in 0..100 * PERIOD {
                let samples: Vec<_> = (0..copies).map(|_| Sample::next()).collect();
                if let Some(copy) = samples.iter().position(|it| *it == Sample::Chosen) {
                    chosen[copy] += 1;
                    assert!(samples[copy + 1..].iter().all(|it| *it == Sample::Searched));
                }
            }
            assert_eq!(chosen, vec![100; copies]);
        }
    }

    #[test]
    fn the_first_request_of_a_thread_is_in_the_sample_and_those_after_it_are_searched() {
        let samples =
            std::thread::spawn(|| (0..PERIOD).map(|_| Sample::next()).collect::<Vec<_>>());
        let samples = samples.join().expect("it does not panic");
        let searched = SEARCHED as usize;
        assert_eq!(samples[0], Sample::Chosen);
        assert_eq!(samples[1..=searched], vec![Sample::Searched; searched]);
        assert!(samples[searched + 1..].iter().all(|sample| *sample == Sample::PassedOver));
    }
}
