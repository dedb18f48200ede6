//! The settings of a pacer.

use std::time::Duration;

/// The methods of [`PacerBuilder`](super::PacerBuilder) explain each setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) is_even: bool,
    pub(super) jitter: Duration,
    pub(super) max_waiting: usize,
    pub(super) max_wait: Duration,
    pub(super) max_pause: Duration,
    /// In percent.
    pub(super) bulk_share: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_even: false,
            jitter: Duration::from_millis(500),
            max_waiting: 10_000,
            max_wait: Duration::from_secs(300),
            max_pause: Duration::from_secs(3600),
            bulk_share: 10,
        }
    }
}
