//! Which endpoint a path is charged to.
//!
//! A *plain* path has one reading: every server routes it as it is written. Nearly all paths are
//! plain, and they are matched without an allocation. Any other path is *odd*: `/%63all`, `//call`
//! and `/x/..;/call` reach the handler of `/call` on one server or another. An odd path is read in
//! every way in which a common server might read it. It is charged to the first endpoint of the
//! policy that one of its readings reaches. `default` comes last, so no spelling of a path escapes
//! to the higher limit of `default`.

mod readings;
mod template;
mod tree;

use tree::{Tree, TreeBuilder};

pub use template::TemplateError;

/// The length, in bytes, of the longest odd path that is read. A longer one is charged to the first
/// endpoint of the policy.
pub(crate) const LONGEST_ODD_PATH: usize = 512;

/// What a request to a path costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Billing {
    /// A unit of the endpoint with that index in the policy.
    Endpoint(usize),
    /// Nothing.
    Exempt,
}

/// What a request to a path is charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Charged {
    /// Nothing.
    Exempt,
    /// The endpoint with that index in the policy.
    One(usize),
    /// Several endpoints, since servers read the path differently.
    Several(Endpoints),
    /// More endpoints than one charge can have.
    TooMany,
}

/// The indices of distinct endpoints in the policy, at least two and at most [`MOST_ENDPOINTS`].
/// The endpoint of the path as it is written comes first, the others in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    indices: [usize; MOST_ENDPOINTS],
    len: usize,
}

/// The most endpoints that a path is charged to. A charge has no more entries.
pub(crate) const MOST_ENDPOINTS: usize = 16;

impl Endpoints {
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.indices[..self.len]
    }
}

/// Path templates, and what each of them is charged to.
#[derive(Clone)]
pub(crate) struct PathTable {
    tree: Tree,
    /// The index of the endpoint for paths that no template matches. It is the last one.
    default: usize,
}

/// Path templates that are being checked.
pub(crate) struct PathTableBuilder<'a> {
    tree: TreeBuilder<'a>,
}

impl<'a> PathTableBuilder<'a> {
    pub(crate) fn new() -> Self {
        Self { tree: TreeBuilder::new() }
    }

    pub(crate) fn insert(
        &mut self,
        template: &'a str,
        billing: Billing,
    ) -> Result<(), TemplateError> {
        template::check(template)?;
        self.tree.insert(template, billing).map_err(TemplateError::Conflict)
    }

    /// The table. `default` is the index of the endpoint for paths that no template matches. It is
    /// the last one.
    pub(crate) fn build(self, default: usize) -> PathTable {
        PathTable { tree: self.tree.build(), default }
    }
}

impl PathTable {
    pub(crate) fn bill(&self, path: &str) -> Billing {
        if is_plain(path.as_bytes()) { self.route(path.as_bytes()) } else { self.bill_odd(path) }
    }

    /// The endpoints that the path is charged to.
    #[inline]
    pub(crate) fn charged(&self, path: &str) -> Charged {
        if is_plain(path.as_bytes()) {
            return match self.route(path.as_bytes()) {
                Billing::Endpoint(index) => Charged::One(index),
                Billing::Exempt => Charged::Exempt,
            };
        }
        self.charged_odd(path)
    }

    #[cold]
    fn charged_odd(&self, path: &str) -> Charged {
        let mut all: Vec<Billing> = match readings::of(path.as_bytes()) {
            Some(readings) => readings.iter().map(|reading| self.bill_reading(reading)).collect(),
            None => (0..=self.default).map(Billing::Endpoint).collect(),
        };
        all.sort_unstable();
        all.dedup();
        let mut indices = [0; MOST_ENDPOINTS];
        let mut len = 0;
        for billing in all {
            if let Billing::Endpoint(index) = billing {
                if len == MOST_ENDPOINTS {
                    return Charged::TooMany;
                }
                indices[len] = index;
                len += 1;
            }
        }
        match len {
            0 => Charged::Exempt,
            1 => Charged::One(indices[0]),
            _ => {
                if let Billing::Endpoint(written) = self.route(path.as_bytes()) {
                    if let Some(at) = indices[..len].iter().position(|index| *index == written) {
                        indices[..=at].rotate_right(1);
                    }
                }
                Charged::Several(Endpoints { indices, len })
            }
        }
    }

    /// All templates, and what each of them is charged to.
    pub(crate) fn templates(&self) -> Vec<(&str, Billing)> {
        self.tree.templates()
    }

    pub(crate) fn exempts(&self, path: &str) -> bool {
        // The path as it is written is one of the readings, and all readings have to be exempt. So
        // the first test is enough for a path that is not.
        self.route(path.as_bytes()) == Billing::Exempt && self.bill(path) == Billing::Exempt
    }

    fn route(&self, path: &[u8]) -> Billing {
        self.tree.find(path).unwrap_or(Billing::Endpoint(self.default))
    }

    #[cold]
    fn bill_odd(&self, path: &str) -> Billing {
        // `*`, or what is left of an authority. No template can match it.
        if !path.starts_with('/') {
            return Billing::Endpoint(self.default);
        }
        // Reading a long or very ambiguous path would let callers use up processor time at will. If
        // charging it to the first endpoint is wrong, only the caller that sent it is affected.
        let narrowest = Billing::Endpoint(0);
        if path.len() > LONGEST_ODD_PATH {
            return narrowest;
        }
        let Some(readings) = readings::of(path.as_bytes()) else {
            return narrowest;
        };
        // A path is exempt only if every reading is, so no odd spelling gets around the limiter. A
        // path with `%25` is never exempt: a second server might decode it once more, and that
        // reading is not among these.
        let least =
            if path.contains("%25") { Billing::Endpoint(self.default) } else { Billing::Exempt };
        readings.iter().map(|reading| self.bill_reading(reading)).fold(least, first)
    }

    /// What one reading is charged to. It is looked up with and without its trailing slashes, which
    /// some servers ignore.
    fn bill_reading(&self, reading: &[u8]) -> Billing {
        let end = reading.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
        first(self.route(reading), self.route(reading.get(..end).unwrap_or_default()))
    }
}

/// The endpoint that comes first in the policy. An exemption comes after all endpoints.
fn first(a: Billing, b: Billing) -> Billing {
    match (a, b) {
        (Billing::Endpoint(a), Billing::Endpoint(b)) => Billing::Endpoint(a.min(b)),
        (billing, Billing::Exempt) | (Billing::Exempt, billing) => billing,
    }
}

/// Whether a path is plain: whether every server reads it as it is written.
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
    // This looks at sixteen bytes at a time, each with the byte that follows it. For the compiler
    // to use vector instructions, there is no early exit, each byte of the window has its own
    // result, and the last window overlaps the one before it.
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

/// Whether servers differ about a byte, or about the pair that it forms with the next byte.
#[inline]
fn is_odd(byte: u8, next: u8) -> bool {
    is_odd_byte(byte) | ((byte == b'/') & ((next == b'/') | (next == b'.')))
}

#[inline]
fn is_odd_byte(byte: u8) -> bool {
    // Not `matches!`: the compiler turns it into a table look-up for each byte.
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
