//! The hosts that a policy is for.

use std::net::Ipv6Addr;
use std::str::FromStr;

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request};

/// A host, and its port unless it is the default one of the scheme.
#[derive(Clone, Debug)]
pub(super) struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// `None` if it is not an authority without user information.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let authority = Authority::from_str(text).ok()?;
        let name = name(&authority);
        let rest = &authority.as_str()[authority.host().len()..];
        let is_valid = rest.is_empty() || authority.port_u16().is_some();
        let is_host = !name.is_empty() && !text.contains('@') && is_valid;
        is_host.then(|| Self { name: name.to_owned(), port: authority.port_u16() })
    }

    fn is(&self, authority: &Authority, scheme: Option<&Scheme>) -> bool {
        let is_default = |port| match scheme {
            Some(scheme) if *scheme == Scheme::HTTPS => port == 443,
            Some(scheme) if *scheme == Scheme::HTTP => port == 80,
            _ => port == 80 || port == 443,
        };
        let is_port = match (self.port, authority.port_u16()) {
            (Some(port), Some(other)) => port == other,
            (Some(port), None) | (None, Some(port)) => is_default(port),
            (None, None) => true,
        };
        let other = name(authority);
        let is_name = self.name.eq_ignore_ascii_case(other)
            || ipv6(&self.name).is_some_and(|address| ipv6(other) == Some(address));
        is_port && is_name
    }
}

/// One address can be written in several ways.
fn ipv6(name: &str) -> Option<Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether a request goes to one of these hosts. If it does not say where it goes, it does.
pub(super) fn contain<B>(hosts: &[Host], request: &Request<B>) -> bool {
    let uri = request.uri();
    let is_one = |authority: &Authority| hosts.iter().any(|it| it.is(authority, uri.scheme()));
    match uri.authority() {
        Some(authority) => is_one(authority),
        None => of_field(request.headers()).is_none_or(|authority| is_one(&authority)),
    }
}

fn of_field(headers: &HeaderMap) -> Option<Authority> {
    headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok())
}

/// The name without the dot of the root.
fn name(authority: &Authority) -> &str {
    let name = authority.host();
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(host: &str, uri: &str, field: Option<&str>) -> bool {
        let mut request = Request::builder().uri(uri);
        if let Some(field) = field {
            request = request.header(HOST, field);
        }
        let request = request.body(()).expect("a request");
        contain(&[Host::parse(host).expect("a host")], &request)
    }

    #[test]
    fn hosts_are_compared_without_case_and_with_the_default_ports() {
        for (host, uri, expected) in [
            ("api.bolna.ai", "https://api.bolna.ai/call", true),
            ("API.bolna.ai", "https://api.Bolna.ai/call", true),
            ("api.bolna.ai", "https://api.bolna.ai.:443/call", true),
            ("api.bolna.ai.", "https://api.bolna.ai/call", true),
            ("api.bolna.ai", "http://api.bolna.ai:80/call", true),
            ("api.bolna.ai", "http://api.bolna.ai:443/call", false),
            ("api.bolna.ai", "https://api.bolna.ai:8443/call", false),
            ("api.bolna.ai:443", "https://api.bolna.ai/call", true),
            ("api.bolna.ai:443", "http://api.bolna.ai/call", false),
            ("127.0.0.1:3000", "http://127.0.0.1:3000/call", true),
            ("127.0.0.1:3000", "http://127.0.0.1/call", false),
            ("[::1]:3000", "http://[::1]:3000/call", true),
            ("[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000/call", true),
            ("[2001:DB8::1]", "https://[2001:db8:0::1]/call", true),
            ("[2001:db8::1]", "https://[2001:db8::2]/call", false),
            ("bolna.ai", "https://api.bolna.ai/call", false),
            ("api.bolna.ai", "https://user@api.bolna.ai/call", true),
            ("api.bolna.ai", "https://api.bolna.ai@evil.example/call", false),
        ] {
            assert_eq!(is(host, uri, None), expected, "{host} {uri}");
        }
    }

    #[test]
    fn the_field_counts_if_the_uri_names_no_host() {
        let api = "api.bolna.ai";
        for (uri, field, expected) in [
            ("/call", Some("api.bolna.ai"), true),
            ("/call", Some("api.bolna.ai:443"), true),
            ("/call", Some("files.example"), false),
            ("https://files.example/call", Some("api.bolna.ai"), false),
            ("/call", None, true),
            ("/call", Some(""), true),
        ] {
            assert_eq!(is(api, uri, field), expected, "{uri} {field:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_noticed() {
        for text in [
            "",
            "https://api.bolna.ai",
            "api.bolna.ai/call",
            "me@api.bolna.ai",
            ":3000",
            "a:b",
            "a:",
        ] {
            assert!(Host::parse(text).is_none(), "{text}");
        }
    }
}
