//! The error of reading a policy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::document::Mistake;

/// Why a policy can't be read: the file, the line, and what is wrong there.
///
/// `Display` shows it in one line: `limits.toml:12:9: quota of "call": limit is 0, which ...`, or
/// `line 12, column 9: quota of ...` if the policy was not read from a file.
///
/// ```
/// use bolna_rate_limit::Policy;
///
/// let error = Policy::from_toml("[[endpoint]]\nname = \"call\"\nlimit = 500\nper = \"minuet\"")
///     .unwrap_err();
/// assert_eq!((error.line(), error.column()), (Some(4), Some(7)));
/// assert_eq!(error.to_string(), format!("line 4, column 7: {}", error.message()));
/// ```
#[derive(Debug)]
pub struct PolicyFileError {
    path: Option<PathBuf>,
    /// The line and the column, from 1.
    position: Option<(usize, usize)>,
    message: String,
    source: Option<io::Error>,
}

impl PolicyFileError {
    pub(super) fn in_text(text: &[u8], mistake: Mistake) -> Self {
        Self {
            path: None,
            position: Some(position(text, mistake.at)),
            message: mistake.message,
            source: None,
        }
    }

    pub(super) fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self { path: Some(path.to_owned()), position: None, message: message.into(), source: None }
    }

    pub(super) fn reading(path: &Path, error: io::Error) -> Self {
        Self { source: Some(error), ..Self::of_file(path, "the file can't be read") }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The path that was given to [`Policy::read`](crate::Policy::read). `None` if the policy was
    /// not read from a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The line of the mistake, from 1. `None` if the file can't be read, or if its name ends in
    /// neither `.toml` nor `.json`.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.position.map(|(line, _)| line)
    }

    /// The position of the mistake in its [line](Self::line), in characters from 1. `None` if there
    /// is no line.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.position.map(|(_, column)| column)
    }

    /// What is wrong, without the position: the value and the rule that it breaks.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for PolicyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.position) {
            (Some(path), Some((line, column))) => {
                write!(f, "{}:{line}:{column}: ", path.display())?;
            }
            (Some(path), None) => write!(f, "{}: ", path.display())?,
            (None, Some((line, column))) => write!(f, "line {line}, column {column}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)?;
        self.source.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

/// The source is the error of reading the file, if that is what failed. `Display` shows it too.
impl Error for PolicyFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// The line and the column of a byte, both from 1. If something is missing at the end of the text,
/// this is the position after the last character that is not white space.
fn position(text: &[u8], at: usize) -> (usize, usize) {
    let before = if at < text.len() { &text[..at] } else { text.trim_ascii_end() };
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}
