//! How routers match the four routes that every recorded server had.

/// The route that a router chooses. Paths of `List` and paths without a route are both charged to
/// `default`, but only the former reach a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/agent/{id}/executions`.
    Executions,
    /// `/v2/agent/{id}`.
    Agent,
    /// `/call`.
    Call,
    /// `/v2/agent/all`.
    List,
    /// No route: 404.
    None,
}

impl Route {
    /// The name of the endpoint that the route's paths are charged to. `None` without a route: the
    /// request reaches no handler.
    pub fn endpoint(self) -> Option<&'static str> {
        match self {
            Self::Executions => Some("executions"),
            Self::Agent => Some("agent"),
            Self::Call => Some("call"),
            Self::List => Some("default"),
            Self::None => None,
        }
    }
}

/// A router: the route of a path.
pub type Router = fn(&[u8]) -> Route;

/// Matches exactly, as most routers do. A parameter is a segment that is not empty.
pub fn exact(path: &[u8]) -> Route {
    match pieces(path)[..] {
        [b"", b"call"] => Route::Call,
        [b"", b"v2", b"agent", b""] => Route::None,
        [b"", b"v2", b"agent", b"all"] => Route::List,
        [b"", b"v2", b"agent", _] => Route::Agent,
        [b"", b"v2", b"agent", id, b"executions"] if !id.is_empty() => Route::Executions,
        _ => Route::None,
    }
}

/// A parameter may be empty if it is not the last segment.
pub fn empty_inner_id(path: &[u8]) -> Route {
    match pieces(path)[..] {
        [b"", b"v2", b"agent", b"", b"executions"] => Route::Executions,
        _ => exact(path),
    }
}

/// A parameter may be empty.
pub fn empty_id(path: &[u8]) -> Route {
    if path == b"/v2/agent/" { Route::Agent } else { empty_inner_id(path) }
}

/// Regular expressions such as `^/call$`: `$` matches before a newline that is the last character
/// too. A character class such as `[^/]+` matches a newline like any other character.
pub fn regular(path: &[u8]) -> Route {
    match (exact(path), path.strip_suffix(b"\n").map(exact)) {
        (Route::None, Some(route)) if route != Route::Agent => route,
        (Route::Agent, Some(Route::List)) => Route::List,
        (route, _) => route,
    }
}

/// Literals are compared, and only what has a parameter is a regular expression.
pub fn regular_parameters(path: &[u8]) -> Route {
    match (exact(path), path.strip_suffix(b"\n").map(exact)) {
        (Route::None, Some(Route::Executions)) => Route::Executions,
        (route, _) => route,
    }
}

/// The same, and literals are compared as C strings.
pub fn c_literals(path: &[u8]) -> Route {
    match exact(path.split(|&byte| byte == 0).next().unwrap_or_default()) {
        route @ (Route::Call | Route::List) => route,
        _ => regular_parameters(path),
    }
}

/// A literal at the end may have a format, as in Rails: letters after a dot, the only one.
pub fn with_format(path: &[u8]) -> Route {
    with_suffix(path, |last| match last.split(|&byte| byte == b'.').collect::<Vec<_>>()[..] {
        [name, format] if !name.is_empty() && !format.is_empty() => Some(name),
        _ => None,
    })
}

/// A literal at the end may have a suffix, whatever follows its first dot, or else a slash, as in
/// Spring MVC before 5.3.
pub fn with_any_suffix(path: &[u8]) -> Route {
    let name = |last: &[u8]| last.iter().position(|&byte| byte == b'.');
    match with_suffix(path, |last| name(last).map(|end| &last[..end])) {
        Route::None => path.strip_suffix(b"/").map_or(Route::None, exact),
        route => route,
    }
}

/// A literal at the end may have the only format that is registered, as in Grape.
pub fn with_text_format(path: &[u8]) -> Route {
    with_suffix(path, |last| last.strip_suffix(b".txt"))
}

/// The same in Django REST framework, where a slash may follow it.
pub fn with_json_format(path: &[u8]) -> Route {
    let bare = path.strip_suffix(b"/").unwrap_or(path);
    match bare.ends_with(b".json") {
        true => with_suffix(bare, |last| last.strip_suffix(b".json")),
        false => exact(path),
    }
}

/// The route of the path without its suffix if that ends in a literal, and else as it is.
fn with_suffix(path: &[u8], name: impl Fn(&[u8]) -> Option<&[u8]>) -> Route {
    let last = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let bare = name(&path[last..]).map(|name| exact(&path[..last + name.len()]));
    match bare {
        Some(Route::Agent | Route::None) | None => exact(path),
        Some(route) => route,
    }
}

/// Drops dots and spaces at the end, if the path has no route with them.
pub fn trailing_dots(path: &[u8]) -> Route {
    let last = path.iter().rposition(|byte| !b". ".contains(byte)).map_or(0, |last| last + 1);
    match (exact(path), exact(&path[..last])) {
        (Route::Agent, Route::List) => Route::List,
        (Route::None, bare) => bare,
        (route, _) => route,
    }
}

fn pieces(path: &[u8]) -> Vec<&[u8]> {
    // No route has six pieces, so the last piece may be the rest of the path.
    path.splitn(6, |&byte| byte == b'/').collect()
}
