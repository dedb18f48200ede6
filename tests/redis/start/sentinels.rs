use std::net::TcpListener;
use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreErrorKind as Kind};

use super::{KEY, assert_counts, assert_refused, make_user, patient, refusal, store};
use crate::servers::{Answer, Mode, Proxy, Sentinels, Server, StandIn, free_port, refuse};
use crate::support::{Replica, slow};

#[tokio::test]
async fn sentinels_lead_to_the_primary() {
    let sentinels = Sentinels::start().await;
    let primary = sentinels.primary().await;
    let service = sentinels.service();
    let hosts: Vec<_> =
        sentinels.urls().iter().map(|url| url.trim_start_matches("redis://").to_owned()).collect();
    let hosts = hosts.join(",");
    let nobody = free_port();
    make_user(primary, &["~*", "+@all"]).await;
    let all = || RedisStore::sentinel(service, sentinels.urls());
    for builder in [
        store(format!("redis+sentinel://{hosts}/{service}/0")),
        store(format!("redis+sentinel://{hosts}/{service}")),
        store(format!("redis+sentinel://limiter:secret@{hosts}/{service}/0")),
        // A Sentinel that is down does not keep the store from starting.
        store(format!("redis+sentinel://127.0.0.1:{nobody},{hosts}/{service}/0")),
        patient(all()),
        patient(all()).user("limiter").password("secret"),
        patient(RedisStore::sentinel(
            service,
            sentinels.urls().iter().map(|url| format!("{url}/")),
        )),
    ] {
        primary.command::<()>(&["FLUSHALL"]).await.unwrap();
        assert_counts(builder).await;
        assert!(primary.command::<bool>(&["EXISTS", KEY]).await.unwrap());
    }
    for builder in
        [store(format!("redis+sentinel://{hosts}/{service}/3")), patient(all().database(3))]
    {
        primary.command::<()>(&["FLUSHALL"]).await.unwrap();
        assert_counts(builder).await;
        let keyspace: String = primary.command(&["INFO", "keyspace"]).await.unwrap();
        assert!(keyspace.contains("db3:") && !keyspace.contains("db0:"), "{keyspace}");
    }

    let refused = refusal(store(format!("redis+sentinel://{hosts}/another/0"))).await;
    assert_refused(&refused, Kind::NoPrimary, &["Sentinel", "another"]);
    let refused = refusal(store(format!("redis+sentinel://limiter:wrong@{hosts}/{service}"))).await;
    assert_refused(&refused, Kind::WrongPassword, &[&format!("127.0.0.1:{}", primary.port())]);
    let refused = refusal(store(format!("redis+sentinel://127.0.0.1:{nobody}/{service}"))).await;
    assert_refused(&refused, Kind::Unreachable, &[&format!("127.0.0.1:{nobody}")]);
    // A Sentinel is not a server, and a server is not a Sentinel.
    let refused =
        refusal(store(format!("redis+sentinel://127.0.0.1:{}/{service}", primary.port()))).await;
    assert_refused(
        &refused,
        Kind::NoPrimary,
        &["it is not a Sentinel", &primary.port().to_string()],
    );
    let refused = refusal(store(&sentinels.urls()[0])).await;
    assert_refused(&refused, Kind::WrongServer, &["it is a Sentinel", "redis+sentinel://"]);
}

#[tokio::test]
async fn a_sentinel_that_hangs_is_no_loss_of_the_primary() {
    let server = Server::start().await;
    let primary = Proxy::to(server.port());
    primary.set(Mode::Delay(Duration::from_millis(5)));
    let port = primary.port().to_string();
    let names = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
    let sentinel = || StandIn::to(&server, refuse(&["SENTINEL"], Answer::Say(names.clone())));
    let (first, last) = (sentinel(), sentinel());
    // It connects, since the system accepts connections for it.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("redis://{}", hangs.local_addr().unwrap());
    for place in 0..3 {
        let mut urls = vec![first.url(), last.url()];
        urls.insert(place, hangs.clone());
        let builder = patient(RedisStore::sentinel("mymaster", urls))
            .connect_timeout(Duration::from_millis(500));
        let replica = Replica::connect(builder, slow(10)).await;
        // After a second the first Sentinel is asked.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(replica.events.all(), [], "{place}");
    }
}
