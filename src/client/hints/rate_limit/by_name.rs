//! Limits with names: draft-ietf-httpapi-ratelimit-headers-08 and later.

use std::borrow::Cow;

use http::HeaderValue;
use smallvec::{SmallVec, smallvec};

use super::fields::{Fields, Name};
use super::structured::{Item, Value, items};
use super::{Concurrent, Names, ReportedQuota, Standing, Standings, exhausted, quota, units};
use crate::values::LimitName;

/// The names of a dialect's parameters.
pub(super) struct Parameters {
    remaining: &'static str,
    reset: &'static str,
    quota: &'static str,
    window: &'static str,
    unit: &'static str,
}

/// Versions 08 to 11.
pub(super) const DRAFT_08: Parameters =
    Parameters { remaining: "r", reset: "t", quota: "q", window: "w", unit: "qu" };

/// The unit of which each request costs one. A quota without a unit counts it too. Some copies of
/// the draft have the singular.
const REQUESTS: [&[u8]; 2] = [b"requests", b"request"];

/// The unit of limits of requests in flight.
const IN_FLIGHT: &[u8] = b"concurrent-requests";

/// The state of the limits with these names, the endpoint's own first. If that one is not reported,
/// it is the state of the limit with the fewest remaining, of those with other names.
///
/// A name may occur twice, if two servers on the way each have a limit with that name. Then the
/// fewest remaining and the smallest quota count. Partition keys are ignored: a response is about
/// the partition of its request.
///
/// A limit of requests in flight is never taken for one of a rate, and limits of other units, such
/// as bytes, are passed over. Without a `RateLimit-Policy`, the unit of a limit is known only by
/// its name.
pub(super) fn standings<'h>(
    fields: &Fields<'h>,
    names: &Names,
    parameters: &Parameters,
    memo: &mut Memo,
) -> Option<Standings> {
    let lines = fields.lines(Name::RateLimit);
    if lines.is_empty() {
        return None;
    }
    let wanted = &names.rates;
    let position = |name: &[u8]| position(wanted, name);
    let read;
    let policies = if memo.is_of(fields) {
        &memo.policies
    } else {
        read = Policies::read(fields, parameters, wanted.len(), position);
        memo.keep(fields, &read);
        &read
    };
    let mut limits: SmallVec<[Option<Standing>; 1]> = smallvec![None; wanted.len()];
    let mut tightest: Option<(u32, Cow<'h, [u8]>)> = None;
    let mut others_exhausted = None;
    let mut concurrent = policies.concurrent(&names.concurrent);
    let each = |name: &Item<'h>, [remaining, reset]: [Value<'h>; 2]| {
        let (Item::Text(name), Value::Number(remaining)) = (name, remaining) else { return };
        if let Some(at) = policies.position_of_concurrent(&names.concurrent, name) {
            concurrent.resize(names.concurrent.len() + 1, Concurrent::default());
            let known = &mut concurrent[at].remaining;
            *known = smaller(*known, Some(units(remaining)));
            return;
        }
        if matches!(reset, Value::Text(_) | Value::Other) || policies.counts_something_else(name) {
            return;
        }
        let exhausted = if remaining == 0 { exhausted(reset.number()) } else { None };
        let remaining = units(remaining);
        if let Some(at) = position(name) {
            let quota = policies.quotas[at];
            let standing = limits[at].get_or_insert(Standing { remaining, quota, exhausted });
            standing.remaining = standing.remaining.min(remaining);
            standing.exhausted = standing.exhausted.max(exhausted);
        } else {
            others_exhausted = others_exhausted.max(exhausted);
            if tightest.as_ref().is_none_or(|(least, _)| remaining < *least) {
                tightest = Some((remaining, name.clone()));
            }
        }
    };
    items(lines, [parameters.remaining, parameters.reset], each)?;
    if let (None, Some((remaining, name))) = (limits[0], tightest) {
        let is_it = |other: &[u8]| (other == name.as_ref()).then_some(0);
        let quota = Policies::read(fields, parameters, 1, is_it).quotas[0];
        limits[0] = Some(Standing { remaining, quota, exhausted: None });
    }
    if limits.iter().all(Option::is_none) && concurrent.is_empty() {
        return None;
    }
    Some(Standings { limits, others_exhausted, concurrent })
}

fn position(names: &[LimitName], name: &[u8]) -> Option<usize> {
    names.iter().position(|it| it.name().as_bytes() == name)
}

