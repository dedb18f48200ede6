//! Request targets, and other spellings of them that some server reads as the same path.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::servers::{Server, hex_pair, is_unreserved};

/// The byte that ends the target in an input. The bytes after it choose among respellings. This
/// byte does not occur in UTF-8.
const END: u8 = 0xff;

/// One byte more than the longest target that `http::Uri` accepts.
const LONGEST: usize = 65_535;

/// Tokens that routers and normalisers are known to misread, in every spelling that matters.
const TOKENS: [&str; 66] = [
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
    // A path with more readings than the classifier follows, and a way from there to the root.
    "/a;b//%3b/..;/%2e%5c/\\%00%23%3f%20/",
    "/../../../../../../../../../../../../call",
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
            // The token before, repeated: up to more than the longest odd path that is analysed,
            // or up to the longest target.
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
    fn next(&mut self) -> bool {
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
}

impl Respelling {
    pub const ALL: [Self; 14] = [
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
    ];

    /// The servers that read both spellings as the same path.
    pub fn blind(self) -> &'static [Server] {
        use Server::*;
        match self {
            Self::EscapeUnreserved | Self::SwapHexCase => {
                // All servers that decode.
                &Server::ALL[3..]
            }
            Self::EscapeSlashes => {
                &[Starlette, Stripping, Django, Nginx, NginxUnmerged, Iis, CString, Reparsing]
            }
            Self::Backslashes | Self::EscapeBackslashes => &[Iis],
            Self::InsertDots | Self::InsertParents => &[
                Nginx,
                NginxUnmerged,
                Rfc3986,
                Envoy,
                Servlet,
                LateServlet,
                SpringMvc,
                Iis,
                Kestrel,
            ],
            Self::DoubleSlashes => &[Nginx, Servlet, LateServlet, SpringMvc, Actix],
            Self::AddParameters => &[Servlet, LateServlet, SpringMvc],
            // An encoded slash is a part of the parameter only for servers that cut parameters
            // before they decode.
            Self::AddEscapedParameters => &[Servlet, SpringMvc],
            Self::AppendSlashes => &[Trimming, Actix],
            Self::AppendNewline => &[Starlette, Stripping, Django],
            Self::AppendNul => &[CString],
            Self::AppendQuery => &[Reparsing],
        }
    }

    /// The path, respelled in the chosen places. `None` if the servers of
    /// [`blind`](Self::blind) would notice the difference.
    pub fn apply(self, path: &str, choices: &mut Choices<'_>) -> Option<String> {
        let bytes = path.as_bytes();
        let mut respelled = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let byte = rest[0];
            // A byte after `%` may be a digit of an escape, or may become one.
            let after_percent = bytes[..at].iter().rev().take(2).any(|&byte| byte == b'%');
            let inner_slash = byte == b'/' && at > 0;
            let width =
                if matches!(self, Self::SwapHexCase) && hex_pair(rest).is_some() { 3 } else { 1 };
            let replacement = match self {
                Self::EscapeUnreserved if is_unreserved(byte) && !after_percent => {
                    Some(escaped(byte))
                }
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
            match replacement.filter(|_| choices.next()) {
                Some(replacement) => respelled.extend(replacement),
                None => respelled.extend_from_slice(&rest[..width]),
            }
            at += width;
        }
        match self {
            Self::AddParameters => respelled.extend_from_slice(b";a=b"),
            Self::AddEscapedParameters => respelled.extend_from_slice(b";a=%2Fb"),
            Self::AppendSlashes => {
                respelled.extend_from_slice(if choices.next() { b"/" } else { b"///" })
            }
            Self::AppendNewline => {
                // After a slash, the newline is a segment of its own. Of two newlines, `$` ignores
                // only the last.
                if Server::Starlette.read(bytes).ends_with(b"/")
                    || Server::Starlette.read(bytes).ends_with(b"\n")
                {
                    return None;
                }
                respelled.extend_from_slice(b"%0A");
            }
            Self::AppendNul => {
                respelled.extend_from_slice(if choices.next() { b"%00" } else { b"%00/../x" })
            }
            Self::AppendQuery => {
                respelled.extend_from_slice(if choices.next() { b"%3Fa" } else { b"%23/../x" })
            }
            _ => {}
        }
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
