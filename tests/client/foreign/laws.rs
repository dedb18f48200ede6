//! What holds with any server.

use std::time::Duration;

use bolna_rate_limit::client::PacerBuilder;
use proptest::prelude::*;

use super::algorithms::{Algorithm, Limit};
use super::dialects::{Dialect, Fields, Honesty, RetryAfter, Rounding};
use super::jobs::{Callers, Job};
use super::network::Network;
use super::report::Report;
use super::servers::{Clock, Refused, Setup};
use super::{MILLISECOND, Nanos, SECOND, nanos};

const MAX_WAIT: Duration = Duration::from_secs(20);
const MAX_WAITING: usize = 30;
const TOTAL_TIME: Duration = Duration::from_secs(200);

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::FixedWindow),
        Just(Algorithm::WindowFromFirst),
        Just(Algorithm::SlidingLog),
        Just(Algorithm::SlidingCounter),
        (1..9_u64).prop_map(|burst| Algorithm::Tokens { burst }),
        (1..9_u64).prop_map(|burst| Algorithm::Gcra { burst }),
        (0..9_u64, any::<bool>()).prop_map(|(burst, delays)| Algorithm::Nginx { burst, delays }),
        Just(Algorithm::Concurrency),
    ]
}

fn dialects() -> impl Strategy<Value = Dialect> {
    let rounding = || prop::sample::select(vec![Rounding::Down, Rounding::Nearest, Rounding::Up]);
    let retry_after = prop_oneof![
        3 => Just(RetryAfter::None),
        2 => rounding().prop_map(RetryAfter::Seconds),
        2 => prop::sample::select(vec!["0", "1", "", "Thu, 01 Jan 1970 00:00:00 GMT"])
            .prop_map(RetryAfter::Says),
        1 => Just(RetryAfter::Fraction),
        1 => rounding().prop_map(RetryAfter::Date),
        1 => Just(RetryAfter::Millis),
    ];
    let fields = prop_oneof![
        3 => Just(Fields::None),
        1 => rounding().prop_map(Fields::Left),
        1 => rounding().prop_map(Fields::Unix),
        1 => prop::sample::select(vec![Fields::Draft6, Fields::Draft7, Fields::Draft8]),
    ];
    let honesty = prop_oneof![
        4 => Just(Honesty::Honest),
        2 => (-2..20_i64).prop_map(Honesty::Off),
        1 => prop::sample::select(vec!["99999999999", "-5", "soon", "18446744073709551616"])
            .prop_map(Honesty::Absurd),
        1 => Just(Honesty::AlwaysFull),
    ];
    (retry_after, fields, any::<bool>(), honesty).prop_map(
        |(retry_after, fields, on_all, honesty)| Dialect { retry_after, fields, on_all, honesty },
    )
}

fn servers() -> impl Strategy<Value = Setup> {
    let window = prop::sample::select(vec![1, 2, 10, 60]).prop_map(|seconds| seconds * SECOND);
    let limit = (algorithms(), 1..40_u64, window).prop_map(|(algorithm, requests, window)| Limit {
        algorithm,
        requests,
        window,
    });
    let refused = prop_oneof![
        4 => Just(Refused::Free),
        1 => Just(Refused::Counted),
        1 => Just(Refused::Blocking),
    ];
    let network = (prop::sample::select(vec![1, 50, 2000]), prop::sample::select(vec![0, 20, 500]))
        .prop_map(|(millis, scatter)| Network { scatter, ..Network::of_millis(millis) });
    let service = prop::sample::select(vec![0, 0, 300]).prop_map(Duration::from_millis);
    // Anywhere within a minute.
    let clock = prop_oneof![
        3 => (0..60_000_u64)
            .prop_map(|millis| Clock::At(1_764_417_600 * SECOND + millis * MILLISECOND)),
        1 => Just(Clock::Synchronized),
    ];
    (limit, refused, dialects(), network, service, clock).prop_map(
        |(limit, refused, dialect, network, service, clock)| Setup {
            limit,
            refused,
            dialect,
            network,
            service,
            clock,
        },
    )
}

