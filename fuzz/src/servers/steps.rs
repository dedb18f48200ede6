//! What servers do to a request target before they match it: one function for each step, in words
//! of its own, so that a model is a list of them.

/// A step. It takes what the step before it has left.
pub type Step = fn(Vec<u8>) -> Vec<u8>;

/// Cuts the query.
pub fn query(target: Vec<u8>) -> Vec<u8> {
    cut(target, b"?")
}

/// Cuts the fragment, which no request target has, but which a proxy can make by decoding.
pub fn fragment(target: Vec<u8>) -> Vec<u8> {
    cut(target, b"#")
}

/// Cuts at the first `;`: for some servers, it begins the query.
pub fn semicolon(target: Vec<u8>) -> Vec<u8> {
    cut(target, b";")
}

/// Cuts at the first zero byte, where a C string ends.
pub fn c_string(target: Vec<u8>) -> Vec<u8> {
    cut(target, b"\0")
}

/// Cuts what follows a line break: it is a header field. Before it a version may follow the target.
/// Spaces at the end are dropped. With a space elsewhere it is no request line, and all servers
/// refuse it.
pub fn request_line(target: Vec<u8>) -> Vec<u8> {
    let length = target.len();
    let mut line = cut(target, b"\r\n");
    if line.len() < length
        && let Some(version) =
            [b" HTTP/1.1", b" HTTP/1.0"].iter().find(|it| line.ends_with(&it[..]))
    {
        line.truncate(line.len() - version.len());
    }
    request_target(line)
}

/// The same where a line break is refused, too.
pub fn request_target(mut target: Vec<u8>) -> Vec<u8> {
    while target.pop_if(|byte| *byte == b' ').is_some() {}
    if target.contains(&b' ') { Vec::new() } else { target }
}

fn cut(mut path: Vec<u8>, ends: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|byte| ends.contains(byte)).unwrap_or(path.len());
    path.truncate(end);
    path
}

/// Cuts the `;parameters` of each segment.
pub fn parameters(path: Vec<u8>) -> Vec<u8> {
    by_segment(&path, |segment| segment.split(|&byte| byte == b';').next().unwrap_or_default())
}

/// Cuts the `;parameters` of the last segment, as RFC 1808 had them.
pub fn last_parameters(mut path: Vec<u8>) -> Vec<u8> {
    let last = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    if let Some(at) = path[last..].iter().position(|&byte| byte == b';') {
        path.truncate(last + at);
    }
    path
}

/// Decodes every escape. A malformed one is read literally.
pub fn decode(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, |_| true)
}

/// Decodes the escapes of characters that need none: RFC 3986, section 6.2.2.2.
pub fn decode_unreserved(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, is_unreserved)
}

/// Decodes every escape but that of a slash. It is also how to decode each segment by itself: no
/// literal of the routes has a slash.
pub fn decode_segments(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, |byte| byte != b'/')
}

/// Decodes as actix-router does, which leaves `%25`, `%2B` and `%2F`.
pub fn decode_actix(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, |byte| !b"%+/".contains(&byte))
}

/// Decodes as JavaScript's `decodeURI` does.
pub fn decode_uri(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, |byte| !b";/?:@&=+$,#".contains(&byte))
}

/// Decodes the escapes of slashes and backslashes.
pub fn decode_slashes(path: Vec<u8>) -> Vec<u8> {
    decode_if(path, |byte| matches!(byte, b'/' | b'\\'))
}

