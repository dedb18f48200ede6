//! Prints what each job costs.

use std::env;
use std::time::Instant;

use super::promises::Promise;
use super::report::Report;
use super::rows::rows;

/// `FOREIGN` chooses the rows that contain each of its words. At the end of a row is what of the
/// promise is broken.
///
/// ```text
/// FOREIGN="gcra tenth" cargo test --all-features --test client foreign::table -- --ignored --nocapture
/// ```
#[test]
#[ignore = "prints a table, which takes a minute"]
fn foreign_table() {
    let words = env::var("FOREIGN").unwrap_or_default();
    println!("{:50} {}", "", Report::header());
    for (name, job) in rows() {
        if words.split_whitespace().all(|word| name.contains(word)) {
            let began = Instant::now();
            let report = job.run();
            let broken = Promise::of(&job, report.least).broken_by(&report).join(" ");
            println!("{name:50} {report} {:>6} ms  {broken}", began.elapsed().as_millis());
        }
    }
}
