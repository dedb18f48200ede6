//! Servers that lack something that the store can do without.

use super::assert_exact;
use crate::servers::{Answer, Server, StandIn, TIME_RENAMED, no_hello, refuse, refuse_time};
use crate::support::store;

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
