//! The marker is in no text that may end up in a log.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::store::remote::failure::Failure;

const MARKER: &str = "S3CRETxyz";

/// All that can be told of an error: itself, and what is behind it.
fn all_of(error: &(dyn Error + 'static)) -> String {
    let mut told = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        told.push_str(&format!("{error} {error:?} {error:#?} {error:#}\n"));
        next = error.source();
    }
    told
}

#[track_caller]
fn assert_silent(told: &str, of: &str) {
    let decoded = percent_encoding::percent_decode_str(told).decode_utf8_lossy();
    for told in [told, &decoded, &told.replace('\\', "")] {
        assert!(!told.to_lowercase().contains("s3cret"), "of {of:?}: {told}");
    }
}

/// What servers answer, with `~` for what is repeated.
const ANSWERS: [&str; 24] = [
    "ERR ~",
    "~",
    "~ ~",
    "-~",
    "ERR unknown command 'AUTH', with args beginning with: 'limiter' '~' ",
    "ERR unknown command `~`, with args beginning with: `~`, ",
    "ERR unknown command 'HELLO 2 AUTH limiter ~ SETNAME ~'",
    "ERR syntax error in HELLO option '~'",
    "ERR Protocol error: invalid \"~\"",
    "WRONGPASS invalid username-password pair (limiter:~)",
    "WRONGPASS\t~",
    "NOAUTH ~",
    "NOPERM User ~ has no permissions to run the '~' command",
    "NOPERM ACL failure in script: ~ script: 5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b, on \
     @user_script:12.",
    "ERR Error running script (call to f_~): @user_script:1: @user_script: 1: ~",
    "MOVED 1 ~:6379",
    "ASK 1 redis://limiter:~@localhost:1",
    "CLUSTERDOWN ~",
    "MISCONF ~",
    "LOADING ~",
    "DENIED ~",
    "ERR DB index ~ is out of range",
    "ERR script: ~, on ~",
    "ERR the key 'bolna:2:{user:~}:call' {~ x{y~}",
];

const COMMANDS: [&str; 7] = ["", "HELLO", "AUTH", "SELECT", "TIME", "EVALSHA", "SENTINEL"];

/// The ways in which a server may write what it was sent.
fn written(secret: &str) -> Vec<String> {
    let encoded = |secret: &str| {
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    };
    let every_byte = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut ways = vec![
        secret.to_owned(),
        secret.to_lowercase(),
        secret.to_uppercase(),
        encoded(secret),
        encoded(secret).to_lowercase(),
        encoded(secret).replace("%20", "+"),
        every_byte,
        format!("{secret:?}"),
        format!("xx{secret}{secret}yy"),
        "x".repeat(150) + secret + &"y".repeat(150),
    ];
    // Each cut of the secret that has more of the marker than a reader may see.
    let cut = secret.find(MARKER).map(|at| secret[..at + MARKER.len() - 1].to_owned());
    ways.extend(cut);
    ways
}

/// What the client makes of that text, wherever it is from.
fn errors_of(text: &str) -> [RedisError; 4] {
    let of_client = |kind| RedisError::from((kind, "it failed", text.to_owned()));
    [
        answer(&text.replace(['\r', '\n'], " ")),
        io(io::ErrorKind::UnexpectedEof, text),
        of_client(redis::ErrorKind::InvalidClientConfig),
        of_client(redis::ErrorKind::UnexpectedReturnType),
    ]
}

/// Makes every error that the server at `address` can be the cause of.
fn assert_answers_are_silent(address: &Address, secret: &str) {
    assert_silent(&format!("{address} {address:?} {address:#?}"), "the address");
    for secret in written(secret) {
        for line in ANSWERS {
            for error in errors_of(&line.replace('~', &secret)) {
                assert_error(&RedisStoreError::of(address, "AUTH", &error), line);
                assert_error(&RedisStoreError::of_sentinel(address, "SENTINEL", &error), line);
            }
        }
        let quoted = RedisStoreError::quoting(Kind::Other, address, "it is ", &secret, "!");
        assert_error(&quoted, &secret);
        if let Some(node) = address.at(&secret, 6379) {
            assert_silent(&format!("{node} {node:?}"), &secret);
        }
    }
}

