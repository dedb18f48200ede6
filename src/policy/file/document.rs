//! What is written in a file, whatever its format: values, and where each of them stands.

use std::fmt;

/// How deep a policy nests: a table, its list of endpoints, one of them, its list of paths. What is
/// deeper is no setting, and not looked at.
pub(super) const DEPTH: usize = 4;

/// A value, and the byte at which it begins.
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    Text(String),
    Whole(u64),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// What no setting is, as an error shows it.
    Other(String),
}

/// A key with its value, and the byte at which the key begins.
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

/// A mistake, and the byte at which it is.
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// As an error shows it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Whole(number) => number.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
