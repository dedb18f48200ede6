//! Which endpoint a path is billed to.
//!
//! A *plain* path has one reading: whatever server stands behind, it routes the path as it is
//! written. That is nearly every path there is, and it is matched without allocating. Any other
//! path is *odd*: `/%63all`, `//call` and `/x/..;/call` reach the handler of `/call` behind one
//! server or another. An odd path is read every way that a common server might, and billed to the
//! first named endpoint among its readings, so that no spelling escapes into the wider default.

mod readings;
mod template;
mod tree;

use tree::Tree;

pub use template::TemplateError;

/// An odd path longer than this, in bytes, is not read but billed to the first endpoint of the
/// policy.
pub(crate) const LONGEST_ODD_PATH: usize = 512;

/// What a path costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Billing {
    /// A unit of the endpoint with that index in the policy.
    Endpoint(usize),
    /// Nothing.
    Exempt,
}

/// Path templates and what they are billed to.
#[derive(Clone)]
pub(crate) struct PathTable {
    tree: Tree,
    /// What no template claims: the last index.
    default: usize,
}

impl PathTable {
    /// An empty table for a policy with that many named endpoints, whose indices come before the
    /// default's.
    pub(crate) fn new(named: usize) -> Self {
        Self { tree: Tree::default(), default: named }
    }

    pub(crate) fn insert(&mut self, template: &str, billing: Billing) -> Result<(), TemplateError> {
        template::check(template)?;
        self.tree.insert(template, billing).map_err(TemplateError::Conflict)
    }

    pub(crate) fn bill(&self, path: &str) -> Billing {
        if is_plain(path.as_bytes()) { self.route(path.as_bytes()) } else { self.bill_odd(path) }
    }

    /// All templates, and what they are billed to.
    pub(crate) fn templates(&self) -> Vec<(&str, Billing)> {
        self.tree.templates()
    }

    pub(crate) fn exempts(&self, path: &str) -> bool {
        // The path as it is written is one of its readings, and all of them have to be exempt.
        self.route(path.as_bytes()) == Billing::Exempt && self.bill(path) == Billing::Exempt
    }

    fn route(&self, path: &[u8]) -> Billing {
        self.tree.find(path).unwrap_or(Billing::Endpoint(self.default))
    }

    #[cold]
    fn bill_odd(&self, path: &str) -> Billing {
        // `*` and what is left of an authority: no template can match.
        if !path.starts_with('/') {
            return Billing::Endpoint(self.default);
        }
        // Spending time in proportion to what a stranger sends is a gift to him; a wrong guess
        // costs him only his own.
        let narrowest = Billing::Endpoint(0);
        if path.len() > LONGEST_ODD_PATH {
            return narrowest;
        }
        let Some(readings) = readings::of(path.as_bytes()) else {
            return narrowest;
        };
        // Exempt only if every reading is: an odd spelling opens no gate. Nor does one that a
        // second server might decode once more, which is not read.
        let least =
            if path.contains("%25") { Billing::Endpoint(self.default) } else { Billing::Exempt };
        readings.iter().map(|reading| self.bill_reading(reading)).fold(least, first)
    }

    /// Bills one reading, with and without its trailing slashes: some servers take them for
    /// nothing.
    fn bill_reading(&self, reading: &[u8]) -> Billing {
        let end = reading.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
        first(self.route(reading), self.route(reading.get(..end).unwrap_or_default()))
    }
}

/// The one that comes first in the policy.
fn first(a: Billing, b: Billing) -> Billing {
    match (a, b) {
        (Billing::Endpoint(a), Billing::Endpoint(b)) => Billing::Endpoint(a.min(b)),
        (billing, Billing::Exempt) | (Billing::Exempt, billing) => billing,
    }
}

/// Whether every server reads the path as it is written.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    let ([b'/', ..], [.., last]) = (path, path) else {
        return false;
    };
    if is_odd_byte(*last) || (*last == b'/' && path.len() > 1) {
        return false;
    }
    let Some(end) = path.last_chunk::<17>() else {
        return path.windows(2).all(|pair| !is_odd(pair[0], pair[1]));
    };
    // Sixteen bytes at a time, each with the one that follows it. No early exit and a lane for
    // each, or else the compiler takes them one by one; and the end once more for the same
    // reason.
    let mut odd = [0; 16];
    let mut look = |window: &[u8; 17]| {
        for at in 0..16 {
            odd[at] |= u8::from(is_odd(window[at], window[at + 1]));
        }
    };
    let mut from = 0;
    while let Some(window) = path[from..].first_chunk() {
        look(window);
        from += 16;
    }
    look(end);
    odd == [0; 16]
}

/// Whether a byte, or the pair that it makes with the next, is one that servers differ about.
#[inline]
fn is_odd(byte: u8, next: u8) -> bool {
    is_odd_byte(byte) | ((byte == b'/') & ((next == b'/') | (next == b'.')))
}

#[inline]
fn is_odd_byte(byte: u8) -> bool {
    // Not `matches!`, which becomes a table of bits, one look-up for each byte.
    (byte <= b' ')
        | (byte == b'#')
        | (byte == b'%')
        | (byte == b';')
        | (byte == b'?')
        | (byte == b'\\')
        | (byte == 0x7f)
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn plain_paths_are_those_that_every_server_reads_alike() {
        for path in [
            "/",
            "/call",
            "/v2/agent/5bc97541/executions",
            "/a:b",
            "/call...",
            "/a.b",
            "/+",
            "/caf\u{e9}",
        ] {
            assert!(is_plain(path.as_bytes()), "{path} is plain");
        }
        let odd = [
            "",
            "*",
            "call",
            "/%63all",
            "//call",
            "/call/",
            "/./call",
            "/../call",
            "/.call",
            "/call;a",
            "/call\\",
            "/call ",
            "/call\n",
            "/call\u{7f}",
            "/call?",
            "/call#",
            "/a//b",
        ];
        for path in odd {
            assert!(!is_plain(path.as_bytes()), "{path} is odd");
        }
    }
}
