//! What is admitted and how long a server stays lost in outages, and what stores cost without
//! requests: `cargo bench --bench outages --features redis`. Takes about four minutes.
//!
//! Three replicas are three processes: this program, started again. The tests of
//! `tests/redis/bounds` have the same set-ups, for a shorter time. Needs `redis-server` and
//! `redis-sentinel`.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has failed")]
#![expect(clippy::float_arithmetic, reason = "printed figures")]

use std::env;
use std::fmt::Display;
use std::time::Duration;

use bolna_rate_limit::store::RedisStore;

use outages::replicas::{Bucket, Record, Replicas};
use outages::{Build, clock, connections, faults, queues, replica};
use servers::{Sentinels, Server};

mod costs;
#[path = "../../tests/redis/outages/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod outages;
#[path = "../../tests/redis/servers/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
mod servers;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A store as it comes.
const BUILD: Build = |url| RedisStore::builder(url);

fn main() {
    if replica::run_if_asked() {
        return;
    }
    // Names of parts to run; without any, all are run.
    let wanted: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!("{:<56} | {:<38} | now", "what", "found before");
        if is_wanted("losses") {
            losses().await;
        }
        if is_wanted("connections") {
            connections().await;
        }
        if is_wanted("queues") {
            queues().await;
        }
        if is_wanted("clock") {
            clock().await;
        }
        if is_wanted("costs") {
            costs().await;
        }
    });
}

fn row(what: &str, before: &str, now: impl Display) {
    println!("{what:<56} | {before:<38} | {now}");
}

/// B2 and B4.
async fn losses() {
    for (stopped, between, before) in [
        (50 * MILLI, 500 * MILLI, "36 % too many"),
        (200 * MILLI, 500 * MILLI, "4951 for 3302, 16.5 bursts too many"),
        (SECOND, 500 * MILLI, ""),
        (3 * SECOND, 500 * MILLI, ""),
    ] {
        let server = Server::start().await;
        let replicas = Replicas::start(&[], &server.url()).await;
        faults::stop_and_go(&server, stopped, between, 16 * SECOND).await;
        let what = format!("three replicas, stopped {stopped:?}, up {between:?}, for 16 s");
        row(&what, before, admitted(replicas).await);
    }
    let server = faults::one_that_naps().await;
    let replicas = Replicas::start(&[], &server.url()).await;
    faults::naps(&server, 16 * SECOND).await;
    let what = "three replicas, DEBUG SLEEP 0.06 every 300 ms for 16 s";
    row(what, "44 % too many", admitted(replicas).await);

    let server = Server::start().await;
    let replicas = Replicas::start(&[], &server.url()).await;
    faults::kill_clients(&server, 5, SECOND).await;
    let what = "three replicas, CLIENT KILL TYPE normal five times";
    row(what, "2.2 bursts", admitted(replicas).await);

    let sentinels = Sentinels::start().await;
    let hosts = sentinels.urls().join(",").replace("redis://", "");
    let url = format!("redis+sentinel://{hosts}/{}", sentinels.service());
    let replicas = Replicas::start(&[], &url).await;
    tokio::time::sleep(2 * SECOND).await;
    sentinels.failover().await;
    let what = "three replicas, one Sentinel failover";
    row(what, "1544 for 1450, 1.9 bursts", admitted(replicas).await);
}

async fn admitted(replicas: Replicas) -> String {
    replicas.until_regained().await;
    tokio::time::sleep(SECOND).await;
    told(&replicas.stop())
}

/// What the caller got from its fast bucket who never pauses, and the worst of all buckets.
fn told(record: &Record) -> String {
    let buckets = record.buckets();
    let hammered = buckets.iter().find(|bucket| bucket.name == "hammers/fast").unwrap();
    let most = buckets.iter().map(Bucket::highest_in_bursts).fold(0.0, f64::max);
    let lost = record.losses();
    format!(
        "{} for {:.0}; {most:.2} bursts in the worst bucket; lost {} times, at most {:.0?}",
        hammered.admitted,
        hammered.allowed,
        lost.len(),
        lost.iter().max().copied().unwrap_or_default(),
    )
}

/// B3.
async fn connections() {
    let lost = connections::cuts(BUILD, 8 * SECOND, 3 * SECOND, 5).await;
    let what = "an outage of 8 s, then five cuts, 3 s apart: lost for";
    row(what, "3 ms once, then 67 to 1487 ms", format!("{lost:.1?}"));
    let lost = connections::stalls(BUILD, 8 * SECOND, 3 * SECOND, 3).await;
    let what = "an outage of 8 s, then three stalls of 200 ms: lost for";
    row(what, "1 to 2 s longer", format!("{lost:.0?}"));
    let herd = connections::herd(BUILD, 100, 3).await;
    let now = format!(
        "all back after {:?}, {:?} attempts a second, then {} connections",
        herd.back, herd.attempts, herd.connections
    );
    row("100 stores, the server is down for 3 s", "", now);
}

/// B1 and B8.
async fn queues() {
    for at_once in [10, 30] {
        let seen = queues::two_quotas(BUILD, at_once, 3 * SECOND).await;
        let now = format!(
            "{} fallbacks of {} checks",
            seen.report.fallbacks,
            seen.checks + seen.of_others
        );
        let what = format!("two quotas on one bucket, {at_once} at once, 100 other callers");
        row(&what, if at_once == 30 { "40017 fallbacks" } else { "" }, now);
    }
    let (admitted, report) = queues::at_one_instant(BUILD, 20_000).await;
    let now = format!("{admitted} admitted, {} fallbacks", report.fallbacks);
    row("20,000 requests at one instant for 500 units", "1000 admitted", now);
}

/// B9.
async fn clock() {
    for (millis, before) in
        [(0, ""), (900, "22 in the second"), (5000, "3 units lost"), (3_600_000, "3 units lost")]
    {
        let [first, then] = clock::step(BUILD, -1000 * millis).await;
        let what = format!("clock set back {millis} ms, a drained caller at 200 a second");
        row(&what, before, format!("{first} in the first second, {then} in the next two"));
    }
}

async fn costs() {
    for at_once in [1, 64] {
        for entries in [1, 2] {
            let [calls, commands, to, from] = costs::of_decisions(BUILD, entries, at_once).await;
            let what =
                format!("a decision with {entries} entries, {at_once} of one caller at once");
            let now = format!(
                "{calls:.3} calls, {commands:.2} commands, {to:.0} bytes to the server, {from:.0} \
                 from it"
            );
            row(&what, "", now);
        }
    }
    let [idle, lost] = costs::of_idle_stores(BUILD, 20, 10 * SECOND).await;
    row("20 stores without requests", "", format!("{idle:.2} % of a core"));
    row("20 stores that have lost their server", "", format!("{lost:.2} % of a core"));
}
