//! Whether a spelling escapes at any of the recorded servers: whether one of them routes a path to
//! an endpoint that the path is not charged to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bolna_rate_limit::{Endpoint, Policy};

use crate::read::servers::{Outcome, Recordings, Target, recordings};

/// The most escapes that a failure lists.
const LISTED: usize = 50;

struct Escape<'a> {
    server: &'a str,
    target: &'a Target,
    routed: Endpoint,
    charged: Vec<Endpoint>,
}

/// A target that hyper takes, with the endpoints that it is charged to and its place in the rows.
struct Charged<'a> {
    place: usize,
    target: &'a Target,
    endpoints: Vec<Endpoint>,
}

/// A policy with the routes of a recorded server that does not have those of the Bolna API: the
/// policy has to have the routes of the server that it is in front of.
fn policy_of(server: &str) -> Option<Policy> {
    let policy = match server {
        // `/v2/agent/all` is an agent: the pattern takes precedence.
        "apache-location" | "drf+gunicorn" => Policy::bolna().paths("default", None::<String>),
        // `path /v2/agent/*` is everything below.
        "caddy" => Policy::bolna().paths("agent", ["/v2/agent/{id}", "/v2/agent/{*rest}"]),
        // All of its routes are prefixes.
        "h2o-prefix" => Policy::bolna()
            .paths("call", ["/call", "/call/{*rest}"])
            .default_paths(["/v2/agent/all/{*rest}"]),
        _ => return None,
    };
    Some(policy.build().unwrap())
}

/// What each target is charged to that hyper does not refuse by itself.
fn charged<'a>(policy: &Policy, recordings: &'a Recordings) -> Vec<Charged<'a>> {
    let of_target = |(place, target): (usize, &'a Target)| {
        let endpoints = policy.endpoints_of(target.uri()?.path());
        Some(Charged { place, target, endpoints })
    };
    recordings.targets.iter().enumerate().filter_map(of_target).collect()
}

fn escapes(recordings: &Recordings) -> Vec<Escape<'_>> {
    let bolna = charged(&Policy::default(), recordings);
    let mut escapes = Vec::new();
    for server in &recordings.servers {
        let own = policy_of(&server.name).map(|policy| charged(&policy, recordings));
        for Charged { place, target, endpoints } in own.as_ref().unwrap_or(&bolna) {
            let Some(routed) = server.outcomes[*place].endpoint() else { continue };
            if !endpoints.contains(&routed) {
                let (server, charged) = (&*server.name, endpoints.clone());
                escapes.push(Escape { server, target, routed, charged });
            }
        }
    }
    escapes
}

