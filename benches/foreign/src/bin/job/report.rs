//! What became of the calls of a job.

use std::time::Duration;

use tokio::time::Instant;

/// A call that has ended.
pub struct Call {
    pub end: End,
    pub wait: Duration,
    pub ended: Instant,
}

/// How a call ended.
pub enum End {
    Placed,
    /// The refusal was handed back to the caller.
    Refused,
    /// With a `WaitError`.
    NotSent(String),
    /// With another error, or a status that says something else.
    Failed(String),
}

/// Prints the report as a line of JSON. Times are in seconds.
pub fn print(mut calls: Vec<Call>, sent: u64, started: Instant) {
    calls.sort_by_key(|call| call.ended);
    let took = started.elapsed();
    let placed: Vec<_> = calls.iter().filter(|call| matches!(call.end, End::Placed)).collect();
    let count = |is: fn(&End) -> bool| calls.iter().filter(|call| is(&call.end)).count();
    let waits: Duration = placed.iter().map(|call| call.wait).sum();
    let mut before = started;
    // How long the process went without placing a call while it had calls to make.
    let mut gap = Duration::ZERO;
    for call in &placed {
        gap = gap.max(call.ended - before);
        before = call.ended;
    }
    let problem = calls.iter().find_map(|call| match &call.end {
        End::NotSent(problem) | End::Failed(problem) => Some(problem.as_str()),
        End::Placed | End::Refused => None,
    });
    println!(
        "{{\"calls\": {}, \"placed\": {}, \"sent\": {sent}, \"refused\": {}, \"not_sent\": {}, \
         \"failed\": {}, \"seconds\": {:.3}, \"mean_wait\": {:.4}, \"gap\": {:.3}, \
         \"problem\": \"{}\"}}",
        calls.len(),
        placed.len(),
        count(|end| matches!(end, End::Refused)),
        count(|end| matches!(end, End::NotSent(_))),
        count(|end| matches!(end, End::Failed(_))),
        took.as_secs_f64(),
        waits.as_secs_f64() / placed.len().max(1) as f64,
        gap.as_secs_f64(),
        problem.unwrap_or_default().replace(['"', '\\', '\n'], "'"),
    );
}