/// Decodes `%uXXXX` to UTF-8.
pub fn decode_u(path: Vec<u8>) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let digits = path[at..].strip_prefix(b"%u").and_then(|rest| rest.get(..4));
        match digits.and_then(hex).and_then(char::from_u32) {
            Some(character) => {
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            None => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn decode_if(path: Vec<u8>, decodes: impl Fn(u8) -> bool) -> Vec<u8> {
    if !path.contains(&b'%') {
        return path;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let escaped = hex_pair(&path[at..]).filter(|&byte| decodes(byte));
        decoded.push(escaped.unwrap_or(path[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

/// The value of a leading `%XX`.
pub fn hex_pair(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    hex(digits).and_then(|value| u8::try_from(value).ok())
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

/// RFC 3986, section 2.3: ALPHA / DIGIT / "-" / "." / "_" / "~".
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Escapes again what a proxy has decoded, as nginx and Apache do.
pub fn escape(path: Vec<u8>) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'!'..=b'~' if !b"\"#%<>?\\^`{|}".contains(&byte) => escaped.push(byte),
            _ => escaped.extend(format!("%{byte:02X}").bytes()),
        }
    }
    escaped
}

/// Drops the bytes that are no UTF-8.
pub fn drop_malformed_utf8(path: Vec<u8>) -> Vec<u8> {
    path.utf8_chunks().flat_map(|chunk| chunk.valid().bytes()).collect()
}

/// Merges slashes.
pub fn merge(mut path: Vec<u8>) -> Vec<u8> {
    path.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    path
}

/// Merges the slashes at the start.
pub fn merge_first(path: Vec<u8>) -> Vec<u8> {
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    path[slashes.saturating_sub(1)..].to_vec()
}

/// Drops a slash at the end.
pub fn drop_last_slash(mut path: Vec<u8>) -> Vec<u8> {
    if path.len() > 1 {
        path.pop_if(|byte| *byte == b'/');
    }
    path
}

/// Drops all slashes at the end.
pub fn drop_last_slashes(mut path: Vec<u8>) -> Vec<u8> {
    while path.len() > 1 && path.pop_if(|byte| *byte == b'/').is_some() {}
    path
}

/// Drops a slash and a newline after it at the end, as a regular expression that ends in `/?$` does.
pub fn drop_last_slash_and_newline(mut path: Vec<u8>) -> Vec<u8> {
    if path.ends_with(b"/\n") {
        path.truncate(path.len() - 2);
    }
    drop_last_slash(path)
}

/// Drops a newline at the end.
pub fn drop_last_newline(mut path: Vec<u8>) -> Vec<u8> {
    path.pop_if(|byte| *byte == b'\n');
    path
}

/// Drops white space at the end.
pub fn trim_end(mut path: Vec<u8>) -> Vec<u8> {
    while path.pop_if(|byte| b" \t\n\r\x0b\x0c".contains(byte)).is_some() {}
    path
}

/// Drops dots and spaces at the end of each segment, as Windows does.
pub fn drop_last_dots(path: Vec<u8>) -> Vec<u8> {
    by_segment(&path, |segment| match segment {
        b"." | b".." => segment,
        _ => {
            let last = segment.iter().rposition(|byte| !b". ".contains(byte));
            &segment[..last.map_or(0, |last| last + 1)]
        }
    })
}

/// Makes slashes of backslashes.
pub fn backslashes(mut path: Vec<u8>) -> Vec<u8> {
    path.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    path
}

/// Makes lower-case letters of all ASCII letters.
pub fn fold_case(mut path: Vec<u8>) -> Vec<u8> {
    path.make_ascii_lowercase();
    path
}

/// RFC 3986, section 5.2.4, for a path that starts with a slash.
pub fn resolve(path: Vec<u8>) -> Vec<u8> {
    resolve_if(&path, |segment| segment)
}

/// The same, but no slash is left where the last segment is one of dots.
pub fn resolve_to_the_end(path: Vec<u8>) -> Vec<u8> {
    let dots = path.ends_with(b"/.") || path.ends_with(b"/..");
    let resolved = resolve(path);
    if dots { drop_last_slash(resolved) } else { resolved }
}

/// The same, where a segment of dots may have `;parameters`.
pub fn resolve_with_parameters(path: Vec<u8>) -> Vec<u8> {
    resolve_if(&path, |segment| segment.split(|&byte| byte == b';').next().unwrap_or_default())
}

/// The same, where the dots may be escaped: the WHATWG's URL standard, "single-dot URL path
/// segment".
pub fn resolve_escaped(path: Vec<u8>) -> Vec<u8> {
    resolve_if(&path, |segment| match segment {
        [b'%', b'2', b'e' | b'E'] => b".",
        [b'.', b'%', b'2', b'e' | b'E']
        | [b'%', b'2', b'e' | b'E', b'.']
        | [b'%', b'2', b'e' | b'E', b'%', b'2', b'e' | b'E'] => b"..",
        _ => segment,
    })
}

/// Removes dot segments. Above the root is the root.
fn resolve_if(path: &[u8], dots: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match dots(segment) {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push(b"");
        }
    }
    let mut resolved = vec![b'/'];
    resolved.extend(kept.join(&b'/'));
    resolved
}

/// Cuts the host after `//` at the start: RFC 3986, section 4.2.
pub fn host(path: Vec<u8>) -> Vec<u8> {
    match path.strip_prefix(b"//") {
        Some(host) => from_slash(host),
        None => path,
    }
}

/// Cuts the host after `//` at the start, if it has a user name, as Node's `url.parse` does.
pub fn host_with_user(path: Vec<u8>) -> Vec<u8> {
    let host = path.strip_prefix(b"//").and_then(|rest| rest.split(|&byte| byte == b'/').next());
    if host.is_some_and(|host| host.contains(&b'@')) { from_slash(&path[2..]) } else { path }
}

/// Cuts the host after two or more slashes or backslashes at the start, as Node's `new URL(target,
/// base)` does.
pub fn any_host(path: Vec<u8>) -> Vec<u8> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let slashes = path.iter().take_while(|byte| is_slash(byte)).count();
    if slashes < 2 {
        return path;
    }
    match path[slashes..].iter().position(is_slash) {
        Some(end) => path[slashes + end..].to_vec(),
        None => b"/".to_vec(),
    }
}

fn from_slash(text: &[u8]) -> Vec<u8> {
    match text.iter().position(|&byte| byte == b'/') {
        Some(slash) => text[slash..].to_vec(),
        None => b"/".to_vec(),
    }
}

/// Cuts the name of a front controller, as an application of PHP with `PATH_INFO` does.
pub fn front_controller(path: Vec<u8>) -> Vec<u8> {
    match path.strip_prefix(b"/index.php") {
        Some(rest) if rest.starts_with(b"/") => rest.to_vec(),
        _ => path,
    }
}

fn by_segment(path: &[u8], change: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    path.split(|&byte| byte == b'/').map(change).collect::<Vec<_>>().join(&b'/')
}
