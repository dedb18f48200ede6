//! The ways to spell a path that only some servers understand.

use std::fmt;

/// A way to spell a path that some servers take for another path. Each is read unless a policy
/// [ignores](crate::policy::PolicyBuilder::ignore_spellings) it.
///
/// What all policies read besides: escapes (`%63all`), dot segments, repeated slashes, backslashes
/// and encoded slashes, parameters after `;`, a host at the start (`//host/call`), a path that ends
/// at an encoded `?`, `#`, zero byte or line break, white space at the end (`/call%20`), and an
/// escape that is cut off at the end (`/call%`).
///
/// The servers named were recorded in November 2026 (`tests/vectors/servers` in the repository),
/// except IIS and ASP.NET, which are named after their documentation.
///
/// ```
/// use bolna_rate_limit::policy::Spelling;
/// use bolna_rate_limit::{Endpoint, Policy};
///
/// assert_eq!(Policy::default().endpoints_of("/Call"), [Endpoint::DEFAULT, Endpoint::CALL]);
///
/// // Nothing behind the limiter reads paths so. The setting of a service names the kinds:
/// let ignored = ["capitals", "format-suffix"];
/// let ignored = Spelling::ALL.iter().copied().filter(|kind| ignored.contains(&kind.name()));
/// let policy = Policy::bolna().ignore_spellings(ignored).build()?;
/// assert_eq!(policy.endpoints_of("/Call"), [Endpoint::DEFAULT]);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Spelling {
    /// `/Call`: Express, Koa, Nest, Caddy, BlackSheep and ASP.NET do not tell capitals from small
    /// letters. Some servers also take U+0130 and U+0131 for an `i`, U+017F for an `s` and U+212A
    /// for a `k`. These are read so unless a template has one of them.
    Capitals,
    /// `/call.json`: Rails, Spring MVC 4, Django REST framework and Grape take what follows a dot
    /// in the last segment for a format.
    FormatSuffix,
    /// `/call...` and `/call%20.`: Caddy drops dots at the end of a path, also among spaces, and
    /// Windows at the end of each segment. White space alone (`/call%20`) is read even if this kind
    /// is ignored. `/call...` is also a [`FormatSuffix`](Self::FormatSuffix), to Spring MVC 4.
    TrailingDots,
    /// `/call;/x`: for Fastify 4 and restify the first `;` begins the query.
    SemicolonQuery,
    /// `/%u0063all`: Jetty 9 and IIS decode `%uXXXX`. `/l%6@st`: Jetty 9 decodes an escape even if
    /// its digits are none, and computes `i` from `%6@`. It also goes on behind the `?` of `%2?`,
    /// so a path that ends within an escape (`/x%2`) is charged to every endpoint.
    UnicodeEscape,
    /// `/%2563all`: nginx with `$uri`, HAProxy with `url_dec`, Mono, and any server behind one that
    /// decodes, decode a second time.
    SecondDecoding,
    /// `/c%adall`: Bottle drops bytes that are not valid UTF-8.
    InvalidUtf8,
    /// `/index.php/call` and `/app/index.php/call`: Symfony, Laravel and others take what follows
    /// the name of the script for the path. A segment is such a name if it ends in `.php`, `.cgi`,
    /// `.fcgi`, `.pl`, `.py`, `.rb` or `.wsgi`. Beyond the first segment this counts only where a
    /// template matches what follows: an id such as `ana@firma.pl` ends like a script, too.
    FrontController,
    /// `/v2/agent//executions`: axum, gin, chi, echo, poem, Falcon, Fastify and restify accept an
    /// empty id. `/v2/agent/`: the last three also accept it at the end.
    EmptyId,
}

/// Kinds of spelling that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spellings(u16);

impl Spelling {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Capitals,
        Self::FormatSuffix,
        Self::TrailingDots,
        Self::SemicolonQuery,
        Self::UnicodeEscape,
        Self::SecondDecoding,
        Self::InvalidUtf8,
        Self::FrontController,
        Self::EmptyId,
    ];

    /// The name in policy files: `capitals`, `format-suffix`, `trailing-dots`, `semicolon-query`,
    /// `unicode-escape`, `second-decoding`, `invalid-utf8`, `front-controller` or `empty-id`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capitals => "capitals",
            Self::FormatSuffix => "format-suffix",
            Self::TrailingDots => "trailing-dots",
            Self::SemicolonQuery => "semicolon-query",
            Self::UnicodeEscape => "unicode-escape",
            Self::SecondDecoding => "second-decoding",
            Self::InvalidUtf8 => "invalid-utf8",
            Self::FrontController => "front-controller",
            Self::EmptyId => "empty-id",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The [name](Self::name).
impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Spellings {
    pub(crate) const ALL: Self = Self(u16::MAX);

    #[must_use]
    pub(crate) const fn without(self, spelling: Spelling) -> Self {
        Self(self.0 & !spelling.bit())
    }

    #[inline]
    pub(super) const fn has(self, spelling: Spelling) -> bool {
        self.0 & spelling.bit() != 0
    }
}
