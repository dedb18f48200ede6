//! Request targets, and other spellings of them that some server reads as the same path.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::servers::steps::{decode, hex_pair, is_unreserved};

/// The byte that ends the target in an input. The bytes after it choose among respellings. This
/// byte does not occur in UTF-8.
const END: u8 = 0xff;

/// One byte more than the longest target that `http::Uri` accepts.
const LONGEST: usize = 65_535;

/// Tokens that routers and normalisers are known to misread, in every spelling that matters.
const TOKENS: [&str; 87] = [
    "/",
    "//",
    "v2",
    "agent",
    "all",
    "call",
    "executions",
    "x",
    "5bc97541-e320-4d95-a3a5-242cfe45621d",
    ".",
    "..",
    "...",
    "/./",
    "/../",
    "/..",
    "/..;/",
    "/x/../",
    "%2e",
    "%2E",
    "%2e%2e",
    ".%2e",
    "/%2e%2e/",
    "%2f",
    "%2F",
    ";",
    ";a=b",
    ";a=b/",
    ";/",
    "%3b",
    "%3B",
    "\\",
    "..\\",
    "%5c",
    "%5C",
    "%00",
    "%0a",
    "%0A",
    "%0d%0a",
    "%20HTTP/1.1%0d%0aX:",
    "%09",
    "%0b",
    "%20",
    " ",
    "%23",
    "%3f",
    "#",
    "?",
    "%25",
    "%252f",
    "%252e",
    "%",
    "%2",
    "%u0063",
    "%ff",
    "%C0%AF",
    "%63all",
    "c%61ll",
    "a%6cl",
    "/v2/agent/",
    "/v2/agent/all",
    "/executions",
    "execution%73",
    "+",
    ":",
    "\u{e9}",
    // Many kinds at once, and a way from there to the root.
    "/a;b//%3b/..;/%2e%5c/\\%00%23%3f%20/",
    "/../../../../../../../../../../../../call",
    "%u002f",
    "%u002e",
    "%2563",
    "%%36",
    ".json",
    ".any",
    "/index.php",
    "%ad",
    "%e9",
    "%c3%a9",
    "%e0%a4%95",
    "%20.",
    "A",
    "CALL",
    "Agent",
    "@",
    "%23x",
    "//h",
    "%c0%80",
    ";a",
];

/// The beginnings of an input that is a sequence of tokens. Its first byte is the index.
const PREFIXES: [&str; 8] =
    ["/", "/call", "/v2/agent/x", "/v2/agent/x/executions", "", "http://h/", "http://h", "//"];

/// A request target, and the choices for its respelling.
#[derive(Clone, Debug)]
pub struct Input {
    /// The target as it came over the wire. It need not be text.
    pub target: Vec<u8>,
    choices: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Input {
    /// An input that begins with a control character is a sequence of tokens. Any other input is
    /// the target itself, so that seeds and dictionaries are readable.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let data = u.bytes(u.len())?;
        let end = data.iter().position(|&byte| byte == END).unwrap_or(data.len());
        let (text, choices) = (&data[..end], data[end..].get(1..).unwrap_or_default().to_vec());
        let target = match text {
            [kind @ ..0x20, tokens @ ..] => spell(*kind, &mut Unstructured::new(tokens))?,
            _ => text.to_vec(),
        };
        Ok(Self { target, choices })
    }
}

fn spell(kind: u8, tokens: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut target = PREFIXES[usize::from(kind & 7)].as_bytes().to_vec();
    let mut last: Vec<u8> = b"/".to_vec();
    while !tokens.is_empty() && target.len() < LONGEST {
        match u8::arbitrary(tokens)? {
            byte @ ..0xd0 => last = TOKENS[usize::from(byte) % TOKENS.len()].as_bytes().to_vec(),
            // Any byte, escaped.
            0xd0..0xe0 => last = format!("%{:02x}", u8::arbitrary(tokens)?).into_bytes(),
            // Any byte, unescaped.
            0xe0..0xf0 => last = vec![u8::arbitrary(tokens)?],
            // The token before, repeated, up to 640 bytes or up to the longest target.
            byte => {
                let most = if byte < 0xfe { 640 } else { LONGEST };
                let times = usize::from(u16::arbitrary(tokens)?) % (most / last.len() + 1);
                target.extend(last.repeat(times));
            }
        }
        target.extend_from_slice(&last);
    }
    target.truncate(LONGEST);
    Ok(target)
}

/// The choices of an input. After the last one, every choice is yes.
pub struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Input {
    /// The respelling to try.
    pub fn respelling(&self) -> Respelling {
        let sum: usize =
            self.target.iter().chain(&self.choices).map(|&byte| usize::from(byte)).sum();
        Respelling::ALL[sum % Respelling::ALL.len()]
    }

    /// The choices of places to respell.
    pub fn choices(&self) -> Choices<'_> {
        Choices(self.choices.iter())
    }
}

