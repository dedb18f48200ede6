//! Names that are kept for the life of the process, each once.

use std::error::Error;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// A name has one address and one number for as long as the process lives.
pub(super) struct Name {
    pub(super) text: &'static str,
    pub(super) number: u16,
}

/// All names of one sort: those that the crate brings, and those that were asked for.
pub(super) struct Names {
    known: &'static [&'static Name],
    more: RwLock<Vec<&'static Name>>,
    max: usize,
}

impl Names {
    /// `known` are numbered from 0 on, in their order.
    pub(super) const fn new(known: &'static [&'static Name], max: usize) -> Self {
        Self { known, more: RwLock::new(Vec::new()), max }
    }

    /// The name, which is made unless it is there.
    pub(super) fn get(&self, text: &str) -> Result<&'static Name, NameError> {
        if let Some(known) = find(self.known, text) {
            return Ok(known);
        }
        if !is_name(text) {
            return Err(NameError { name: text.to_owned(), max: None });
        }
        self.intern(text)
    }

    /// The same for a text that need not follow the rule for names.
    pub(super) fn intern(&self, text: &str) -> Result<&'static Name, NameError> {
        // The list only ever grows by one finished element, so a poisoned lock guards nothing
        // broken.
        if let Some(name) = find(&self.more.read().unwrap_or_else(PoisonError::into_inner), text) {
            return Ok(name);
        }
        let mut more = self.more.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = find(&more, text) {
            return Ok(name);
        }
        let number = self.known.len() + more.len();
        let number = u16::try_from(number).ok().filter(|_| number < self.max);
        let number =
            number.ok_or_else(|| NameError { name: text.to_owned(), max: Some(self.max) })?;
        let name: &'static Name =
            Box::leak(Box::new(Name { text: Box::leak(text.into()), number }));
        more.push(name);
        Ok(name)
    }
}

fn find(names: &[&'static Name], text: &str) -> Option<&'static Name> {
    names.iter().copied().find(|name| name.text == text)
}

/// A name can stand in a header field, a key and a metric's label as it is.
fn is_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(ok)
}

/// Why a text can't be the name of an [`Endpoint`](super::Endpoint) or a [`Kind`](super::Kind).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    name: String,
    /// How many names there can be, if there are as many already.
    max: Option<usize>,
}

impl NameError {
    /// The text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the text would be a name, but the process has as many as it can have.
    #[must_use]
    pub const fn is_one_too_many(&self) -> bool {
        self.max.is_some()
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            None => write!(
                f,
                "name {:?}: a name is 1 to 64 characters of A-Z, a-z, 0-9, `_`, `.` and `-`",
                self.name,
            ),
            Some(max) => write!(
                f,
                "name {:?}: the process has {max} distinct names already, which is the most",
                self.name,
            ),
        }
    }
}

impl Error for NameError {}