#[track_caller]
fn assert_error(error: &RedisStoreError, of: &str) {
    assert_silent(&all_of(error), of);
    let reason = Reason::from(error);
    assert_silent(&format!("{:?}", reason.lost(&"another".into())), of);
    let failure = Failure::Server(reason);
    assert_silent(&all_of(&failure), of);
    assert_silent(&all_of(&crate::store::StoreError::from(failure)), of);
    let said = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(said.chars().count() <= 200 && !said.contains(['\r', '\n']), "of {of:?}: {said}");
}

/// Whether the marker is where an address may be shown: in a host, a path or a service.
fn shows_marker(servers: &Servers) -> bool {
    let is_in = |text: &str| text.to_lowercase().contains("s3cret");
    match servers {
        Servers::One(server) => is_in(&server.to_string()),
        Servers::Sentinels(sentinels) => {
            is_in(&sentinels.service) || sentinels.nodes.iter().any(|it| is_in(&it.to_string()))
        }
        Servers::Cluster(nodes) => nodes.iter().any(|it| is_in(&it.to_string())),
    }
}

/// Whatever becomes of the address: the error, or the servers.
fn assert_address_is_silent(address: &str) {
    let mut outcomes = vec![Servers::parse(address), Servers::sentinels("mymaster", [address])];
    outcomes.push(Servers::cluster(["redis://localhost", address]));
    for outcome in outcomes {
        match outcome {
            Ok(servers) if shows_marker(&servers) => {}
            Ok(servers) => assert_silent(&format!("{servers:?} {servers:#?}"), address),
            Err(error) => assert_error(&error, address),
        }
    }
}

#[test]
fn no_address_of_the_table_gives_its_password_away() {
    for address in [
        "limiter:~",
        ":~",
        "limiter:~@localhost:1",
        "redis:limiter:~@localhost:1",
        "redis:/limiter:~@localhost:1",
        "http://limiter:~@localhost:1",
        "~://localhost",
        "redis+~://localhost",
        "redis://limiter:~",
        "redis://:~",
        "redis://limiter:~/0",
        "redis://limiter:~@",
        "redis://limiter:~@/0",
        "redis://limiter:~@local host:1",
        "redis://limiter:~@localhost:port",
        "redis://limiter:~@localhost:99999",
        "redis://limiter:~@localhost:1/three",
        "redis://limiter:~@localhost:1?protocol=4",
        "redis://limiter:~@0.0.0.0:1",
        "redis://limiter:~%ff@localhost:1",
        "redis://limiter:~%@localhost:1",
        "redis://~@localhost:1",
        "redis://~:x@localhost:1",
        "redis://limiter:x@localhost:~",
        "redis://limiter:x@localhost:1~",
        "redis://limiter:x@[~]:1",
        "redis://limiter:x@[::1~]:1",
        "redis://limiter:x@[::1]~",
        "redis://limiter:x@local~ host:1",
        "redis://localhost/~",
        "redis://localhost/0/~",
        "redis://localhost?~",
        "redis://localhost?pass=~",
        "redis://localhost?protocol=~",
        "redis://localhost#~",
        "redis://localhost\n~",
        "redis://localhost\u{202e}~",
        "redis://limiter:~@~@localhost:1",
        "redis://limiter:~/~@localhost:1",
        "redis://limiter:1/~@localhost:1",
        "redis://limiter:~?~@localhost:1",
        "redis://limiter:~#~@localhost:1",
        "redis://limiter:1?~@localhost:1",
        "redis://limiter:1#~@localhost:1",
        "redis://limiter:~:~@localhost:port",
        "redis://limiter:[~@localhost:1",
        "redis://a,b,~ ",
        "unix://socket?user=limiter&pass=~",
        "unix://~/socket",
        "unix:///socket?user=~&pass=~",
        "unix:///socket?pass=~&db=three",
        "unix:///socket?pass=x&~",
        "unix:///socket?pass=x#~",
        "unix:///socket?db=~",
        "unix:///socket?protocol=~",
        "redis+unix://limiter:~@/socket",
        "redis+unix://:~@localhost/socket",
        "redis+unix:///limiter:~@/socket",
        "redis+unix://limiter:x/~@/socket",
        "redis+sentinel://limiter:~",
        "redis+sentinel://limiter:~/mymaster",
        "redis+sentinel://limiter:~@/mymaster",
        "redis+sentinel://limiter:~@localhost:1",
        "redis+sentinel://limiter:~@localhost:1/mymaster",
        "redis+sentinel://limiter:~@localhost:port/mymaster",
        "redis+sentinel://limiter:~@localhost:1/mymaster/three",
        "redis+sentinel://limiter:~/~@localhost:1/mymaster",
        "redis+sentinel://limiter:1/~@localhost:1/mymaster",
        "redis+sentinel://limiter:~@localhost:1,limiter:~@localhost:1/mymaster",
        "redis+sentinel://localhost:1,localhost:~/mymaster",
        "redis+sentinel://localhost/mymaster/~",
        "redis+cluster://limiter:~",
        "redis+cluster://limiter:~@",
        "redis+cluster://limiter:~@localhost:1",
        "redis+cluster://limiter:~@localhost:1/3",
        "redis+cluster://localhost/~",
        "redis+cluster://limiter:~@localhost:1,localhost:port",
        "redis+cluster://limiter:1/~@localhost:1",
        "redis+cluster://limiter:~@localhost:1,limiter:~@localhost:1",
        "rediss://limiter:~@localhost:1",
        "rediss://limiter:~@localhost:1/#~",
        "rediss://limiter:~@localhost:1/#insecure",
    ] {
        for marker in [MARKER, "%53%33CRETxyz", "S3CRETxyz%2F", "x:S3CRETxyz", "S3CRETxyz{"] {
            assert_address_is_silent(&address.replace('~', marker));
        }
    }
}

