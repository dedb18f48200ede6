//! The competitors, each set up as its documentation says for one process, with the algorithm
//! (GCRA) and the limit that all have.

mod axum_governor;
mod bare;
mod bolna;
mod governor;
mod throttle_kit;
mod tower_governor;
mod tower_rate_limiter;

use axum::http::StatusCode;

use crate::calls::Limit;
use crate::report::Verdict;
use crate::rounds::Lane;
use crate::runner::Runner;

pub struct Competitor {
    pub name: String,
    pub kind: Kind,
    make: fn(Limit) -> Box<dyn Runner>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service alone, which limits nothing.
    Bare,
    /// Ours, with the header fields that it sends unless told otherwise: what the others are
    /// compared with.
    Reference,
    Ours,
    Peer,
}

/// The first is the bare service, and the second is what the others are compared with.
pub fn all() -> Vec<Competitor> {
    let peer = |package: &str, what: &str, make| {
        let name = format!("{package} {}{what}", locked_version(package));
        Competitor { name, kind: Kind::Peer, make }
    };
    vec![
        Competitor { name: "bare service".into(), kind: Kind::Bare, make: bare::runner },
        Competitor {
            name: "bolna-rate-limit, headers".into(),
            kind: Kind::Reference,
            make: bolna::with_headers,
        },
        Competitor {
            name: "bolna-rate-limit, no headers".into(),
            kind: Kind::Ours,
            make: bolna::without_headers,
        },
        peer("governor", ", check_key alone", governor::runner),
        peer("tower_governor", ", headers", tower_governor::with_headers),
        peer("tower_governor", ", no headers", tower_governor::without_headers),
        peer("axum-governor", ", headers", axum_governor::runner),
        peer("throttle-kit", ", headers", throttle_kit::runner),
        peer("tower-rate-limiter", ", headers", tower_rate_limiter::runner),
    ]
}

impl Competitor {
    pub fn lane(&self, limit: Limit, verdict: Verdict) -> Lane {
        let refuses = verdict == Verdict::Refuse && self.kind != Kind::Bare;
        let answer = if refuses { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        Lane { runner: (self.make)(limit), answer, uses_up: refuses }
    }
}

fn locked_version(package: &str) -> &'static str {
    let start = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../../Cargo.lock");
    lock.split_once(&start).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}
