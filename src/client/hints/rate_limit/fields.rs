//! Finds the fields that report limits.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The names of the fields of all dialects.
#[derive(Clone, Copy)]
pub(super) enum Name {
    RateLimit,
    Policy,
    Limit,
    Remaining,
    Reset,
    LegacyLimit,
    LegacyRemaining,
    LegacyReset,
    /// Reports no limit, but that the response comes from a cache.
    Age,
}

const NAMES: [(&str, Name); 9] = [
    ("ratelimit", Name::RateLimit),
    ("ratelimit-policy", Name::Policy),
    ("ratelimit-limit", Name::Limit),
    ("ratelimit-remaining", Name::Remaining),
    ("ratelimit-reset", Name::Reset),
    ("x-ratelimit-limit", Name::LegacyLimit),
    ("x-ratelimit-remaining", Name::LegacyRemaining),
    ("x-ratelimit-reset", Name::LegacyReset),
    ("age", Name::Age),
];

/// The lines of each field.
pub(super) struct Fields<'h> {
    pub(super) headers: &'h HeaderMap,
    found: [Option<Found<'h>>; NAMES.len()],
}

#[derive(Clone, Copy)]
struct Found<'h> {
    first: &'h HeaderValue,
    has_more: bool,
}

/// The lines of one field.
#[derive(Clone, Copy)]
pub(super) struct Lines<'h> {
    headers: &'h HeaderMap,
    name: Name,
    found: Option<Found<'h>>,
}

impl<'h> Fields<'h> {
    /// Goes over all header names once. Looking up each field, most of which are absent, takes
    /// several times as long.
    #[inline]
    pub(super) fn find(headers: &'h HeaderMap) -> Option<Self> {
        let mut lines = headers.iter().filter_map(|(name, line)| Some((known(name)?, line)));
        // A response without any needs no list.
        let mut next = Some(lines.next()?);
        let mut fields = Self { headers, found: [None; NAMES.len()] };
        while let Some((name, first)) = next {
            let found = &mut fields.found[name as usize];
            *found = Some(found.map_or(Found { first, has_more: false }, |found| Found {
                has_more: true,
                ..found
            }));
            next = lines.next();
        }
        Some(fields)
    }

    pub(super) fn lines(&self, name: Name) -> Lines<'h> {
        Lines { headers: self.headers, name, found: self.found[name as usize] }
    }
}

impl<'h> Lines<'h> {
    pub(super) fn is_empty(self) -> bool {
        self.found.is_none()
    }

    /// The line, if there is exactly one.
    pub(super) fn only(self) -> Option<&'h HeaderValue> {
        self.found.filter(|found| !found.has_more).map(|found| found.first)
    }

    pub(super) fn has_more(self) -> bool {
        self.found.is_some_and(|found| found.has_more)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = &'h HeaderValue> {
        let all = || self.headers.get_all(NAMES[self.name as usize].0).iter();
        let more = self.has_more().then(|| all().skip(1)).into_iter().flatten();
        self.found.map(|found| found.first).into_iter().chain(more)
    }
}

#[inline]
fn known(name: &HeaderName) -> Option<Name> {
    let name = name.as_str();
    // Few names begin with these bytes, and comparing whole names costs more.
    if !matches!(name.as_bytes(), [b'r', b'a', ..] | [b'x', b'-', ..] | [b'a', b'g', b'e']) {
        return None;
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, name)| *name)
}
