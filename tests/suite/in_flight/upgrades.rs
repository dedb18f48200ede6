//! Connections that outlive their responses.

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use bolna_rate_limit::limiter::Admission;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::over_tcp::Server;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(server: &Server) -> Result<Socket, Error> {
    Ok(connect_async(format!("ws://{}/ws", server.address)).await?.0)
}

fn status(opened: Result<Socket, Error>) -> StatusCode {
    match opened.map(drop) {
        Err(Error::Http(response)) => response.status(),
        other => panic!("{other:?}"),
    }
}

async fn serve(mut socket: WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

#[tokio::test]
async fn a_websocket_is_in_flight_as_long_as_its_task_has_the_admission() {
    let handler = async |upgrade: WebSocketUpgrade, Extension(admission): Extension<Admission>| {
        upgrade.on_upgrade(async move |socket| {
            serve(socket).await;
            drop(admission);
        })
    };
    let server = Server::start(Router::new().route("/ws", get(handler))).await;
    for gracefully in [true, false] {
        let mut socket = open(&server).await.unwrap();
        for _ in 0..3 {
            assert_eq!(status(open(&server).await), StatusCode::TOO_MANY_REQUESTS);
        }
        assert_eq!(server.limiter.report().in_flight, 1);
        if gracefully {
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
        drop(socket);
        // The server's task notices that before long.
        let mut socket = open(&server).await;
        while socket.is_err() {
            socket = open(&server).await;
        }
        assert_eq!(server.limiter.report().in_flight, 1);
        drop(socket);
        while server.limiter.report().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_websocket_without_the_admission_ends_with_its_response() {
    let handler = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(serve);
    let server = Server::start(Router::new().route("/ws", get(handler))).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(open(&server).await.unwrap());
    }
    assert_eq!(server.limiter.report().in_flight, 0);
}

/// Echoes what the client sends over an upgraded connection, until that ends.
async fn echo(mut request: Request<Body>) -> Response {
    let admission = request.extensions_mut().remove::<Admission>().unwrap();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..read]).await.unwrap();
        }
        drop(stream);
        drop(admission);
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let response = response.header(CONNECTION, "upgrade").header(UPGRADE, "echo");
    response.body(Body::empty()).unwrap()
}

async fn upgrade(server: &Server) -> http::Response<hyper::body::Incoming> {
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut send, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/echo").header("host", "limited.example");
    let request = request.header(CONNECTION, "upgrade").header(UPGRADE, "echo");
    send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn any_upgraded_connection_can_keep_its_request_in_flight() {
    let server = Server::start(Router::new().route("/echo", get(echo))).await;
    for _ in 0..3 {
        let response = upgrade(&server).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
        assert_eq!(server.limiter.report().in_flight, 1);
        assert_eq!(upgrade(&server).await.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(stream);
        while server.limiter.report().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }
}
