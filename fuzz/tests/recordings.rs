//! The models, held against the recordings of the servers that they are learnt from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use bolna_rate_limit_fuzz::servers::routers::Route;
use bolna_rate_limit_fuzz::servers::{Proxy, SERVERS, Server};
use flate2::read::MultiGzDecoder;

/// Chains of a proxy that rewrites the target and a server, both of which have a model.
const CHAINS: &[(&str, &str, &str)] = &[
    ("nginx(URI)>django-re-gunicorn", "nginx(URI)", "django-re"),
    ("nginx(URI)>express4", "nginx(URI)", "express"),
    ("nginx(URI)>express5strict", "nginx(URI)", "literal"),
    ("nginx(URI)>fastapi", "nginx(URI)", "starlette"),
    ("nginx(URI)>starlette-httptools", "nginx(URI)", "starlette"),
    ("nginx(URI)>fastify4", "nginx(URI)", "fastify-4"),
    ("nginx(URI)>fastify5", "nginx(URI)", "fastify"),
    ("nginx(URI)>flask-gunicorn", "nginx(URI)", "flask"),
    ("nginx(URI)>nodesplit", "nginx(URI)", "literal"),
    ("nginx(URI)>gin", "nginx(URI)", "gin"),
    ("nginx(URI)>hono", "nginx(URI)", "hono"),
    ("nginx(URI)>jetty", "nginx(URI)", "jetty"),
    ("nginx(URI)>koa", "nginx(URI)", "koa"),
    ("nginx(URI)>mux122", "nginx(URI)", "mux"),
    ("nginx(URI)>rails", "nginx(URI)", "rails"),
    ("nginx(URI)>sinatra", "nginx(URI)", "sinatra"),
    ("nginx(URI)>spring", "nginx(URI)", "spring"),
    ("nginx(URI)>tomcat", "nginx(URI)", "tomcat"),
    ("nginx-rewrite>express4", "nginx-rewrite", "express"),
    ("nginx-rewrite>fastapi", "nginx-rewrite", "starlette"),
    ("nginx-rewrite>nodesplit", "nginx-rewrite", "literal"),
    ("nginx$uri>express4", "nginx$uri", "express"),
    ("nginx$uri>fastapi", "nginx$uri", "starlette"),
    ("nginx$uri>nodesplit", "nginx$uri", "literal"),
    ("nginx~$1>express4", "nginx~$1", "express"),
    ("nginx~$1>fastapi", "nginx~$1", "starlette"),
    ("nginx~$1>nodesplit", "nginx~$1", "literal"),
    ("apache>express4", "apache", "express"),
    ("apache>fastapi", "apache", "starlette"),
    ("apache>fastify4", "apache", "fastify-4"),
    ("apache>flask-gunicorn", "apache", "flask"),
    ("apache>sinatra", "apache", "sinatra"),
    ("apache>tomcat", "apache", "tomcat"),
    ("apache-rewriteP>fastapi", "apache", "starlette"),
    ("apache-rewriteP>nodesplit", "apache", "literal"),
    ("apache-nocanon>express4", "apache-nocanon", "express"),
    ("apache-nocanon>fastapi", "apache-nocanon", "starlette"),
    ("apache-nocanon>fastify4", "apache-nocanon", "fastify-4"),
    ("apache-nocanon>flask-gunicorn", "apache-nocanon", "flask"),
    ("apache-nocanon>nodesplit", "apache-nocanon", "literal"),
    ("haproxy-setpath-url_dec>fastapi", "haproxy-setpath-url_dec", "starlette"),
    ("envoy-unescape>fastapi", "envoy-unescape", "starlette"),
];

/// How many targets a configuration took to another route than its model does, and why. All others
/// agree wherever a route was chosen.
const EXCEPTIONS: &[(&str, usize, &str)] = &[
    ("apache-nocanon>express4", 2, "`//.` is cut"),
    ("apache-nocanon>fastapi", 2, "`//.` is cut"),
    ("apache-nocanon>fastify4", 3, "`//.` is cut"),
    ("apache-nocanon>flask-gunicorn", 2, "`//.` is cut"),
    ("apache-nocanon>nodesplit", 2, "`//.` is cut"),
    (
        "apache-nocanon>tomcat",
        1,
        "it merges the slashes at the start, and Tomcat's dots are others",
    ),
    (
        "apache-proxypass-prefix-aeson",
        1,
        "an encoded slash is no slash where dot segments are resolved",
    ),
    ("caddy", 766, "its matcher `/v2/agent/*` has any number of segments"),
    ("drf+gunicorn", 30, "a literal does not beat a parameter, and `/v2/agent` is the list"),
    ("envoy-unescape>fastapi", 3, "`%%36` is no escape"),
    ("fasthttp", 2, "a dot segment at the end is an id"),
    ("goproxy>express4", 2, "net/url escapes anew what has characters that need it"),
    ("gorilla-enc", 2, "net/url escapes anew what has characters that need it"),
    ("jetty9", 1, "of two parameters only one is cut"),
    ("jetty9-compact", 1, "of two parameters only one is cut"),
    ("jetty9-legacy", 1, "of two parameters only one is cut"),
    ("mojolicious", 1, "`/` and a newline follow a parameter, but no literal"),
    ("mono-httplistener-abspath", 4, "what is decoded again is cut and resolved at other times"),
    ("mono-httplistener-localpath", 6, "what is decoded again is cut and resolved at other times"),
    ("nginx(URI)>jetty", 1, "of two parameters only one is cut"),
    ("nginx(URI)>spring", 1, "of two parameters only one is cut"),
    ("nginx-i", 3, "the regular expressions ignore case"),
    ("nginx>jetty", 1, "of two parameters only one is cut"),
    ("nginx>php-fpm-fastroute", 1, "`$` matches before a newline"),
    ("nginx>spring", 1, "of two parameters only one is cut"),
    ("restify", 1, "the host ends at a character that looks like a slash"),
    ("spring4.3", 1, "of two parameters only one is cut"),
    ("spring4.3-nosuffix", 1, "of two parameters only one is cut"),
];

