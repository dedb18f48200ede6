//! The jobs of the table.

use std::time::Duration;

use bolna_rate_limit::client::PacerBuilder;

use super::algorithms::{Algorithm, Limit};
use super::dialects::{Dialect, Fields, Honesty, RetryAfter, Rounding};
use super::jobs::{Callers, Job};
use super::network::Network;
use super::servers::{Clock, Refused, Setup};
use super::{Nanos, SECOND};

/// How much stricter a server is than the policy.
pub(super) const STRICTNESS: [(&str, u64); 3] = [("half", 2), ("tenth", 10), ("hundredth", 100)];

pub(super) type Rows = Vec<(String, Job)>;

/// The jobs, each with a name of several words.
pub(super) fn rows() -> Rows {
    let families = [
        silent,
        known,
        settings,
        costly_refusals,
        dialects,
        lies,
        networks,
        several,
        processes,
        small,
    ];
    families.into_iter().flat_map(|family| family()).collect()
}

/// The limiters that are compared, at so many requests in a window.
pub(super) fn limits(requests: u64, window: Nanos) -> Vec<(String, Limit)> {
    let nginx = |burst, delays| Algorithm::Nginx { burst, delays };
    let algorithms = [
        ("fixed", Algorithm::FixedWindow),
        ("from-first", Algorithm::WindowFromFirst),
        ("log", Algorithm::SlidingLog),
        ("counter", Algorithm::SlidingCounter),
        ("tokens", Algorithm::Tokens { burst: requests }),
        ("gcra-n", Algorithm::Gcra { burst: requests }),
        ("gcra-3", Algorithm::Gcra { burst: 3 }),
        ("gcra-1", Algorithm::Gcra { burst: 1 }),
        ("nginx-0", nginx(0, false)),
        ("nginx-5", nginx(5, false)),
        ("nginx-5-delay", nginx(5, true)),
    ];
    let limit = |algorithm| Limit { algorithm, requests, window };
    let named = |(name, algorithm)| (format!("{name} {}s", window / SECOND), limit(algorithm));
    algorithms.into_iter().map(named).collect()
}

/// A limit of so many in a minute for a policy of 500.
fn a_minute(algorithm: Algorithm, strictness: u64) -> Limit {
    Limit { algorithm, requests: 500 / strictness, window: 60 * SECOND }
}

/// The same job with another limit.
fn with(limit: Limit) -> Job {
    Job { server: Setup { limit, ..Setup::default() }, ..Job::default() }
}

/// The policy of the jobs whose windows are short: 100 a second.
fn fast(limit: Limit) -> Job {
    Job { policy: (100, Duration::from_secs(1), 100), ..with(limit) }
}

/// Nothing is said.
pub(super) fn silent() -> Rows {
    let mut rows = Vec::new();
    for (strictness, divisor) in STRICTNESS {
        for (name, limit) in limits(500 / divisor, 60 * SECOND) {
            rows.push((format!("silent {strictness} {name}"), with(limit)));
        }
        for (name, limit) in limits(100 / divisor, SECOND) {
            rows.push((format!("silent {strictness} {name}"), fast(limit)));
        }
        for (name, limit) in limits(1000 / divisor, 10 * SECOND) {
            rows.push((format!("silent {strictness} {name}"), fast(limit)));
        }
        let most = 60 / divisor.min(60);
        let limit = Limit { algorithm: Algorithm::Concurrency, requests: most, window: SECOND };
        let mut job = fast(limit);
        job.server.service = Duration::from_millis(600);
        rows.push((format!("silent {strictness} concurrency {most}"), job));
    }
    // As strict as the policy, and one request in each window.
    for (name, limit) in limits(500, 60 * SECOND) {
        rows.push((format!("silent equal {name}"), with(limit)));
    }
    for (name, limit) in limits(1, 60 * SECOND) {
        rows.push((format!("silent one {name}"), with(limit)));
    }
    rows
}

