//! Who is billed for a request.

use std::cmp::Ordering;
use std::error::Error;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::{self, FromStr};
use std::sync::{Arc, LazyLock};

use super::fingerprint;
use super::names::{Interned, Interner, NameError, interned_name};

/// Who is billed for a request: a [`Kind`] and an [`Id`].
///
/// An organization and a user with the same id are different principals. Cheap to clone, to hash
/// and to compare.
///
/// ```
/// use bolna_rate_limit::Principal;
/// use bolna_rate_limit::values::Kind;
///
/// let organization = Principal::organization("4").expect("the id is not empty");
/// assert_ne!(Some(organization), Principal::user(4));
/// assert_eq!(Principal::user(""), None);
///
/// let key = Principal::new(Kind::new("api_key")?, "k-7").expect("the id is not empty");
/// assert_eq!(key.to_string(), "api_key k-7");
/// # Ok::<(), bolna_rate_limit::values::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    kind: Kind,
    id: Id,
}

impl Principal {
    /// The principal of that kind and id. `None` if the id is [empty or white space](Id), or there
    /// is none.
    #[must_use]
    pub fn new<M>(kind: Kind, id: impl IntoId<M>) -> Option<Self> {
        id.into_id().map(|id| Self { kind, id })
    }

    /// The organization with that id. `None` if the id is [empty or white space](Id), or there is
    /// none. All users of an organization share its buckets.
    #[must_use]
    pub fn organization<M>(id: impl IntoId<M>) -> Option<Self> {
        Self::new(Kind::ORGANIZATION, id)
    }

    /// The user with that id. `None` if the id is [empty or white space](Id), or there is none.
    #[must_use]
    pub fn user<M>(id: impl IntoId<M>) -> Option<Self> {
        Self::new(Kind::USER, id)
    }

    /// The user with an id of that text.
    pub(crate) fn of_user(id: IdText) -> Self {
        Self { kind: Kind::USER, id: Id::new_from(id) }
    }

    /// All accounts together. It owns the buckets of limits for everyone.
    pub(crate) fn everyone() -> &'static Self {
        static ALL: LazyLock<Principal> =
            LazyLock::new(|| Principal::new(Kind::EVERYONE, "all").expect("the id is not empty"));
        &ALL
    }

    /// The address of requests of which no address is known.
    pub(crate) fn unknown_address() -> &'static Self {
        static UNKNOWN: LazyLock<Principal> = LazyLock::new(|| {
            Principal::new(Kind::ADDRESS, "unknown").expect("the id is not empty")
        });
        &UNKNOWN
    }

    /// Whether this is [everyone](Self::everyone).
    #[cfg(feature = "redis")]
    pub(crate) fn is_everyone(&self) -> bool {
        self.kind == Kind::EVERYONE
    }

    /// The kind of the principal: what its id is an id of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The id, without the kind.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.id
    }
}

/// `organization org-4` or `user u-17`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// The kind of a principal: an organization, a user, an address, or a kind of your own.
///
/// A kind is one pointer, so it is cheap to copy and to compare. Its name is 1 to 64 characters of
/// `[A-Za-z0-9_.-]`. Names are never freed, and a process can have at most [`Kind::MAX`] of them.
/// A name is made by [`Kind::new`], which `parse` and `try_from` call. Reading a kind with `serde`
/// makes none.
///
/// ```
/// use bolna_rate_limit::values::Kind;
/// use bolna_rate_limit::{Account, Principal};
///
/// // Once, at the start:
/// let workspace = Kind::new("workspace")?;
///
/// // For each request:
/// let caller = Principal::new(workspace, "w-9").map(Account::from);
/// // A kind that a request of an administrator names:
/// assert_eq!(Kind::known("workspace"), Some(workspace));
/// assert_eq!(Kind::known("no-such-kind"), None);
/// # Ok::<(), bolna_rate_limit::values::NameError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Kind(&'static Interned);

impl Kind {
    /// An organization. All its users share its buckets.
    pub const ORGANIZATION: Self = Self(&ORGANIZATION);
    /// A user.
    pub const USER: Self = Self(&USER);
    /// A network address.
    pub const ADDRESS: Self = Self(&ADDRESS);

    /// All accounts together: the kind of the principal that owns the buckets of limits for
    /// [everyone](super::Scope::Everyone).
    const EVERYONE: Self = Self(&EVERYONE);

