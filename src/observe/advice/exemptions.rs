//! Whether nearly all requests are exempt.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Advice;

/// The number of requests with an account in a window.
const WINDOW: u32 = 1000;
/// The number of exempt requests in a window from which this is reported.
const EXEMPT: u32 = 990;

/// How many of the latest requests with an account were exempt.
#[derive(Default)]
pub(super) struct Exemptions {
    counted: AtomicU32,
    exempt: AtomicU32,
}

impl Exemptions {
    /// Whether the first window is not full yet.
    #[inline]
    pub(super) fn are_new(&self) -> bool {
        self.counted.load(Ordering::Relaxed) < WINDOW
    }

    /// Counts a request with an account. Returns the advice if it is the last of a window, nearly
    /// all of whose requests were exempt.
    pub(super) fn count(&self, is_exempt: bool) -> Option<Advice> {
        if is_exempt {
            self.exempt.fetch_add(1, Ordering::Relaxed);
        }
        let counted = self.counted.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if counted % WINDOW != 0 {
            return None;
        }
        let exempt = self.exempt.swap(0, Ordering::Relaxed).min(WINDOW);
        (exempt >= EXEMPT).then_some(Advice::NearlyAllExempt { requests: WINDOW, exempt })
    }

    /// Forgets the exempt requests, since there is another policy.
    pub(super) fn clear(&self) {
        self.exempt.store(0, Ordering::Relaxed);
    }
}

/// Whether a path ends in the name of a file, such as `/assets/app.js`. A page can consist of
/// hundreds of files, and they are exempt for a good reason.
pub(super) fn is_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(_, ending)| {
        (1..=5).contains(&ending.len()) && ending.bytes().all(|it| it.is_ascii_alphanumeric())
    })
}
