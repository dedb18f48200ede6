//! The names of endpoint classes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::{PoisonError, RwLock};

/// A class of paths that share one bucket: `executions`, `agent`, `call`, `default`, or a name from a custom policy.
///
/// One pointer: free to copy and to compare. A name is 1 to 64 characters of `[A-Za-z0-9_.-]`, so that it can stand in a
/// header field, a key and a metric label as it is. Two policies that use one name mean one endpoint, and a principal's
/// bucket for it survives a change from one policy to the other.
///
/// Names are interned: each distinct one takes some hundred bytes until the process ends, however many policies name it.
#[derive(Clone, Copy)]
pub struct Endpoint(&'static &'static str);

impl Endpoint {
    /// `/v2/agent/{agent_id}/executions` in Bolna's table.
    pub const EXECUTIONS: Self = Self(&names::EXECUTIONS);
    /// `/v2/agent/{agent_id}` in Bolna's table.
    pub const AGENT: Self = Self(&names::AGENT);
    /// `/call` in Bolna's table.
    pub const CALL: Self = Self(&names::CALL);
    /// Every path that no other endpoint claims, in every policy.
    pub const DEFAULT: Self = Self(&names::DEFAULT);

    /// The endpoint of that name, or `None` if the name is not 1 to 64 characters of `[A-Za-z0-9_.-]`.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if let Some(known) = find(&Self::KNOWN, name) {
            return Some(known);
        }
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(ok) {
            return None;
        }
        // The list only ever grows by one finished element, so a poisoned lock guards nothing broken.
        if let Some(interned) = find(&INTERNED.read().unwrap_or_else(PoisonError::into_inner), name) {
            return Some(interned);
        }
        let mut interned = INTERNED.write().unwrap_or_else(PoisonError::into_inner);
        Some(find(&interned, name).unwrap_or_else(|| {
            let name: &'static str = Box::leak(name.into());
            let endpoint = Self(Box::leak(Box::new(name)));
            interned.push(endpoint);
            endpoint
        }))
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0
    }

    /// The number by which it is told from other endpoints in this process: a multiple of 8, or of 4 where a pointer is 32
    /// bits.
    pub(crate) fn address(self) -> usize {
        ptr::from_ref(self.0).addr()
    }

    const KNOWN: [Self; 4] = [Self::EXECUTIONS, Self::AGENT, Self::CALL, Self::DEFAULT];
}

/// Statics, which have one address each, unlike constants: two endpoints are equal when they are at one address.
mod names {
    pub(super) static EXECUTIONS: &str = "executions";
    pub(super) static AGENT: &str = "agent";
    pub(super) static CALL: &str = "call";
    pub(super) static DEFAULT: &str = "default";
}

static INTERNED: RwLock<Vec<Endpoint>> = RwLock::new(Vec::new());

fn find(endpoints: &[Endpoint], name: &str) -> Option<Endpoint> {
    endpoints.iter().copied().find(|endpoint| *endpoint.0 == name)
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
        f.pad(self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.0)
    }
}