impl Choices<'_> {
    /// The next choice: yes or no.
    pub fn is_yes(&mut self) -> bool {
        self.0.next().is_none_or(|byte| byte & 1 == 1)
    }
}

/// A way to respell a path that some servers do not notice.
#[derive(Clone, Copy, Debug)]
pub enum Respelling {
    EscapeUnreserved,
    SwapHexCase,
    EscapeSlashes,
    Backslashes,
    EscapeBackslashes,
    InsertDots,
    InsertParents,
    DoubleSlashes,
    AddParameters,
    AddEscapedParameters,
    AppendSlashes,
    AppendNewline,
    AppendNul,
    AppendQuery,
    EscapeAsUnicode,
    EscapeTwice,
    InsertMalformedUtf8,
    SwapCase,
    AppendSemicolon,
    AppendFormat,
    AppendDots,
    PrependFrontController,
}

impl Respelling {
    pub const ALL: [Self; 22] = [
        Self::EscapeUnreserved,
        Self::SwapHexCase,
        Self::EscapeSlashes,
        Self::Backslashes,
        Self::EscapeBackslashes,
        Self::InsertDots,
        Self::InsertParents,
        Self::DoubleSlashes,
        Self::AddParameters,
        Self::AddEscapedParameters,
        Self::AppendSlashes,
        Self::AppendNewline,
        Self::AppendNul,
        Self::AppendQuery,
        Self::EscapeAsUnicode,
        Self::EscapeTwice,
        Self::InsertMalformedUtf8,
        Self::SwapCase,
        Self::AppendSemicolon,
        Self::AppendFormat,
        Self::AppendDots,
        Self::PrependFrontController,
    ];

