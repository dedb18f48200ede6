//! The names of endpoint classes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::{PoisonError, RwLock};

/// A class of paths that share one bucket: `executions`, `agent`, `call`, `default`, or a name from
/// a custom policy.
///
/// One pointer: free to copy and to compare. A name is 1 to 64 characters of `[A-Za-z0-9_.-]`, so
/// that it can stand in a header field, a key and a metric label as it is. Two policies that use
/// one name mean one endpoint, and a principal's bucket for it survives a change from one policy to
/// the other.
///
/// Names are interned: each distinct one takes some hundred bytes until the process ends, however
/// many policies name it. A process has at most [`Endpoint::MOST`] of them.
#[derive(Clone, Copy)]
pub struct Endpoint(&'static Interned);

/// A name has one address and one number as long as the process lives.
struct Interned {
    name: &'static str,
    number: u16,
}

impl Endpoint {
    /// `/v2/agent/{agent_id}/executions` in Bolna's table.
    pub const EXECUTIONS: Self = Self(&EXECUTIONS);
    /// `/v2/agent/{agent_id}` in Bolna's table.
    pub const AGENT: Self = Self(&AGENT);
    /// `/call` in Bolna's table.
    pub const CALL: Self = Self(&CALL);
    /// Every path that no other endpoint claims, in every policy.
    pub const DEFAULT: Self = Self(&DEFAULT);

    /// How many distinct names a process can have.
    pub const MOST: usize = 1 << 14;

    /// The endpoint of that name, or `None` if the name is not 1 to 64 characters of
    /// `[A-Za-z0-9_.-]`, or a new one when there are [`MOST`](Self::MOST) already.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if let Some(known) = find(&Self::KNOWN, name) {
            return Some(known);
        }
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(ok) {
            return None;
        }
        Self::intern(name)
    }

    /// What a candidate policy's buckets for this endpoint are kept under, or `None` when there are
    /// too many names. No policy can have an endpoint of that name.
    pub(crate) fn beside(self) -> Option<Self> {
        Self::intern(&format!("{}+candidate", self.name()))
    }

    fn intern(name: &str) -> Option<Self> {
        // The list only ever grows by one finished element, so a poisoned lock guards nothing
        // broken.
        if let Some(interned) = find(&INTERNED.read().unwrap_or_else(PoisonError::into_inner), name)
        {
            return Some(interned);
        }
        let mut interned = INTERNED.write().unwrap_or_else(PoisonError::into_inner);
        find(&interned, name).or_else(|| {
            let number = Self::KNOWN.len() + interned.len();
            let number = u16::try_from(number).ok().filter(|_| number < Self::MOST)?;
            let endpoint =
                Self(Box::leak(Box::new(Interned { name: Box::leak(name.into()), number })));
            interned.push(endpoint);
            Some(endpoint)
        })
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// Its number in this process, below [`MOST`](Self::MOST).
    pub(crate) const fn number(self) -> u16 {
        self.0.number
    }

    const KNOWN: [Self; 4] = [Self::EXECUTIONS, Self::AGENT, Self::CALL, Self::DEFAULT];
}

// Statics, which have one address each, unlike constants: two endpoints are equal when they are at
// one address.
static EXECUTIONS: Interned = Interned { name: "executions", number: 0 };
static AGENT: Interned = Interned { name: "agent", number: 1 };
static CALL: Interned = Interned { name: "call", number: 2 };
static DEFAULT: Interned = Interned { name: "default", number: 3 };

static INTERNED: RwLock<Vec<Endpoint>> = RwLock::new(Vec::new());

fn find(endpoints: &[Endpoint], name: &str) -> Option<Endpoint> {
    endpoints.iter().copied().find(|endpoint| endpoint.name() == name)
}

impl PartialEq for Endpoint {
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
