//! The ways in which servers read a path.
//!
//! Each step below is what a server, a proxy or a framework in common use does to a path before it
//! matches the path. It is not known here which servers are behind the limiter, and in which order.
//! So each step is both taken and left out, in the order in which a chain of servers would take
//! them.

/// The most readings of a path. No path that is sent in good faith has as many.
const MOST: usize = 64;

/// A step: up to three ways in which servers change a path. `None` for each that leaves it as it
/// is.
type Step = fn(&[u8]) -> [Option<Vec<u8>>; 3];

const STEPS: [Step; 9] = [
    // A server that resolves the target as a reference (RFC 3986, section 4.2) takes `//host` at
    // the start for the host. Node's `new URL(target, base)` does so for any number of slashes, of
    // either kind, before the host and after it.
    |path| [cut_authority(path), cut_any_authority(path), None],
    // Servlet containers drop `;parameters` before they decode. Other servers may do it afterwards,
    // so this step comes twice.
    |path| [cut_parameters(path), None, None],
    // Starlette and nginx decode every escape, once. RFC 3986 (section 6.2.2.2) normalises only the
    // escapes of characters that need none.
    |path| [decode(path, |_| true), decode(path, is_unreserved), None],
    |path| [cut_parameters(path), None, None],
    // IIS and similar servers treat a backslash as a slash.
    |path| [replace_backslashes(path), None, None],
    // A server that passes the path on as a C string cuts it at a zero byte, and one that parses it
    // as a URL again cuts it at `?` or `#`.
    |path| [cut_at(path, 0), cut_at(path, b'?'), cut_at(path, b'#')],
    // Python's `$` matches before a final newline. Others trim all ASCII white space.
    |path| [trim_end(path), None, None],
    // nginx and actix merge slashes. RFC 3986 does not, and resolves dot segments among empty
    // segments.
    |path| [merge_slashes(path), None, None],
    |path| {
        let resolved = resolve_dots(path);
        [resolved.as_deref().and_then(merge_slashes), resolved, None]
    },
];

/// The distinct readings of a path, the path itself first. `None` if it has more than [`MOST`].
pub(super) fn of(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut readings = vec![path.to_vec()];
    for step in STEPS {
        // A step is not applied to its own results: no server decodes twice.
        for index in 0..readings.len() {
            for reading in step(&readings[index]).into_iter().flatten() {
                if readings.contains(&reading) {
                    continue;
                }
                if readings.len() == MOST {
                    return None;
                }
                readings.push(reading);
            }
        }
    }
    Some(readings)
}

// Each of these functions returns `None` if it would change nothing.

fn decode(path: &[u8], decodes: fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        match escape(rest) {
            Some(escaped) if decodes(escaped) => {
                decoded.push(escaped);
                rest = &rest[3..];
            }
            _ => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    (decoded.len() < path.len()).then_some(decoded)
}

/// The byte that an escape `%XX` at the start of `text` stands for. `None` without a well-formed
/// escape there.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Whether a character needs no escape: the unreserved characters of RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Cuts `//host` at the start.
fn cut_authority(path: &[u8]) -> Option<Vec<u8>> {
    let host = path.strip_prefix(b"//")?;
    Some(
        host.iter()
            .position(|byte| *byte == b'/')
            .map_or(b"/".to_vec(), |end| host[end..].to_vec()),
    )
}

/// Cuts the host at the start, after two or more slashes or backslashes.
fn cut_any_authority(path: &[u8]) -> Option<Vec<u8>> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let start = path.iter().position(|byte| !is_slash(byte)).unwrap_or(path.len());
    let end = path[start..].iter().position(is_slash).map(|end| start + end);
    (start >= 2).then(|| end.map_or(b"/".to_vec(), |end| path[end..].to_vec()))
}

fn cut_parameters(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b';').then(|| {
        let mut in_parameter = false;
        let mut keep = |byte: u8| {
            in_parameter = byte != b'/' && (in_parameter || byte == b';');
            !in_parameter
        };
        path.iter().copied().filter(|&byte| keep(byte)).collect()
    })
}

fn replace_backslashes(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b'\\')
        .then(|| path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect())
}

fn cut_at(path: &[u8], end: u8) -> Option<Vec<u8>> {
    path.iter().position(|&byte| byte == end).map(|end| path[..end].to_vec())
}

fn trim_end(path: &[u8]) -> Option<Vec<u8>> {
    // The vertical tab is white space in Python and C, but not in Rust.
    let kept = path
        .iter()
        .rposition(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b)
        .map_or(0, |last| last + 1);
    (kept < path.len()).then(|| path[..kept].to_vec())
}

fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    path.windows(2).any(|pair| pair == b"//").then(|| {
        let mut merged = path.to_vec();
        merged.dedup_by(|right, left| *right == b'/' && *left == b'/');
        merged
    })
}

/// Resolves dot segments as in RFC 3986, section 5.2.4, in a path that starts with a slash.
fn resolve_dots(path: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    let mut found = false;
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, b"." | b"..");
        found |= is_dots;
        if segment == b".." {
            kept.pop();
        }
        if !is_dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            // A final dot segment leaves its slash.
            kept.push(b"");
        }
    }
    found.then(|| {
        let mut resolved = Vec::with_capacity(path.len());
        for segment in kept {
            resolved.push(b'/');
            resolved.extend_from_slice(segment);
        }
        resolved
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_resolved_as_rfc_3986_does() {
        // The first is the example of section 5.2.4.
        for (path, resolved) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/../call", "/call"),
            ("/call/..", "/"),
            ("/call/.", "/call/"),
            ("/a//../b", "/a/b"),
            ("/.", "/"),
        ] {
            assert_eq!(
                resolve_dots(path.as_bytes()).as_deref(),
                Some(resolved.as_bytes()),
                "{path}"
            );
        }
        assert_eq!(resolve_dots(b"/call.../.a"), None);
    }

    #[test]
    fn a_malformed_escape_stands_for_itself_and_nothing_is_decoded_twice() {
        assert_eq!(decode(b"/%u0063all%", |_| true), None);
        assert_eq!(decode(b"/%2563all%6", |_| true).as_deref(), Some(b"/%63all%6".as_slice()));
        assert_eq!(decode(b"/%63%2F%7e", is_unreserved).as_deref(), Some(b"/c%2F~".as_slice()));
    }

    #[test]
    fn a_path_with_too_many_readings_is_given_up() {
        assert!(of(b"/a//b;c%2f%2e%2e/%3bd/\\e/%5c../..%00f%3fg%23h%20").is_none());
        assert_eq!(of(b"/a").map(|readings| readings.len()), Some(1));
    }
}
