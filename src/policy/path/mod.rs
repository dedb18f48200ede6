//! Which endpoints a path is charged to.
//!
//! A *plain* path has one reading: every server routes it as it is written. Nearly all paths are
//! plain, and they are matched without an allocation. Any other path is *odd*: `/%63all`, `//call`
//! and `/x/..;/call` reach the handler of `/call` on one server or another. An odd path is read in
//! every way in which a common server might read it, and is charged to each endpoint that one of
//! its readings reaches. So a caller who chooses a spelling is charged to more endpoints, never to
//! fewer.
//!
//! A path with bytes that are not ASCII is read like an odd one, which takes longer. It is charged
//! to no more endpoints for that, unless `Spelling::Capitals` takes a character of it for an ASCII
//! letter.

mod escape;
mod lookalike;
mod odd;
mod set;
mod spelling;
mod template;
#[cfg(test)]
mod tests;
mod tree;

use crate::values::Charge;

use tree::{Tree, TreeBuilder};

pub(crate) use lookalike::Prefix;
pub(crate) use spelling::Spellings;
pub(crate) use tree::Overlaps;

pub use spelling::Spelling;
pub use template::TemplateError;

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
    /// More endpoints than a charge has entries. Every endpoint of the policy counts as reached.
    /// The index is that of the path as it is written, or of `default` if that is exempt.
    TooMany(usize),
}

/// The indices of distinct endpoints in the policy, at least two and at most [`MOST_ENDPOINTS`].
/// The endpoint of the path as it is written comes first, the others in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    indices: [usize; MOST_ENDPOINTS],
    len: usize,
}

/// The most endpoints that a path is charged to.
const MOST_ENDPOINTS: usize = Charge::MAX_ENTRIES;

impl Endpoints {
    const NONE: Self = Self { indices: [0; MOST_ENDPOINTS], len: 0 };

    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.indices[..self.len]
    }
}

/// Path templates, and what each of them is charged to.
#[derive(Clone)]
pub(crate) struct PathTable {
    tree: Tree,
    spellings: Spellings,
    prefixes: Vec<Box<str>>,
    /// The endpoint for paths that no template matches, which is the last one. Or nothing, for odd
    /// and malformed paths too.
    default: Billing,
}

/// Path templates that are being checked.
pub(crate) struct PathTableBuilder<'a> {
    tree: TreeBuilder<'a>,
    prefixes: Vec<Box<str>>,
}

impl<'a> PathTableBuilder<'a> {
    pub(crate) fn new() -> Self {
        Self { tree: TreeBuilder::new(), prefixes: Vec::new() }
    }

    pub(crate) fn insert(
        &mut self,
        template: &'a str,
        billing: Billing,
    ) -> Result<(), TemplateError> {
        template::check(template)?;
        self.tree.insert(template, billing).map_err(TemplateError::Conflict)
    }

    /// Adds a prefix that the application strips before it routes.
    pub(crate) fn insert_prefix(&mut self, template: &'a str) -> Result<(), TemplateError> {
        template::check_prefix(template)?;
        self.tree.insert_prefix(template);
        self.prefixes.push(template.into());
        Ok(())
    }

    /// The table. `default` is the index of the endpoint for paths that no template matches. It is
    /// the last one.
    ///
    /// # Errors
    /// If the templates overlap in too many ways.
    pub(crate) fn build(self, default: usize, spellings: Spellings) -> Result<PathTable, Overlaps> {
        let tree = self.tree.build(Billing::Endpoint(default))?;
        let mut prefixes = self.prefixes;
        prefixes.sort_unstable();
        prefixes.dedup();
        Ok(PathTable { tree, spellings, prefixes, default: Billing::Endpoint(default) })
    }
}

impl PathTable {
    /// A table of which all paths are exempt, however they are spelled.
    pub(crate) fn exempt() -> Self {
        let default = Billing::Exempt;
        let tree = TreeBuilder::new().build(default).expect("no template can overlap another");
        Self { tree, spellings: Spellings::ALL, prefixes: Vec::new(), default }
    }

