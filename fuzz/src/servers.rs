//! Models of servers in common use, after their own documentation or source: how a server reads a
//! path, and to which of Bolna's handlers it routes the result.
//!
//! Servers of one kind may differ in the paths that they refuse. The model refuses none: it reads a
//! malformed escape literally, and stays at the root when dot segments would climb above it. A
//! server that refuses a path routes it to no handler, so a path that escapes through that server
//! escapes through the model too.

/// Bolna's endpoints, in the order of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Executions,
    Agent,
    Call,
    Default,
}

impl Class {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "executions" => Some(Self::Executions),
            "agent" => Some(Self::Agent),
            "call" => Some(Self::Call),
            "default" => Some(Self::Default),
            _ => None,
        }
    }
}

/// A server that may be behind the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Matches the path as it came over the wire.
    Axum,
    /// Matches the path as it came over the wire, after `tower_http::normalize_path` has trimmed
    /// the slashes at both ends.
    Trimming,
    /// Resolves the target as a reference (RFC 3986, section 4.2): a first `//` begins a host.
    Reference,
    /// Starlette and FastAPI under uvicorn: decode once, then match regular expressions that end in
    /// `$`.
    Starlette,
    /// Decodes, trims white space at the end, and matches.
    Stripping,
    /// Django with regular expressions that end in `/?$`.
    Django,
    /// `ngx_http_parse_complex_uri`: decodes, merges slashes and resolves dots in one pass.
    Nginx,
    /// The same with `merge_slashes off`.
    NginxUnmerged,
    /// RFC 3986, section 6.2.2: decodes unreserved characters, removes dot segments.
    Rfc3986,
    /// Envoy with `normalize_path` and `merge_slashes`, which it applies in this order.
    Envoy,
    /// Tomcat and similar servers: cut the `;parameters` of each segment, then decode, merge
    /// slashes and resolve dots.
    Servlet,
    /// A container that decodes first, so that `%3B` begins a parameter and `%2F` ends it.
    LateServlet,
    /// Spring MVC before 6.0 in Tomcat: a path with a trailing slash matches too.
    SpringMvc,
    /// IIS and similar servers: decode, replace backslashes by slashes, remove dot segments.
    Iis,
    /// Kestrel: decodes everything but `%2F`, removes dot segments.
    Kestrel,
    /// Go's `ServeMux` since 1.22: splits first, decodes each segment.
    ServeMux,
    /// actix-web with `NormalizePath`: merges slashes and drops the last one, then decodes all
    /// escapes but `%25`, `%2B` and `%2F`.
    Actix,
    /// Passes the decoded path on as a C string.
    CString,
    /// Passes the decoded path on as a URL, which is parsed again.
    Reparsing,
    /// Fastify before 5: `;` begins the query; decodes as `decodeURI` does.
    Fastify4,
    /// Node with `new URL(request.url, base)`: two or more leading slashes or backslashes begin a
    /// host.
    NodeUrl,
}

impl Server {
    pub const ALL: [Self; 19] = [
        Self::Axum,
        Self::Trimming,
        Self::Reference,
        Self::Starlette,
        Self::Stripping,
        Self::Django,
        Self::Nginx,
        Self::NginxUnmerged,
        Self::Rfc3986,
        Self::Envoy,
        Self::Servlet,
        Self::LateServlet,
        Self::SpringMvc,
        Self::Iis,
        Self::Kestrel,
        Self::ServeMux,
        Self::Actix,
        Self::CString,
        Self::Reparsing,
    ];

    /// The servers whose reading the classifier does not follow, or not in full.
    pub const BEYOND: [Self; 2] = [Self::Fastify4, Self::NodeUrl];

    /// The handler that a path reaches. The path starts with a slash and has neither `?` nor `#`,
    /// as `http::Uri` yields it.
    pub fn route(self, path: &[u8]) -> Class {
        let read = self.read(path);
        match self {
            Self::Starlette => search(&read),
            Self::Django => match (search(&read), read.strip_suffix(b"\n").unwrap_or(&read)) {
                (Class::Default, [path @ .., b'/']) => look_up(path),
                (class, _) => class,
            },
            _ => look_up(&read),
        }
    }

