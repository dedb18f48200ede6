use bolna_rate_limit::store::RedisStoreErrorKind::WrongPassword;

use super::{as_user, assert_counts, assert_refused, make_user, refusal, store};
use crate::servers::{Answer, Command, Rule, Server, StandIn};

const ALL: [&str; 2] = ["~*", "+@all"];

fn with(user: &str, server: &Server) -> String {
    format!("redis://{user}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_told() {
    let server = Server::start().await;
    make_user(&server, &ALL).await;
    let address = format!("127.0.0.1:{}", server.port());
    for user in ["limiter:wrong", "nobody:secret"] {
        let refused = refusal(store(with(user, &server))).await;
        assert_refused(&refused, WrongPassword, &[&address, "no such user with that password"]);
    }
    make_user(&server, &["off"]).await;
    assert_refused(&refusal(store(as_user(&server))).await, WrongPassword, &[&address]);
}

#[tokio::test]
async fn a_password_that_is_needed_and_not_given_is_told() {
    let server = Server::start().await;
    server.command::<()>(&["CONFIG", "SET", "requirepass", "secret"]).await.unwrap();
    assert_refused(
        &refusal(store(server.url())).await,
        WrongPassword,
        &["asks for a password and was given none"],
    );
    let refused = refusal(store(with(":wrong", &server))).await;
    assert_refused(&refused, WrongPassword, &["no such user with that password"]);
    assert_counts(store(with(":secret", &server))).await;
}

#[tokio::test]
async fn a_password_that_is_given_and_not_needed_is_told() {
    let server = Server::start().await;
    assert_refused(
        &refusal(store(with(":secret", &server))).await,
        WrongPassword,
        &["was given a password and has none"],
    );
}

#[tokio::test]
async fn user_and_password_override_those_of_the_url() {
    let server = Server::start().await;
    make_user(&server, &ALL).await;
    assert_counts(store(with("nobody:wrong", &server)).user("limiter").password("secret")).await;
    server.command::<()>(&["FLUSHALL"]).await.unwrap();
    assert_counts(store(with("limiter:wrong", &server)).password("secret")).await;
    server.command::<()>(&["FLUSHALL"]).await.unwrap();
    assert_counts(store(server.url()).user("limiter").password("secret")).await;
    let refused = refusal(store(as_user(&server)).user("nobody")).await;
    assert_refused(&refused, WrongPassword, &["no such user"]);
    let refused = refusal(store(as_user(&server)).password("wrong")).await;
    assert_refused(&refused, WrongPassword, &["no such user"]);
}

#[tokio::test]
async fn a_password_may_have_any_characters() {
    let server = Server::start().await;
    let password = "p@ss:w/ö?d#%20 ";
    let user = ["ACL", "SETUSER", "limiter", "on", &format!(">{password}"), "~*", "+@all"];
    server.command::<()>(&user).await.unwrap();
    assert_counts(store(server.url()).user("limiter").password(password)).await;
    server.command::<()>(&["FLUSHALL"]).await.unwrap();
    assert_counts(store(with("limiter:p%40ss%3Aw%2F%C3%B6%3Fd%23%2520%20", &server))).await;
}

/// Servers before Redis 6.0, whose addresses often name a user all the same.
#[tokio::test]
async fn a_server_that_knows_no_users_is_given_the_password_alone() {
    let server = Server::start().await;
    let stand_in = StandIn::to(&server, || -> Rule {
        Box::new(|command: &Command| {
            if !command.is("AUTH") {
                return Answer::Pass;
            }
            let answer = match &command.words()[1..] {
                [password] if password == "secret" => "+OK",
                [_] => "-ERR invalid password",
                _ => "-ERR wrong number of arguments for 'auth' command",
            };
            Answer::Say(format!("{answer}\r\n"))
        })
    });
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", stand_in.port());
    assert_counts(store(url("limiter:secret"))).await;
    assert_refused(&refusal(store(url("limiter:wrong"))).await, WrongPassword, &["password"]);
}
