//! The settings of endpoints and limits, and their positions.

use std::time::Duration;

use super::document::{Mistake, Node, Value};
use super::table::{DocumentTable, Texts};
use crate::policy::Spelling;
use crate::values::{Enforcement, Excerpt, Quota, QuotaBuilder, Scope};

/// The settings of an endpoint with its own limit, or of another limit, and their positions.
#[derive(Default)]
pub(super) struct Setting<'a> {
    pub(super) name: String,
    pub(super) name_at: usize,
    pub(super) scope: Scope,
    pub(super) limit: Option<(usize, u32)>,
    pub(super) per: Option<(usize, Duration)>,
    pub(super) burst: Option<(usize, u32)>,
    pub(super) cost: Option<(usize, u32)>,
    pub(super) enforcement: Option<Enforcement>,
    /// Of an endpoint.
    pub(super) user_share: Option<(usize, u8)>,
    /// The most requests in flight: of a limit that is not an endpoint's own, or of the limit that
    /// this adds to an endpoint.
    pub(super) concurrent: Option<(usize, u32)>,
    /// Of an endpoint.
    pub(super) paths: Option<Texts>,
    /// The further limits of an endpoint.
    pub(super) also: &'a [Node],
    /// The endpoints that share a limit.
    pub(super) endpoints: Option<Texts>,
}

impl<'a> Setting<'a> {
    /// The settings in a table. Keys that it may not have were refused before.
    pub(super) fn of(
        table: &DocumentTable<'a>,
        name: &str,
        name_at: usize,
    ) -> Result<Self, Mistake> {
        const UNITS: &str = "a whole number from 1 to 4294967295";
        const IN_FLIGHT: &str = "a whole number of requests from 1 to 1000000000";
        let (limit, per) = (table.whole("limit", UNITS)?, table.period()?);
        let half = match (limit, per) {
            (Some((at, _)), None) => Some((at, "limit", "it needs a period, so set `per` too")),
            (None, Some((at, _))) => {
                Some((at, "per", "it needs a number of requests, so set `limit` too"))
            }
            _ => None,
        };
        if let Some((at, key, rule)) = half {
            return Err(Mistake::new(at, format!("{key} of {}: {rule}", table.what)));
        }
        Ok(Self {
            name: name.to_owned(),
            name_at,
            scope: table.scope()?,
            limit,
            per,
            burst: table.whole("burst", UNITS)?,
            cost: table.whole("cost", UNITS)?,
            enforcement: table.enforcement()?,
            user_share: table.whole("user_share", "a whole number of percent from 1 to 100")?,
            concurrent: table.whole("concurrent", IN_FLIGHT)?,
            paths: table.paths("paths")?,
            also: table.tables("also", "`[[endpoint.also]]` or `[[default.also]]`")?,
            endpoints: table.texts("endpoints", "a list of endpoints, each a name")?,
        })
    }

    /// The quota of a limit that is not an endpoint's own: a rate, or one of requests in flight.
    ///
    /// # Errors
    /// If it is of both, or of requests in flight with a burst.
    pub(super) fn either_quota(&self) -> Result<Option<QuotaBuilder>, Mistake> {
        let Some((at, in_flight)) = self.concurrent else {
            return Ok(self.quota(None));
        };
        let wrong = |at, key, rule| {
            Err(Mistake::new(at, format!("{key} of limit {:?}: {rule}", self.name)))
        };
        if self.limit.is_some() {
            let rule = "a limit is a rate, with `limit` and `per`, or one of requests in flight, \
                        with `concurrent`: make two limits of it";
            return wrong(at, "concurrent", rule);
        }
        if let Some((at, _)) = self.burst {
            let rule = "a limit of requests in flight has no burst, so leave it out";
            return wrong(at, "burst", rule);
        }
        Ok(Some(Quota::concurrent(in_flight)))
    }

    /// The quota that is set. What is not set is that of the base.
    pub(super) fn quota(&self, base: Option<QuotaBuilder>) -> Option<QuotaBuilder> {
        let quota = match (self.limit, self.per) {
            (Some((_, limit)), Some((_, per))) => Quota::per(limit, per),
            _ => base?,
        };
        Some(self.burst.map_or(quota, |(_, burst)| quota.burst(burst)))
    }
}

