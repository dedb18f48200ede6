//! Names that are stored once each and never freed.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::excerpt::Excerpt;

/// A name. Its address and its number stay the same until the process ends.
pub(super) struct Interned {
    pub(super) text: &'static str,
    pub(super) number: u16,
    /// A hash of the text. Unlike the number, it is the same in every process.
    pub(super) hash: u64,
}

impl Interned {
    pub(super) const fn new(text: &'static str, number: u16) -> Self {
        Self { text, number, hash: hash(text) }
    }
}

/// All names of one sort, such as the names of endpoints.
pub(super) struct Interner {
    /// The names that the crate defines.
    known: &'static [&'static Interned],
    /// The names that were added.
    more: RwLock<Names>,
    max: usize,
}

struct Names {
    by_text: BTreeMap<&'static str, &'static Interned>,
    by_hash: BTreeMap<u64, &'static str>,
}

impl Interner {
    /// `known` are numbered from 0 on, in their order. At most `max` names are stored.
    pub(super) const fn new(known: &'static [&'static Interned], max: usize) -> Self {
        Self {
            known,
            more: RwLock::new(Names { by_text: BTreeMap::new(), by_hash: BTreeMap::new() }),
            max,
        }
    }

    /// Finds the name, or adds it.
    ///
    /// # Errors
    /// If the text is not a valid name, or if it is new and there are `max` names already or one
    /// with the same hash.
    pub(super) fn get(&self, text: &str) -> Result<&'static Interned, NameError> {
        if let Some(known) = self.find_known(text) {
            return Ok(known);
        }
        check(text)?;
        self.intern(text)
    }

    /// Finds the names, and adds those that are new: all of them or, if there is no room for all,
    /// none. The texts are valid names, and no two are the same.
    ///
    /// # Errors
    /// If there would be more than `max` names. The error is about the first that has no room.
    pub(super) fn get_all(&self, texts: &[&str]) -> Result<Vec<&'static Interned>, NameError> {
        let mut more = self.write();
        let is_new = |text: &&&str| self.find(&more, text).is_none();
        if let Some(text) = texts.iter().filter(is_new).nth(self.room(&more)) {
            return Err(NameError::one_too_many(text, self.max));
        }
        let mut hashes = BTreeMap::new();
        for text in texts.iter().filter(is_new) {
            let twin = self.find_twin(&more, text);
            if let Some(twin) = twin.or_else(|| hashes.insert(hash(text), *text)) {
                return Err(NameError::same_hash(text, twin));
            }
        }
        texts.iter().map(|text| self.find_or_add(&mut more, text)).collect()
    }

    /// Finds a name.
    pub(super) fn known(&self, text: &str) -> Option<&'static Interned> {
        let more = || self.read().by_text.get(text).copied().filter(|_| is_name(text));
        self.find_known(text).or_else(more)
    }

    /// The name of that number. Of names that were added, it looks at all.
    pub(super) fn numbered(&self, number: u16) -> Option<&'static Interned> {
        let more = || self.read().by_text.values().copied().find(|name| name.number == number);
        self.known.get(usize::from(number)).copied().or_else(more)
    }

    /// Finds or adds a text that need not be a valid name.
    ///
    /// # Errors
    /// If the text is new and there are `max` names already, or one with the same hash.
    pub(super) fn intern(&self, text: &str) -> Result<&'static Interned, NameError> {
        if let Some(name) = self.find(&self.read(), text) {
            return Ok(name);
        }
        self.find_or_add(&mut self.write(), text)
    }

    fn find_or_add(&self, more: &mut Names, text: &str) -> Result<&'static Interned, NameError> {
        if let Some(name) = self.find(more, text) {
            return Ok(name);
        }
        let number = u16::try_from(self.known.len() + more.by_text.len());
        let number = number.ok().filter(|_| self.room(more) > 0);
        let number = number.ok_or_else(|| NameError::one_too_many(text, self.max))?;
        if let Some(twin) = self.find_twin(more, text) {
            return Err(NameError::same_hash(text, twin));
        }
        let text: &'static str = Box::leak(text.into());
        let name: &'static Interned = Box::leak(Box::new(Interned::new(text, number)));
        more.by_text.insert(text, name);
        more.by_hash.insert(name.hash, text);
        Ok(name)
    }

    fn find(&self, more: &Names, text: &str) -> Option<&'static Interned> {
        self.find_known(text).or_else(|| more.by_text.get(text).copied())
    }

    /// Another name with the same hash. Buckets of the two could not be told apart.
    fn find_twin(&self, more: &Names, text: &str) -> Option<&'static str> {
        let hash = hash(text);
        let known = self.known.iter().find(|name| name.hash == hash).map(|name| name.text);
        known.or_else(|| more.by_hash.get(&hash).copied()).filter(|twin| *twin != text)
    }

    fn find_known(&self, text: &str) -> Option<&'static Interned> {
        self.known.iter().copied().find(|name| name.text == text)
    }

    /// The number of names that can still be added.
    fn room(&self, more: &Names) -> usize {
        self.max.saturating_sub(self.known.len() + more.by_text.len())
    }

    // While the names are locked nothing can panic, so a poisoned lock does no harm.
    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.more.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Names> {
        self.more.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a name: FNV-1a, and the last steps of `MurmurHash3`, so that each bit depends on the
/// whole text. Any two of 16,384 names have the same with a chance of 2^-37. It is easy to
/// find names that have, so the second one of such a pair is an error.
///
/// It is part of the format of snapshots, so it never changes.
const fn hash(text: &str) -> u64 {
    let (mut hash, bytes, mut index) = (0xcbf2_9ce4_8422_2325_u64, text.as_bytes(), 0);
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x100_0000_01b3);
        index += 1;
    }
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// Checks that a text is a valid name.
///
/// # Errors
/// If it is not.
pub(super) fn check(text: &str) -> Result<(), NameError> {
    if is_name(text) { Ok(()) } else { Err(NameError::new(text, Why::Invalid)) }
}