/// The policy is the server's limit.
pub(super) fn known() -> Rows {
    let mut rows = Vec::new();
    for requests in [5, 50, 250] {
        for (name, limit) in limits(requests, 60 * SECOND) {
            let (requests, window) = limit.reported();
            let requests = u32::try_from(requests).expect("a small number");
            let policy = (requests, Duration::from_nanos(window), requests);
            let job = Job { policy, ..with(limit) };
            let even = Job { pacer: PacerBuilder::evenly, ..job.clone() };
            rows.push((format!("known {name} {}", limit.requests), job));
            rows.push((format!("known evenly {name} {}", limit.requests), even));
        }
    }
    rows
}

/// Other settings, and calls that are submitted little by little.
pub(super) fn settings() -> Rows {
    let mut rows = Vec::new();
    for (strictness, divisor) in STRICTNESS {
        for (name, limit) in limits(500 / divisor, 60 * SECOND) {
            let even = Job { pacer: PacerBuilder::evenly, ..with(limit) };
            let loops = Job { callers: Callers::Loops(20), ..with(limit) };
            rows.push((format!("silent evenly {strictness} {name}"), even));
            rows.push((format!("silent 20-callers {strictness} {name}"), loops));
        }
    }
    rows
}

/// A refusal costs a unit, or a window.
pub(super) fn costly_refusals() -> Rows {
    let mut rows = Vec::new();
    for (refused, cost) in [("counted", Refused::Counted), ("blocking", Refused::Blocking)] {
        for (strictness, divisor) in STRICTNESS {
            for (name, limit) in limits(500 / divisor, 60 * SECOND) {
                let mut job = with(limit);
                job.server.refused = cost;
                if cost == Refused::Blocking {
                    // Each refusal of these may take minutes, and is simulated in milliseconds.
                    job.calls = 200;
                }
                rows.push((format!("{refused} {strictness} {name}"), job));
            }
        }
    }
    rows
}

/// What is said, and whether it is said on all responses.
pub(super) fn spoken() -> Vec<(String, Dialect)> {
    use Rounding::{Down, Nearest, Up};
    let silent = Dialect::SILENT;
    let retry_after = [
        ("ra-up", RetryAfter::Seconds(Up)),
        ("ra-down", RetryAfter::Seconds(Down)),
        ("ra-nearest", RetryAfter::Seconds(Nearest)),
        ("ra-0", RetryAfter::Says("0")),
        ("ra-1", RetryAfter::Says("1")),
        ("ra-fraction", RetryAfter::Fraction),
        ("ra-date-up", RetryAfter::Date(Up)),
        ("ra-date-down", RetryAfter::Date(Down)),
        ("ra-past", RetryAfter::Says("Thu, 01 Jan 1970 00:00:00 GMT")),
        ("ra-ms", RetryAfter::Millis),
    ];
    let fields = [
        ("x-left-up", Fields::Left(Up)),
        ("x-left-down", Fields::Left(Down)),
        ("x-unix-up", Fields::Unix(Up)),
        ("x-unix-down", Fields::Unix(Down)),
        ("draft-6", Fields::Draft6),
        ("draft-7", Fields::Draft7),
        ("draft-8", Fields::Draft8),
    ];
    let mut spoken = Vec::new();
    for (name, retry_after) in retry_after {
        spoken.push((name.to_owned(), Dialect { retry_after, ..silent }));
    }
    for (name, fields) in fields {
        for (on, on_all) in [("refusals", false), ("all", true)] {
            spoken.push((format!("{name} {on}"), Dialect { fields, on_all, ..silent }));
        }
    }
    let both = Dialect {
        retry_after: RetryAfter::Seconds(Up),
        fields: Fields::Left(Up),
        on_all: true,
        ..silent
    };
    spoken.push(("ra-up and x-left-up all".to_owned(), both));
    spoken
}

