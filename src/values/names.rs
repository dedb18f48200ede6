//! Names that are stored once each and never freed.

use std::error::Error;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// A name. Its address and its number stay the same until the process ends.
pub(super) struct Interned {
    pub(super) text: &'static str,
    pub(super) number: u16,
}

/// All names of one sort, such as the names of endpoints.
pub(super) struct Interner {
    /// The names that the crate defines.
    known: &'static [&'static Interned],
    /// The names that were added.
    more: RwLock<Vec<&'static Interned>>,
    max: usize,
}

impl Interner {
    /// `known` are numbered from 0 on, in their order. At most `max` names are stored.
    pub(super) const fn new(known: &'static [&'static Interned], max: usize) -> Self {
        Self { known, more: RwLock::new(Vec::new()), max }
    }

    /// Finds the name, or adds it.
    ///
    /// # Errors
    /// If the text is not a valid name, or if it is new and there are `max` names already.
    pub(super) fn get(&self, text: &str) -> Result<&'static Interned, NameError> {
        if let Some(known) = find(self.known, text) {
            return Ok(known);
        }
        if !is_name(text) {
            return Err(NameError { name: text.to_owned(), max: None });
        }
        self.intern(text)
    }

    /// Finds a name.
    pub(super) fn known(&self, text: &str) -> Option<&'static Interned> {
        if let Some(known) = find(self.known, text) {
            return Some(known);
        }
        let more = self.more.read().unwrap_or_else(PoisonError::into_inner);
        find(&more, text).filter(|_| is_name(text))
    }

    /// Finds or adds a text that need not be a valid name.
    ///
    /// # Errors
    /// If the text is new and there are `max` names already.
    pub(super) fn intern(&self, text: &str) -> Result<&'static Interned, NameError> {
        // A panic can't leave the list broken, since it only grows by one finished element at a
        // time. So a poisoned lock does no harm.
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
        let name: &'static Interned =
            Box::leak(Box::new(Interned { text: Box::leak(text.into()), number }));
        more.push(name);
        Ok(name)
    }
}

fn find(names: &[&'static Interned], text: &str) -> Option<&'static Interned> {
    names.iter().copied().find(|name| name.text == text)
}

/// Whether a text is a valid name: one that needs no escaping in a header field, a key or a metric
/// label.
fn is_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(ok)
}

/// Why a text can't be the name of an [`Endpoint`](super::Endpoint) or a [`Kind`](super::Kind).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    name: String,
    /// The most names that there can be, if the name was refused because there are as many.
    max: Option<usize>,
}

impl NameError {
    /// The text that can't be a name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the text is a valid name, but the process has as many names as it can have.
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
