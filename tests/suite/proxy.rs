//! What the example `hyper_proxy` forwards, over TCP.

use std::net::SocketAddr;

use axum::Router;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[path = "../../examples/hyper_proxy.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod example;

/// The proxy, in front of a server that answers with the names of the fields that it was sent.
async fn proxy(tasks: &mut JoinSet<()>) -> SocketAddr {
    let names = async |headers: HeaderMap| {
        let names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.join(" ")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap().to_string().parse().unwrap();
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback(names)).await.unwrap() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async { example::serve(listener, upstream).await });
    address
}

/// The names of the fields that reach the server behind the proxy, but for `host`.
async fn forwarded(proxy: SocketAddr, field: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head = format!(
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Authorization: Bearer ana\r\n{field}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{field}: {response}");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let names = body.split(' ').filter(|name| !["host", "authorization"].contains(name));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn header_fields_that_change_the_path_do_not_get_through_the_proxy() {
    let mut tasks = JoinSet::new();
    let proxy = proxy(&mut tasks).await;
    for field in [
        "X-Original-URL: /call",
        "x-original-uri: /call",
        "X-Rewrite-URL: /call",
        "X-REWRITE-URL: /x\r\nX-Rewrite-URL: /call",
        "X-Rewrite-Path: /call",
        "X-Forwarded-Prefix: /x",
        "X-Forwarded-Path: /call",
        "X-Forwarded-Uri: /call",
        "X-Envoy-Original-Path: /call",
        "X-MS-Original-URL: http://a/call",
        "X-Waws-Unencoded-Url: /call",
        "X-Replaced-Path: /call",
        "X-Matched-Path: /call",
        "X-Invoke-Path: /call",
        "X-Ingress-Path: /x",
        "X-Override-URL: /call",
        "X-Forwarded-Context: /x",
        "X-ProxyContextPath: /x",
        "X-Script-Name: /x",
        "Script-Name: /x",
        "Path-Info: /call",
        "SCRIPT_NAME: /x",
        "PATH_INFO: /call",
        "X_Original_URL: /call",
        "x_harmless: 1",
        "X-Forwarded-Host: a/call?",
        "X-Forwarded-Host: a\r\nX-Forwarded-Host: a/call#",
        "X-Forwarded-Proto: http://a/call?",
        "Forwarded: for=192.0.2.7;host=\"a/call?\"",
        "Forwarded: host=\"a\\\\call?\"",
    ] {
        assert_eq!(forwarded(proxy, field).await, [""; 0], "{field}");
    }
}

#[tokio::test]
async fn other_header_fields_get_through_the_proxy() {
    let mut tasks = JoinSet::new();
    let proxy = proxy(&mut tasks).await;
    for (field, name) in [
        ("Accept: */*", "accept"),
        ("Referer: http://a/call?x#y", "referer"),
        ("HX-Current-URL: http://a/call", "hx-current-url"),
        ("X-Webhook-URL: http://a/call", "x-webhook-url"),
        ("X-Request-Id: /call", "x-request-id"),
        ("X-HTTP-Method-Override: GET", "x-http-method-override"),
        ("X-Forwarded-For: 192.0.2.7", "x-forwarded-for"),
        ("X-Forwarded-Host: [2001:db8::7]:80", "x-forwarded-host"),
        ("X-Forwarded-Proto: https", "x-forwarded-proto"),
        ("Forwarded: for=\"[2001:db8::7]:4711\";host=a;proto=https", "forwarded"),
        ("Upgrade-Insecure-Requests: 1", "upgrade-insecure-requests"),
    ] {
        assert_eq!(forwarded(proxy, field).await, [name], "{field}");
    }
}
