//! Prints what each job costs.

use std::env;
use std::time::Instant;

use super::report::Report;
use super::rows::rows;

/// `FOREIGN` chooses the rows that contain each of its words.
///
/// ```text
/// FOREIGN="gcra tenth" cargo test --all-features --test client foreign::table -- --ignored --nocapture
/// ```
#[test]
#[ignore = "prints a table, which takes a minute"]
fn foreign_table() {
    let words = env::var("FOREIGN").unwrap_or_default();
    println!("{:64} {}", "", Report::header());
    for (name, job) in rows() {
        if words.split_whitespace().all(|word| name.contains(word)) {
            let began = Instant::now();
            let report = job.run();
            println!("{name:64} {report} {:>6} ms", began.elapsed().as_millis());
        }
    }
}