    /// The endpoints that the path is charged to.
    #[inline]
    pub(crate) fn charged(&self, path: &str) -> Charged {
        match self.plain(path) {
            Some(Billing::Endpoint(index)) => Charged::One(index),
            Some(Billing::Exempt) => Charged::Exempt,
            None => self.charged_odd(path),
        }
    }

    /// What a path is charged to that every server reads alike.
    #[inline]
    fn plain(&self, path: &str) -> Option<Billing> {
        let path = path.as_bytes();
        if is_plain(path) { self.tree.find(path) } else { None }
    }

    /// All templates, and what each of them is charged to.
    pub(crate) fn templates(&self) -> Vec<(&str, Billing)> {
        self.tree.templates()
    }

    /// Whether paths are read in the same ways: without the same prefixes, by the same spellings.
    pub(crate) fn reads_like(&self, other: &Self) -> bool {
        self.spellings == other.spellings && self.prefixes == other.prefixes
    }

    /// Whether the path is exempt. For a path that is not, this is cheaper than to find out what it
    /// is charged to.
    pub(crate) fn exempts(&self, path: &str) -> bool {
        self.written(path.as_bytes()) == Billing::Exempt && self.charged(path) == Charged::Exempt
    }

    /// What the path is charged to as it is written.
    fn written(&self, path: &[u8]) -> Billing {
        // `OPTIONS *` and `CONNECT host:port` have no path that begins with a slash.
        let is_path = path.first() == Some(&b'/');
        if is_path { self.tree.written(path) } else { self.default }
    }

    #[inline(never)]
    fn charged_odd(&self, path: &str) -> Charged {
        let Billing::Endpoint(default) = self.default else { return Charged::Exempt };
        let path = path.as_bytes();
        if path.first() != Some(&b'/') {
            return Charged::One(default);
        }
        let written = self.written(path);
        let reached = odd::read(&self.tree, self.spellings, path);
        let mut endpoints = reached.endpoints;
        if reached.is_beyond && !(0..=default).all(|index| endpoints.push(index)) {
            return Charged::TooMany(match written {
                Billing::Endpoint(index) => index,
                Billing::Exempt => default,
            });
        }
        if endpoints.len == 0 {
            // A path is exempt only if it is exempt as it is written and in every reading, and if
            // nothing in it is malformed.
            let is_exempt = written == Billing::Exempt && !reached.is_malformed;
            return if is_exempt { Charged::Exempt } else { Charged::One(default) };
        }
        endpoints.begin_with(written, || {
            let end = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
            self.written(&path[..end])
        });
        match endpoints.as_slice() {
            [one] => Charged::One(*one),
            _ => Charged::Several(endpoints),
        }
    }
}

impl Endpoints {
    /// Adds an index, unless it is there already. `false` if there is no room for it.
    fn push(&mut self, index: usize) -> bool {
        if self.as_slice().contains(&index) {
            return true;
        }
        let place = self.indices.get_mut(self.len);
        place.map(|place| *place = index).map(|()| self.len += 1).is_some()
    }

    /// Sorts the indices, but puts that of the path as it is written first: with its slash at the
    /// end, or else without it.
    fn begin_with(&mut self, written: Billing, without_slash: impl FnOnce() -> Billing) {
        self.indices[..self.len].sort_unstable();
        let find = |billing: Billing| match billing {
            Billing::Endpoint(index) => self.as_slice().iter().position(|it| *it == index),
            Billing::Exempt => None,
        };
        if let Some(at) = find(written).or_else(|| find(without_slash())) {
            self.indices[..=at].rotate_right(1);
        }
    }
}

/// Whether a path is ASCII and has no byte that servers differ about, whatever the templates are.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    let ([b'/', ..], [.., last]) = (path, path) else {
        return false;
    };
    if is_odd_byte(*last) || *last >= 0x80 || (*last == b'/' && path.len() > 1) {
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
    is_odd_byte(byte) | (byte >= 0x80) | ((byte == b'/') & ((next == b'/') | (next == b'.')))
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