    /// The number of distinct kinds that a process can have: 256, including the three constants and
    /// one that the crate uses itself.
    pub const MAX: usize = 1 << 8;

    /// The kind of that name. This takes a lock, so call it once, at the start, and copy the kind.
    ///
    /// # Errors
    /// If the name is not 1 to 64 characters of `[A-Za-z0-9_.-]`, or if it is new and the process
    /// has [`MAX`](Self::MAX) kinds already.
    pub fn new(name: &str) -> Result<Self, NameError> {
        NAMES.get(name).map(Self)
    }

    /// The kind of that name, if it is one of the constants or [`new`](Self::new) has made it. For
    /// names that come from outside, since it makes none.
    #[must_use]
    pub fn known(name: &str) -> Option<Self> {
        NAMES.known(name).map(Self)
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.text
    }

    /// A hash of the name, the same in every process.
    #[inline]
    pub(crate) const fn hash(self) -> u64 {
        self.0.hash
    }
}

// Statics and not constants, because a static has one address: two kinds are equal if they have the
// same address.
static ORGANIZATION: Interned = Interned::new("organization", 0);
static USER: Interned = Interned::new("user", 1);
static ADDRESS: Interned = Interned::new("address", 2);
// No kind of a user's own has this name, since it is not a valid one.
static EVERYONE: Interned = Interned::new("~everyone", 3);

static NAMES: Interner = Interner::new(&[&ORGANIZATION, &USER, &ADDRESS, &EVERYONE], Kind::MAX);

interned_name!(Kind);

/// The id of a principal: any text that is not empty and not white space. A text of which
/// `str::trim` leaves nothing is no id, because all callers whose id is missing would share one
/// bucket. Other invisible characters do make an id, such as zero-width ones (U+200B, U+FEFF) and
/// U+0000.
///
/// Apart from that, an id is taken as it is: `acme` and ` acme` are different ids. Trim what comes
/// from a header field or a form before you make an id of it.
///
/// An id of up to [`Id::INLINE`] bytes, such as a UUID in its usual spelling, needs no allocation.
/// A longer id is allocated once and shared by its clones. Ids are compared byte for byte, so `A`
/// and `a` are different.
///
/// An id holds a fingerprint of 128 bits, by which a store in this process finds its buckets. It is
/// computed when the id is made, which takes some 20 ns, and copied by clones. So a service that
/// looks its accounts up in a cache does not pay for it again.
///
/// ```
/// use bolna_rate_limit::values::Id;
///
/// assert_eq!(Id::new(17), Id::new("17"));
/// assert_eq!(Id::new(" "), None);
/// // Where a missing id is an error, as in a file of settings:
/// let id: Id = "org-4".parse()?;
/// assert_eq!(id.as_str(), "org-4");
/// let error = "".parse::<Id>().unwrap_err();
/// assert!(error.to_string().starts_with("the id is empty or white space, so it identifies no"));
/// # Ok::<(), bolna_rate_limit::values::EmptyId>(())
/// ```
#[derive(Clone)]
pub struct Id {
    text: IdText,
    fingerprint: [u64; 2],
}

/// The text of an id, without a fingerprint.
#[derive(Clone)]
pub(crate) enum IdText {
    Inline { len: u8, bytes: [u8; Id::INLINE] },
    Shared(Arc<[u8]>),
}

impl Id {
    /// The length, in bytes, of the longest id that needs no allocation: 36.
    pub const INLINE: usize = 36;

    /// Makes an id from a text, a number, a UUID, or any other type that implements `Display`, or
    /// from an `Option` of one. `None` if the text is empty or white space, or there is none.
    #[must_use]
    pub fn new<M>(id: impl IntoId<M>) -> Option<Self> {
        id.into_id()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was made from a whole `str`, so it is valid UTF-8.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id as bytes of UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(crate) const fn text(&self) -> &IdText {
        &self.text
    }

    /// A keyed hash of the id, the same for equal ids in one process. See [`fingerprint`].
    #[inline]
    pub(crate) const fn fingerprint(&self) -> [u64; 2] {
        self.fingerprint
    }

    fn new_from(text: IdText) -> Self {
        Self { fingerprint: fingerprint::of(text.as_bytes()), text }
    }
}

impl IdText {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for IdText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// As text, like the [`Id`] itself.
impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(str::from_utf8(self.as_bytes()).unwrap_or_default(), f)
    }
}

