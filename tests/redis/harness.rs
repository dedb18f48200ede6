//! The servers and the proxy do what the other tests rely on.

use std::time::{Duration, Instant};

use redis::RedisResult;

use crate::servers::{
    Cluster, Mode, Password, Proxy, Sentinels, Server, StandIn, TIME_RENAMED, refuse_time, until,
    when,
};

async fn ping(
    connection: &mut redis::aio::MultiplexedConnection,
    bound: Duration,
) -> Option<RedisResult<String>> {
    tokio::time::timeout(bound, redis::cmd("PING").query_async(connection)).await.ok()
}

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_server_is_killed_and_starts_again_empty_on_its_port() {
    let server = Server::with_args(&["--maxmemory", "64mb"]).await;
    assert_eq!(
        server.command::<(String, String)>(&["CONFIG", "GET", "maxmemory"]).await.unwrap().1,
        "67108864"
    );
    server.command::<()>(&["SET", "key", "value"]).await.unwrap();
    assert_eq!((server.calls_of("set").await, server.calls_of("evalsha").await), (1, 0));
    server.kill();
    assert!(server.connection().await.is_err());
    server.restart().await;
    assert_eq!(server.command::<Option<String>>(&["GET", "key"]).await.unwrap(), None);
    assert_eq!(
        server.command::<(String, String)>(&["CONFIG", "GET", "maxmemory"]).await.unwrap().1,
        "67108864"
    );
}

#[tokio::test]
async fn a_suspended_server_answers_when_it_is_resumed() {
    let server = Server::start().await;
    let mut connection = server.connection().await.unwrap();
    server.suspend();
    assert_eq!(ping(&mut connection, SHORT).await, None);
    server.resume();
    assert_eq!(ping(&mut connection, SOON).await, Some(Ok("PONG".to_owned())));
    server.suspend();
}

#[tokio::test]
async fn a_server_ends_when_its_test_fails() {
    let (send, receive) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(Server::start());
        send.send(server.port()).unwrap();
        std::panic::resume_unwind(Box::new("failed"));
    });
    assert!(failed.join().is_err());
    let port = receive.recv().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn three_primaries_share_the_slots() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.urls().len(), 3);
    let mut moved = 0;
    for node in cluster.nodes() {
        let set: RedisResult<()> = node.command(&["SET", "key", "value"]).await;
        moved += u32::from(set.is_err_and(|error| error.code() == Some("MOVED")));
    }
    assert_eq!(moved, 2);
}

#[tokio::test]
async fn a_replica_takes_over_from_a_primary_that_is_killed() {
    let cluster = Cluster::with_replicas().await;
    let nodes = cluster.nodes();
    nodes[0].kill();
    until("the replica takes over", async || when(nodes[3].is_primary().await, "a replica")).await;
}

#[tokio::test]
async fn sentinels_promote_the_replica() {
    let sentinels = Sentinels::start().await;
    let first = sentinels.primary().await;
    let second = sentinels.failover().await;
    assert_ne!(second.port(), first.port());
    for url in sentinels.urls() {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(sentinels.service());
        assert_eq!(question.query(&mut connection), Ok(("127.0.0.1".to_owned(), second.port())));
    }
    // ... and fails over by itself when the primary is gone.
    second.kill();
    assert_eq!(sentinels.successor_of(second).await.port(), first.port());
}

#[tokio::test]
async fn a_proxy_delays_holds_cuts_and_refuses() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let client = redis::Client::open(proxy.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connect = async || client.get_multiplexed_async_connection_with_config(&config).await;

    let mut connection = connect().await.unwrap();
    assert_eq!(ping(&mut connection, SOON).await, Some(Ok("PONG".to_owned())));

    proxy.set(Mode::Delay(SHORT));
    let began = Instant::now();
    // A hundred at once take no longer than one.
    let mut pings = redis::pipe();
    for _ in 0..100 {
        pings.cmd("PING").ignore();
    }
    pings.query_async::<()>(&mut connection).await.unwrap();
    assert!((2 * SHORT..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());

    proxy.set(Mode::Blackhole);
    assert_eq!(ping(&mut connection, SHORT).await, None);
    assert!(tokio::time::timeout(SHORT, connect()).await.is_err());
    proxy.set(Mode::Pass);
    assert_eq!(ping(&mut connection, SOON).await, Some(Ok("PONG".to_owned())));

    for mode in [Mode::Cut, Mode::Refuse] {
        proxy.set(mode);
        assert!(ping(&mut connection, SOON).await.unwrap().is_err());
        let before = proxy.accepted();
        assert!(connect().await.is_err());
        assert_eq!(proxy.accepted() - before, usize::from(mode == Mode::Cut));
        proxy.set(Mode::Pass);
        connection = connect().await.unwrap();
        assert_eq!(ping(&mut connection, SOON).await, Some(Ok("PONG".to_owned())));
    }
}

#[tokio::test]
async fn a_stand_in_refuses_what_its_rule_says_and_passes_the_rest() {
    let server = Server::with_args(&TIME_RENAMED).await;
    let stand_in = StandIn::to(&server, refuse_time());
    let client = redis::Client::open(stand_in.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (mut set, mut get) = (redis::cmd("SET"), redis::cmd("GET"));
    let (time, script) = (redis::cmd("TIME"), redis::Script::new("return redis.call('TIME')"));
    let binary = b"\xff\r\n$3\r\n".as_slice();
    set.arg("key").arg(binary);
    get.arg("key");
    time.query_async::<(u64, u64)>(&mut connection).await.unwrap();
    for _ in 0..2 {
        let refused: RedisResult<Vec<u64>> = script.key("key").invoke_async(&mut connection).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("This Redis command is not allowed from script"), "{refused}");
    }
    let mut pipe = redis::pipe();
    pipe.add_command(set).ignore().add_command(get.clone()).add_command(time.clone());
    let answers: (Vec<u8>, (u64, u64)) = pipe.query_async(&mut connection).await.unwrap();
    assert_eq!(answers.0, binary);
    let heard: Vec<_> =
        stand_in.heard().iter().filter_map(|command| command.words().first().cloned()).collect();
    assert!(heard.ends_with(&["SET", "GET", "TIME"].map(str::to_owned)), "{heard:?}");
}

#[tokio::test]
async fn a_stand_in_asks_for_a_password_that_changes() {
    let server = Server::start().await;
    let password = Password::new("first");
    let stand_in = StandIn::to(&server, password.rule());
    let ask = async |given: &str| {
        let url = format!("redis://{given}127.0.0.1:{}", stand_in.port());
        redis::Client::open(url)?.get_multiplexed_async_connection().await
    };
    let code = |refused: RedisResult<_>| refused.map(drop).unwrap_err().to_string();
    assert!(code(ask(":second@").await).contains("AuthenticationFailed"));
    let mut connection = ask(":first@").await.unwrap();
    password.change_to("second");
    assert!(ask("limiter:first@").await.is_err());
    assert!(ask("limiter:second@").await.is_ok());
    assert!(ask("limiter:second@").await.is_ok());
    assert_eq!(ping(&mut connection, SOON).await, Some(Ok("PONG".to_owned())));
    stand_in.cut();
    assert!(ping(&mut connection, SOON).await.unwrap().is_err());
    let mut unknown = ask("").await.unwrap();
    assert!(ping(&mut unknown, SOON).await.unwrap().unwrap_err().to_string().contains("NOAUTH"));
}
