//! Whether a shared cache, such as a CDN, may store a response.

use std::time::SystemTime;

use http::header::{CACHE_CONTROL, DATE, EXPIRES, HeaderValue};
use http::{HeaderMap, HeaderName, StatusCode};

/// Whether a shared cache may store the response, or write its fields into a stored one.
///
/// That is RFC 9111, section 3, for what a response says itself: a cache may store others by
/// heuristics or by its configuration. The method and `Vary` are not looked at.
pub(super) fn may_store(status: StatusCode, headers: &HeaderMap) -> bool {
    let (mut directives, mut expires) = (Directives::default(), None);
    // By name: the lines of one field are read once, however many there are.
    for name in headers.keys() {
        if name == CACHE_CONTROL {
            directives = Directives::of(headers, name);
        } else if name == EXPIRES {
            expires = headers.get(name);
        } else if is_targeted(name) {
            // Caches that know such a field ignore the other ones, a `no-store` too (RFC 9213).
            let directives = Directives::of(headers, name);
            if directives.permit && !directives.forbid() {
                return true;
            }
        }
    }
    if directives.forbid() {
        return false;
    }
    // The fields of a 304 are written into the stored response (section 3.2), and it may leave out
    // what that one says about caching.
    directives.permit
        || status == StatusCode::NOT_MODIFIED
        || !directives.have_age && expires.is_some_and(|expires| is_later(expires, headers))
}

/// Whether the field is for some caches only: `CDN-Cache-Control` and the like (RFC 9213, section
/// 3.1), or the older `Surrogate-Control`.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("-cache-control") || name == "surrogate-control"
}

/// Whether the response is fresh for a time by its `Expires` (section 4.2.1). `0`, or any
/// other value that is not a date, means the past.
fn is_later(expires: &HeaderValue, headers: &HeaderMap) -> bool {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?.trim()).ok();
    let sent = || headers.get(DATE).and_then(date).unwrap_or_else(SystemTime::now);
    date(expires).is_some_and(|expires| expires > sent())
}

/// What the directives of a field say about storing.
#[derive(Default)]
struct Directives {
    /// A shared cache may store the response, or use it when it is stale.
    permit: bool,
    /// There is one by which `Expires` does not count.
    have_age: bool,
    no_store: bool,
    private: bool,
    must_understand: bool,
}

impl Directives {
    /// Those of all lines of a field.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut directives = Self::default();
        headers.get_all(name).iter().for_each(|line| directives.add(line));
        directives
    }

    /// Adds those of a line of the field.
    fn add(&mut self, line: &HeaderValue) {
        split(line.as_bytes()).for_each(|directive| self.add_one(directive));
    }

    fn add_one(&mut self, directive: &[u8]) {
        // Targeted fields are structured ones, whose members can have parameters.
        let directive = directive.split(|byte| *byte == b';').next().unwrap_or_default();
        let mut parts = directive.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let (name, argument) = (parts.next().unwrap_or_default(), parts.next());
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("public") {
            self.permit = true;
        } else if is("s-maxage") {
            (self.permit, self.have_age) = (true, true);
        } else if is("max-age") {
            self.have_age = true;
            self.permit |= !is_zero(argument);
        } else if is("stale-while-revalidate") || is("stale-if-error") {
            self.permit |= !is_zero(argument);
        } else if is("no-store") {
            self.no_store = true;
        } else if is("private") {
            // With names of fields, only those are private, and a cache may store the rest (section
            // 5.2.2.7).
            self.private |= argument.is_none();
        } else if is("must-understand") {
            self.must_understand = true;
        }
    }

    /// Whether a shared cache must not store the response.
    fn forbid(&self) -> bool {
        // A cache that knows `must-understand` ignores `no-store` beside it (section 5.2.2.3).
        self.private || self.no_store && !self.must_understand
    }
}

/// The parts between the commas that are not inside of quotes.
fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let ends = move |byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b',' && !quoted
    };
    value.split(ends).map(<[u8]>::trim_ascii)
}

/// Whether a number of seconds is 0. Caches differ in what they make of one that is not valid, so
/// it is not taken for 0.
fn is_zero(argument: Option<&[u8]>) -> bool {
    let digits = argument.unwrap_or_default().iter().filter(|byte| **byte != b'"');
    digits.clone().count() > 0 && digits.clone().all(|byte| *byte == b'0')
}
