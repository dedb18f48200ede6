//! The syntax of path templates.

use std::error::Error;
use std::fmt;

use crate::values::Excerpt;

/// The most segments of a template.
const MAX_SEGMENTS: usize = 256;

/// The most bytes of a segment. The reader of odd paths keeps 256 bytes of a segment, so it can
/// tell a longer one from every literal.
const LONGEST_SEGMENT: usize = 255;

/// What is wrong with a path template. See [`PolicyBuilder`](crate::policy::PolicyBuilder#paths)
/// for the syntax.
///
/// The [example of `PolicyError`](crate::PolicyError) shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not begin with a slash.
    NoSlash,
    /// It ends with a slash.
    TrailingSlash,
    /// It is spelled in a way that stands for another path, for example with an escape, an empty
    /// segment or a dot segment.
    NotPlain,
    /// It has a parameter in the syntax of older routers, such as `:name` or `*name`, or another
    /// `*`.
    OldSyntax,
    /// A parameter is not a whole segment, its name is not made of letters, digits and `_`, or it
    /// is `{*name}` and not the last segment.
    Parameter,
    /// It has more than 256 segments.
    TooManySegments,
    /// It has a segment of more than 255 bytes.
    LongSegment,
    /// It matches the same paths as this other template.
    Conflict(String),
}

/// Checks the syntax of a template.
///
/// Templates are matched against the readings of a path. A template that is itself an odd spelling
/// of another path would not match all paths that stand for it, so it is an error.
///
/// # Errors
/// If the template is not valid.
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
    if rest.split('/').nth(MAX_SEGMENTS).is_some() {
        return Err(TemplateError::TooManySegments);
    }
    if rest.split('/').any(|segment| segment.len() > LONGEST_SEGMENT) {
        return Err(TemplateError::LongSegment);
    }
    let mut segments = rest.split('/');
    // Nothing can follow the rest of a path.
    if segments.clone().rev().skip(1).any(|segment| segment.starts_with("{*")) {
        return Err(TemplateError::Parameter);
    }
    segments.try_for_each(check_segment)
}

/// Checks the syntax of a prefix that the application strips.
///
/// # Errors
/// If the prefix is not valid.
pub(super) fn check_prefix(prefix: &str) -> Result<(), TemplateError> {
    check(prefix)?;
    if prefix == "/" {
        return Err(TemplateError::TrailingSlash);
    }
    if prefix.contains("/{*") { Err(TemplateError::Parameter) } else { Ok(()) }
}

fn check_segment(segment: &str) -> Result<(), TemplateError> {
    if segment.is_empty() {
        return Err(TemplateError::NotPlain);
    }
    if segment.starts_with([':', '*']) {
        return Err(TemplateError::OldSyntax);
    }
    if !segment.contains(['{', '}']) {
        // `/health*` would match that text only, which is hardly what was meant.
        return if segment.contains('*') { Err(TemplateError::OldSyntax) } else { Ok(()) };
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
            Self::TrailingSlash => f.write_str(
                "leave the trailing slash out: a path with one is charged as the path without it",
            ),
            Self::NotPlain => f.write_str(
                "write the path as it is after decoding, without a query, `%`, `;`, `\\`, white \
                 space, `//`, and `.` or `..` segments: requests with such spellings are matched \
                 by what they may stand for",
            ),
            Self::OldSyntax => f.write_str(
                "a parameter is a whole segment and is written `{name}`, and the rest of a path \
                 `{*name}`",
            ),
            Self::Parameter => f.write_str(
                "a parameter is a whole segment `{name}`, its name of letters, digits and `_`; \
                 `{*name}`, the rest of a path, can only be the last segment",
            ),
            Self::TooManySegments => {
                write!(f, "a path has at most {MAX_SEGMENTS} segments")
            }
            Self::LongSegment => {
                write!(f, "a segment has at most {LONGEST_SEGMENT} bytes")
            }
            Self::Conflict(with) => {
                let with = Excerpt::of(with);
                write!(
                    f,
                    "it matches the same paths as `{}`{}; a path belongs to one endpoint or is \
                     exempt, so leave one of the two out",
                    with.text(),
                    with.mark()
                )
            }
        }
    }
}

impl Error for TemplateError {}