impl DocumentTable<'_> {
    pub(super) fn paths(&self, key: &str) -> Result<Option<Texts>, Mistake> {
        self.texts(key, "a list of paths, each a text")
    }

    /// The kinds of spelling that are not read.
    pub(super) fn spellings(&self) -> Result<Vec<Spelling>, Mistake> {
        const KEY: &str = "ignored_spellings";
        let kinds = self.texts(KEY, "a list of kinds of spelling, each a text")?;
        let Texts { texts, each_at, .. } = kinds.unwrap_or_default();
        let kind = |(text, at): (&String, &usize)| {
            let known = Spelling::ALL.iter().copied().find(|kind| kind.name() == text);
            known.ok_or_else(|| {
                let names =
                    Spelling::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
                let text = Excerpt::of(text);
                let rule = format!("there is no such kind of spelling; the kinds are {names}");
                Mistake::new(*at, format!("{text:?} in {KEY} of {}: {rule}", self.what))
            })
        };
        texts.iter().zip(&each_at).map(kind).collect()
    }

    pub(super) fn enforcement(&self) -> Result<Option<Enforcement>, Mistake> {
        let Some(node) = self.get("enforce") else {
            return Ok(None);
        };
        let enforcement = match &node.value {
            Value::Text(text) if text == "full" => Some(Enforcement::FULL),
            Value::Text(text) if text == "shadow" => Some(Enforcement::SHADOW),
            Value::Whole(number) => {
                u8::try_from(*number).ok().and_then(|number| Enforcement::percent(number).ok())
            }
            _ => None,
        };
        let wanted = "\"full\", \"shadow\" or a whole number of percent from 0 to 100";
        enforcement.map(Some).ok_or_else(|| self.wanted("enforce", wanted, node))
    }

    fn scope(&self) -> Result<Scope, Mistake> {
        let Some(node) = self.get("scope") else {
            return Ok(Scope::Account);
        };
        let is_it =
            |scope: &Scope| matches!(&node.value, Value::Text(text) if text == scope.name());
        let scope = [Scope::Account, Scope::User, Scope::Everyone].into_iter().find(is_it);
        scope.ok_or_else(|| self.wanted("scope", "\"account\", \"user\" or \"everyone\"", node))
    }

    fn period(&self) -> Result<Option<(usize, Duration)>, Mistake> {
        const WANTED: &str =
            "\"second\", \"minute\", \"hour\", \"day\" or a number of them, as in \"10 seconds\"";
        let Some(node) = self.get("per") else {
            return Ok(None);
        };
        let period = match &node.value {
            Value::Text(text) => period(text),
            _ => Err(PeriodError::Spelling),
        };
        match period {
            Ok(period) => Ok(Some((node.at, period))),
            Err(PeriodError::Spelling) => Err(self.wanted("per", WANTED, node)),
            Err(PeriodError::TooLong) => Err(Mistake::new(
                node.at,
                format!(
                    "per of {}: found {}, which is too long: with any limit, a drained bucket \
                     would take more than 100 years to be full again",
                    self.what, node.value,
                ),
            )),
        }
    }
}

/// Why a text is no period.
enum PeriodError {
    Spelling,
    TooLong,
}

/// Parses a period: `minute`, `1 minute`, `10 minutes`. A number alone is no period, because its
/// unit would be easy to get wrong.
fn period(text: &str) -> Result<Duration, PeriodError> {
    let (count, unit) = match text.split_once(' ') {
        Some((count, unit)) => (count, unit.strip_suffix('s').unwrap_or(unit)),
        None => ("1", text),
    };
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return Err(PeriodError::Spelling),
    };
    if !is_whole(count) {
        return Err(PeriodError::Spelling);
    }
    // No quota with a period that is too long for 64 bits is valid: with the highest limit it is
    // too slow, too.
    let seconds = count.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds));
    seconds.map(Duration::from_secs).ok_or(PeriodError::TooLong)
}

/// Whether a text is a whole number as JSON writes one: in digits, without a zero before them.
/// `u64::from_str` takes such zeros, and a `+`.
fn is_whole(text: &str) -> bool {
    match text.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}