    /// The path as the server reads it, which it matches.
    pub fn read(self, path: &[u8]) -> Vec<u8> {
        match self {
            Self::Axum => path.to_vec(),
            Self::Trimming => {
                let start = path.iter().take_while(|&&byte| byte == b'/').count();
                let mut trimmed = [b"/", &path[start..]].concat();
                drop_last_slashes(&mut trimmed);
                trimmed
            }
            Self::Reference => match path.strip_prefix(b"//") {
                Some(host) => host
                    .iter()
                    .position(|&byte| byte == b'/')
                    .map_or(b"/".to_vec(), |end| host[end..].to_vec()),
                None => path.to_vec(),
            },
            Self::Starlette | Self::Django => decode(path, |_| true),
            Self::Stripping => {
                let mut decoded = decode(path, |_| true);
                while decoded.last().is_some_and(|byte| b" \t\n\r\x0b\x0c".contains(byte)) {
                    decoded.pop();
                }
                decoded
            }
            Self::Nginx => nginx(path, true),
            Self::NginxUnmerged => nginx(path, false),
            Self::Rfc3986 => remove_dot_segments(&decode(path, is_unreserved)),
            Self::Envoy => merge(&Self::Rfc3986.read(path)),
            Self::Servlet => remove_dot_segments(&merge(&decode(&cut_parameters(path), |_| true))),
            Self::LateServlet => {
                remove_dot_segments(&merge(&cut_parameters(&decode(path, |_| true))))
            }
            Self::SpringMvc => {
                let mut read = Self::Servlet.read(path);
                read.pop_if(|byte| *byte == b'/');
                read
            }
            Self::Iis => {
                let mut decoded = decode(path, |_| true);
                decoded.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
                remove_dot_segments(&decoded)
            }
            Self::Kestrel => remove_dot_segments(&decode(path, |byte| byte != b'/')),
            // No literal of the table contains a slash, so an encoded slash can stay encoded.
            Self::ServeMux => decode(path, |byte| byte != b'/'),
            Self::Actix => {
                let mut merged = merge(path);
                drop_last_slashes(&mut merged);
                decode(&merged, |byte| !matches!(byte, b'%' | b'+' | b'/'))
            }
            Self::CString => cut(decode(path, |_| true), b"\0"),
            Self::Reparsing => cut(decode(path, |_| true), b"?#"),
            Self::Fastify4 => {
                decode(&cut(path.to_vec(), b";"), |byte| !b";/?:@&=+$,#".contains(&byte))
            }
            Self::NodeUrl => {
                let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
                let slashes = path.iter().take_while(|byte| is_slash(byte)).count();
                let host = &path[slashes..];
                let path = match host.iter().position(is_slash) {
                    _ if slashes < 2 => path,
                    Some(end) => &host[end..],
                    None => b"/",
                };
                Proxy::UrlParser.forward(path)
            }
        }
    }
}

/// A proxy in front of a server, which rewrites the path that it forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Envoy with `normalize_path`.
    Normalizing,
    /// Envoy with `normalize_path` and `merge_slashes`.
    Merging,
    /// A proxy whose client parses URLs as the WHATWG specifies, as reqwest does: replaces
    /// backslashes by slashes, removes dot segments, decodes nothing.
    UrlParser,
    /// nginx with a URI in `proxy_pass`: escapes the path that it has read again.
    Nginx,
}

impl Proxy {
    pub const ALL: [Self; 4] = [Self::Normalizing, Self::Merging, Self::UrlParser, Self::Nginx];

    /// The path that the proxy forwards.
    pub fn forward(self, path: &[u8]) -> Vec<u8> {
        match self {
            Self::Normalizing => Server::Rfc3986.read(path),
            Self::Merging => Server::Envoy.read(path),
            Self::UrlParser => {
                let slashed = path
                    .iter()
                    .map(|&byte| if byte == b'\\' { b'/' } else { byte })
                    .collect::<Vec<_>>();
                let plain_dots = |segment: &[u8]| match decode(segment, |byte| byte == b'.') {
                    dots if dots == b"." || dots == b".." => dots,
                    _ => segment.to_vec(),
                };
                let segments: Vec<_> =
                    slashed.split(|&byte| byte == b'/').map(plain_dots).collect();
                remove_dot_segments(&segments.join(&b'/'))
            }
            Self::Nginx => {
                let mut escaped = Vec::new();
                for byte in Server::Nginx.read(path) {
                    match byte {
                        b'!'..=b'~' if !b"#%?".contains(&byte) => escaped.push(byte),
                        _ => escaped.extend(format!("%{byte:02X}").bytes()),
                    }
                }
                escaped
            }
        }
    }
}

