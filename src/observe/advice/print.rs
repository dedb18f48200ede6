//! Advice on standard error.

use std::io::{Write, stderr};
use std::panic::catch_unwind;

use super::Advice;

/// Prints an advice as a line on standard error.
#[cold]
#[inline(never)]
pub(in crate::observe) fn print(advice: &Advice) {
    if cfg!(debug_assertions) {
        // `cargo test` captures this line, and does not show it for tests that pass. It panics if
        // standard error can't be written to, and that must not fail the request.
        let _ = catch_unwind(|| eprintln!("bolna-rate-limit: {advice}"));
    } else {
        // Where a panic may be set to end the process, there is none.
        let _ = writeln!(stderr(), "bolna-rate-limit: {advice}");
    }
}