struct Recordings {
    targets: Vec<Vec<u8>>,
    /// What became of each target, by the configuration.
    outcomes: BTreeMap<String, String>,
}

fn recordings() -> Recordings {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let target = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
    let mut outcomes = BTreeMap::new();
    for line in unpacked("routes.tsv.gz").lines() {
        let (names, row) = line.split_once('\t').unwrap();
        for name in names.split(" | ") {
            outcomes.insert(name.to_owned(), row.to_owned());
        }
    }
    Recordings { targets: unpacked("targets.hex.gz").lines().map(target).collect(), outcomes }
}

fn unpacked(file: &str) -> String {
    let path = format!("{}/../tests/vectors/servers/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The route that a recording names by a letter. `None` if it does not say: the server refused the
/// target, failed or redirected, or which handler answered is not known.
fn route(letter: char) -> Option<Route> {
    match letter {
        'c' => Some(Route::Call),
        'a' => Some(Route::Agent),
        'e' => Some(Route::Executions),
        'l' => Some(Route::List),
        '.' => Some(Route::None),
        _ => None,
    }
}

/// How a model agrees with a recording.
#[derive(Default)]
struct Agreement {
    /// Targets that the configuration took to a route, and those of them that the model does not.
    chosen: usize,
    others: Vec<(String, Route, Route)>,
    /// Targets that it answered with 404, and those of them that the model takes to a route. Many a
    /// server answers 404 to what it refuses, and the models refuse nothing.
    not_found: usize,
    taken: usize,
}

fn agreement(recordings: &Recordings, name: &str, model: impl Fn(&[u8]) -> Route) -> Agreement {
    let mut agreement = Agreement::default();
    let row = recordings.outcomes.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    for (target, letter) in recordings.targets.iter().zip(row.chars()) {
        match (route(letter), model(target)) {
            (None, _) => {}
            (Some(Route::None), modelled) => {
                agreement.not_found += 1;
                agreement.taken += usize::from(modelled != Route::None);
            }
            (Some(recorded), modelled) => {
                agreement.chosen += 1;
                if recorded != modelled {
                    let target = target.escape_ascii().to_string();
                    agreement.others.push((target, recorded, modelled));
                }
            }
        }
    }
    agreement
}

#[test]
fn every_model_takes_each_target_to_the_route_that_the_recorded_servers_chose() {
    let recordings = recordings();
    assert!(recordings.targets.len() >= 4_445 && recordings.outcomes.len() >= 190);
    let mut held = BTreeMap::new();
    for server in SERVERS {
        for name in server.recorded {
            let agreement = agreement(&recordings, name, |target| server.route(target));
            assert!(held.insert(*name, agreement).is_none(), "{name} has two models");
        }
    }
    for &(name, proxy, server) in CHAINS {
        let proxy = Proxy::named(proxy).unwrap_or_else(|| panic!("{proxy} has no model"));
        let server = Server::named(server).unwrap_or_else(|| panic!("{server} has no model"));
        let agreement = agreement(&recordings, name, |target| server.route(&proxy.forward(target)));
        assert!(held.insert(name, agreement).is_none(), "{name} has two models");
    }
    let mut expected: BTreeMap<_, _> =
        EXCEPTIONS.iter().map(|(name, count, _)| (*name, *count)).collect();
    let (mut chosen, mut others, mut failures) = (0, 0, String::new());
    for (name, agreement) in &held {
        chosen += agreement.chosen;
        others += agreement.others.len();
        println!(
            "{name}: {} of {} routes that were chosen, {} of {} answers of 404",
            agreement.chosen - agreement.others.len(),
            agreement.chosen,
            agreement.not_found - agreement.taken,
            agreement.not_found,
        );
        let exceptions = expected.remove(name).unwrap_or(0);
        if agreement.others.len() != exceptions {
            failures += &format!("\n{name}: {} instead of {exceptions}", agreement.others.len());
            for (target, recorded, modelled) in agreement.others.iter().take(8) {
                failures += &format!("\n    {target}: {recorded:?}, not {modelled:?}");
            }
        }
    }
    println!("{} configurations: {} of {chosen} routes", held.len(), chosen - others);
    assert!(failures.is_empty(), "{failures}");
    assert!(expected.is_empty(), "exceptions of no model: {expected:?}");
}

/// A server without a recording is a guess, so there are few.
#[test]
fn nearly_every_model_is_recorded() {
    let guessed = SERVERS.iter().filter(|server| server.recorded.is_empty()).count();
    assert!(guessed <= 6 && SERVERS.len() >= 60, "{guessed} of {}", SERVERS.len());
}
