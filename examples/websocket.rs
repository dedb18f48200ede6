//! A WebSocket whose messages are limited, not just the request that opens it: each message is
//! checked by the name of an endpoint, with the same limiter, store and account as the requests. An
//! organization can have three of them open at once.
//!
//! ```sh
//! cargo run --example websocket
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Then, in another terminal. With arguments the example is a client, which opens so many sockets,
//! and sends so many messages over each:
//!
//! ```sh
//! # Five messages are echoed. One more would be each second.
//! cargo run --example websocket -- 1 7
//! # socket 1: message 1
//! # socket 1: message 2
//! # socket 1: message 3
//! # socket 1: message 4
//! # socket 1: message 5
//! # socket 1: wait 1 s
//! # socket 1: wait 1 s
//!
//! # The fourth is refused while three are open.
//! cargo run --example websocket -- 4 0
//! # socket 4: refused with 429 Too Many Requests
//! ```

use std::env;
use std::error::Error;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Quota, Ruling};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u32> = env::args().skip(1).map(|it| it.parse()).collect::<Result<_, _>>()?;
    if let [sockets, messages] = numbers[..] {
        return client(sockets, messages).await;
    }
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()?).await?;
    Ok(())
}

pub(crate) fn app() -> Result<Router, Box<dyn Error>> {
    // No request has this path, so the endpoint is reached by its name alone.
    let policy = Policy::bolna()
        .endpoint("sockets", Quota::per_minute(60), ["/ws"])
        .concurrent("sockets", 3)
        .endpoint("messages", Quota::per_minute(600), ["/-/messages"])
        .also("messages", LimitBuilder::user("messages-user", Quota::per_minute(60).burst(5)))
        .build()?;
    let limiter = Limiter::new(policy);
    let messages = Messages { limiter: limiter.clone(), endpoint: Endpoint::new("messages")? };
    Ok(Router::new()
        .route("/ws", get(open))
        .with_state(messages)
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(authenticate)))
}

/// What is needed to check messages.
#[derive(Clone)]
struct Messages {
    limiter: Limiter,
    endpoint: Endpoint,
}

async fn open(
    upgrade: WebSocketUpgrade,
    State(messages): State<Messages>,
    Extension(account): Extension<Account>,
    Extension(admission): Extension<Admission>,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        serve(socket, messages, account).await;
        // The request that opened the socket is in flight until here.
        drop(admission);
    })
}

/// Echoes each message that is within the limits. The others cost nothing, and the caller is told
/// how long to wait.
async fn serve(mut socket: WebSocket, messages: Messages, account: Account) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        // With a store beyond a network it is an error if the store fails.
        let check = messages.limiter.check_endpoint(&account, messages.endpoint, 1);
        let answer = match check.await {
            Ok(ruling) if ruling.is_admitted() => text,
            Ok(ruling) => wait(&ruling).into(),
            Err(_) => "try again later".into(),
        };
        if socket.send(Message::Text(answer)).await.is_err() {
            return;
        }
    }
}

fn wait(ruling: &Ruling) -> String {
    let wait = ruling.retry_after().unwrap_or_default();
    format!("wait {} s", wait.as_millis().div_ceil(1000))
}

/// The other end, for a try.
async fn client(sockets: u32, messages: u32) -> Result<(), Box<dyn Error>> {
    let mut open = Vec::new();
    for number in 1..=sockets {
        let mut request = "ws://127.0.0.1:3000/ws".into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, "Bearer ana@acme".parse()?);
        let mut socket = match connect_async(request).await {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(refusal)) => {
                println!("socket {number}: refused with {}", refusal.status());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for message in 1..=messages {
            socket.send(format!("message {message}").into()).await?;
            let answer = socket.next().await.ok_or("the server has closed the socket")??;
            println!("socket {number}: {answer}");
        }
        open.push(socket);
    }
    for mut socket in open {
        socket.close(None).await?;
    }
    Ok(())
}

/// A DEMO: it believes any token. In your application, look the API key up and insert the account
/// that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) {
        let (user, organization) = token.split_once('@').unwrap_or((token, ""));
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}
