//! Advice on standard error.

use std::panic::catch_unwind;

use super::Advice;

/// Prints an advice as a line on standard error.
#[cold]
#[inline(never)]
pub(in crate::observe) fn print(advice: &Advice) {
    // `eprintln` panics if standard error can't be written to, and that must not fail the request.
    // `writeln` does not, but its lines are not captured by `cargo test`, and would be shown for
    // tests that pass.
    let _ = catch_unwind(|| eprintln!("bolna-rate-limit: {advice}"));
}