    /// The names of the servers that read both spellings as the same path.
    pub fn blind(self) -> &'static [&'static str] {
        match self {
            Self::EscapeUnreserved => &[
                "starlette",
                "django",
                "gin",
                "flask",
                "falcon",
                "bottle",
                "litestar",
                "dancer",
                "stripping",
                "parsing-again",
                "aiohttp",
                "grape",
                "actix",
                "actix-normalizing",
                "mux",
                "rocket",
                "cherrypy",
                "fastify",
                "fastify-4",
                "restify",
                "node-url-decoding",
                "hono",
                "hapi",
                "nginx",
                "nginx-unmerged",
                "lighttpd",
                "apache",
                "haproxy-normalizing",
                "envoy-normalizing",
                "sinatra",
                "caddy-expression",
                "caddy",
                "kestrel",
                "iis",
                "tomcat",
                "late-servlet",
                "jetty",
                "spring",
                "php-path-info",
                "mono",
            ],
            Self::SwapHexCase => &["literal", "starlette", "nginx", "node-url", "tomcat", "mux"],
            Self::EscapeSlashes => &[
                "starlette",
                "django",
                "stripping",
                "parsing-again",
                "nginx",
                "nginx-unmerged",
                "lighttpd",
                "sinatra",
                "caddy-expression",
                "iis",
                "late-servlet",
            ],
            Self::Backslashes => &["iis", "sinatra", "mono", "node-url-path", "hono", "itty"],
            Self::EscapeBackslashes => &["iis", "sinatra", "mono"],
            Self::InsertDots | Self::InsertParents => &[
                "nginx",
                "nginx-unmerged",
                "lighttpd",
                "apache",
                "chi-cleaning",
                "haproxy-normalizing",
                "envoy-normalizing",
                "sinatra",
                "caddy-expression",
                "kestrel",
                "iis",
                "node-url-path",
                "hono",
                "hapi",
                "tomcat",
                "late-servlet",
                "jetty",
                "spring",
            ],
            Self::DoubleSlashes => &[
                "nginx",
                "lighttpd",
                "apache",
                "chi-cleaning",
                "sinatra",
                "tomcat",
                "late-servlet",
                "litestar",
                "webrick",
                "actix-merging",
                "actix-normalizing",
                "rocket",
                "rails",
                "grape",
                "restify-merging",
            ],
            Self::AddParameters => &["tomcat", "late-servlet", "jetty", "spring"],
            // An encoded slash is a part of the parameter only for servers that cut parameters
            // before they decode.
            Self::AddEscapedParameters => &["tomcat", "jetty", "spring"],
            Self::AppendSlashes => &[
                "trimming",
                "sanic",
                "go-trim",
                "actix-normalizing",
                "rocket",
                "chi-cleaning",
                "itty",
                "rails",
                "grape",
                "laravel",
            ],
            Self::AppendNewline => &["starlette", "pyramid", "stripping"],
            Self::AppendNul => &["dancer"],
            Self::AppendQuery => &["parsing-again"],
            Self::EscapeAsUnicode => &["jetty", "jetty-compact", "iis"],
            Self::EscapeTwice => &["mono", "mono-decoding"],
            Self::InsertMalformedUtf8 => &["bottle", "bottle-waitress"],
            Self::SwapCase => &["express", "koa", "iis"],
            Self::AppendSemicolon => &["fastify-4", "restify"],
            Self::AppendFormat => &["rails", "spring"],
            Self::AppendDots => &["caddy", "iis"],
            Self::PrependFrontController => &["symfony", "laravel", "php-path-info"],
        }
    }

    /// Whether the servers of [`blind`](Self::blind) can notice the difference in this path.
    fn is_noticed(self, path: &[u8]) -> bool {
        match self {
            // After a slash, the newline is a segment of its own. Of two newlines, `$` ignores only
            // the last.
            Self::AppendNewline => matches!(decode(path.to_vec()).last(), Some(b'/' | b'\n')),
            // What is decoded twice may be an escape of something else before.
            Self::EscapeAsUnicode | Self::EscapeTwice | Self::InsertMalformedUtf8 => {
                path.contains(&b'%')
            }
            // The case of what an escape stands for cannot be swapped.
            Self::SwapCase => path.contains(&b'%'),
            // There is one format, after a name.
            Self::AppendFormat => {
                path.ends_with(b"/") || path.iter().any(|byte| b".%;".contains(byte))
            }
            Self::AppendDots => {
                path.iter().any(|byte| b".%\\ ".contains(byte)) || path.ends_with(b"/")
            }
            // It is cut once.
            Self::PrependFrontController => {
                decode(path.to_vec()).windows(9).any(|text| text == b"index.php")
            }
            _ => false,
        }
    }

    /// The path, respelled in the chosen places. `None` if the servers of
    /// [`blind`](Self::blind) would notice the difference.
    pub fn apply(self, path: &str, choices: &mut Choices<'_>) -> Option<String> {
        let bytes = path.as_bytes();
        if self.is_noticed(bytes) {
            return None;
        }
        let mut respelled = Vec::with_capacity(bytes.len());
        if matches!(self, Self::PrependFrontController) {
            respelled.extend_from_slice(b"/index.php");
        }
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let byte = rest[0];
            // A byte after `%` may be a digit of an escape, or may become one. `%uXXXX` has four.
            let after_percent = bytes[..at].iter().rev().take(5).any(|&byte| byte == b'%');
            let inner_slash = byte == b'/' && at > 0;
            let unreserved = is_unreserved(byte) && !after_percent;
            let width =
                if matches!(self, Self::SwapHexCase) && hex_pair(rest).is_some() { 3 } else { 1 };
            let replacement = match self {
                Self::EscapeUnreserved if unreserved => Some(escaped(byte)),
                Self::EscapeAsUnicode if unreserved => Some(format!("%u{byte:04x}").into_bytes()),
                Self::EscapeTwice if unreserved => Some(format!("%25{byte:02x}").into_bytes()),
                Self::InsertMalformedUtf8 if unreserved => Some([b"%ff", &rest[..1]].concat()),
                Self::SwapCase if byte.is_ascii_alphabetic() => Some(swap_case(&rest[..1])),
                Self::SwapHexCase if width == 3 => Some(swap_case(&rest[..3])),
                Self::EscapeSlashes if inner_slash && !after_percent => Some(escaped(byte)),
                Self::Backslashes if inner_slash => Some(b"\\".to_vec()),
                Self::EscapeBackslashes if inner_slash && !after_percent => Some(escaped(b'\\')),
                Self::InsertDots if byte == b'/' => Some(b"/./".to_vec()),
                Self::InsertParents if byte == b'/' => Some(b"/x/../".to_vec()),
                Self::DoubleSlashes if byte == b'/' => Some(b"//".to_vec()),
                Self::AddParameters if inner_slash => Some(b";a=b/".to_vec()),
                Self::AddEscapedParameters if inner_slash => Some(b";a=%2Fb/".to_vec()),
                _ => None,
            };
            match replacement.filter(|_| choices.is_yes()) {
                Some(replacement) => respelled.extend(replacement),
                None => respelled.extend_from_slice(&rest[..width]),
            }
            at += width;
        }
        let mut either = |one: &'static [u8], other| if choices.is_yes() { one } else { other };
        respelled.extend_from_slice(match self {
            Self::AddParameters => b";a=b",
            Self::AddEscapedParameters => b";a=%2Fb",
            Self::AppendSlashes => either(b"/", b"///"),
            Self::AppendNewline => b"%0A",
            Self::AppendNul => either(b"%00", b"%00/../x"),
            Self::AppendQuery => either(b"%3Fa", b"%23/../x"),
            Self::AppendSemicolon => either(b";/x", b";a=/../x"),
            Self::AppendFormat => either(b".json", b".any"),
            Self::AppendDots => either(b".", b"%20."),
            _ => b"",
        });
        String::from_utf8(respelled).ok()
    }
}

fn escaped(byte: u8) -> Vec<u8> {
    format!("%{byte:02X}").into_bytes()
}

fn swap_case(escape: &[u8]) -> Vec<u8> {
    let swap = |&byte: &u8| {
        if byte.is_ascii_uppercase() {
            byte.to_ascii_lowercase()
        } else {
            byte.to_ascii_uppercase()
        }
    };
    escape.iter().map(swap).collect()
}
