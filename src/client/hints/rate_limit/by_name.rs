//! Limits with names: draft-ietf-httpapi-ratelimit-headers-08 and later.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderValue;

use super::fields::{Fields, Name};
use super::structured::{Item, Value, items};
use super::{Standing, exhausted, quota, units};
use crate::values::Endpoint;

/// The names of a dialect's parameters.
pub(super) struct Names {
    remaining: &'static str,
    reset: &'static str,
    quota: &'static str,
    window: &'static str,
    unit: &'static str,
}

/// Versions 08 to 11.
pub(super) const DRAFT_08: Names =
    Names { remaining: "r", reset: "t", quota: "q", window: "w", unit: "qu" };

/// The unit of which each request costs one. A quota without a unit counts it too. Some copies of
/// the draft have the singular.
const REQUESTS: [&[u8]; 2] = [b"requests", b"request"];

/// The state of the limit that has the name of the endpoint, or else of the limit with the fewest
/// remaining.
///
/// A name may occur twice, if two servers on the way each have a limit with that name. Then the
/// fewest remaining and the smallest quota count. Partition keys are ignored: a response is about
/// the partition of its request.
pub(super) fn standing(
    fields: &Fields<'_>,
    endpoint: Endpoint,
    names: &Names,
    memo: &mut Memo,
) -> Option<Standing> {
    let limits = fields.lines(Name::RateLimit);
    if limits.is_empty() {
        return None;
    }
    let wanted = endpoint.name().as_bytes();
    let policies = memo.recall(fields).unwrap_or_else(|| {
        let policies = Policies::read(fields, names, wanted);
        memo.keep(fields, &policies);
        policies
    });
    let mut own: Option<u32> = None;
    let mut tightest: Option<(u32, Cow<'_, [u8]>)> = None;
    let mut longest = None;
    items(limits, [names.remaining, names.reset], |name, [remaining, reset]| {
        let (Item::Text(name), Value::Number(remaining)) = (name, remaining) else { return };
        if matches!(reset, Value::Text(_) | Value::Other) || policies.counts_something_else(name) {
            return;
        }
        if remaining == 0 {
            longest = longest.max(exhausted(reset.number()));
        }
        let remaining = units(remaining);
        if name.as_ref() == wanted {
            own = Some(own.map_or(remaining, |own| own.min(remaining)));
        } else if tightest.as_ref().is_none_or(|(least, _)| remaining < *least) {
            tightest = Some((remaining, name.clone()));
        }
    })?;
    let (remaining, quota) = match (own, tightest) {
        (Some(remaining), _) => (remaining, policies.quota),
        (None, Some((remaining, name))) => (remaining, Policies::read(fields, names, &name).quota),
        (None, None) => return None,
    };
    Some(Standing { remaining, quota, exhausted: longest })
}

/// A cache of the last `RateLimit-Policy` for one endpoint: a server nearly always sends the same.
#[derive(Debug, Default)]
pub(in crate::client) struct Memo {
    line: Option<HeaderValue>,
    quota: Option<(u32, Option<Duration>)>,
}

impl Memo {
    fn recall<'h>(&self, fields: &Fields<'h>) -> Option<Policies<'h>> {
        let line = fields.lines(Name::Policy).only()?;
        let is_known = self.line.as_ref().is_some_and(|known| known == line);
        is_known.then(|| Policies { quota: self.quota, something_else: Vec::new() })
    }

    fn keep(&mut self, fields: &Fields<'_>, policies: &Policies<'_>) {
        if policies.something_else.is_empty() {
            self.line = fields.lines(Name::Policy).only().cloned();
            self.quota = policies.quota;
        }
    }
}

/// What `RateLimit-Policy` reports.
#[derive(Default)]
struct Policies<'h> {
    /// The smallest quota with the wanted name.
    quota: Option<(u32, Option<Duration>)>,
    /// The names of quotas that do not count requests but, for example, bytes; sorted.
    something_else: Vec<Cow<'h, [u8]>>,
}

impl<'h> Policies<'h> {
    fn read(fields: &Fields<'h>, names: &Names, wanted: &[u8]) -> Self {
        let mut policies = Self::default();
        let read = items(
            fields.lines(Name::Policy),
            [names.quota, names.window, names.unit],
            |name, [units, window, unit]| {
                let Item::Text(name) = name else { return };
                let counts_requests = match unit {
                    Value::Absent => true,
                    Value::Text(unit) => REQUESTS.contains(&unit),
                    Value::Number(_) | Value::Other => false,
                };
                if !counts_requests {
                    policies.something_else.push(name.clone());
                } else if let (true, Value::Number(units), Value::Number(_) | Value::Absent) =
                    (name.as_ref() == wanted, units, window)
                {
                    let quota = quota(units, window.number());
                    policies.quota = match (policies.quota, quota) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                }
            },
        );
        if read.is_none() {
            return Self::default();
        }
        policies.something_else.sort_unstable();
        policies
    }

    fn counts_something_else(&self, name: &[u8]) -> bool {
        self.something_else.binary_search_by(|other| other.as_ref().cmp(name)).is_ok()
    }
}
