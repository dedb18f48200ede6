#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use super::*;

fn address(host: &str, port: u16, tls: bool, login: Login) -> Address {
    Address::new(Place::Tcp { host: host.to_owned(), port }, tls, login)
}

fn login(user: &str, password: &str, database: i64) -> Login {
    Login { user: secret(user), password: secret(password), database }
}

fn one(host: &str, port: u16, login: Login) -> Servers {
    Servers::One(address(host, port, false, login))
}

fn read(address: &str) -> Servers {
    Servers::parse(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

#[test]
fn a_server_has_many_forms_of_address() {
    let full = one("localhost", 7000, login("limiter", "hemlig", 3));
    for (written, expected) in [
        ("redis://localhost", one("localhost", 6379, Login::default())),
        ("redis://localhost:", one("localhost", 6379, Login::default())),
        ("REDIS://localhost/", one("localhost", 6379, Login::default())),
        ("  redis://localhost/0\n", one("localhost", 6379, Login::default())),
        ("valkey://127.0.0.1:1?protocol=resp3&x=y#", one("127.0.0.1", 1, Login::default())),
        ("redis://[::1]", one("::1", 6379, Login::default())),
        ("redis://[fe80::1]:7/2/", one("fe80::1", 7, login("", "", 2))),
        ("redis://redis_1.internal-net:7", one("redis_1.internal-net", 7, Login::default())),
        ("redis://limiter:hemlig@localhost:7000/3", full.clone()),
        ("redis://limiter:%68emlig@localhost:7000/3?protocol=2", full),
        ("redis://:hemlig@localhost:7", one("localhost", 7, login("", "hemlig", 0))),
        ("redis://limiter@localhost:7", one("localhost", 7, login("limiter", "", 0))),
        ("redis://limiter:@localhost:7", one("localhost", 7, login("limiter", "", 0))),
        ("redis://a%40b:c%2Fd%3A%25%20%e2%82%ac:e@h", one("h", 6379, login("a@b", "c/d:% €:e", 0))),
    ] {
        assert_eq!(read(written), expected, "{written}");
    }
}

#[test]
fn a_socket_has_user_and_password_among_its_parameters() {
    let socket = |path: &str, login| {
        Servers::One(Address::new(Place::Socket(path.to_owned()), false, login))
    };
    for (written, expected) in [
        ("unix:///run/redis.sock", socket("/run/redis.sock", Login::default())),
        ("unix://localhost/run/redis@1.sock", socket("/run/redis@1.sock", Login::default())),
        (
            "redis+unix:///run/a%20b?user=limiter&pass=p%26q+r@s&db=3&protocol=resp2",
            socket("/run/a b", login("limiter", "p&q r@s", 3)),
        ),
        ("valkey+unix:///run/it?pass=hemlig", socket("/run/it", login("", "hemlig", 0))),
    ] {
        assert_eq!(read(written), expected, "{written}");
    }
}

#[test]
fn sentinels_have_a_service_and_the_user_is_the_primarys() {
    let nodes = |hosts: &[(&str, u16)]| -> Vec<_> {
        hosts.iter().map(|(host, port)| address(host, *port, false, Login::default())).collect()
    };
    let sentinels = Sentinels {
        service: "my master".to_owned(),
        nodes: nodes(&[("a", 1), ("b", 26379), ("::1", 26379)]),
        tls: false,
        login: login("limiter", "hemlig", 2),
    };
    let written = "redis+sentinel://limiter:hemlig@a:1,b,[::1]/my%20master/2/";
    assert_eq!(read(written), Servers::Sentinels(sentinels.clone()));

    let node = &sentinels.nodes[0];
    let primary = sentinels.primary(node, "10.0.0.1", 6379).unwrap();
    assert_eq!(primary, address("10.0.0.1", 6379, false, sentinels.login.clone()));
    for (host, port) in [("", 1), ("a", 0), ("a b", 1), ("a@b", 1), ("a/b", 1)] {
        assert_eq!(sentinels.primary(node, host, port), None, "{host}");
    }

    // A host that holds the password is used, but not shown.
    let primary = sentinels.primary(node, "hemlig.internal", 6379).unwrap();
    assert!(primary.place == Place::told("hemlig.internal", 6379).unwrap());
    assert_eq!(primary.to_string(), "***.internal:6379");

    let listed = Servers::sentinels("m", ["redis://watch:dog@a:1", "redis://b"]).unwrap();
    let first = address("a", 1, false, login("watch", "dog", 0));
    let second = address("b", 26379, false, Login::default());
    let (service, tls, login) = ("m".to_owned(), false, Login::default());
    let expected = Sentinels { service, nodes: vec![first, second], tls, login };
    assert_eq!(listed, Servers::Sentinels(expected));
}

#[cfg(feature = "redis-tls")]
#[test]
fn an_s_is_for_tls() {
    let is_over_tls = |written| match read(written) {
        Servers::One(server) => server.tls,
        Servers::Sentinels(sentinels) => sentinels.tls && sentinels.nodes[0].tls,
        Servers::Cluster(nodes) => nodes[0].tls,
    };
    assert!(is_over_tls("rediss://a"));
    assert!(is_over_tls("valkeys://a"));
    assert!(is_over_tls("rediss+sentinel://a/m"));
    assert!(!is_over_tls("redis+sentinel://a/m"));
    assert!(is_over_tls("valkeys+cluster://a"));
    assert_wrong("rediss://a#insecure", "root_certificates");
}

#[test]
fn a_cluster_has_nodes_and_one_database() {
    let nodes = Servers::Cluster(vec![
        address("a", 1, false, login("limiter", "hemlig", 0)),
        address("b", 6379, false, login("limiter", "hemlig", 0)),
    ]);
    for path in ["", "/", "/0", "/0/"] {
        assert_eq!(read(&format!("redis+cluster://limiter:hemlig@a:1,b{path}")), nodes);
    }
    let all = ["redis://limiter:hemlig@a:1", "redis://limiter:hemlig@b/0"];
    assert_eq!(Servers::cluster(all).unwrap(), nodes);
    assert_wrong("redis+cluster://a,b/3", "a cluster has database 0 only");
    assert_wrong("redis+cluster://a,b/three", "not a number");
    let refused = Servers::cluster(["redis://a", "redis://b/3"]).unwrap_err().to_string();
    assert!(refused.contains("database 0 only") && refused.contains("host 2"), "{refused}");
    assert!(nodes.clone().with(None, None, Some(3)).is_err());
    assert!(nodes.with(None, None, Some(0)).is_ok());
    assert!(Servers::cluster([""; 0]).is_err());
}

#[test]
fn what_is_set_by_itself_counts_instead_of_the_address() {
    let servers = read("redis://limiter:hemlig@h/3");
    let with = |user, password, database| servers.clone().with(user, password, database).unwrap();
    assert_eq!(with(None, None, None), servers);
    assert_eq!(with(Some("a"), None, None), one("h", 6379, login("a", "hemlig", 3)));
    assert_eq!(with(None, Some("b"), Some(0)), one("h", 6379, login("limiter", "b", 0)));
}

#[track_caller]
fn assert_wrong(written: &str, words: &str) {
    let error = Servers::parse(written).expect_err(written);
    assert!(error.to_string().contains(words), "{written}: {error}");
}

#[test]
fn what_is_wrong_with_an_address_is_told() {
    for (written, words) in [
        ("localhost:6379", "no scheme"),
        ("http://localhost", "scheme is not known"),
        ("http+cluster://localhost", "scheme is not known"),
        ("redis://", "no host"),
        ("redis://:6379", "no host"),
        ("redis://limiter:hemlig@", "no host"),
        ("redis://a,b", "redis+sentinel://"),
        ("redis://a:port", "from 1 to 65535"),
        ("redis://a:+1", "from 1 to 65535"),
        ("redis://a:0", "from 1 to 65535"),
        ("redis://a:65536", "from 1 to 65535"),
        ("redis://::1", "in []"),
        ("redis://[::1", "closing ]"),
        ("redis://[a]", "not an IPv6"),
        ("redis://[::1]6379", "only :port"),
        ("redis://a b", "not a name"),
        ("redis://ö", "not a name"),
        ("redis://0.0.0.0", "wildcard"),
        ("redis://a/three", "database is not a number"),
        ("redis://a/-1", "database is not a number"),
        ("redis://a?protocol=4", "protocol"),
        ("redis://a?pass=x", "before the host"),
        ("redis://a?db=1", "after the host"),
        ("redis://a\n/1", "line break"),
        ("redis://%ff:x@a", "user is not valid UTF-8"),
        ("redis://x:%ff@a", "password is not valid UTF-8"),
        ("redis://a:b@c:d@e", "%40"),
        ("redis://a:b/c@d", "%2F"),
        ("redis://a:b#c", "%23"),
        ("redis+sentinel://a", "add /<service>"),
        ("redis+sentinel://a//0", "add /<service>"),
        ("redis+sentinel://a,/m", "no host (host 2)"),
        ("redis+sentinel:///m", "no host"),
        ("redis+sentinel://a/m/three", "database is not a number"),
        ("unix://run/redis", "with a / of its own"),
        ("redis+unix://limiter:hemlig@/run/redis", "among the parameters"),
        ("redis+unix:///limiter:hemlig@/run/redis", "among the parameters"),
        ("unix://", "no path"),
        ("unix:///?db=1", "no path"),
        ("unix:///run?db=x", "database is not a number"),
        ("unix:///run?pass=a&b", "%26"),
        ("unix:///run?pass=a#b", "%23"),
    ] {
        assert_wrong(written, words);
    }
    #[cfg(not(feature = "redis-tls"))]
    assert_wrong("rediss://a", "feature redis-tls");
    assert!(Servers::sentinels("", ["redis://a"]).is_err());
    assert!(Servers::sentinels("m", [""; 0]).is_err());
    for url in ["redis://a/3", "a:1", "redis+sentinel://a/m", "unix:///a", "redis://a,b"] {
        assert!(Servers::sentinels("m", ["redis://a", url]).is_err(), "{url}");
    }
    let told = Servers::parse("rediss+sentinel://limiter:hemlig@a").unwrap_err().to_string();
    assert!(
        told.starts_with("the rate limiter can't count on the server named rediss+sentinel://...")
            || cfg!(not(feature = "redis-tls")),
        "{told}"
    );
}

#[test]
fn only_the_place_of_a_server_is_shown() {
    for (written, expected) in [
        ("redis://limiter:hemlig@[::1]:7/3", "[::1]:7"),
        ("redis://limiter:hemlig@localhost", "localhost:6379"),
        ("unix:///run/it?user=limiter&pass=hemlig", "/run/it"),
    ] {
        let servers = read(written);
        let Servers::One(server) = &servers else { panic!("{written}") };
        assert_eq!(server.to_string(), expected);
        let debug = format!("{servers:?}");
        assert!(!debug.contains("limiter") && !debug.contains("hemlig"), "{debug}");
    }
    let service = read("redis+sentinel://limiter:hemlig@a/mymaster");
    let Servers::Sentinels(sentinels) = service else { panic!() };
    assert_eq!(sentinels.to_string(), "the primary mymaster");
}
