//! The password, `hemlig`, is in no text that may end up in a log.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder};

use super::{Events, make_user, patient, store};
use crate::servers::{Answer, Command, Rule, Server, StandIn};

#[track_caller]
fn assert_silent(told: &str, of: &str) {
    assert!(!told.contains("hemlig"), "of {of}: {told}");
}

fn debug(it: &impl Debug) -> String {
    format!("{it:?} {it:#?}")
}

fn all_of(error: &impl Error) -> String {
    let mut told = format!("{error} {}", debug(error));
    let mut next = error.source();
    while let Some(error) = next {
        told = format!("{told} {error} {error:?} {error:#?}");
        next = error.source();
    }
    told
}

/// Neither the builder nor its result (an error or a store) nor an event contains the password.
async fn assert_keeps(builder: impl Fn() -> RedisStoreBuilder, of: &str) {
    assert_silent(&debug(&builder()), of);
    for degraded in [false, true] {
        let builder = if degraded { builder().start_degraded() } else { builder() };
        match builder.connect().await {
            Ok(store) => {
                assert_silent(&debug(&store), of);
                for event in Events::of(&store).all() {
                    assert_silent(&format!("{event} {}", debug(&event)), of);
                }
            }
            Err(error) => assert_silent(&all_of(&error), of),
        }
    }
}

#[tokio::test]
async fn no_bad_address_gives_it_away() {
    for url in [
        "limiter:hemlig",
        ":hemlig",
        "limiter:hemlig@localhost:1",
        "redis:limiter:hemlig@localhost:1",
        "redis:/limiter:hemlig@localhost:1",
        "http://limiter:hemlig@localhost:1",
        "redis://limiter:hemlig",
        "redis://:hemlig",
        "redis://limiter:hemlig/0",
        "redis://limiter:hemlig@",
        "redis://limiter:hemlig@/0",
        "redis://limiter:hemlig@local host:1",
        "redis://limiter:hemlig@localhost:port",
        "redis://limiter:hemlig@localhost:99999",
        "redis://limiter:hemlig@localhost:1/three",
        "redis://limiter:hemlig@localhost:1?protocol=4",
        "redis://limiter:hemlig@0.0.0.0:1",
        "redis://limiter:hemlig%ff@localhost:1",
        "redis://limiter:hemlig%@localhost:1",
        // Characters that have to be escaped and are not.
        "redis://limiter:hemlig@hemlig@localhost:1",
        "redis://limiter:hemlig@hemlig@localhost:port",
        "redis://limiter:hemlig/hemlig@localhost:1",
        "redis://limiter:1/hemlig@localhost:1",
        "redis://limiter:hemlig?hemlig@localhost:1",
        "redis://limiter:hemlig#hemlig@localhost:1",
        "redis://limiter:1?hemlig@localhost:1",
        "redis://limiter:1#hemlig@localhost:1",
        "redis://limiter:hemlig:hemlig@localhost:port",
        "redis://limiter:[hemlig@localhost:1",
        "unix://socket?user=limiter&pass=hemlig",
        "unix://socket?user=limiter&pass=x@hemlig",
        "unix:///nowhere/socket?user=limiter&pass=hemlig",
        "unix:///nowhere/socket?user=limiter&pass=hemlig&db=three",
        "redis+nonsense://limiter:hemlig@localhost:1",
        "redis+sentinel://limiter:hemlig",
        "redis+sentinel://limiter:hemlig/mymaster",
        "redis+sentinel://limiter:hemlig@",
        "redis+sentinel://limiter:hemlig@/mymaster",
        "redis+sentinel://limiter:hemlig@localhost:1",
        "redis+sentinel://limiter:hemlig@localhost:1/mymaster",
        "redis+sentinel://limiter:hemlig@localhost:port/mymaster",
        "redis+sentinel://limiter:hemlig@localhost:1/mymaster/three",
        "redis+sentinel://limiter:hemlig/hemlig@localhost:1/mymaster",
        "redis+sentinel://limiter:1/hemlig@localhost:1/mymaster",
        "redis+sentinel://limiter:hemlig@localhost:1,limiter:hemlig@localhost:1/mymaster",
        "redis+cluster://limiter:hemlig",
        "redis+cluster://limiter:hemlig@",
        "redis+cluster://limiter:hemlig@localhost:1",
        "redis+cluster://limiter:hemlig@localhost:1,localhost:port",
        "redis+cluster://limiter:hemlig/hemlig@localhost:1",
        "redis+cluster://limiter:1/hemlig@localhost:1",
        "redis+cluster://limiter:hemlig@localhost:1,limiter:hemlig@localhost:1",
        "rediss://limiter:hemlig@localhost:1",
        "rediss://limiter:hemlig@localhost:1/#hemlig",
    ] {
        let quick = |builder: RedisStoreBuilder| builder.connect_timeout(Duration::from_secs(1));
        assert_keeps(|| quick(RedisStore::builder(url)), url).await;
        assert_keeps(|| quick(RedisStore::sentinel("mymaster", [url])), url).await;
        assert_keeps(|| quick(RedisStore::cluster([url])), url).await;
    }
}

