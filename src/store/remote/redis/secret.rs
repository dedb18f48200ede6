//! Users and passwords, and texts without them.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A user or a password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    pub(super) fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, which may be sent to its server and to nothing else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// What takes the place of a secret.
const HIDDEN: &str = "***";

/// A server may cut off what it repeats, so any part of a longer password that has this many
/// characters is hidden too.
const PART: usize = 8;

/// A user or a password with fewer characters than this occurs in texts by chance. Such a user is
/// not hidden. If such a password occurs, the whole text is hidden: the gaps would show the
/// password.
const SHORT: usize = 4;

/// A secret, or parts of it, to look for in a text.
#[derive(Debug)]
struct Pattern {
    secret: Vec<char>,
    part: usize,
}

impl Pattern {
    fn whole(secret: &str) -> Self {
        let secret: Vec<_> = flat(secret).chars().collect();
        Self { part: secret.len(), secret }
    }

    fn parts(secret: &str) -> Self {
        let Self { secret, part } = Self::whole(secret);
        Self { secret, part: part.min(PART) }
    }

    fn matches(&self, window: &[char]) -> bool {
        self.secret.windows(self.part).any(|part| {
            part.iter().zip(window).all(|(secret, told)| secret.eq_ignore_ascii_case(told))
        })
    }

    /// How often it occurs in the text.
    fn count_in(&self, text: &str) -> usize {
        let text: Vec<_> = text.chars().collect();
        match self.part {
            0 => 0,
            part => text.windows(part).filter(|window| self.matches(window)).count(),
        }
    }

    fn hide_in(&self, text: &str) -> String {
        if self.count_in(text) == 0 {
            return text.to_owned();
        }
        let text: Vec<_> = text.chars().collect();
        let mut hidden = vec![false; text.len()];
        for (at, window) in text.windows(self.part).enumerate() {
            if self.matches(window) {
                hidden[at..at + self.part].fill(true);
            }
        }
        let mut told = String::new();
        let mut was_hidden = false;
        for (character, hidden) in text.into_iter().zip(hidden) {
            if !hidden {
                told.push(character);
            } else if !was_hidden {
                told.push_str(HIDDEN);
            }
            was_hidden = hidden;
        }
        told
    }
}

/// The text in one line, without the user and the password, however they are written: as they are,
/// percent-encoded, in another case, with backslashes, or a part of the password.
pub(super) fn scrub(text: &str, user: Option<&Secret>, password: Option<&Secret>) -> String {
    let text = flat(text);
    // Every server has the user `default`, and names it in its errors.
    let is_telling = |user: &&str| user.chars().count() >= SHORT && *user != "default";
    let user = user.map(Secret::expose).filter(is_telling);
    let password = password.map(Secret::expose).filter(|password| !password.is_empty());
    if let Some(password) = password.filter(|password| password.chars().count() < SHORT) {
        if Pattern::whole(password).count_in(&text) > 0 {
            return HIDDEN.to_owned();
        }
    }
    let secrets = || user.into_iter().chain(password);
    let encoded = |secret: &str| utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let whole = secrets().flat_map(|secret| [secret.to_owned(), encoded(secret)]);
    let text = whole.fold(text, |text, secret| Pattern::whole(&secret).hide_in(&text));
    if secrets().any(|secret| is_disguised(secret, &text)) {
        return HIDDEN.to_owned();
    }
    let parts = password.into_iter().flat_map(|secret| [secret.to_owned(), encoded(secret)]);
    parts.fold(text, |text, secret| Pattern::parts(&secret).hide_in(&text))
}

/// Whether the secret, or a part of it, shows only when the text is decoded. Its place in the text
/// is then unknown, so it can't be hidden on its own.
fn is_disguised(secret: &str, text: &str) -> bool {
    let plain = |text: &str| text.replace(['\\', '+'], "");
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let shows = |secret: &str, reading: &str| {
        let secret = Pattern::parts(secret);
        secret.count_in(&flat(reading)) > secret.count_in(text)
    };
    shows(secret, &decoded(&text.replace('+', " ")))
        || shows(&plain(secret), &plain(text))
        || shows(&plain(secret), &plain(&decoded(text)))
}

/// The text in one line: each run of white space, control characters and characters that turn the
/// direction of writing is one space.
fn flat(text: &str) -> String {
    let mut flat = String::with_capacity(text.len());
    for character in text.chars() {
        let is_space =
            character.is_whitespace() || character.is_control() || is_bidi_control(character);
        if !is_space {
            flat.push(character);
        } else if !flat.ends_with(' ') {
            flat.push(' ');
        }
    }
    flat
}

const fn is_bidi_control(character: char) -> bool {
    matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, user: &str, password: &str) -> String {
        scrub(text, Some(&Secret::new(user)), Some(&Secret::new(password)))
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        for (text, expected) in [
            ("no p@ss:word/1 here", "no *** here"),
            ("p@ss:word/1p@ss:word/1", "***"),
            ("no P@SS:WORD/1 here", "no *** here"),
            ("no p%40ss%3aword%2F1 here", "no *** here"),
            ("no p@ss%3Aword/1 here", "***"),
            ("no p@ss\\:word\\/1 here", "***"),
            ("cut off: p@ss:wor", "cut off: ***"),
            ("user limiter has", "user *** has"),
            ("two\r\nlines\u{202e}\tand \0more", "two lines and more"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(told(text, "limiter", "p@ss:word/1"), expected, "{text}");
        }
    }

    #[test]
    fn short_secrets_do_not_spoil_texts() {
        assert_eq!(told("the user al is unknown", "al", "x"), "the user al is unknown");
        assert_eq!(told("the user x is unknown", "al", "x"), "***");
        assert_eq!(told("a text", "", ""), "a text");
        assert_eq!(told("User default has no", "default", "hemlig"), "User default has no");
    }

    #[test]
    fn a_password_with_spaces_and_line_breaks_is_found_in_one_line() {
        assert_eq!(told("it is one  two\tthree.", "", "one two\nthree"), "it is ***.");
        assert_eq!(told("it is one+two%0Athree.", "", "one two\nthree"), "***");
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Some(Secret::new("hemlig"))), "Some(...)");
    }
}
