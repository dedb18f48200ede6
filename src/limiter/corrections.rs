//! Refunds and settlements of single requests: how many there were, and what became of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::LimiterState;
use super::admission::Corrects;
use crate::observe::{Event, Report};
use crate::store::{Bucket, Command, Store};
use crate::values::{LimitName, Quota};

/// Counts the corrections of a limiter.
#[derive(Default)]
pub(super) struct Corrections {
    refunds: AtomicU64,
    settlements: AtomicU64,
    failed: AtomicU64,
    /// Whether the last one failed.
    is_failing: AtomicBool,
}

impl Corrections {
    pub(super) fn report(&self, report: &mut Report) {
        report.refunds = self.refunds.load(Ordering::Relaxed);
        report.settlements = self.settlements.load(Ordering::Relaxed);
        report.failed_corrections = self.failed.load(Ordering::Relaxed);
    }
}

impl<St: Store> Corrects for LimiterState<St> {
    fn quota_of(&self, limit: LimitName) -> Option<Quota> {
        self.active.load().policy.quota_of(limit)
    }

    fn has_reset(&self, bucket: &Bucket<'_>, since: u64) -> bool {
        self.resets.has_reset(bucket, since)
    }

    fn correct(&self, command: Command<'_>) {
        let Corrections { refunds, settlements, failed, is_failing } = &self.corrections;
        let result = self.store.submit(command);
        let Err(error) = result else {
            let count = if matches!(command, Command::Refund(_)) { refunds } else { settlements };
            count.fetch_add(1, Ordering::Relaxed);
            is_failing.store(false, Ordering::Relaxed);
            return;
        };
        failed.fetch_add(1, Ordering::Relaxed);
        if !is_failing.swap(true, Ordering::Relaxed) {
            if let Some(observers) = &self.active.load().observers {
                let (kind, reason) = (error.kind(), error.to_string().into());
                let event = Event::CorrectionFailed { kind, reason };
                // A request can be refunded in a destructor while its handler's panic unwinds. A
                // second panic would abort the process.
                let _ = catch_unwind(AssertUnwindSafe(|| observers.on_event(&event)));
            }
        }
    }
}
