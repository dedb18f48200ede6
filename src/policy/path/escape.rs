//! Escapes in a path, and what servers decode them to.

use super::spelling::{Spelling, Spellings};

/// What an escape, which begins with `%`, stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    pub(super) decoded: Decoded,
    /// How many bytes of the path it takes.
    pub(super) length: usize,
    /// Whether line breaks or tabs are in it, which some servers drop before they decode again.
    pub(super) is_broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Byte(u8),
    /// A character from `%uXXXX`.
    Character(char),
    /// A `%` that no escape begins with.
    Percent,
    /// A surrogate, as from `%ud800`: no character.
    Nothing,
}

/// Decodes the escape at the start of `text`, which is a `%`, as often as it can be decoded. A
/// server that decodes it fewer times finds a `%` there, which is in no literal.
///
/// Its digits may be escaped as well: `%%363` and `%25%36%33` are `%63` when they are decoded once,
/// and `c` when they are decoded twice. So is `%25%0963` if the tab is dropped in between.
#[inline]
pub(super) fn decode(text: &[u8], spellings: Spellings) -> Escape {
    let (mut value, mut length) = once(text);
    let mut is_broken = false;
    let may_decode_again = spellings.has(Spelling::SecondDecoding);
    while value == b'%' {
        let left = text.get(length..).unwrap_or_default();
        let is_unicode = spellings.has(Spelling::UnicodeEscape);
        if let Some(escape) =
            unicode(left).filter(|_| is_unicode && (may_decode_again || length == 1))
        {
            let is_broken = is_broken || escape.is_broken;
            return Escape { length: length + escape.length, is_broken, ..escape };
        }
        let lenient = is_unicode && length == 1;
        let Some((next, more)) = digits::<2>(left).filter(|_| may_decode_again || lenient) else {
            return Escape { decoded: Decoded::Percent, length, is_broken };
        };
        value = u8::try_from(next).unwrap_or(b'%');
        length += more.length;
        is_broken |= more.is_broken;
    }
    Escape { decoded: Decoded::Byte(value), length, is_broken }
}

/// Whether the escape at the start of `text` is malformed: no two digits follow the `%`.
pub(super) fn is_malformed(text: &[u8]) -> bool {
    pair(text).is_none()
}

/// What follows the `%` of `%uXXXX`.
fn unicode(text: &[u8]) -> Option<Escape> {
    let mut part = Part::default();
    if !part.next(text).eq_ignore_ascii_case(&b'u') {
        return None;
    }
    let (code, digits) = digits::<4>(text.get(part.length..)?)?;
    let decoded = match char::from_u32(code) {
        Some(character) => match u8::try_from(code) {
            Ok(byte @ ..0x80) => Decoded::Byte(byte),
            _ => Decoded::Character(character),
        },
        None => Decoded::Nothing,
    };
    let length = part.length + digits.length;
    Some(Escape { decoded, length, is_broken: part.is_broken || digits.is_broken })
}

/// The number that so many hexadecimal digits stand for, each as it is or escaped, and the part of
/// the text that they take.
fn digits<const N: usize>(text: &[u8]) -> Option<(u32, Part)> {
    let (mut number, mut part) = (0, Part::default());
    for _ in 0..N {
        number = number << 4 | digit(part.next(text))?;
    }
    Some((number, part))
}

/// The number that a hexadecimal digit stands for, also where a server computes it without looking
/// whether it is one, as Jetty 9 does: `%6@` is `%69`, and `%2>` is `%2e`.
fn digit(byte: u8) -> Option<u32> {
    match byte {
        b'@' | b'`' => Some(9),
        // Not `;` and `?`, which have a meaning of their own.
        b':' | b'<'..=b'>' => Some(u32::from(byte - b'0')),
        _ => char::from(byte).to_digit(16),
    }
}

/// The beginning of a text that was read.
#[derive(Default)]
struct Part {
    length: usize,
    is_broken: bool,
}

impl Part {
    /// The next byte of the text when it is decoded once, without escaped line breaks and tabs. A
    /// zero byte at the end.
    fn next(&mut self, text: &[u8]) -> u8 {
        loop {
            let left = text.get(self.length..).unwrap_or_default();
            let (byte, length) = once(left);
            self.length += length;
            if !(length == 3 && matches!(byte, b'\t' | b'\n' | b'\r')) {
                return byte;
            }
            self.is_broken = true;
        }
    }
}

/// The first byte of `text` when it is decoded once, and how many bytes it takes. A zero byte at
/// the end.
#[inline]
fn once(text: &[u8]) -> (u8, usize) {
    match pair(text) {
        Some(byte) => (byte, 3),
        None => text.first().map_or((0, 1), |byte| (*byte, 1)),
    }
}

/// The byte that an escape `%XX` at the start of `text` stands for.
#[inline]
fn pair(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> (Decoded, usize) {
        let Escape { decoded, length, .. } = decode(text.as_bytes(), Spellings::ALL);
        (decoded, length)
    }

    #[test]
    fn an_escape_is_decoded_as_often_as_it_can_be() {
        for (text, byte) in [
            ("%63", b'c'),
            ("%2563", b'c'),
            ("%252563", b'c'),
            ("%%363", b'c'),
            ("%%36%33", b'c'),
            ("%25%36%33", b'c'),
            ("%2%353f", b'?'),
            ("%u002f", b'/'),
            ("%U002F", b'/'),
            ("%25u002f", b'/'),
            ("%%7500%32f", b'/'),
            ("%ff", 0xff),
            ("%25%0963", b'c'),
            ("%%0a6%0d%0a3", b'c'),
            ("%u00%0963", b'c'),
            ("%6@", b'i'),
            ("%256%3c", b'l'),
            ("%2>", b'.'),
            ("%u006@", b'i'),
        ] {
            assert_eq!(decoded(text), (Decoded::Byte(byte), text.len()), "{text}");
        }
    }

    #[test]
    fn what_is_no_escape_is_a_percent_sign() {
        for text in ["%", "%6", "%zz", "%u006", "%u"] {
            assert_eq!(decoded(text), (Decoded::Percent, 1), "{text}");
        }
        for text in ["%25", "%25zz", "%25%36"] {
            assert_eq!(decoded(text), (Decoded::Percent, 3), "{text}");
        }
        assert_eq!(decoded("%u00e9"), (Decoded::Character('\u{e9}'), 6));
        assert_eq!(decoded("%ud800"), (Decoded::Nothing, 6));
    }

    #[test]
    fn kinds_that_are_ignored_are_not_decoded() {
        let decoded =
            |text: &str, kind| decode(text.as_bytes(), Spellings::ALL.without(kind)).decoded;
        assert_eq!(decoded("%2563", Spelling::SecondDecoding), Decoded::Percent);
        assert_eq!(decoded("%25u0063", Spelling::SecondDecoding), Decoded::Percent);
        assert_eq!(decoded("%u0063", Spelling::SecondDecoding), Decoded::Byte(b'c'));
        assert_eq!(decoded("%u0063", Spelling::UnicodeEscape), Decoded::Percent);
        assert_eq!(decoded("%2563", Spelling::UnicodeEscape), Decoded::Byte(b'c'));
    }
}
