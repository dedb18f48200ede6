//! What real servers made of request targets: the recordings in `servers/`, whose README says how
//! they were made.

use std::fs::File;
use std::io::Read;

use bolna_rate_limit::Endpoint;
use flate2::read::MultiGzDecoder;
use http::Uri;

pub(crate) struct Recordings {
    pub(crate) targets: Vec<Target>,
    /// Those with equal rows are one, as in the file.
    pub(crate) servers: Vec<Server>,
}

/// A request target, as its bytes.
pub(crate) struct Target(pub(crate) Vec<u8>);

pub(crate) struct Server {
    pub(crate) name: String,
    /// What became of each target, in their order.
    pub(crate) outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handler of a route answered, whose paths are charged to this endpoint.
    Routed(Endpoint),
    /// 404: no route has such a path.
    NotFound,
    /// A redirect. The request that follows it is charged by itself.
    Redirected,
    /// The server refused the target, closed the connection, did not answer in 5 s, or answered with
    /// another status or no HTTP.
    Refused,
    /// 5xx.
    Failed,
    /// There was an answer, but by which route is not known.
    Unknown,
}

pub(crate) fn recordings() -> Recordings {
    let targets: Vec<_> = unpacked("targets.hex.gz").lines().map(Target::from_hex).collect();
    let servers: Vec<_> = unpacked("routes.tsv.gz").lines().map(Server::from_row).collect();
    assert!(targets.len() >= 4_445 && servers.len() >= 178, "files are truncated");
    for Server { name, outcomes } in &servers {
        assert_eq!(outcomes.len(), targets.len(), "a letter for each target: {name}");
    }
    Recordings { targets, servers }
}

/// The text of a compressed file. It may have several members: one can be appended.
fn unpacked(file: &str) -> String {
    let path = format!("{}/tests/vectors/servers/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

impl Target {
    fn from_hex(line: &str) -> Self {
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Self(line.as_bytes().chunks(2).map(byte).collect())
    }

    /// The URI that hyper makes of the target, or `None` if hyper answers 400 by itself.
    pub(crate) fn uri(&self) -> Option<Uri> {
        Uri::try_from(&*self.0).ok()
    }
}

impl Server {
    fn from_row(line: &str) -> Self {
        let (name, letters) = line.split_once('\t').unwrap();
        Self { name: name.to_owned(), outcomes: letters.chars().map(Outcome::of).collect() }
    }
}

impl Outcome {
    fn of(letter: char) -> Self {
        match letter {
            'c' => Self::Routed(Endpoint::CALL),
            'a' => Self::Routed(Endpoint::AGENT),
            'e' => Self::Routed(Endpoint::EXECUTIONS),
            // `/v2/agent/all`: the policy has no endpoint for the list of agents.
            'l' => Self::Routed(Endpoint::DEFAULT),
            '.' => Self::NotFound,
            'r' => Self::Redirected,
            'x' => Self::Refused,
            's' => Self::Failed,
            '?' => Self::Unknown,
            other => panic!("no letter of a recording: {other}"),
        }
    }

    pub(crate) fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Routed(endpoint) => Some(endpoint),
            _ => None,
        }
    }
}
