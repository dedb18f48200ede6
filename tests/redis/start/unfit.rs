use bolna_rate_limit::store::RedisStoreErrorKind as Kind;
use redis::RedisResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{
    LEFT_AFTERWARDS, LEFT_BY_REPLICA, LEFT_BY_SERVER, acme, assert_counts, assert_refused,
    connect_degraded, lost, refusal, request, store, until_regained,
};
use crate::servers::{Answer, Server, StandIn, refuse, until, when};

#[tokio::test]
async fn a_server_that_runs_no_scripts_is_told_and_the_command_named() {
    for command in ["EVAL", "EVALSHA"] {
        let server = Server::with_args(&["--rename-command", command, ""]).await;
        let mut refused = refusal(store(server.url())).await;
        // Before Redis 7.0 servers have other quotes in the error.
        refused.1 = refused.1.replace('`', "'");
        assert_refused(
            &refused,
            Kind::NoScripts,
            &[format!("'{command}'"), server.port().to_string()],
        );
        assert!(refused.1.len() < 1000, "the script is not repeated: {}", refused.1);
    }
}

/// The URL of a server that answers everything with `answer`.
async fn fake(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(1..) = client.read(&mut [0; 1024]).await {
                    // The client may have heard enough.
                    let _ = client.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    format!("redis://127.0.0.1:{port}")
}

/// What a server can do counts, not its version.
#[tokio::test]
async fn a_server_that_says_that_it_is_old_counts() {
    let hello = "*4\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    for answer in [
        hello,
        // Versions before 6.0 do not know HELLO, and use other quotes in the error.
        "-ERR unknown command 'HELLO'\r\n",
        "-ERR unknown command `HELLO`, with args beginning with: \r\n",
    ] {
        let server = Server::start().await;
        let stand_in = StandIn::to(&server, refuse(&["HELLO"], Answer::Say(answer.to_owned())));
        assert_counts(store(stand_in.url())).await;
    }
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let url = fake("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let address = url.trim_start_matches("redis://");
    assert_refused(&refusal(store(&url)).await, Kind::WrongServer, &[address, "not the protocol"]);
}

#[tokio::test]
async fn a_replica_is_told_and_counts_once_it_is_promoted() {
    let primary = Server::start().await;
    let replica =
        Server::with_args(&["--replicaof", "127.0.0.1", &primary.port().to_string()]).await;
    let refused = refusal(store(replica.url())).await;
    assert_refused(&refused, Kind::ReadOnly, &["replica", &replica.port().to_string()]);

    let (limiter, events) = connect_degraded(store(replica.url())).await;
    assert_eq!(lost(&events).0, "read_only");
    assert_eq!(request(&limiter, &acme()).await, LEFT_BY_REPLICA);
    replica.command::<()>(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    until_regained(&events).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_AFTERWARDS);
}

#[tokio::test]
async fn a_full_server_is_told_and_counts_once_it_has_room() {
    let server = Server::start().await;
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    assert_refused(
        &refusal(store(server.url())).await,
        Kind::OutOfMemory,
        &["maxmemory", "volatile-ttl"],
    );

    let (limiter, events) = connect_degraded(store(server.url())).await;
    assert_eq!(lost(&events).0, "out_of_memory");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    until_regained(&events).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_BY_SERVER);
}

#[tokio::test]
async fn a_server_that_runs_somebodys_slow_script_is_told_and_counts_once_it_is_done() {
    let server = Server::with_args(&["--lua-time-limit", "10"]).await;
    let mut connection = server.connection().await.unwrap();
    let slow = tokio::spawn(async move {
        let mut endless = redis::cmd("EVAL");
        endless.arg("while true do end").arg(0).query_async::<()>(&mut connection).await
    });
    until("the script runs", async || {
        let ping: RedisResult<()> = server.command(&["PING"]).await;
        when(ping.as_ref().is_err_and(|error| error.code() == Some("BUSY")), ping)
    })
    .await;
    assert_refused(&refusal(store(server.url())).await, Kind::Busy, &["busy", "script"]);

    let (limiter, events) = connect_degraded(store(server.url())).await;
    assert_eq!(lost(&events).0, "busy");
    server.command::<()>(&["SCRIPT", "KILL"]).await.unwrap();
    assert!(slow.await.unwrap().is_err());
    until_regained(&events).await;
    assert_eq!(request(&limiter, &acme()).await, LEFT_BY_SERVER);
}
