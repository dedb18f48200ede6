//! What a path template may look like.

use std::error::Error;
use std::fmt;

/// What is wrong with a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not begin with a slash.
    NoSlash,
    /// It ends with a slash.
    TrailingSlash,
    /// It is spelled in a way that stands for another path, with an escape or a dot segment, say.
    NotPlain,
    /// It has a parameter in the syntax of older routers: `:name`.
    OldSyntax,
    /// A parameter is not a whole segment, has no valid name, or is `{*name}` and not the last.
    Parameter,
    /// It matches the same paths as that template.
    Conflict(String),
}

/// A template is matched against what a path may stand for, so a spelling that stands for another
/// path would match too little.
pub(super) fn check(template: &str) -> Result<(), TemplateError> {
    let Some(rest) = template.strip_prefix('/') else {
        return Err(TemplateError::NoSlash);
    };
    if rest.ends_with('/') {
        return Err(TemplateError::TrailingSlash);
    }
    if template.bytes().any(super::is_odd_byte)
        || rest.split('/').any(|segment| matches!(segment, "." | ".."))
    {
        return Err(TemplateError::NotPlain);
    }
    if rest.is_empty() {
        return Ok(());
    }
    let mut segments = rest.split('/');
    // The rest of a path has nothing behind it.
    if segments.clone().rev().skip(1).any(|segment| segment.starts_with("{*")) {
        return Err(TemplateError::Parameter);
    }
    segments.try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), TemplateError> {
    if segment.is_empty() {
        return Err(TemplateError::NotPlain);
    }
    if segment.starts_with([':', '*']) {
        return Err(TemplateError::OldSyntax);
    }
    if !segment.contains(['{', '}']) {
        return Ok(());
    }
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match name.map(|name| name.strip_prefix('*').unwrap_or(name)) {
        Some(name)
            if !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
        {
            Ok(())
        }
        _ => Err(TemplateError::Parameter),
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("a path starts with `/`"),
            Self::TrailingSlash => {
                f.write_str("leave the trailing slash out: a path with one is billed as the path without it")
            }
            Self::NotPlain => f.write_str(
                "write the path as it is after decoding, without a query, `%`, `;`, `\\`, white space, `//`, `.` or \
                 `..` segments: such spellings are read as what they may stand for",
            ),
            Self::OldSyntax => f.write_str("a parameter is written `{name}`, and the rest of a path `{*name}`"),
            Self::Parameter => f.write_str(
                "a parameter is a whole segment `{name}`, of letters, digits and `_`; `{*name}`, the rest of a path, stands last",
            ),
            Self::Conflict(with) => write!(f, "it matches the same paths as `{with}`"),
        }
    }
}

impl Error for TemplateError {}
