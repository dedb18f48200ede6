use bolna_rate_limit::store::RedisStoreErrorKind as Kind;

use super::{KEY, as_user, assert_counts, assert_refused, make_user, refusal, store};
use crate::servers::Server;

async fn is_in(server: &Server, database: u32) -> bool {
    let mut connection = server.connection().await.unwrap();
    redis::cmd("SELECT").arg(database).query_async::<()>(&mut connection).await.unwrap();
    redis::cmd("EXISTS").arg(KEY).query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn the_number_of_the_database_is_the_urls_or_the_builders() {
    let server = Server::start().await;
    let url = |database| format!("{}/{database}", server.url());
    let chosen = [
        (store(server.url()), 0),
        (store(url(3)), 3),
        (store(server.url()).database(4), 4),
        (store(url(3)).database(5), 5),
        (store(url(3)).database(0), 0),
    ];
    for (builder, database) in chosen {
        server.command::<()>(&["FLUSHALL"]).await.unwrap();
        assert_counts(builder).await;
        for other in 0..6 {
            assert_eq!(is_in(&server, other).await, other == database, "{other} for {database}");
        }
    }
    assert_refused(&refusal(store(url(99))).await, Kind::NoDatabase, &["database", "out of range"]);
}

#[tokio::test]
async fn a_server_has_several_names() {
    let server = Server::with_args(&["--unixsocket", "socket"]).await;
    let directory: (String, String) = server.command(&["CONFIG", "GET", "dir"]).await.unwrap();
    let port = server.port();
    make_user(&server, &["~*", "+@all"]).await;
    let urls = [
        format!("redis://127.0.0.1:{port}/"),
        format!("redis://127.0.0.1:{port}?protocol=resp3"),
        format!("valkey://127.0.0.1:{port}/0"),
        format!("redis://localhost:{port}"),
        format!("unix://{}/socket", directory.1),
        format!("redis+unix://{}/socket?user=limiter&pass=secret", directory.1),
        as_user(&server),
    ];
    for url in urls {
        server.command::<()>(&["FLUSHALL"]).await.unwrap();
        assert_counts(store(url)).await;
    }
}

#[tokio::test]
async fn a_cluster_is_named_by_some_of_its_nodes() {
    use bolna_rate_limit::store::RedisStore;

    let cluster = crate::servers::Cluster::start().await;
    let forget = async || {
        for node in cluster.nodes() {
            node.command::<()>(&["FLUSHALL"]).await.unwrap();
        }
    };
    let hosts: Vec<_> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    for node in cluster.nodes() {
        make_user(node, &["~*", "+@all"]).await;
    }
    assert_counts(super::patient(RedisStore::cluster(cluster.urls()))).await;
    for url in [
        format!("redis+cluster://{}", hosts.join(",")),
        format!("redis+cluster://{}/", hosts[2]),
        format!("redis+cluster://limiter:secret@{},{}", hosts[1], hosts[0]),
    ] {
        forget().await;
        assert_counts(store(url)).await;
    }
    // A node that is down does not keep the store from starting.
    let nobody = crate::servers::free_port();
    forget().await;
    assert_counts(store(format!("redis+cluster://127.0.0.1:{nobody},{}", hosts[0]))).await;

    let refused = refusal(store(format!("redis+cluster://127.0.0.1:{nobody}"))).await;
    assert_refused(&refused, Kind::Unreachable, &[nobody.to_string()]);
    let refused = refusal(store(format!("redis+cluster://limiter:wrong@{}", hosts[0]))).await;
    assert_refused(&refused, Kind::WrongPassword, &["no such user"]);
    let refused = refusal(store(format!("redis+cluster://{}", hosts[0])).database(3)).await;
    assert_refused(&refused, Kind::Setting, &["database", "cluster"]);
    let single = Server::start().await;
    let refused = refusal(store(format!("redis+cluster://127.0.0.1:{}", single.port()))).await;
    assert_refused(&refused, Kind::WrongServer, &["cluster support disabled"]);
}
