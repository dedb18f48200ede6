//! Faults of a server that is lost for a moment, again and again.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::servers::Server;

/// The server is suspended and resumed in turn.
pub(crate) async fn stop_and_go(
    server: &Server,
    stopped: Duration,
    between: Duration,
    all: Duration,
) {
    let began = Instant::now();
    while began.elapsed() < all {
        server.suspend();
        sleep(stopped).await;
        server.resume();
        sleep(between).await;
    }
}

/// A server that [`naps`].
pub(crate) async fn one_that_naps() -> Server {
    // Before 7.0 the option does not exist, and debugging commands are allowed anyway.
    let server = Server::start().await;
    if server.command::<()>(&["DEBUG", "SLEEP", "0"]).await.is_ok() {
        return server;
    }
    Server::with_args(&["--enable-debug-command", "yes"]).await
}

/// The server sleeps for 60 ms every 300 ms.
pub(crate) async fn naps(server: &Server, all: Duration) {
    let mut connection = server.connection().await.unwrap();
    let began = Instant::now();
    while began.elapsed() < all {
        let mut nap = redis::cmd("DEBUG");
        nap.arg("SLEEP").arg("0.06").query_async::<()>(&mut connection).await.unwrap();
        sleep(Duration::from_millis(240)).await;
    }
}

/// The server closes all connections this many times.
pub(crate) async fn kill_clients(server: &Server, times: u32, between: Duration) {
    for _ in 0..times {
        sleep(between).await;
        server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    }
}
