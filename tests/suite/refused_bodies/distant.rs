//! A proxy that makes a server distant: what is sent arrives later, a reset too.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A proxy on a port of its own, which ends with the test.
pub(super) struct Distance {
    pub(super) address: SocketAddr,
    _task: JoinSet<()>,
}

/// What travels in one direction.
enum Travels {
    Data(Vec<u8>),
    End,
    Reset,
}

impl Distance {
    /// Everything takes half of the round trip in each direction.
    pub(super) async fn to(server: SocketAddr, round_trip: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    // The halves are dropped when a reset is passed on, and it goes out then.
                    stream.set_zero_linger().unwrap();
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                connections.spawn(async move {
                    let there = travel(from_client, to_server, round_trip / 2);
                    let back = travel(from_server, to_client, round_trip / 2);
                    tokio::select! {
                        // A reset ends both directions.
                        () = there => {}
                        () = back => {}
                    }
                });
            }
        };
        Self { address, _task: JoinSet::from_iter([accept]) }
    }
}

/// Passes on what is sent, until there is a reset.
async fn travel(from: OwnedReadHalf, to: OwnedWriteHalf, time: Duration) {
    let (send, receive) = unbounded_channel();
    tokio::select! {
        () = depart(from, send, time) => {}
        () = arrive(receive, to) => {}
    }
}

async fn depart(
    mut from: OwnedReadHalf,
    send: UnboundedSender<(Instant, Travels)>,
    time: Duration,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let travels = match from.read(&mut buffer).await {
            Ok(0) => Travels::End,
            Ok(length) => Travels::Data(buffer[..length].to_vec()),
            Err(_) => Travels::Reset,
        };
        let goes_on = matches!(travels, Travels::Data(_));
        if send.send((Instant::now() + time, travels)).is_err() {
            return;
        }
        if !goes_on {
            return std::future::pending().await;
        }
    }
}

async fn arrive(mut receive: UnboundedReceiver<(Instant, Travels)>, mut to: OwnedWriteHalf) {
    while let Some((at, travels)) = receive.recv().await {
        sleep_until(at).await;
        let passed_on = match travels {
            Travels::Data(data) => to.write_all(&data).await,
            Travels::End => to.shutdown().await,
            Travels::Reset => return,
        };
        if passed_on.is_err() {
            return;
        }
    }
}
