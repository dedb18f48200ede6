//! Keys of buckets with values that do not belong there.

use std::time::Duration;

use bolna_rate_limit::Endpoint;

use super::{BURST, By, Fleet, HOURLY, MINUTELY, WHO, a_while, exists, key, principal, time_of};
use crate::servers::{Server, until, when};

const HOUR: u64 = 3_600_000_000;

/// The buckets look as if they had been charged with a clock an hour ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_a_clock_that_was_set_back_is_drained_and_refills_at_once() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    let future = (time_of(&server).await + HOUR).to_string();
    server.command::<()>(&["SET", &key("alpha"), &future]).await.unwrap();
    let traffic = fleet.send(&WHO);
    let written = until("it is written back", async || {
        let full_at: u64 = server.command(&["GET", &key("alpha")]).await?;
        when(full_at < time_of(&server).await + 60_000_000, full_at)?;
        Ok(full_at)
    })
    .await;
    assert!(written > time_of(&server).await);
    until("a unit has come back", async || {
        when(traffic.admitted("alpha") >= 2, traffic.admitted("alpha"))
    })
    .await;
    let traffic = traffic.stop().await;
    let units = u32::try_from(traffic.lasted.as_secs()).unwrap();
    assert!((2..=units).contains(&traffic.traffic.admitted("alpha")));
    for who in &WHO[1..] {
        assert!((BURST..=BURST + units).contains(&traffic.traffic.admitted(who)), "{who}");
    }
    assert_eq!(traffic.traffic.by(By::Process), 0);
    fleet.has_told_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_a_clock_that_was_set_forward_is_full() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    let traffic = fleet.send(&WHO);
    traffic.until_drained().await;
    let past = (time_of(&server).await - HOUR).to_string();
    server.command::<()>(&["SET", &key("alpha"), &past]).await.unwrap();
    traffic
        .until("alpha has more", |who| who != "alpha" || traffic.admitted(who) >= 2 * BURST)
        .await;
    a_while().await;
    let traffic = traffic.stop().await;
    assert_eq!(WHO.map(|who| traffic.traffic.granted(who, By::Server)), [2 * BURST, BURST, BURST]);
    assert_eq!(traffic.traffic.by(By::Process), 0);
    fleet.has_told_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_kind_takes_only_its_bucket_off_the_server_until_it_is_reset() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), HOURLY).await;
    server.command::<()>(&["LPUSH", &key("alpha"), "foreign"]).await.unwrap();
    let traffic = fleet.send(&WHO);
    // Each of the two replicas has half of the burst.
    let spent = |who: &str| traffic.admitted(who) == BURST;
    traffic.until("all have spent their burst", spent).await;
    a_while().await;
    assert_eq!(WHO.map(|who| traffic.granted(who, By::Process)), [BURST, 0, 0]);
    assert_eq!(WHO.map(|who| traffic.granted(who, By::Server)), [0, BURST, BURST]);
    // A request in flight would be charged in its replica, whose own bucket is full again too.
    let limiter = fleet.replicas[0].layer.limiter();
    let reset = async || limiter.reset(&principal("alpha"), Endpoint::DEFAULT).await;
    traffic.between_requests(reset).await.unwrap();
    traffic
        .until("alpha has the whole burst", |who| {
            who != "alpha" || traffic.granted(who, By::Server) == BURST
        })
        .await;
    a_while().await;
    assert!(exists(&server, "alpha").await);
    let traffic = traffic.stop().await;
    traffic.is_one_burst_on_the_server();
    assert_eq!(WHO.map(|who| traffic.traffic.granted(who, By::Process)), [BURST, 0, 0]);
    fleet.has_told_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_holds_no_time_is_drained_and_refills() {
    let server = Server::start().await;
    let fleet = Fleet::on(server.url(), MINUTELY).await;
    server.command::<()>(&["SET", &key("alpha"), "garbage"]).await.unwrap();
    let traffic = fleet.send(&WHO);
    until("a unit has come back", async || when(traffic.admitted("alpha") >= 1, "none")).await;
    let traffic = traffic.stop().await;
    assert!(u64::from(traffic.traffic.admitted("alpha")) <= traffic.lasted.as_secs());
    assert_eq!(traffic.traffic.by(By::Process), 0);
    assert!(server.command::<u64>(&["GET", &key("alpha")]).await.unwrap() > 0);
    // The key expires when the bucket is full, as every bucket's does.
    let left: u64 = server.command(&["PTTL", &key("alpha")]).await.unwrap();
    assert!(Duration::from_millis(left) <= MINUTELY.refill_time());
    fleet.has_told_nothing();
}
