//! Endpoints: groups of paths that are limited together.

use super::names::{self, Interned, Interner, NameError, interned_name};

/// A group of paths that are limited together: `executions`, `agent`, `call`, `default`, or a name
/// from a custom policy.
///
/// An endpoint is one pointer, so it is cheap to copy and to compare. Its name is 1 to 64
/// characters of `[A-Za-z0-9_.-]`, so that it needs no escaping in a header field, a key or a
/// metric label. Two policies that use the same name mean the same endpoint: a principal keeps its
/// bucket when one of the policies replaces the other.
///
/// Names are never freed. Each distinct name takes some hundred bytes until the process ends,
/// however many policies use it, and a process can have at most [`Endpoint::MAX`] names. A name is
/// stored by [`Endpoint::new`], which `parse` and `try_from` call, by building a policy, and once
/// more for each limit of a candidate policy. Names of [limits](crate::values::Limit) count too. A
/// policy that can't be built stores none, and neither does reading an endpoint with `serde`.
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
pub struct Endpoint(&'static Interned);

impl Endpoint {
    /// `/v2/agent/{agent_id}/executions` in Bolna's table.
    pub const EXECUTIONS: Self = Self(&EXECUTIONS);
    /// `/v2/agent/{agent_id}` in Bolna's table.
    pub const AGENT: Self = Self(&AGENT);
    /// `/call` in Bolna's table.
    pub const CALL: Self = Self(&CALL);
    /// All paths that no other endpoint claims, in every policy.
    pub const DEFAULT: Self = Self(&DEFAULT);

    /// The number of distinct names that a process can have: 16,384, including the four constants.
    /// Each limit of a [candidate](crate::Limiter::set_candidate) takes a second name.
    pub const MAX: usize = 1 << 14;

    /// The endpoint of that name. A name that is not one of the constants takes a lock.
    ///
    /// # Errors
    /// If the name is not 1 to 64 characters of `[A-Za-z0-9_.-]`, or if it is new and the process
    /// has [`MAX`](Self::MAX) names already.
    pub fn new(name: &str) -> Result<Self, NameError> {
        NAMES.get(name).map(Self)
    }

    /// The endpoint of that name, if one of the constants, a policy or [`new`](Self::new) has made
    /// it. For names that come from outside, since it makes none.
    #[must_use]
    pub fn known(name: &str) -> Option<Self> {
        NAMES.known(name).map(Self)
    }

    /// Checks a name, without making an endpoint of it.
    ///
    /// # Errors
    /// If the name is not valid.
    pub(crate) fn check(name: &str) -> Result<(), NameError> {
        names::check(name)
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.text
    }

    /// The endpoint of which [`LimitName::number`](super::LimitName::number) has that number.
    pub(crate) fn numbered(number: u16) -> Option<Self> {
        NAMES.numbered(number).map(Self)
    }

    /// A number below [`MAX`](Self::MAX) that no other endpoint has.
    #[inline]
    pub(crate) const fn number(self) -> usize {
        self.0.number as usize
    }

    pub(super) const fn of(name: &'static Interned) -> Self {
        Self(name)
    }

    pub(super) const fn interned(self) -> &'static Interned {
        self.0
    }
}

// Statics and not constants, because a static has one address: two endpoints are equal if they have
// the same address.
static EXECUTIONS: Interned = Interned::new("executions", 0);
static AGENT: Interned = Interned::new("agent", 1);
static CALL: Interned = Interned::new("call", 2);
static DEFAULT: Interned = Interned::new("default", 3);

/// The names of endpoints and of limits.
pub(super) static NAMES: Interner =
    Interner::new(&[&EXECUTIONS, &AGENT, &CALL, &DEFAULT], Endpoint::MAX);

interned_name!(Endpoint);
