//! On which principals a limit is enforced.

use std::error::Error;
use std::fmt;

use super::principal::{Kind, Principal};

/// On which principals a limit is enforced: on all of them, on a share, or on none (*shadow mode*).
///
/// The requests of the other principals are charged, decided about and reported all the same, but
/// they are admitted even if they are over the limit. So enforcement changes neither what a request
/// costs nor what is decided about later ones.
///
/// A share always consists of the same principals: in every process, on every endpoint and in every
/// version of this crate. A larger share contains every smaller one. So a limit can be rolled out
/// step by step.
///
/// ```
/// use bolna_rate_limit::{Enforcement, Principal};
///
/// let caller = Principal::organization("org-4").expect("the id is not empty");
/// assert!(Enforcement::FULL.applies_to(&caller));
/// assert!(!Enforcement::SHADOW.applies_to(&caller));
/// assert!(!Enforcement::percent(60)?.applies_to(&caller));
/// assert!(Enforcement::percent(61)?.applies_to(&caller));
/// assert!(Enforcement::percent(250).is_err());
///
/// // A constant, which does not compile if the percentage is not valid:
/// const QUARTER: Enforcement = match Enforcement::percent(25) {
///     Ok(quarter) => quarter,
///     Err(_) => panic!("it is at most 100"),
/// };
/// assert_eq!(QUARTER.as_percent(), 25);
/// # Ok::<(), bolna_rate_limit::values::EnforcementError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enforcement {
    percent: u8,
}

impl Enforcement {
    /// On all principals. The default.
    pub const FULL: Self = Self { percent: 100 };
    /// On no principal.
    pub const SHADOW: Self = Self { percent: 0 };

    /// On that percentage of the principals: from 0, which is none, to 100, which is all.
    ///
    /// # Errors
    /// If the percentage is above 100, which may be a typing error, such as 250 instead of 25.
    pub const fn percent(percent: u8) -> Result<Self, EnforcementError> {
        if percent > 100 { Err(EnforcementError { percent }) } else { Ok(Self { percent }) }
    }

    /// The percentage of principals, from 0 to 100.
    #[must_use]
    pub const fn as_percent(self) -> u8 {
        self.percent
    }

    /// Whether a limit is enforced on that principal.
    #[must_use]
    #[inline]
    pub fn applies_to(self, principal: &Principal) -> bool {
        match self {
            Self::FULL => true,
            Self::SHADOW => false,
            Self { percent } => place(principal) < percent,
        }
    }

    /// Enforcement where both settings have to apply: the lesser of them.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        self.min(other)
    }
}

impl Default for Enforcement {
    fn default() -> Self {
        Self::FULL
    }
}

/// `full`, `shadow`, or the share, such as `25 %`.
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

/// The error for a percentage above 100.
///
/// ```
/// use bolna_rate_limit::Enforcement;
///
/// let error = Enforcement::percent(250).unwrap_err();
/// let text = "enforcement 250: it must be a whole number of percent from 0 to 100";
/// assert_eq!(error.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnforcementError {
    /// The percentage.
    pub percent: u8,
}

impl fmt::Display for EnforcementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { percent } = self;
        write!(f, "enforcement {percent}: it must be a whole number of percent from 0 to 100")
    }
}

impl Error for EnforcementError {}

/// The place of a principal among a hundred, from 0 to 99.
///
/// The hash is FNV-1a (draft-eastlake-fnv) with a final mix, because FNV leaves the highest bits of
/// short texts alike. It is not the hash of the tables: that one may change with a version of this
/// crate, and the principals of a share must not.
fn place(principal: &Principal) -> u8 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let start = 0xcbf2_9ce4_8422_2325;
    // Of these two names only the first letter is hashed. This must stay, or shares would change.
    let hash = match principal.kind() {
        kind if kind == Kind::ORGANIZATION => step(start, &b'o'),
        kind if kind == Kind::USER => step(start, &b'u'),
        // The 0 separates the name from the id: no name contains it.
        other => step(other.name().as_bytes().iter().fold(start, step), &0),
    };
    let hash = principal.id().as_bytes().iter().fold(hash, step);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let place = (u128::from(hash ^ (hash >> 33)) * 100) >> 64;
    place.try_into().expect("it is less than a hundred")
}