#[tokio::test]
async fn nothing_that_a_server_answers_gives_it_away() {
    let server = Server::start().await;
    let url = |user: &str| format!("redis://{user}:hemlig@127.0.0.1:{}", server.port());
    // The user is unknown, has a wrong password, lacks permissions, or is right.
    assert_keeps(|| store(url("limiter")), "an unknown user").await;
    assert_keeps(|| store(url("")), "a password that is not needed").await;
    assert_keeps(|| store(url("")).password("hemlig hemlig"), "another").await;
    make_user(&server, &["-@all"]).await;
    assert_keeps(|| store(url("limiter")), "a wrong password").await;
    make_user(&server, &["resetpass", ">hemlig", "-@all"]).await;
    assert_keeps(|| store(url("limiter")), "a user without permissions").await;
    assert_keeps(|| store(url("limiter")).database(3), "a user without permissions").await;
    make_user(&server, &["resetpass", ">hemlig", "~*", "+@all"]).await;
    assert_keeps(|| store(url("limiter")), "a user").await;
    assert_keeps(|| store(server.url()).user("limiter").password("hemlig"), "a user").await;
    server.kill();
    assert_keeps(|| store(url("limiter")), "a server that is down").await;
    assert_keeps(
        || patient(RedisStore::sentinel("mymaster", [url("limiter")])),
        "a Sentinel that is down",
    )
    .await;
    assert_keeps(|| store(url("limiter")).prefix("{}"), "a wrong prefix").await;
}

/// Some servers and proxies repeat a command that they do not take.
#[tokio::test]
async fn nothing_that_a_server_repeats_gives_it_away() {
    let server = Server::start().await;
    // Of the commands with a secret, and of all.
    for refused in [&["AUTH", "HELLO"][..], &[]] {
        let stand_in = StandIn::to(&server, move || -> Rule {
            Box::new(move |command: &Command| {
                if !refused.is_empty() && !refused.iter().any(|name| command.is(name)) {
                    return Answer::Pass;
                }
                let (name, words) = command.words().split_first().unwrap();
                let words: String = words.iter().map(|word| format!("'{word}' ")).collect();
                Answer::Say(format!(
                    "-ERR unknown command '{name}', with args beginning with: {}\r\n",
                    words.replace(['\r', '\n'], " "),
                ))
            })
        });
        for user in ["", "limiter"] {
            let url = format!("redis://{user}:hemlig@127.0.0.1:{}", stand_in.port());
            assert_keeps(|| store(&url), "a server that repeats").await;
            assert_keeps(|| store(format!("{url}/?protocol=resp3")), "such a server, RESP3").await;
            assert_keeps(|| store(&url).database(3), "such a server, a database").await;
        }
    }
}
