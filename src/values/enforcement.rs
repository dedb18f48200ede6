//! Whether a limit is enforced, and on whom.

use std::fmt;

use super::principal::{Kind, Principal};

/// On whom a limit is enforced: on all, on a share of the principals, or on nobody (*shadow mode*).
///
/// Whoever it is not enforced on is counted and judged all the same, and everything is reported as
/// it would have been; only the request goes on. What a request costs, and what a later one is
/// told, is never changed by it.
///
/// A share is always of the same principals, in every process, on every endpoint and in every
/// version of this crate, and whoever is in a share is in every larger one too. So a limit can be
/// rolled out step by step.
///
/// ```
/// use bolna_rate_limit::{Enforcement, Principal};
///
/// let caller = Principal::organization("org-4").expect("the id is not empty");
/// assert!(Enforcement::FULL.applies_to(&caller));
/// assert!(!Enforcement::SHADOW.applies_to(&caller));
/// let first = (0..=100).find(|percent| Enforcement::percent(*percent).applies_to(&caller));
/// assert_eq!(first, Some(61));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enforcement {
    percent: u8,
}

impl Enforcement {
    /// On everybody. The default.
    pub const FULL: Self = Self { percent: 100 };
    /// On nobody.
    pub const SHADOW: Self = Self { percent: 0 };

    /// On that part of the principals, from 0, which is nobody, to 100, which is everybody. More
    /// counts as 100.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self { percent: if percent > 100 { 100 } else { percent } }
    }

    /// On how many of a hundred principals.
    #[must_use]
    pub const fn as_percent(self) -> u8 {
        self.percent
    }

    /// Whether a limit is enforced on that principal.
    #[must_use]
    pub fn applies_to(self, principal: &Principal) -> bool {
        match self {
            Self::FULL => true,
            Self::SHADOW => false,
            Self { percent } => place(principal) < percent,
        }
    }

    /// Where both have to apply.
    pub(crate) fn and(self, other: Self) -> Self {
        self.min(other)
    }
}

impl Default for Enforcement {
    fn default() -> Self {
        Self::FULL
    }
}

/// `full`, `shadow`, or the share: `25 %`.
impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FULL => f.pad("full"),
            Self::SHADOW => f.pad("shadow"),
            Self { percent } => write!(f, "{percent} %"),
        }
    }
}

impl fmt::Debug for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enforcement({self})")
    }
}

/// A principal's place among a hundred.
///
/// FNV-1a (draft-eastlake-fnv) with a final mix, for FNV leaves the highest bits of short texts
/// alike. Not one of the hashers that the tables use: theirs may be another in the next version,
/// and an operator's share may not.
fn place(principal: &Principal) -> u8 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let start = 0xcbf2_9ce4_8422_2325;
    // Of these two the first letter alone counts, as it always has.
    let hash = match principal.kind() {
        kind if kind == Kind::ORGANIZATION => step(start, &b'o'),
        kind if kind == Kind::USER => step(start, &b'u'),
        // No name has a byte of 0 in it, so no name and id run into another's.
        other => step(other.name().as_bytes().iter().fold(start, step), &0),
    };
    let hash = principal.id().as_bytes().iter().fold(hash, step);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let place = (u128::from(hash ^ (hash >> 33)) * 100) >> 64;
    place.try_into().expect("it is less than a hundred")
}
