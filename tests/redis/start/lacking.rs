//! What a server lacks, or does not allow, is told with what to do.

use bolna_rate_limit::store::RedisStoreErrorKind as Kind;

use super::{assert_refused, refusal, store};
use crate::servers::{Answer, Server, StandIn, refuse, say};

/// The error of a store on a stand-in that answers these commands this way.
async fn refused(commands: &'static [&'static str], answer: &str) -> (Kind, String) {
    let server = Server::start().await;
    let answer = Answer::Say(format!("{answer}\r\n"));
    let stand_in = StandIn::to(&server, refuse(commands, answer));
    refusal(store(stand_in.url()).database(3).password("hemlig")).await
}

const SCRIPTS: [&str; 2] = ["EVAL", "EVALSHA"];

#[tokio::test]
async fn scripts() {
    for answer in [
        "-ERR unknown command 'EVAL', with args beginning with: 'local now' '1' 'key' ",
        "-ERR unknown command `EVAL`, with args beginning with: `local now`, `1`, `key`, ",
        "-ERR Command is not available: 'EVAL'",
    ] {
        let server = Server::start().await;
        let stand_in = StandIn::to(&server, refuse(&SCRIPTS, Answer::Say(format!("{answer}\r\n"))));
        let refused = refusal(store(stand_in.url())).await;
        assert_refused(&refused, Kind::NoScripts, &["EVAL", &stand_in.port().to_string()]);
        assert!(!refused.1.contains("local now"), "the script is not repeated: {}", refused.1);
    }
}

#[tokio::test]
async fn other_databases() {
    for answer in [
        "-ERR SELECT is not allowed in cluster mode",
        "-ERR unknown command 'SELECT', with args beginning with: '3' ",
        "-ERR DB index is out of range",
    ] {
        let server = Server::start().await;
        let stand_in =
            StandIn::to(&server, refuse(&["SELECT"], Answer::Say(format!("{answer}\r\n"))));
        let (_, text) = refusal(store(stand_in.url()).database(3)).await;
        assert!(text.contains("database"), "{text}");
    }
}

#[tokio::test]
async fn a_password() {
    for answer in [
        "-ERR AUTH <password> called without any password configured for the default user. Are \
         you sure your configuration is correct?",
        "-ERR Client sent AUTH, but no password is set",
        "-WRONGPASS invalid username-password pair or user is disabled.",
        "-WRONGPASS invalid username-password pair",
        "-ERR invalid password",
    ] {
        let refused = refused(&["AUTH", "HELLO"], answer).await;
        assert_refused(&refused, Kind::WrongPassword, &["password"]);
        assert!(!refused.1.contains("hemlig"), "{}", refused.1);
    }
}

#[tokio::test]
async fn its_data() {
    let server = Server::start().await;
    let stand_in = StandIn::to(&server, say("-LOADING Redis is loading the dataset in memory\r\n"));
    assert_refused(&refusal(store(stand_in.url())).await, Kind::Busy, &["loading"]);
}

#[tokio::test]
async fn the_slot() {
    let server = Server::start().await;
    let moved = Answer::Say("-MOVED 866 127.0.0.1:7001\r\n".to_owned());
    let stand_in = StandIn::to(&server, refuse(&SCRIPTS, moved));
    let (_, text) = refusal(store(stand_in.url())).await;
    assert!(text.contains("cluster"), "{text}");
    assert!(text.contains("redis+cluster://"), "{text}");
}

#[tokio::test]
async fn clients_from_elsewhere() {
    let server = Server::start().await;
    let denied = "-DENIED Redis is running in protected mode because protected mode is enabled \
                  and no password is set for the default user.\r\n";
    let stand_in = StandIn::to(&server, say(denied));
    let (_, text) = refusal(store(stand_in.url())).await;
    assert!(text.contains("protected mode"), "{text}");
}

#[tokio::test]
async fn room_for_a_client() {
    let server = Server::with_args(&["--maxclients", "2"]).await;
    let (_first, _second) =
        (server.connection().await.unwrap(), server.connection().await.unwrap());
    let (_, text) = refusal(store(server.url())).await;
    assert!(text.contains("clients"), "{text}");
}

#[tokio::test]
async fn the_time() {
    let server = Server::with_args(&["--rename-command", "TIME", ""]).await;
    let (_, text) = refusal(store(server.url())).await;
    assert!(text.contains("TIME"), "{text}");
}

#[tokio::test]
async fn everything() {
    let server = Server::start().await;
    for garbage in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x01\x00\x02\x02\x16\r\n", "$-3\r\n", "\r\n"]
    {
        let stand_in = StandIn::to(&server, say(garbage));
        let (kind, text) = refusal(store(stand_in.url())).await;
        assert!(
            matches!(kind, Kind::WrongServer | Kind::Unreachable),
            "{garbage:?}: {kind:?}, {text}"
        );
        assert!(text.contains(&stand_in.port().to_string()), "{garbage:?}: {text}");
    }
}
