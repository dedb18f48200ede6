//! Servers that lack something that the store can do without.

use bolna_rate_limit::Endpoint;
use futures_util::future::{join, join_all};

use super::assert_exact;
use crate::servers::{Answer, Server, StandIn, TIME_RENAMED, no_hello, refuse, refuse_time};
use crate::support::{HOUR, Replica, key_of, organization, slow, store, stored};

#[tokio::test]
async fn a_server_that_refuses_time_in_scripts() {
    let server = Server::with_args(&TIME_RENAMED).await;
    let stand_in = StandIn::to(&server, refuse_time());
    assert_exact(store(stand_in.url())).await;
    let heard = stand_in.heard();
    let times = heard.iter().filter(|command| command.is("TIME")).count();
    let calls = heard.iter().filter(|command| command.is_script()).count();
    assert!((1..calls / 2).contains(&times), "{times} of {} commands", heard.len());
}

/// Another replica, whose estimate of the time is ahead, has drained the bucket.
#[tokio::test]
async fn what_is_admitted_is_charged_where_the_time_is_an_estimate() {
    let server = Server::with_args(&TIME_RENAMED).await;
    let stand_in = StandIn::to(&server, refuse_time());
    let replica = Replica::connect(store(stand_in.url()), slow(5)).await;
    let hour = u64::try_from(HOUR.as_micros()).unwrap();
    for round in 0..10 {
        let (who, key) = (organization(&round.to_string()), key_of(&round.to_string()));
        let (seconds, micros): (u64, u64) = stored(&server, &[TIME_RENAMED[2]]).await;
        let full_at = seconds * 1_000_000 + micros + 5 * hour + 500_000;
        stored::<()>(&server, &["SET", &key, &full_at.to_string()]).await;
        let refund = replica.limiter.refund(&who, Endpoint::DEFAULT, 1);
        let checks = join_all((0..3).map(|_| replica.check(&who)));
        let (refunded, decisions) = join(refund, checks).await;
        refunded.unwrap();
        let admitted = decisions.iter().filter(|decision| decision.is_allowed()).count() as u64;
        let value: String = stored(&server, &["GET", &key]).await;
        assert_eq!(value, (full_at - hour + admitted * hour).to_string(), "{decisions:?}");
    }
    assert_eq!(replica.events.all(), []);
}

#[tokio::test]
async fn a_server_that_does_not_know_hello() {
    let server = Server::start().await;
    assert_exact(store(StandIn::to(&server, no_hello()).url())).await;
}

#[tokio::test]
async fn a_server_that_closes_the_connection_on_hello() {
    let server = Server::start().await;
    assert_exact(store(StandIn::to(&server, refuse(&["HELLO"], Answer::Close)).url())).await;
}

/// The server refuses the commands that tell what it is. No request needs them.
#[tokio::test]
async fn a_server_that_tells_nothing_about_itself() {
    let server = Server::start().await;
    let refused = Answer::Say("-NOPERM this user has no permissions to run it\r\n".to_owned());
    let commands = &["HELLO", "CLIENT", "INFO", "ROLE", "CONFIG", "COMMAND", "SCRIPT", "TIME"];
    assert_exact(store(StandIn::to(&server, refuse(commands, refused)).url())).await;
}
