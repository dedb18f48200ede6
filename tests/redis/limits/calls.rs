//! Requests that share calls of the server.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{call, calls, charges, keys, member, nothing_was_lost, ten_four_fifteen};
use crate::servers::{Mode, Proxy, Server};
use crate::support::{Replica, store};

/// How many calls the server gets for these requests, all at once. A probe may be among them.
async fn calls_for(replica: &Replica, server: &Server, who: Vec<(&'static str, String)>) -> u64 {
    let before = server.calls_of("evalsha").await;
    let mut tasks = JoinSet::new();
    for (user, organization) in who {
        let limiter = replica.limiter.clone();
        tasks.spawn(async move { call(&limiter, &member(user, &organization)).await });
    }
    tasks.join_all().await.iter().for_each(|ruling| assert!(ruling.is_admitted(), "{ruling:?}"));
    server.calls_of("evalsha").await - before
}

#[tokio::test]
async fn the_users_of_an_organization_share_calls_and_organizations_do_not() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let replica = Replica::connect(store(proxy.url()), calls(1000, 500).build().unwrap()).await;
    // All requests arrive before the call for the first one has ended.
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    let of = |users: &[&'static str], organizations: usize| {
        let all = (0..100)
            .map(|number| (users[number % users.len()], format!("o-{}", number % organizations)));
        all.collect()
    };
    let shared = calls_for(&replica, &server, of(&["u-1"], 1)).await;
    assert!((1..=3).contains(&shared), "{shared} calls for equal requests");
    let shared = calls_for(&replica, &server, of(&["u-1", "u-2"], 1)).await;
    assert!((1..=3).contains(&shared), "{shared} calls for the requests of two users");
    let apart = calls_for(&replica, &server, of(&["u-1"], 50)).await;
    assert!((50..=101).contains(&apart), "{apart} calls for fifty organizations");
    let of_first: Vec<_> = charges(&server).await.into_iter().take(3).collect();
    let expected = keys([
        ("bolna:2:{organization:o-0}:call", 202),
        ("bolna:2:{organization:o-0}:call-user:user:u-1", 152),
        ("bolna:2:{organization:o-0}:call-user:user:u-2", 50),
    ]);
    assert_eq!(of_first, expected.into_iter().collect::<Vec<_>>());
    nothing_was_lost(&[replica]);
}

/// Units go to the requests of a shared call in the order of their arrival, user by user.
#[tokio::test]
async fn of_the_requests_that_share_a_call_each_user_gets_its_own_units() {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    let policy = ten_four_fifteen().build().unwrap();
    let replica = Replica::connect(store(proxy.url()), policy).await;
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    let mut tasks = JoinSet::new();
    for number in 0..60 {
        let limiter = replica.limiter.clone();
        tasks.spawn(async move {
            let user = ["u-1", "u-2", "u-3"][number % 3];
            (user, call(&limiter, &member(user, "o-1")).await.is_admitted())
        });
    }
    let all = tasks.join_all().await;
    let of = |user| all.iter().filter(|(its, admitted)| *its == user && *admitted).count();
    let each = ["u-1", "u-2", "u-3"].map(of);
    assert_eq!(each.iter().sum::<usize>(), 10, "{each:?}");
    // They took turns, so none has less than three.
    assert!(each.iter().all(|admitted| (3..=4).contains(admitted)), "{each:?}");
    nothing_was_lost(&[replica]);
}
