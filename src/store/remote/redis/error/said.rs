//! What a server or the operating system said, fit for a log.

use std::error::Error;
use std::fmt;

use redis::{ErrorKind, RedisError};

use crate::store::remote::redis::address::Login;

/// The most characters that are kept.
const LONGEST: usize = 200;

/// What a server or the operating system said: one line, without secrets, the arguments of the
/// command, the place in the script, or keys.
#[derive(Clone, Debug)]
pub(super) struct Said(String);

impl Said {
    /// `None` if nothing was said.
    pub(super) fn new(text: &str, login: &Login) -> Option<Self> {
        // Secrets are hidden before anything is taken out, since a part of a secret might not be
        // recognized, and again afterwards, since two parts may have come together.
        let text = login.scrub(&without_ids(&without_script(&login.scrub(text))));
        let text = text.trim();
        (!text.is_empty()).then(|| Self(shortened(text)))
    }

    pub(super) fn of(error: &RedisError, login: &Login) -> Option<Self> {
        Self::new(&words(error), login)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Said {}

/// The words of an error as they came: the code, unless it is `ERR`, and the text.
pub(super) fn words(error: &RedisError) -> String {
    match (error.kind(), error.code(), error.detail()) {
        (ErrorKind::Server(_) | ErrorKind::Extension, Some("ERR"), Some(text)) => text.to_owned(),
        (ErrorKind::Server(_) | ErrorKind::Extension, Some(code), text) => {
            format!("{code} {}", text.unwrap_or_default())
        }
        _ => error.to_string(),
    }
}

/// Takes out what points into the script, in the forms of Redis 6 and later: its hash, and the
/// line. The error of an unknown command quotes the arguments, and so the script.
fn without_script(text: &str) -> String {
    let mut text = before(text, ", with args beginning with").to_owned();
    let begins_with_hash =
        |rest: &str| before(rest, ",").bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((start, _)) = text.rsplit_once(" script: ").filter(|it| begins_with_hash(it.1)) {
        text.truncate(start.len());
    }
    if let Some(start) = text.find("Error running script (call to ") {
        let end = text[start..].find("): ").map_or(text.len(), |at| start + at + 3);
        text.replace_range(start..end, "");
    }
    const LINE: &str = "user_script";
    while let Some(at) = text.find(LINE) {
        let start = if text[..at].ends_with('@') { at - 1 } else { at };
        let rest = &text[at + LINE.len()..];
        let rest =
            rest.trim_start_matches(|it: char| it.is_ascii_digit() || it == ':' || it == ' ');
        let end = text.len() - rest.len();
        text.replace_range(start..end, "");
    }
    text
}

/// Takes out keys from the `{` before the id on, and hashes.
fn without_ids(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    for word in text.split_inclusive([' ', '\'', '"', '`', ',', '(', ')']) {
        let (word, end) = match word.char_indices().next_back() {
            Some((at, last)) if " '\"`,()".contains(last) => word.split_at(at),
            _ => (word, ""),
        };
        let bare = word.trim_start_matches("f_").trim_end_matches(['.', ':']);
        match word.split_once('{') {
            Some((start, _)) => told.extend([start, "{...}"]),
            None if bare.len() >= 32 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                told.push_str("...");
            }
            None => told.push_str(word),
        }
        told.push_str(end);
    }
    told
}

fn before<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or(text, |(before, _)| before)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 3).chain("...".chars()).collect()
}