/// Jobs with a policy that is up to 100 times as fast as the server, and whether they are sent
/// evenly.
fn jobs() -> impl Strategy<Value = (Job, bool)> {
    let callers = prop_oneof![
        1 => Just(Callers::AllAtOnce),
        1 => (1..20_usize).prop_map(Callers::Loops),
    ];
    let is_even = any::<bool>();
    (servers(), prop::sample::select(vec![1, 2, 10, 100]), 1..100_u32, callers, is_even, 1..5_usize)
        .prop_flat_map(|(server, faster, burst, callers, is_even, clients)| {
            (1..120_usize).prop_map(move |calls| {
                let policy = policy(server.limit, faster, burst);
                // Where refusals cost something, clients that do not know of each other can keep each
                // other out for ever.
                let clients = if server.refused == Refused::Free { clients } else { 1 };
                let job = Job { server, policy, calls, callers, clients, ..Job::default() };
                (job, is_even)
            })
        })
}

fn policy(limit: Limit, faster: u64, burst: u32) -> (u32, Duration, u32) {
    let requests = limit.requests * faster;
    let burst = u64::from(burst).min(requests);
    let number = |number: u64| number.try_into().expect("a small number");
    (number(requests), Duration::from_nanos(limit.window), number(burst))
}

/// How long it takes at most until a request is answered, with the time in which a refusal is read.
fn longest_exchange(server: &Setup) -> Nanos {
    let held = match server.limit.algorithm {
        Algorithm::Nginx { burst, delays: true } => (burst + 1) * server.limit.interval(),
        _ => 0,
    };
    let scatter = u64::from(server.network.scatter) * MILLISECOND;
    2 * (server.network.trip() + scatter) + held + nanos(server.service) + SECOND
}

/// No future is polled and no task runs without a reason: a request that waits, is sent, is held,
/// is answered, or waits for its retry. A timer of a minute wakes the runtime up to four times, and
/// a request has up to five timers.
fn check_polls(job: &Job, report: &Report) -> Result<(), TestCaseError> {
    let events = (report.sent + job.calls) as u64;
    prop_assert!(report.polls <= 5 * events, "{} polls", report.polls);
    prop_assert!(report.parks <= 20 * events + 20, "woken {} times", report.parks);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// With the default settings, and a total time that is long enough.
    #[test]
    fn no_call_is_lost_at_any_server((job, is_even) in jobs()) {
        let job = if is_even { Job { pacer: PacerBuilder::evenly, ..job } } else { job };
        let report = job.run();
        prop_assert_eq!(report.lost(), 0, "{}\n{}", Report::header(), report);
        check_polls(&job, &report)?;
    }

    #[test]
    fn a_refusal_is_handed_back_only_when_the_total_time_is_over((job, is_even) in jobs()) {
        let mut job = Job { retry: |retry| retry.total_time(TOTAL_TIME), ..job };
        if is_even {
            job.pacer = PacerBuilder::evenly;
        }
        // A server that asks for more time than is left gets no retry.
        job.server.dialect = Dialect::SILENT;
        let report = job.run();
        // The longest pause that the client chooses itself, and the longest backoff.
        let longest_delay = Duration::from_secs(60 + 10);
        let least = nanos(TOTAL_TIME - longest_delay);
        let after = report.handed_back_after;
        prop_assert!(after.is_none_or(|after| after >= least), "{after:?} instead of {least} ns");
    }

    #[test]
    fn bounds_are_kept_at_any_server((job, is_even) in jobs()) {
        let job = Job {
            pacer: if is_even { |pacer| bounded(pacer.evenly()) } else { bounded },
            retry: |retry| retry.total_time(TOTAL_TIME),
            ..job
        };
        let report = job.run();
        prop_assert_eq!((report.failed, report.unanswered), (0, 0));
        prop_assert_eq!(report.too_early, 0, "the client sent more than its policy allows");
        let most = nanos(MAX_WAIT + TOTAL_TIME) + 2 * longest_exchange(&job.server);
        prop_assert!(report.longest <= most, "{} instead of {most} ns", report.longest);
        if let (Callers::AllAtOnce, 1) = (job.callers, job.clients) {
            let unsent = job.calls.saturating_sub(job.policy.2 as usize + MAX_WAITING);
            prop_assert!(report.not_sent >= unsent, "{} instead of {unsent}", report.not_sent);
        }
        check_polls(&job, &report)?;
    }
}

fn bounded(pacer: PacerBuilder) -> PacerBuilder {
    pacer.max_wait(MAX_WAIT).max_waiting(MAX_WAITING)
}
