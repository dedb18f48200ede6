//! The refusal of a gRPC request: HTTP 200 without content, and the status in the header. gRPC
//! calls that [trailers-only].
//!
//! [trailers-only]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::values::LimitName;

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
/// `violated` are the limits that refuse the request.
pub(super) fn add_status(
    headers: &mut HeaderMap,
    code: Code,
    text: &str,
    wait: Option<Duration>,
    violated: impl Iterator<Item = LimitName>,
) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    if let Ok(text) = HeaderValue::from_str(text) {
        headers.insert(GRPC_MESSAGE, text);
    }
    // A client must not try again if the pushback is negative (gRFC A6).
    headers.insert(GRPC_PUSHBACK, wait.map_or(HeaderValue::from_static("-1"), pushback));
    let details = [wait.map(retry_info), quota_failure(violated)];
    if details.iter().any(Option::is_some) {
        let status = status(code, text, details.iter().flatten());
        if let Ok(details) = HeaderValue::try_from(BASE64_STANDARD_NO_PAD.encode(status)) {
            headers.insert(GRPC_DETAILS, details);
        }
    }
}

/// A wait in milliseconds, rounded up: a signed number of 32 bits.
fn pushback(wait: Duration) -> HeaderValue {
    let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
    HeaderValue::from(i32::try_from(millis).unwrap_or(i32::MAX))
}

/// A `google.rpc.Status` with these details, each a `google.protobuf.Any`, in the encoding of
/// protocol buffers (<https://protobuf.dev/programming-guides/encoding/>). By hand, because for
/// these messages prost would add its derive macro, and syn with it, to every build.
fn status<'a>(code: Code, message: &str, details: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut status = Vec::new();
    number(&mut status, 1, code as u64);
    bytes(&mut status, 2, message.as_bytes());
    details.for_each(|any| bytes(&mut status, 3, any));
    status
}

/// A `google.rpc.RetryInfo` with the wait.
fn retry_info(wait: Duration) -> Vec<u8> {
    let mut duration = Vec::new();
    number(&mut duration, 1, wait.as_secs());
    number(&mut duration, 2, u64::from(wait.subsec_nanos()));
    let mut retry_info = Vec::new();
    bytes(&mut retry_info, 1, &duration);
    any(b"type.googleapis.com/google.rpc.RetryInfo", &retry_info)
}

/// A `google.rpc.QuotaFailure` with the names of the limits, each as the `quota_id` of a violation.
/// `None` if there is no limit.
fn quota_failure(limits: impl Iterator<Item = LimitName>) -> Option<Vec<u8>> {
    let mut failure = Vec::new();
    for limit in limits {
        let mut violation = Vec::new();
        bytes(&mut violation, 5, limit.name().as_bytes());
        bytes(&mut failure, 1, &violation);
    }
    (!failure.is_empty()).then(|| any(b"type.googleapis.com/google.rpc.QuotaFailure", &failure))
}

fn any(kind: &[u8], message: &[u8]) -> Vec<u8> {
    let mut any = Vec::new();
    bytes(&mut any, 1, kind);
    bytes(&mut any, 2, message);
    any
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
