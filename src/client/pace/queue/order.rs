//! How the requests of the two priorities are merged.

use crate::client::priority::Priority;

/// A value for each priority.
pub(in crate::client::pace) type Each<T> = [T; 2];

/// The order in which requests of both priorities are dispatched while both wait.
///
/// Each such dispatch adds the share of the bulk requests, in percent, to their credit. A bulk
/// request is dispatched for a credit of 100, and otherwise an interactive one: with a share of
/// 10 %, nine interactive requests and then a bulk one.
#[derive(Clone, Copy, Debug)]
pub(in crate::client::pace) struct Order {
    /// In percent, less than 100.
    share: u64,
    credit: u64,
}

/// The credit for a bulk request.
const WHOLE: u64 = 100;

impl Order {
    pub(in crate::client::pace) fn new(percent: u8) -> Self {
        Self { share: u64::from(percent).min(WHOLE - 1), credit: 0 }
    }

    /// The requests of another order are merged into this one.
    pub(in crate::client::pace) fn inherit(&mut self, other: Self) {
        self.credit = self.credit.max(other.credit);
    }

    /// The priority of the request that comes next, if any waits.
    pub(in crate::client::pace) fn next(&self, waits: Each<bool>) -> Option<Priority> {
        let prefers_bulk = self.credit + self.share >= WHOLE;
        match waits {
            [false, false] => None,
            [false, true] => Some(Priority::Bulk),
            [true, true] if prefers_bulk => Some(Priority::Bulk),
            [true, _] => Some(Priority::Interactive),
        }
    }

    /// A request is dispatched. `waits` says which requests waited, this one included.
    pub(in crate::client::pace) fn dispatch(&mut self, priority: Priority, waits: Each<bool>) {
        if waits == [true, true] {
            let price = if priority == Priority::Bulk { WHOLE } else { 0 };
            // What comes next may lack units that others have. No more than one request is owed.
            self.credit = (self.credit + self.share).saturating_sub(price).min(WHOLE);
        }
    }

    /// How many of the waiting requests are dispatched before one more of that priority.
    pub(in crate::client::pace) fn ahead(&self, priority: Priority, waiting: Each<u64>) -> u64 {
        let Self { share, credit } = *self;
        let [interactive, bulk] = waiting;
        // After m dispatches, (credit + m * share) / 100 of them are of bulk requests.
        match priority {
            Priority::Interactive => {
                let before = (WHOLE * interactive + credit) / (WHOLE - share);
                interactive + bulk.min(before.saturating_sub(interactive))
            }
            Priority::Bulk if share == 0 => interactive + bulk,
            Priority::Bulk => {
                let before = (WHOLE * (bulk + 1)).saturating_sub(credit).div_ceil(share);
                bulk + interactive.min(before.saturating_sub(bulk + 1))
            }
        }
    }
}
