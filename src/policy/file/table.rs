//! Tables of a document, and the settings that they may hold.

use std::time::Duration;

use super::document::{Entry, Mistake, Node, Value};
use crate::values::{Enforcement, Excerpt, Quota, QuotaBuilder};

/// The keys of the whole policy.
pub(super) const POLICY: [&str; 5] = ["base", "enforce", "exempt", "default", "endpoint"];

pub(super) struct DocumentTable<'a> {
    /// What the settings are of, for errors.
    pub(super) what: String,
    entries: &'a [Entry],
}

/// Path templates, and the positions of the list and of each template.
#[derive(Default)]
pub(super) struct Paths {
    pub(super) at: usize,
    pub(super) texts: Vec<String>,
    pub(super) each_at: Vec<usize>,
}

/// The settings of an endpoint, and their positions.
#[derive(Default)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) quota: Option<QuotaBuilder>,
    pub(super) burst: Option<u32>,
    pub(super) enforcement: Option<Enforcement>,
    pub(super) paths: Option<Paths>,
    pub(super) name_at: usize,
    pub(super) limit_at: Option<usize>,
    pub(super) per_at: Option<usize>,
    pub(super) burst_at: Option<usize>,
}

impl<'a> DocumentTable<'a> {
    /// Checks that the node is a table, and that it has no other keys than `keys`.
    ///
    /// # Errors
    /// If it is not a table, or has another key.
    pub(super) fn of(node: &'a Node, what: String, keys: &[&str]) -> Result<Self, Mistake> {
        let Value::Table(entries) = &node.value else {
            return Err(Mistake::new(
                node.at,
                format!("{what}: wanted a table, found {}", node.value),
            ));
        };
        let Some(Entry { at, key, .. }) =
            entries.iter().find(|entry| !keys.contains(&entry.key.as_str()))
        else {
            return Ok(Self { what, entries });
        };
        let hint = if POLICY.contains(&key.as_str()) {
            ", and this one belongs to the whole policy: in TOML it goes above the first `[`"
        } else {
            ""
        };
        let rule = format!("there is no such key; the keys are {}{hint}", keys.join(", "));
        Err(Mistake::new(*at, format!("key {:?} of {what}: {rule}", Excerpt::of(key))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(super) fn text(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(usize, &'a str)>, Mistake> {
        self.get(key)
            .map(|node| match &node.value {
                Value::Text(text) => Ok((node.at, text.as_str())),
                _ => Err(self.wanted(key, wanted, node)),
            })
            .transpose()
    }

    pub(super) fn list(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(usize, &'a [Node])>, Mistake> {
        self.get(key)
            .map(|node| match &node.value {
                Value::List(list) => Ok((node.at, list.as_slice())),
                _ => Err(self.wanted(key, wanted, node)),
            })
            .transpose()
    }

    pub(super) fn paths(&self, key: &str) -> Result<Option<Paths>, Mistake> {
        const WANTED: &str = "a list of paths, each a text";
        let Some((at, list)) = self.list(key, WANTED)? else {
            return Ok(None);
        };
        let mut paths = Paths { at, ..Paths::default() };
        for node in list {
            let Value::Text(text) = &node.value else {
                return Err(self.wanted(key, WANTED, node));
            };
            paths.texts.push(text.clone());
            paths.each_at.push(node.at);
        }
        Ok(Some(paths))
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

    /// The settings that `default` and the other endpoints have in common.
    pub(super) fn setting(&self) -> Result<Setting, Mistake> {
        let (limit, per, burst) = (self.whole("limit")?, self.period()?, self.whole("burst")?);
        let quota = match (limit, per) {
            (Some((_, limit)), Some((_, per))) => Some(Quota::per(limit, per)),
            (None, None) => None,
            (Some((at, _)), None) => {
                return Err(Mistake::new(
                    at,
                    format!("limit of {}: it needs a period, so set `per` too", self.what),
                ));
            }
            (None, Some((at, _))) => {
                return Err(Mistake::new(
                    at,
                    format!(
                        "per of {}: it needs a number of requests, so set `limit` too",
                        self.what
                    ),
                ));
            }
        };
        Ok(Setting {
            quota,
            burst: burst.map(|(_, burst)| burst),
            enforcement: self.enforcement()?,
            paths: self.paths("paths")?,
            name: String::new(),
            name_at: 0,
            limit_at: limit.map(|(at, _)| at),
            per_at: per.map(|(at, _)| at),
            burst_at: burst.map(|(at, _)| at),
        })
    }

    fn whole(&self, key: &str) -> Result<Option<(usize, u32)>, Mistake> {
        let whole = |node: &Node| match node.value {
            Value::Whole(number) => number.try_into().ok().map(|number| (node.at, number)),
            _ => None,
        };
        let wanted = "a whole number from 1 to 4294967295";
        self.get(key)
            .map(|node| whole(node).ok_or_else(|| self.wanted(key, wanted, node)))
            .transpose()
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

    pub(super) fn wanted(&self, key: &str, wanted: &str, found: &Node) -> Mistake {
        Mistake::new(
            found.at,
            format!("{key} of {}: wanted {wanted}, found {}", self.what, found.value),
        )
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