/// Whether a text is a valid name: one that needs no escaping in a header field, a key or a metric
/// label.
fn is_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(ok)
}

/// Why a text can't be the name of an [`Endpoint`](super::Endpoint), of a [`Limit`](super::Limit)
/// or of a [`Kind`](super::Kind).
///
/// ```
/// use bolna_rate_limit::Endpoint;
///
/// let error = Endpoint::new("outbound calls").unwrap_err();
/// let text = r#"name "outbound calls": a name is 1 to 64 characters of A-Z, a-z, 0-9, `_`"#;
/// assert!(error.to_string().starts_with(text));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    /// The text, or the beginning of it.
    name: String,
    is_cut: bool,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// It is not a valid name.
    Invalid,
    /// It would be one more than so many.
    OneTooMany(usize),
    /// That name has the same hash.
    SameHash(String),
}

impl NameError {
    fn new(name: &str, why: Why) -> Self {
        let excerpt = Excerpt::of(name);
        Self { name: excerpt.text().to_owned(), is_cut: excerpt.is_cut(), why }
    }

    fn one_too_many(name: &str, max: usize) -> Self {
        Self::new(name, Why::OneTooMany(max))
    }

    fn same_hash(name: &str, other: &str) -> Self {
        Self::new(name, Why::SameHash(other.to_owned()))
    }

    /// The text that can't be a name, or the first 100 characters of it if it is longer.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the text is a valid name, but would be one more than the process can have.
    #[must_use]
    pub const fn is_one_too_many(&self) -> bool {
        matches!(self.why, Why::OneTooMany(_))
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Excerpt::from_parts(&self.name, self.is_cut);
        match &self.why {
            Why::Invalid => write!(
                f,
                "name {name:?}: a name is 1 to 64 characters of A-Z, a-z, 0-9, `_`, `.` and `-`"
            ),
            Why::OneTooMany(max) => write!(
                f,
                "name {name:?}: it would be one more than the {max} distinct names that a process \
                 can have"
            ),
            Why::SameHash(other) => write!(
                f,
                "name {name:?}: it has the same hash as the name {other:?}, and the buckets of the \
                 two could not be told apart; choose another name"
            ),
        }
    }
}

impl Error for NameError {}

/// The traits of a type that is a pointer to an interned name: `new`, `known` and `name` have to be
/// there.
macro_rules! interned_name {
    ($name:ident) => {
        // A name is stored once, so two are equal if they have the same address.
        impl PartialEq for $name {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                std::ptr::eq(self.0, other.0)
            }
        }

        impl Eq for $name {}

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                std::ptr::hash(self.0, state);
            }
        }

        /// Ordered by the texts of the names.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.name().cmp(other.name())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.name()
            }
        }

        /// The same as `new`, so it may make a name. For names from outside, use `known`.
        impl std::str::FromStr for $name {
            type Err = crate::values::NameError;

            fn from_str(name: &str) -> Result<Self, crate::values::NameError> {
                Self::new(name)
            }
        }

        /// The same as `new`, so it may make a name. For names from outside, use `known`.
        impl TryFrom<&str> for $name {
            type Error = crate::values::NameError;

            fn try_from(name: &str) -> Result<Self, crate::values::NameError> {
                Self::new(name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.name())
            }
        }
    };
}

pub(super) use interned_name;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Interner, hash};

    #[test]
    fn the_second_of_two_names_with_the_same_hash_is_an_error() {
        let pair = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];
        assert_eq!(hash(pair[0]), hash(pair[1]));
        static NAMES: Interner = Interner::new(&[], 10);
        // Of names that are added together, none is added.
        let error = NAMES.get_all(&["fine", pair[0], pair[1]]).err().expect("a name is refused");
        assert!(error.to_string().contains("the same hash as the name \"8yn0"), "{error}");
        assert!(NAMES.known("fine").is_none() && NAMES.known(pair[0]).is_none());
        for _ in 0..2 {
            assert!(NAMES.get(pair[1]).is_ok());
            let error = NAMES.get(pair[0]).err().expect("the name is refused");
            assert!(error.to_string().contains("the same hash as the name \"GReL"), "{error}");
            assert!(!error.is_one_too_many());
            assert!(NAMES.get_all(&[pair[0]]).is_err());
        }
    }

    #[test]
    fn a_name_has_the_same_hash_in_every_process_and_release() {
        assert_eq!(hash("call"), 0xf4ca_e1f3_62b1_5fa3);
        assert_eq!(hash("~everyone"), 0xc205_5610_6514_bfad);
    }

    #[test]
    fn names_have_hashes_of_their_own() {
        let numbered = (0..16_384).map(|number| format!("limit-{number}"));
        let short = (b'a'..=b'z').flat_map(|first| {
            (b'0'..=b'z').map(move |second| [first, second].map(char::from).iter().collect())
        });
        let names: Vec<String> = numbered.chain(short).collect();
        let hashes: HashSet<_> = names.iter().map(|name| hash(name)).collect();
        assert_eq!(hashes.len(), names.len());
    }
}