fn names(endpoints: &[Endpoint]) -> String {
    let names: Vec<_> = endpoints.iter().map(Endpoint::name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// A table of the first escapes, one of each server in turn, so that every kind is in it.
fn table(escapes: &[Escape<'_>]) -> String {
    let mut by_server = BTreeMap::<_, Vec<_>>::new();
    for escape in escapes {
        by_server.entry(escape.server).or_default().push(escape);
    }
    let mut table = format!("{} escapes at {} servers", escapes.len(), by_server.len());
    let longest = by_server.values().map(Vec::len).max().unwrap_or_default();
    let in_turn = (0..longest).flat_map(|nth| by_server.values().filter_map(move |of| of.get(nth)));
    for Escape { server, target, routed, charged } in in_turn.take(LISTED) {
        let (target, routed) = (target.0.escape_ascii().to_string(), routed.name());
        let charged = names(charged);
        write!(table, "\n{server:32.32} {target:40} {routed} is not in: {charged}").unwrap();
    }
    table
}

#[test]
fn no_recorded_server_routes_a_path_to_an_endpoint_that_the_path_is_not_charged_to() {
    let recordings = recordings();
    let escapes = escapes(&recordings);
    assert!(escapes.is_empty(), "{}", table(&escapes));
}

/// Prints how many escapes each server has, and how often a path is charged to endpoints that no
/// recorded server routes it to.
#[test]
#[ignore = "prints figures"]
fn escapes_and_needless_charges() {
    let recordings = recordings();
    let charged = charged(&Policy::default(), &recordings);
    let escapes = escapes(&recordings);
    let refused = recordings.targets.len() - charged.len();
    println!("{} targets, of which hyper refuses {refused}", recordings.targets.len());

    let mut by_server = BTreeMap::<_, usize>::new();
    for escape in &escapes {
        *by_server.entry(escape.server).or_default() += 1;
    }
    let mut by_server: Vec<_> = by_server.into_iter().collect();
    by_server.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let servers = recordings.servers.len();
    println!("\n{} escapes at {} of {servers} servers", escapes.len(), by_server.len());
    for (server, count) in by_server {
        println!("{count:6}  {server}");
    }
    let targets: BTreeSet<_> = escapes.iter().map(|escape| &escape.target.0).collect();
    println!("\n{} targets escape somewhere", targets.len());
    for target in targets {
        let these: Vec<_> = escapes.iter().filter(|it| it.target.0 == *target).collect();
        let (endpoints, escaped) = (names(&these[0].charged), these.len());
        let routed: BTreeSet<_> = these.iter().map(|it| it.routed.name()).collect();
        println!("  {}: {endpoints}; {escaped} servers {routed:?}", target.escape_ascii());
    }
    print_needless(&recordings, &charged);
}

/// What makes a path so odd that it may be charged to more endpoints than a server routes it to.
fn oddity(target: &[u8]) -> Option<&'static str> {
    let contains = |needle: &[u8]| target.windows(needle.len()).any(|it| it == needle);
    let decoded = target.to_ascii_lowercase();
    let decoded = |needle: &[u8]| decoded.windows(needle.len()).any(|it| it == needle);
    [
        ("..", decoded(b"..") || decoded(b"%2e.") || decoded(b".%2e") || decoded(b"%2e%2e")),
        (";", contains(b";") || decoded(b"%3b")),
        ("%25", contains(b"%25")),
        ("%u", decoded(b"%u")),
        ("\\", contains(b"\\") || decoded(b"%5c")),
        (
            "no ASCII",
            decoded(b"%8") || decoded(b"%9") || !target.is_ascii() || {
                let high = |pair: &[u8]| pair[0] == b'%' && (b'a'..=b'f').contains(&pair[1]);
                target.to_ascii_lowercase().windows(2).any(high)
            },
        ),
    ]
    .into_iter()
    .find_map(|(name, there)| there.then_some(name))
}

fn print_needless(recordings: &Recordings, charged: &[Charged<'_>]) {
    // By oddity: targets, endpoints charged beyond those that a server chose, and the same without
    // `default`, which a server that answers 404 may be said to have chosen.
    let mut by_oddity = BTreeMap::<_, (usize, usize, usize, usize)>::new();
    let mut without_oddity = Vec::new();
    for Charged { place, target, endpoints } in charged {
        let outcomes = || recordings.servers.iter().map(|server| server.outcomes[*place]);
        let chosen: BTreeSet<_> = outcomes().filter_map(Outcome::endpoint).collect();
        let needless: Vec<_> =
            endpoints.iter().copied().filter(|it| !chosen.contains(it)).collect();
        let narrow = needless.iter().filter(|it| **it != Endpoint::DEFAULT).count();
        let counts = by_oddity.entry(oddity(&target.0)).or_default();
        counts.0 += 1;
        counts.1 += endpoints.len();
        counts.2 += needless.len();
        counts.3 += narrow;
        if narrow > 0 && oddity(&target.0).is_none() {
            without_oddity.push((target, endpoints, needless));
        }
    }
    println!("\noddity: targets, charged, charged needlessly, and of these not `default`");
    for (oddity, (targets, all, needless, narrow)) in &by_oddity {
        println!("{:10} {targets:6} {all:6} {needless:6} {narrow:6}", oddity.unwrap_or("none"));
    }
    println!("\n{} without an oddity are charged needlessly", without_oddity.len());
    for (target, endpoints, needless) in without_oddity {
        let (endpoints, needless) = (names(endpoints), names(&needless));
        println!("  {}: {endpoints}; needlessly {needless}", target.0.escape_ascii());
    }
}
