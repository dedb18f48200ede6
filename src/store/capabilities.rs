//! What a store can do.

use super::{Command, StoreError};
use crate::values::Charge;

/// What a store can do, apart from charging one bucket of one unit, which every store can.
///
/// A store says so, so that it is never asked to do what it would ignore. Start from
/// [`default`](Self::default), which says that the store can do nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The most entries of a charge: from 1, which is the default, to [`Charge::MAX`].
    pub entries: usize,
    /// Whether an entry can cost more than one unit.
    pub costs: bool,
    /// Whether there can be shadow entries.
    pub shadow: bool,
    /// Whether the store knows [`Command::Settle`].
    pub settle: bool,
}

impl Capabilities {
    /// Those of a store that can do everything.
    pub const ALL: Self = Self { entries: Charge::MAX, costs: true, shadow: true, settle: true };

    /// Checks that a charge is within what the store can do. For stores.
    ///
    /// # Errors
    /// If it is not. The error says what the store can't do.
    #[inline]
    pub fn permit(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        let within = |entry: &crate::values::Entry| {
            (self.costs || entry.units() == 1) && (self.shadow || entry.is_binding())
        };
        if charge.entries().len() <= self.entries && charge.entries().iter().all(within) {
            return Ok(());
        }
        Err(self.beyond(charge))
    }

    #[cold]
    fn beyond(&self, charge: &Charge<'_>) -> StoreError {
        let entries = charge.entries();
        StoreError::of_request(if entries.len() > self.entries {
            format!(
                "the store can charge {} buckets at once, and the request needs {}",
                self.entries,
                entries.len()
            )
        } else if let Some(entry) = entries.iter().find(|entry| !self.costs && entry.units() > 1) {
            format!(
                "the store can charge one unit at a time, and endpoint {} costs {}",
                entry.endpoint(),
                entry.units()
            )
        } else {
            "the store knows no shadow entries, and the request has one".to_owned()
        })
        .of_kind(StoreError::UNSUPPORTED)
    }

    /// Checks that a command is within what the store can do. For stores.
    ///
    /// # Errors
    /// If it is not. The error says what the store can't do.
    pub fn permit_command(&self, command: &Command<'_>) -> Result<(), StoreError> {
        match command {
            Command::Settle(_) if !self.settle => Err(StoreError::unsupported(command)),
            Command::Peek(charge) => self.permit(charge),
            // The cost of a refund is how much is given back, which every store can choose.
            Command::Refund(charge) | Command::Settle(charge)
                if charge.entries().len() > self.entries =>
            {
                Err(self.beyond(charge))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { entries: 1, costs: false, shadow: false, settle: false }
    }
}