/// One limit, and everything that servers say about theirs.
pub(super) fn dialects() -> Rows {
    let mut rows = Vec::new();
    // As nginx with a constant field: its bucket is full long before the wait is over.
    for (name, requests) in [("tenth", 50), ("hundredth", 5)] {
        let algorithm = Algorithm::Nginx { burst: 20, delays: false };
        let limit = Limit { algorithm, requests, window: SECOND };
        let mut job = Job { policy: (500, Duration::from_secs(1), 500), ..with(limit) };
        job.server.dialect = Dialect { retry_after: RetryAfter::Says("1"), ..Dialect::SILENT };
        rows.push((format!("ra-1 {name} nginx-20 1s"), job));
    }
    let algorithms = [
        ("fixed", Algorithm::FixedWindow),
        ("log", Algorithm::SlidingLog),
        ("gcra-n", Algorithm::Gcra { burst: 50 }),
        ("gcra-3", Algorithm::Gcra { burst: 3 }),
    ];
    for (algorithm, limit) in algorithms {
        for (dialect, said) in spoken() {
            let mut job = with(a_minute(limit, 10));
            job.server.dialect = said;
            rows.push((format!("{dialect} tenth {algorithm}"), job));
        }
    }
    // slowapi: 5 in 3 s.
    for (dialect, said) in spoken() {
        let limit = Limit { algorithm: Algorithm::FixedWindow, requests: 5, window: 3 * SECOND };
        for (clock, at) in [("far", Setup::default().clock), ("synchronized", Clock::Synchronized)]
        {
            let mut job = with(limit);
            (job.server.dialect, job.server.clock, job.calls) = (said, at, 300);
            rows.push((format!("{dialect} {clock} fixed 5-in-3s"), job));
        }
    }
    rows
}

/// What is said is wrong.
pub(super) fn lies() -> Rows {
    let mut rows = Vec::new();
    let said = Dialect {
        retry_after: RetryAfter::Seconds(Rounding::Up),
        fields: Fields::Left(Rounding::Up),
        on_all: true,
        honesty: Honesty::Honest,
    };
    let lies = [
        ("off-1", Honesty::Off(-1)),
        ("off+1", Honesty::Off(1)),
        ("off+10", Honesty::Off(10)),
        ("full", Honesty::AlwaysFull),
        ("absurd-9", Honesty::Absurd("99999999999")),
        ("absurd-minus", Honesty::Absurd("-5")),
        ("absurd-soon", Honesty::Absurd("soon")),
    ];
    let limits = [
        ("fixed 60s", a_minute(Algorithm::FixedWindow, 10)),
        ("log 60s", a_minute(Algorithm::SlidingLog, 10)),
        ("gcra-3 60s", a_minute(Algorithm::Gcra { burst: 3 }, 10)),
        (
            "fixed 10s",
            Limit { algorithm: Algorithm::FixedWindow, requests: 8, window: 10 * SECOND },
        ),
    ];
    for (lie, honesty) in lies {
        for (name, limit) in limits {
            let mut job = with(limit);
            job.server.dialect = Dialect { honesty, ..said };
            rows.push((format!("lie {lie} tenth {name}"), job));
        }
    }
    rows
}

/// Short and long ways, and ways of varied length.
pub(super) fn networks() -> Rows {
    let mut rows = Vec::new();
    let networks = [
        ("1ms", Network::of_millis(1)),
        ("2s", Network::of_millis(2000)),
        ("50ms+200", Network { scatter: 200, ..Network::of_millis(50) }),
        ("2s+1000", Network { scatter: 1000, ..Network::of_millis(2000) }),
    ];
    for (network, ways) in networks {
        for (strictness, divisor) in STRICTNESS {
            for (name, limit) in limits(100 / divisor, SECOND) {
                let mut job = fast(limit);
                job.server.network = ways;
                rows.push((format!("silent {network} {strictness} {name}"), job));
            }
        }
    }
    rows
}

