//! The contents of a file in either format: values, and the position of each of them.

use std::fmt;

use crate::values::Excerpt;

/// How deep a policy nests: the table of the policy, its list of endpoints, the table of one
/// endpoint, its list of further limits, and the table of one limit. Deeper values are not settings
/// and are not looked at.
pub(super) const DEPTH: usize = 5;

/// A value, and the byte of the document at which it begins.
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    Text(String),
    Whole(u64),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// A value of a type that no setting has, as the text that an error shows.
    Other(String),
}

impl Value {
    pub(super) fn other(written: &str) -> Self {
        Self::Other(Excerpt::of(written).to_string())
    }
}

/// A key with its value, and the byte of the document at which the key begins.
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

/// A mistake, and the byte of the document at which it is.
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// The text that an error shows.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{:?}", Excerpt::of(text)),
            Self::Whole(number) => number.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