/// Right and wrong addresses, with the marker anywhere.
fn addresses() -> impl Strategy<Value = String> {
    let scheme = select(vec![
        "redis://",
        "rediss://",
        "valkey://",
        "redis+sentinel://",
        "redis+cluster://",
        "unix://",
        "unix:///run/it",
        "redis+unix://",
        "http://",
        "redis:",
        "",
        "redis://limiter:S3CRETxyz@localhost",
        "redis+sentinel://limiter:S3CRETxyz@[::1],b:7/mymaster",
        "redis+cluster://limiter:S3CRETxyz@a,b",
        "unix:///run/it?user=limiter&pass=S3CRETxyz",
    ]);
    let part = prop_oneof![
        3 => Just(MARKER),
        1 => Just("%53%33cretXYZ"),
        10 => select(vec![":", "@", "/", "?", "#", ",", "&", "=", "%", "[", "]", " ", "\n", "."]),
        6 => select(vec!["localhost", "::1", "6379", "0", "limiter", "mymaster", "a", "[::1]"]),
        2 => select(vec!["pass=", "user=", "db=", "protocol=", "insecure", "%40", "%ff", "%00"]),
    ];
    let parts = proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat());
    (scheme, parts).prop_map(|(scheme, parts)| format!("{scheme}{parts}"))
}

/// A password with the marker in it, and any other characters.
fn passwords() -> impl Strategy<Value = String> {
    ("\\PC{0,9}|[%+ {}:@\\\\\"'\r\n\t]{0,3}", "\\PC{0,9}|[%+ {}:@\\\\\"'\r\n\t]{0,3}")
        .prop_map(|(before, after)| format!("{before}{MARKER}{after}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_address_gives_its_password_away(address in addresses()) {
        assert_address_is_silent(&address);
    }

    #[test]
    fn no_answer_gives_a_password_away(
        password in passwords(),
        line in select(&ANSWERS[..]),
        asked in select(&COMMANDS[..]),
        way in any::<proptest::sample::Index>(),
        source in 0_usize..4,
    ) {
        let address = plain().with_credentials(Some("limiter"), Some(&password));
        let secret = way.get(&written(&password)).clone();
        let error = &errors_of(&line.replace('~', &secret))[source];
        assert_error(&RedisStoreError::of(&address, asked, error), &secret);
    }
}

#[test]
fn no_answer_of_the_table_gives_a_password_away() {
    let encoded = |password: &str| {
        percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    };
    for password in [MARKER, "S3CRETxyz{9}\\\"'", "p@ss wörd: S3CRETxyz %41+&", "\r\n{S3CRETxyz"] {
        let encoded = encoded(password);
        let address = format!("redis://limiter:{encoded}@localhost:7");
        assert_answers_are_silent(&server(&address), password);
    }
}

#[test]
fn no_answer_gives_a_user_away() {
    let address = server("redis://S3CRETxyz:x@localhost:7");
    for line in ANSWERS {
        for error in errors_of(&line.replace('~', MARKER)) {
            assert_error(&RedisStoreError::of(&address, "AUTH", &error), line);
        }
    }
}