/// A router that matches a path exactly, as most routers do.
fn look_up(path: &[u8]) -> Class {
    // No template has six pieces, so the last piece may be the rest of the path.
    let pieces: Vec<&[u8]> = path.splitn(6, |&byte| byte == b'/').collect();
    match pieces[..] {
        [b"", b"call"] => Class::Call,
        [b"", b"v2", b"agent", b"" | b"all"] => Class::Default,
        [b"", b"v2", b"agent", _] => Class::Agent,
        [b"", b"v2", b"agent", id, b"executions"] if !id.is_empty() => Class::Executions,
        _ => Class::Default,
    }
}

/// Starlette's router: regular expressions such as `^/call$`, tried in order. A character class
/// such as `[^/]+` matches a newline like any other character. `$` matches at the end, or before a
/// newline that is the last character.
fn search(path: &[u8]) -> Class {
    let ends = [Some(path), path.strip_suffix(b"\n")];
    let literal = |route: &[u8]| ends.contains(&Some(route));
    let is_segment = |text: &[u8]| !text.is_empty() && !text.contains(&b'/');
    if literal(b"/call") {
        return Class::Call;
    }
    let Some(rest) = path.strip_prefix(b"/v2/agent/") else {
        return Class::Default;
    };
    if literal(b"/v2/agent/all") {
        return Class::Default;
    }
    if is_segment(rest) {
        return Class::Agent;
    }
    let rest = rest.strip_suffix(b"\n").unwrap_or(rest);
    if rest.strip_suffix(b"/executions").is_some_and(is_segment) {
        Class::Executions
    } else {
        Class::Default
    }
}

fn decode(path: &[u8], decodes: impl Fn(u8) -> bool) -> Vec<u8> {
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
pub(crate) fn hex_pair(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    // `from_str_radix` would accept a sign too.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// RFC 3986, section 2.3: ALPHA / DIGIT / "-" / "." / "_" / "~".
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn merge(path: &[u8]) -> Vec<u8> {
    let mut merged: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(byte);
        }
    }
    merged
}

fn drop_last_slashes(path: &mut Vec<u8>) {
    while path.len() > 1 && path.last() == Some(&b'/') {
        path.pop();
    }
}

fn cut(mut path: Vec<u8>, ends: &[u8]) -> Vec<u8> {
    if let Some(end) = path.iter().position(|byte| ends.contains(byte)) {
        path.truncate(end);
    }
    path
}

/// RFC 3986, section 5.2.4, rule by rule, with its input and output buffers.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut output: Vec<u8> = Vec::with_capacity(path.len());
    let mut input = path;
    while !input.is_empty() {
        if input.starts_with(b"../") {
            input = &input[3..];
        } else if input.starts_with(b"./") || input.starts_with(b"/./") {
            input = &input[2..];
        } else if input == b"/." {
            input = b"/";
        } else if input.starts_with(b"/../") || input == b"/.." {
            input = if input == b"/.." { b"/" } else { &input[3..] };
            let last = output.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            output.truncate(last);
        } else if input == b"." || input == b".." {
            input = b"";
        } else {
            let next = input[1..]
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(input.len(), |slash| slash + 1);
            output.extend_from_slice(&input[..next]);
            input = &input[next..];
        }
    }
    output
}

/// One pass over the path. Each byte, decoded if it was escaped, goes to the output, where a slash
/// or the end of the path closes the segment.
fn nginx(path: &[u8], merge_slashes: bool) -> Vec<u8> {
    let mut output: Vec<u8> = Vec::with_capacity(path.len());
    let mut at = 0;
    loop {
        let byte =
            path.get(at).map(|&raw| hex_pair(&path[at..]).map_or((raw, 1), |escaped| (escaped, 3)));
        if let Some((byte, width)) = byte {
            at += width;
            if byte != b'/' {
                output.push(byte);
                continue;
            }
        }
        let open = output.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        match &output[open..] {
            // The slash before the dot stays, and replaces the one after it.
            b"." if open > 0 => output.truncate(open),
            b".." if open > 0 => {
                output.truncate(open - 1);
                let parent =
                    output.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
                output.truncate(parent);
                if output.is_empty() {
                    output.push(b'/');
                }
            }
            b"" if open > 0 && merge_slashes => {}
            _ if byte.is_some() => output.push(b'/'),
            _ => {}
        }
        if byte.is_none() {
            return output;
        }
    }
}

fn cut_parameters(path: &[u8]) -> Vec<u8> {
    let bare = |segment: &[u8]| cut(segment.to_vec(), b";");
    path.split(|&byte| byte == b'/').map(bare).collect::<Vec<_>>().join(&b'/')
}
