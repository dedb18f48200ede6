//! When failures are so many that a store counts as lost.

/// This many failures in a row are too many.
const IN_A_ROW: u32 = 5;
/// From this many answers within a second on, failures are too many if they are half of them.
const ENOUGH: u32 = 20;
/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Counts the answers of a store: those in a row that are failures, and those within a second.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    in_a_row: u32,
    begun: u64,
    answers: u32,
    failures: u32,
}

impl Strikes {
    pub(super) fn succeeded(&mut self, now: u64) {
        self.in_a_row = 0;
        self.count(now, false);
    }

    /// Counts a failure. Returns whether there are too many now.
    pub(super) fn failed(&mut self, now: u64) -> bool {
        self.in_a_row += 1;
        self.count(now, true);
        let half_of_many = self.answers >= ENOUGH && self.failures >= self.answers.div_ceil(2);
        self.in_a_row >= IN_A_ROW || half_of_many
    }

    fn count(&mut self, now: u64, failure: bool) {
        // If the clock has gone back, the difference wraps, and a new second begins too.
        if self.answers == 0 || now.wrapping_sub(self.begun) >= SECOND {
            (self.begun, self.answers, self.failures) = (now, 0, 0);
        }
        self.answers = self.answers.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failure));
    }
}
