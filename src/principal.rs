//! Who pays for a request.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str;
use std::sync::Arc;

/// Who a request is billed to.
///
/// An organization and a user with the same id are different principals. Cheap to clone, to hash
/// and to compare.
///
/// ```
/// use bolna_rate_limit::Principal;
///
/// let organization = Principal::organization("4").expect("not empty");
/// assert_ne!(Some(organization), Principal::user("4"));
/// assert_eq!(Principal::user(""), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An organization: all its users share its buckets.
    Organization(Id),
    /// A user who belongs to no organization.
    User(Id),
}

impl Principal {
    /// The organization with that id, or `None` if the id is empty.
    #[must_use]
    pub fn organization(id: impl AsRef<str>) -> Option<Self> {
        Id::new(id).map(Self::Organization)
    }

    /// The user with that id, or `None` if the id is empty.
    #[must_use]
    pub fn user(id: impl AsRef<str>) -> Option<Self> {
        Id::new(id).map(Self::User)
    }

    /// The id, without what it is an id of.
    #[must_use]
    pub const fn id(&self) -> &Id {
        match self {
            Self::Organization(id) | Self::User(id) => id,
        }
    }
}

/// `organization org-4` or `user u-17`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(id) => write!(f, "organization {id}"),
            Self::User(id) => write!(f, "user {id}"),
        }
    }
}

/// The id of an organization or a user: any text but the empty one, which would be a bucket that
/// strangers share.
///
/// Up to [`Id::INLINE`] bytes, so a UUID in its usual spelling too, are held in place; a longer id
/// is allocated once and shared by its clones. Ids are compared byte for byte: `A` and `a` are two.
#[derive(Clone)]
pub struct Id(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; Id::INLINE] },
    Shared(Arc<[u8]>),
}

impl Id {
    /// The longest id, in bytes, that needs no allocation.
    pub const INLINE: usize = 36;

    /// The id, or `None` if it is empty.
    #[must_use]
    pub fn new(id: impl AsRef<str>) -> Option<Self> {
        let id = id.as_ref().as_bytes();
        if id.is_empty() {
            return None;
        }
        let mut bytes = [0; Self::INLINE];
        Some(Self(match (u8::try_from(id.len()), bytes.get_mut(..id.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(id);
                Repr::Inline { len, bytes }
            }
            _ => Repr::Shared(id.into()),
        }))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Made from a `str` and never cut, so it is UTF-8.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id as bytes of UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl Id {
    /// The allocation of an id that is longer than [`INLINE`](Self::INLINE).
    pub(crate) fn shared(&self) -> Option<&Arc<[u8]>> {
        match &self.0 {
            Repr::Inline { .. } => None,
            Repr::Shared(bytes) => Some(bytes),
        }
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
