//! The addresses that proxies append to `X-Forwarded-For` and `Forwarded`.
//!
//! What is to the left of the proxies' own members is the client's, and can be anything: a quote
//! that is never closed, for example. So lists are split from the right, and no further than to the
//! member that counts.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::str;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How many empty members of a list are passed over. A limit keeps the work small for a field that
/// is all commas (RFC 9110, section 5.6.1.2).
const EMPTY_MEMBERS: usize = 32;

/// A field that proxies append addresses to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    XForwardedFor,
    Forwarded,
}

impl Field {
    /// The `nth` address from the right, counted from 1. `None` if there are fewer members, or the
    /// `nth` is not an address.
    pub(super) fn nth_from_right(self, headers: &HeaderMap, nth: usize) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => {
                let lines = lines_from_right(headers, X_FORWARDED_FOR);
                let members = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
                not_empty(members, nth).nth(nth - 1).and_then(address)
            }
            Self::Forwarded => {
                let lines = lines_from_right(headers, FORWARDED);
                let elements = lines.flat_map(|line| FromRight { rest: Some(line), at: b',' });
                // Each of them has to be well-formed, or it could hide where the next one ends.
                let mut nodes = not_empty(elements, nth).map_while(for_parameter);
                nodes.nth(nth - 1).and_then(|node| address(&node))
            }
        }
    }
}

/// The lines of a field, the last one first.
fn lines_from_right(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes)
}

/// The members that are not empty, without the white space around them. For a caller that needs no
/// more than `nth` of them.
fn not_empty<'a>(
    members: impl Iterator<Item = &'a [u8]>,
    nth: usize,
) -> impl Iterator<Item = &'a [u8]> {
    let members = members.take(nth.saturating_add(EMPTY_MEMBERS));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The value of the `for` parameter of an element of `Forwarded`, empty if there is none (RFC 7239,
/// section 4). `None` if the element is malformed.
fn for_parameter(element: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut node = None;
    let pairs = FromRight { rest: Some(element), at: b';' }.map(<[u8]>::trim_ascii);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii_end(), &pair[equals + 1..]);
        let value = unquoted(value.trim_ascii_start())?;
        if name.contains(&b'"') {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
            return None;
        }
    }
    Some(node.unwrap_or_default())
}

/// The text of a token or a quoted string (RFC 9110, section 5.6.4). Values that are neither, such
/// as an IPv6 address without quotes, pass for a token, unless there is a quote in them: then it is
/// `None`.
fn unquoted(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return (!value.contains(&b'"')).then_some(Cow::Borrowed(value));
    };
    let inner = inner.strip_suffix(b"\"")?;
    if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut bytes = inner.iter();
    let mut text = Vec::new();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            _ => text.push(byte),
        }
    }
    Some(Cow::Owned(text))
}

/// The address of a node, without its port and zone (RFC 7239, section 6). For the sake of
/// `X-Forwarded-For`, an IPv6 address may be without brackets if it is without a port.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?;
    if let Some(bracketed) = node.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let is_whole = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return is_whole.then(|| ipv6(address))?;
    }
    match node.rsplit_once(':') {
        Some((address, _)) if address.contains(':') => ipv6(node),
        Some((address, port)) if is_port(port) => Some(IpAddr::V4(address.parse().ok()?)),
        Some(_) => None,
        None => Some(IpAddr::V4(node.parse().ok()?)),
    }
}

fn ipv6(text: &str) -> Option<IpAddr> {
    let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// One to five digits, or a name with `_` in front for a port that is hidden.
fn is_port(text: &str) -> bool {
    let is_number = matches!(text.len(), 1..=5) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number || text.starts_with('_')
}

/// Splits a list from the right at a separator, but not within quoted strings.
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    at: u8,
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let list = self.rest.take()?;
        let mut in_quotes = false;
        for (place, byte) in list.iter().enumerate().rev() {
            if *byte == b'"' {
                // Seen from the right, the quote that closes a string comes first. Further quotes
                // in the string have a backslash before them, and the one that opens it has a `=`.
                in_quotes = !in_quotes || list[..place].ends_with(b"\\");
            } else if *byte == self.at && !in_quotes {
                self.rest = Some(&list[..place]);
                return Some(&list[place + 1..]);
            }
        }
        Some(list)
    }
}
