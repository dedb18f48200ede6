//! The refusal of a gRPC request: HTTP 200 without content, and the status in the header. gRPC
//! calls that [trailers-only].
//!
//! [trailers-only]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The codes that refusals have, of <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
#[derive(Clone, Copy)]
pub(super) enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unavailable = 14,
    Unauthenticated = 16,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Whether it is the head of a gRPC request, or of one of gRPC-Web.
#[inline]
pub(in crate::layer) fn is_grpc(method: &Method, headers: &HeaderMap) -> bool {
    // All gRPC requests are POST, so others need no look at their fields.
    *method == Method::POST && headers.get(CONTENT_TYPE).is_some_and(is_grpc_type)
}

fn is_grpc_type(value: &HeaderValue) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let value = value.as_bytes();
    let (Some(start), rest) = (value.get(..TYPE.len()), value.get(TYPE.len())) else {
        return false;
    };
    start.eq_ignore_ascii_case(TYPE) && matches!(rest, None | Some(b'+' | b';' | b'-' | b' '))
}

/// Adds the status. `wait` is `None` if waiting does not help. `text` is visible ASCII without `%`.
pub(super) fn add_status(headers: &mut HeaderMap, code: Code, text: &str, wait: Option<Duration>) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    if let Ok(text) = HeaderValue::from_str(text) {
        headers.insert(GRPC_MESSAGE, text);
    }
    // A client must not try again if the pushback is negative (gRFC A6).
    headers.insert(GRPC_PUSHBACK, wait.map_or(HeaderValue::from_static("-1"), pushback));
    if let Some(wait) = wait {
        let details = BASE64_STANDARD_NO_PAD.encode(status(code, text, wait));
        if let Ok(details) = HeaderValue::try_from(details) {
            headers.insert(GRPC_DETAILS, details);
        }
    }
}

/// A wait in milliseconds, rounded up: a signed number of 32 bits.
fn pushback(wait: Duration) -> HeaderValue {
    let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
    HeaderValue::from(i32::try_from(millis).unwrap_or(i32::MAX))
}

/// A `google.rpc.Status` with a `google.rpc.RetryInfo`, in the encoding of protocol buffers
/// (<https://protobuf.dev/programming-guides/encoding/>). By hand, because for these messages prost
/// would add its derive macro, and syn with it, to every build.
fn status(code: Code, message: &str, wait: Duration) -> Vec<u8> {
    let mut duration = Vec::new();
    number(&mut duration, 1, wait.as_secs());
    number(&mut duration, 2, u64::from(wait.subsec_nanos()));
    let mut retry_info = Vec::new();
    bytes(&mut retry_info, 1, &duration);
    let mut any = Vec::new();
    bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    bytes(&mut any, 2, &retry_info);
    let mut status = Vec::new();
    number(&mut status, 1, code as u64);
    bytes(&mut status, 2, message.as_bytes());
    bytes(&mut status, 3, &any);
    status
}

/// Writes a field that is a number.
fn number(to: &mut Vec<u8>, field: u8, value: u64) {
    to.push(field << 3);
    varint(to, value);
}

/// Writes a field that is a text or a message.
fn bytes(to: &mut Vec<u8>, field: u8, value: &[u8]) {
    to.push(field << 3 | 2);
    varint(to, value.len() as u64);
    to.extend_from_slice(value);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_posts_with_a_type_of_grpc_are_grpc() {
        let is = |method: Method, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            is_grpc(&method, &headers)
        };
        for value in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc-web",
            "application/grpc-web-text+proto",
            "Application/GRPC",
        ] {
            assert!(is(Method::POST, value), "{value}");
            assert!(!is(Method::GET, value), "GET {value}");
        }
        for value in ["application/json", "application/grp", "application/grpcs", "text/grpc", ""] {
            assert!(!is(Method::POST, value), "{value}");
        }
        assert!(!is_grpc(&Method::POST, &HeaderMap::new()));
    }
}