/// Types from which an [`Id`] can be made: all types that implement `Display`, and `Option`s of
/// them, where `None` is no id.
///
/// You need not name this trait. `M` keeps the two cases apart, and the compiler infers it.
///
/// ```
/// use bolna_rate_limit::values::{IntoId, Kind};
/// use bolna_rate_limit::{Account, Principal};
///
/// // A function of your own that takes an id as `Account::user` does.
/// fn key<M>(id: impl IntoId<M>) -> Option<Account> {
///     Some(Principal::new(Kind::new("api_key").ok()?, id)?.into())
/// }
/// assert!(key(17).is_some() && key("k-7").is_some() && key(Some("k-7".to_owned())).is_some());
/// assert!(key(None::<u64>).is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an id",
    label = "this neither implements `Display` nor is an `Option` of what does",
    note = "an id is a text, a number, a UUID, or any other type that implements `Display`, or an \
            `Option` of these"
)]
pub trait IntoId<M> {
    /// The id, or `None` if the text is empty or white space, or there is none.
    fn into_id(self) -> Option<Id>;
}

/// The `M` of an [`IntoId`] that implements `Display`.
///
/// The [example of `IntoId`](IntoId) leaves it to the compiler.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "it is a mark for the compiler, without a value")]
pub enum Displayed {}

/// The `M` of an [`IntoId`] that is an `Option`.
///
/// The [example of `IntoId`](IntoId) leaves it to the compiler.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "it is a mark for the compiler, without a value")]
pub enum Optional {}

impl<T: fmt::Display> IntoId<Displayed> for T {
    fn into_id(self) -> Option<Id> {
        let mut text = Text { len: 0, bytes: [0; Id::INLINE], more: String::new() };
        // `Text` never fails, but a `Display` of the user's own may. Then there is no id.
        write!(text, "{self}").ok()?;
        text.into_id()
    }
}

impl<T: fmt::Display> IntoId<Optional> for Option<T> {
    fn into_id(self) -> Option<Id> {
        self?.into_id()
    }
}

/// A text that is being written. It is allocated only if it is longer than [`Id::INLINE`].
struct Text {
    len: u8,
    bytes: [u8; Id::INLINE],
    more: String,
}

impl Text {
    #[inline]
    fn into_id(self) -> Option<Id> {
        let Self { len, bytes, more } = self;
        if more.is_empty() {
            let text = IdText::Inline { len, bytes };
            (!is_blank(text.as_bytes())).then(|| Id::new_from(text))
        } else {
            let text = more.into_bytes();
            (!is_blank(&text)).then(|| Id::new_from(IdText::Shared(text.into())))
        }
    }
}

/// Whether a text is empty or white space.
#[inline]
fn is_blank(text: &[u8]) -> bool {
    // Nearly all ids begin like this.
    let is_visible = text.first().is_some_and(u8::is_ascii_graphic);
    !is_visible && is_blank_to_the_end(text)
}

#[cold]
fn is_blank_to_the_end(text: &[u8]) -> bool {
    str::from_utf8(text).unwrap_or_default().trim_start().is_empty()
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.more.is_empty() {
            let start = usize::from(self.len);
            let end = start + text.len();
            if let (Ok(len), Some(place)) = (u8::try_from(end), self.bytes.get_mut(start..end)) {
                place.copy_from_slice(text.as_bytes());
                self.len = len;
                return Ok(());
            }
            self.more = str::from_utf8(&self.bytes[..start]).unwrap_or_default().to_owned();
        }
        self.more.push_str(text);
        Ok(())
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ids are ordered byte for byte.
impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Id {
    type Err = EmptyId;

    fn from_str(id: &str) -> Result<Self, EmptyId> {
        Self::new(id).ok_or(EmptyId)
    }
}

impl TryFrom<&str> for Id {
    type Error = EmptyId;

    fn try_from(id: &str) -> Result<Self, EmptyId> {
        id.parse()
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

/// The error of an id that is empty or white space, and so identifies no principal.
///
/// The [example of `Id`](Id) ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmptyId;

impl fmt::Display for EmptyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the id is empty or white space, so it identifies no principal: it needs a character \
             that is not white space",
        )
    }
}

impl Error for EmptyId {}
