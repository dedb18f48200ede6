//! What a store can do.

use super::{Command, StoreError};
use crate::values::Charge;

/// What a store can do, apart from charging one unit to one bucket, which every store can.
///
/// Start from [`default`](Self::default), which says that the store can do nothing more, and set
/// the fields that apply:
///
/// ```
/// use bolna_rate_limit::store::Capabilities;
///
/// let mut capabilities = Capabilities::default();
/// capabilities.entries = 4;
/// capabilities.costs = true;
/// ```
///
/// A store checks each charge with [`permit`](Self::permit), and each command with
/// [`permit_command`](Self::permit_command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The most entries of a charge: from 1, which is the default, to [`Charge::MAX_ENTRIES`].
    pub entries: usize,
    /// Whether an entry of a check or a peek can cost more than one unit. In a refund or a
    /// settlement it always can.
    pub costs: bool,
    /// Whether a check or a peek can have shadow entries.
    pub shadow: bool,
    /// Whether the store knows [`Command::Settle`].
    pub settle: bool,
}

impl Capabilities {
    /// Those of a store that can do everything.
    pub(crate) const ALL: Self =
        Self { entries: Charge::MAX_ENTRIES, costs: true, shadow: true, settle: true };

    /// Checks that a charge is within what the store can do. For stores.
    ///
    /// # Errors
    /// If it is not. The error says what the store can't do.
    #[inline]
    pub fn permit(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        let within = |entry: &crate::values::Entry| {
            (self.costs || entry.cost() == 1) && (self.shadow || entry.is_binding())
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
                "the request charges {} buckets, and the store can charge at most {} at once",
                entries.len(),
                self.entries
            )
        } else if let Some(entry) = entries.iter().find(|entry| !self.costs && entry.cost() > 1) {
            format!(
                "endpoint {} costs {} units, and the store can only charge 1",
                entry.endpoint(),
                entry.cost()
            )
        } else {
            "the request has a shadow entry, and the store supports none".to_owned()
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