/// The smaller one of those that are known.
fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The most names of limits that do not count requests over time, of which the cache has copies.
const MOST_COPIES: usize = 4;

/// A cache of the last `RateLimit-Policy` for one endpoint: a server nearly always sends the same.
#[derive(Debug, Default)]
pub(in crate::client) struct Memo {
    lines: SmallVec<[HeaderValue; 1]>,
    policies: Policies<'static>,
}

impl Memo {
    fn is_of(&self, fields: &Fields<'_>) -> bool {
        let lines = fields.lines(Name::Policy);
        match &self.lines[..] {
            [] => false,
            [line] => lines.only() == Some(line),
            all => lines.iter().eq(all),
        }
    }

    fn keep(&mut self, fields: &Fields<'_>, policies: &Policies<'_>) {
        if policies.something_else.len() <= MOST_COPIES {
            self.lines = fields.lines(Name::Policy).iter().cloned().collect();
            self.policies = policies.to_owned();
        }
    }
}

/// What `RateLimit-Policy` reports.
#[derive(Debug, Default)]
struct Policies<'h> {
    /// The smallest quota with each of the wanted names.
    quotas: SmallVec<[Option<ReportedQuota>; 1]>,
    /// The names of quotas that do not count requests but, for example, bytes; sorted.
    something_else: Vec<Cow<'h, [u8]>>,
    /// Those of them that count requests in flight, and how many may be, if that makes sense;
    /// sorted.
    in_flight: Vec<(Cow<'h, [u8]>, Option<u32>)>,
}

impl<'h> Policies<'h> {
    /// Reads the quotas with the `count` names for which `position` returns a place.
    fn read(
        fields: &Fields<'h>,
        parameters: &Parameters,
        count: usize,
        position: impl Fn(&[u8]) -> Option<usize>,
    ) -> Self {
        let unknown = || Self { quotas: smallvec![None; count], ..Self::default() };
        let mut policies = unknown();
        let each = |name: &Item<'h>, [units, window, unit]: [Value<'h>; 3]| {
            let Item::Text(name) = name else { return };
            let counts_requests = match unit {
                Value::Absent => true,
                Value::Text(unit) => REQUESTS.contains(&unit),
                Value::Number(_) | Value::Other => false,
            };
            if !counts_requests {
                policies.something_else.push(name.clone());
                if matches!(unit, Value::Text(IN_FLIGHT)) {
                    let most = units.number().filter(|&most| most > 0).map(super::units);
                    policies.in_flight.push((name.clone(), most));
                }
            } else if let (Some(at), Value::Number(units), Value::Number(_) | Value::Absent) =
                (position(name), units, window)
            {
                let known = &mut policies.quotas[at];
                *known = smaller(*known, quota(units, window.number()));
            }
        };
        let names = [parameters.quota, parameters.window, parameters.unit];
        if items(fields.lines(Name::Policy), names, each).is_none() {
            return unknown();
        }
        policies.something_else.sort_unstable();
        policies.in_flight.sort_unstable();
        policies
    }

    fn to_owned(&self) -> Policies<'static> {
        let owned = |name: &Cow<'h, [u8]>| Cow::Owned(name.to_vec());
        Policies {
            quotas: self.quotas.clone(),
            something_else: self.something_else.iter().map(owned).collect(),
            in_flight: self.in_flight.iter().map(|(name, most)| (owned(name), *most)).collect(),
        }
    }

    fn counts_something_else(&self, name: &[u8]) -> bool {
        self.something_else.binary_search_by(|other| other.as_ref().cmp(name)).is_ok()
    }

    /// The index of a limit of requests in flight: that of its name, or the one after all `known`
    /// names.
    fn position_of_concurrent(&self, known: &[LimitName], name: &[u8]) -> Option<usize> {
        let search = || self.in_flight.binary_search_by(|(other, _)| other.as_ref().cmp(name));
        position(known, name).or_else(|| search().is_ok().then_some(known.len()))
    }

    /// How many requests may be in flight, by the limits with the `known` names and by the others.
    fn concurrent(&self, known: &[LimitName]) -> SmallVec<[Concurrent; 2]> {
        let mut concurrent: SmallVec<[Concurrent; 2]> = SmallVec::new();
        for (name, most) in &self.in_flight {
            concurrent.resize(known.len() + 1, Concurrent::default());
            let limit = &mut concurrent[position(known, name).unwrap_or(known.len())];
            limit.most = smaller(limit.most, *most);
        }
        concurrent
    }
}
