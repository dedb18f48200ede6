//! Units that are given back or charged afterwards, and requests in flight.

mod against_model;
mod clocks;
mod drops;
mod failures_only;
mod model;
mod panics;
mod plans;

use bolna_rate_limit::store::Store;
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Quota};

use crate::support::now;

/// Ten calls, of which none comes back within a test, and three at once.
fn ten_calls_three_at_once() -> Policy {
    Policy::bolna().quota("call", Quota::per_day(10)).concurrent("call", 3).build().unwrap()
}

/// The units that an organization has left for calls, and all places that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    units: u32,
    places: u64,
}

fn left<St: Store>(limiter: &Limiter<St>) -> Left {
    let account = Account::user("u").in_organization("o");
    let ruling = now(limiter.peek(account, Endpoint::CALL)).unwrap().unwrap();
    Left { units: ruling.decisions()[0].remaining(), places: limiter.report().in_flight }
}
