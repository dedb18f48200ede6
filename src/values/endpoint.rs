//! The names of endpoints.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::str::FromStr;

use super::names::{Name, NameError, Names};

/// A group of paths that are limited together: `executions`, `agent`, `call`, `default`, or a name
/// from a custom policy.
///
/// One pointer: free to copy and to compare. A name is 1 to 64 characters of `[A-Za-z0-9_.-]`, so
/// that it can stand in a header field, a key and a metric label as it is. If two policies use one
/// name, they mean one endpoint, and a principal's bucket for it survives a change from one policy
/// to the other.
///
/// Names are kept: each distinct one takes some hundred bytes until the process ends, however many
/// policies use it. A process has at most [`Endpoint::MAX`] of them.
///
/// ```
/// use bolna_rate_limit::Endpoint;
///
/// let search: Endpoint = "search".parse()?;
/// assert_eq!(search.name(), "search");
/// assert_eq!(Endpoint::new("call")?, Endpoint::CALL);
/// assert!(Endpoint::new("no spaces").is_err());
/// # Ok::<(), bolna_rate_limit::values::NameError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Endpoint(&'static Name);

impl Endpoint {
    /// `/v2/agent/{agent_id}/executions` in Bolna's table.
    pub const EXECUTIONS: Self = Self(&EXECUTIONS);
    /// `/v2/agent/{agent_id}` in Bolna's table.
    pub const AGENT: Self = Self(&AGENT);
    /// `/call` in Bolna's table.
    pub const CALL: Self = Self(&CALL);
    /// Every path that no other endpoint claims, in every policy.
    pub const DEFAULT: Self = Self(&DEFAULT);

    /// How many distinct names a process can have: 16,384.
    pub const MAX: usize = 1 << 14;

    /// The endpoint of that name.
    ///
    /// # Errors
    /// When the name is not 1 to 64 characters of `[A-Za-z0-9_.-]`, or is a new one and the process
    /// has [`MAX`](Self::MAX) already.
    pub fn new(name: &str) -> Result<Self, NameError> {
        NAMES.get(name).map(Self)
    }

    /// The name under which a store keeps a candidate policy's buckets of this endpoint. No policy
    /// can have an endpoint of that name.
    pub(crate) fn for_candidate(self) -> Result<Self, NameError> {
        NAMES.intern(&format!("{}+candidate", self.name())).map(Self)
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.text
    }

    /// Its number in this process, below [`MAX`](Self::MAX).
    pub(crate) const fn number(self) -> u16 {
        self.0.number
    }
}

// Statics, which have one address each, unlike constants: two endpoints are equal when they are at
// one address.
static EXECUTIONS: Name = Name { text: "executions", number: 0 };
static AGENT: Name = Name { text: "agent", number: 1 };
static CALL: Name = Name { text: "call", number: 2 };
static DEFAULT: Name = Name { text: "default", number: 3 };

static NAMES: Names = Names::new(&[&EXECUTIONS, &AGENT, &CALL, &DEFAULT], Endpoint::MAX);

impl PartialEq for Endpoint {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::hash(self.0, state);
    }
}

/// By the name.
impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl AsRef<str> for Endpoint {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = NameError;

    fn try_from(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.name())
    }
}