/// Clients that do not know of each other.
pub(super) fn several() -> Rows {
    let mut rows = Vec::new();
    let silent = Dialect::SILENT;
    let told = Dialect {
        retry_after: RetryAfter::Seconds(Rounding::Up),
        fields: Fields::Draft8,
        on_all: true,
        ..silent
    };
    for clients in [4, 8] {
        for (strictness, divisor) in [("equal", 1), ("half", 2), ("tenth", 10)] {
            for (name, limit) in limits(500 / divisor, 60 * SECOND) {
                for (dialect, said) in [("silent", silent), ("draft-8", told)] {
                    let mut job = Job { clients, ..with(limit) };
                    job.server.dialect = said;
                    rows.push((format!("{dialect} {clients}-clients {strictness} {name}"), job));
                }
            }
        }
    }
    rows
}

/// The jobs of several processes that are run against real servers too: 500 calls a second, and a
/// server that admits a tenth of them and is next to the clients.
pub(super) fn processes() -> Rows {
    let mut rows = Vec::new();
    let silent = Dialect::SILENT;
    let wait = Dialect { retry_after: RetryAfter::Seconds(Rounding::Up), ..silent };
    let left = Dialect { fields: Fields::Left(Rounding::Up), on_all: true, ..wait };
    let unix = Dialect { fields: Fields::Unix(Rounding::Up), on_all: true, ..wait };
    let draft = Dialect { fields: Fields::Draft8, on_all: true, ..wait };
    let dialects =
        [("silent", silent), ("wait", wait), ("left", left), ("unix", unix), ("draft-8", draft)];
    let limits = [
        ("fixed", Algorithm::FixedWindow),
        ("from-first", Algorithm::WindowFromFirst),
        ("log", Algorithm::SlidingLog),
        ("gcra-5", Algorithm::Gcra { burst: 5 }),
        ("gcra-300", Algorithm::Gcra { burst: 300 }),
    ];
    let ways = Network::of_millis(3);
    for (network, ways) in [("near", ways), ("scattered", Network { scatter: 30, ..ways })] {
        for clients in [4, 8] {
            for (dialect, said) in dialects {
                for (name, algorithm) in limits {
                    let limit = Limit { algorithm, requests: 300, window: 6 * SECOND };
                    let second = Duration::from_secs(1);
                    let mut job = Job { clients, policy: (500, second, 500), ..with(limit) };
                    (job.server.dialect, job.server.network) = (said, ways);
                    rows.push((format!("processes {network} {clients} {dialect} {name}"), job));
                }
            }
        }
    }
    rows
}

/// 40 calls by 20 callers.
pub(super) fn small() -> Rows {
    let mut rows = Vec::new();
    let job = |requests, window, algorithm| Job {
        calls: 40,
        callers: Callers::Loops(20),
        ..with(Limit { algorithm, requests, window })
    };
    let governor = job(1, 2 * SECOND, Algorithm::Gcra { burst: 3 });
    let actix = job(1, SECOND / 2, Algorithm::Gcra { burst: 1 });
    let slowapi = job(5, 3 * SECOND, Algorithm::FixedWindow);
    let flexible = job(5, 3 * SECOND, Algorithm::WindowFromFirst);
    let says = |job: &Job, retry_after| {
        let mut job = job.clone();
        job.server.dialect = Dialect { retry_after, ..Dialect::SILENT };
        job
    };
    for (name, job, retry_after) in [
        ("tower_governor", &governor, RetryAfter::None),
        ("tower_governor ra-down", &governor, RetryAfter::Seconds(Rounding::Down)),
        ("actix-governor ra-0", &actix, RetryAfter::Says("0")),
        ("actix-governor ra-past", &actix, RetryAfter::Says("Thu, 01 Jan 1970 00:00:00 GMT")),
        ("slowapi", &slowapi, RetryAfter::None),
        ("slowapi ra-date-up", &slowapi, RetryAfter::Date(Rounding::Up)),
        ("rate-limiter-flexible", &flexible, RetryAfter::None),
        ("rate-limiter-flexible ra-fraction", &flexible, RetryAfter::Fraction),
    ] {
        rows.push((format!("small {name}"), says(job, retry_after)));
    }
    rows
}
