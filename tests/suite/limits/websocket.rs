//! Messages of a WebSocket, as the example `websocket` limits them, over TCP.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[path = "../../../examples/websocket.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod example;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(address: &str, token: Option<&str>) -> Result<Socket, Error> {
    let mut request = format!("ws://{address}/ws").into_client_request()?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    Ok(connect_async(request).await?.0)
}

async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test]
async fn each_message_of_a_websocket_is_charged_to_its_user_and_organization() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(axum::serve(listener, example::app().unwrap()).into_future());
    let mut ana = open(&address, Some("ana@acme")).await.unwrap();
    for number in 0..5 {
        assert_eq!(say(&mut ana, &number.to_string()).await, number.to_string());
    }
    assert_eq!(say(&mut ana, "sixth").await, "wait 1 s");
    // A second connection of the same user does not help; another user has messages of their own.
    let mut again = open(&address, Some("ana@acme")).await.unwrap();
    assert_eq!(say(&mut again, "seventh").await, "wait 1 s");
    let mut ben = open(&address, Some("ben@acme")).await.unwrap();
    assert_eq!(say(&mut ben, "hello").await, "hello");
    // Without an account there is no WebSocket at all.
    let refused = open(&address, None).await.unwrap_err();
    assert!(matches!(&refused, Error::Http(response) if response.status() == 401), "{refused}");
    server.abort();
}

#[tokio::test]
async fn an_organization_has_at_most_three_websockets_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(axum::serve(listener, example::app().unwrap()).into_future());
    let mut open_now = Vec::new();
    for user in ["ana", "ben", "eve"] {
        let mut socket = open(&address, Some(&format!("{user}@acme"))).await.unwrap();
        assert_eq!(say(&mut socket, "hello").await, "hello");
        open_now.push(socket);
    }
    let refused = open(&address, Some("ana@acme")).await.unwrap_err();
    assert!(matches!(&refused, Error::Http(response) if response.status() == 429), "{refused}");
    assert!(open(&address, Some("ana@other")).await.is_ok());

    let mut closed = open_now.pop().unwrap();
    closed.close(None).await.unwrap();
    while closed.next().await.is_some() {}
    // The server drops its end when it has seen the client's, which may take it a moment.
    let mut opened = open(&address, Some("ana@acme")).await;
    while opened.is_err() {
        tokio::task::yield_now().await;
        opened = open(&address, Some("ana@acme")).await;
    }
    server.abort();
}
