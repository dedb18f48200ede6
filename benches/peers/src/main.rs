//! What rate limiters for Tower add to a call of the service that they wrap, side by side:
//!
//! ```sh
//! cargo run --release --ignore-rust-version --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! One process, interleaved rounds, medians; the same inner service, requests and callers for all.
//! Options: `--rounds N`, and `--chart PATH` for the picture. `--ignore-rust-version` is for
//! tower-rate-limiter, which declares a newer compiler than it needs.
//!
//! Requests are made outside the timed part. Dropping them and the responses is in it, for the bare
//! service too. Every answer is checked, in the timed part as well: the run ends if more than one
//! in a thousand is wrong.

mod calls;
mod chart;
mod competitors;
mod machine;
mod report;
mod rounds;
mod runner;

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use calls::{Callers, Limit};
use competitors::Competitor;
use machine::Machine;
use report::{Case, Figures, Spread, Verdict};
use rounds::Failure;

const COMMAND: &str =
    "cargo run --release --ignore-rust-version --manifest-path benches/peers/Cargo.toml";
const BUCKETS: usize = 100_000;

fn main() -> ExitCode {
    match Options::from_arguments().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::this();
    let competitors = competitors::all();
    println!("{machine}, {} rounds of {} calls\n", options.rounds, rounds::BATCH);
    if let Some(caveat) = machine.caveat() {
        println!("{caveat}\n");
    }

    let mut drawn = Vec::new();
    for spread in [Spread::OneHotBucket, Spread::ManyBuckets] {
        let callers = Callers::new(match spread {
            Spread::OneHotBucket => 1,
            Spread::ManyBuckets => BUCKETS,
        });
        for verdict in [Verdict::Admit, Verdict::Refuse] {
            for figures in measure(&competitors, &callers, spread, verdict, options.rounds)? {
                println!("{figures}");
                if figures.case.spread == Spread::OneHotBucket && figures.case.threads == 1 {
                    drawn.push(figures);
                }
            }
        }
    }

    let picture = chart::draw(&drawn, &machine, options.rounds);
    fs::write(&options.chart, picture)
        .map_err(|error| format!("{}: {error}", options.chart.display()))?;
    println!("The chart is in {}.", options.chart.display());
    Ok(())
}

/// With one thread and with two, on the same buckets.
fn measure(
    competitors: &[Competitor],
    callers: &Callers,
    spread: Spread,
    verdict: Verdict,
    rounds: usize,
) -> Result<Vec<Figures>, String> {
    let limit = limit(spread, verdict);
    let explain = |case: Case, failure: Failure| {
        let Failure { competitor, wrong, expected } = failure;
        format!(
            "{}: {wrong} answers were not {expected} in the case \"{case}\"",
            competitors[competitor].name
        )
    };

    let mut lanes: Vec<_> =
        competitors.iter().map(|competitor| competitor.lane(limit, verdict)).collect();
    let cases = [1, 2].map(|threads| Case { spread, verdict, threads });
    rounds::fill(&mut lanes, callers).map_err(|failure| explain(cases[0], failure))?;
    let figures = cases.into_iter().map(|case| {
        let times = rounds::medians(&lanes, callers, case.threads, rounds)
            .map_err(|failure| explain(case, failure))?;
        Ok(Figures::new(case, competitors, &times))
    });
    figures.collect()
}

fn limit(spread: Spread, verdict: Verdict) -> Limit {
    match (verdict, spread) {
        // The wait is less than a second, as it is under Bolna's limits and most others.
        (Verdict::Refuse, Spread::OneHotBucket) => Limit::per_second(1, 1),
        // Each bucket is asked every few seconds, so it has to stay empty for longer. The wait is
        // most of an hour; ours keeps refusals for waits of up to a minute, and renders
        // these anew each time.
        (Verdict::Refuse, Spread::ManyBuckets) => Limit::per_hour(1, 1),
        // Refills faster than a core can ask, with a bucket of the usual size.
        (Verdict::Admit, Spread::OneHotBucket) => Limit::per_second(100_000_000, 500),
        // Every bucket owes something for the whole run: a limiter that drops full ones, as ours
        // does, has to look up as many as the others.
        (Verdict::Admit, Spread::ManyBuckets) => Limit::per_hour(60, 500),
    }
}

struct Options {
    rounds: usize,
    chart: PathBuf,
}

impl Options {
    fn from_arguments() -> Result<Self, String> {
        let chart = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/chart.svg"));
        let mut options = Self { rounds: 3000, chart };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value =
                arguments.next().ok_or_else(|| format!("{name} is no option, or lacks a value"))?;
            match name.as_str() {
                "--chart" => options.chart = value.into(),
                "--rounds" => {
                    options.rounds =
                        value.parse().map_err(|error| format!("--rounds {value}: {error}"))?;
                }
                _ => {
                    return Err(format!(
                        "{name} is no option: there are --rounds N and --chart PATH"
                    ));
                }
            }
        }
        if !(1..=50_000).contains(&options.rounds) {
            return Err(
                "--rounds takes 1 to 50000: more would use up the buckets of the admitting cases"
                    .into(),
            );
        }
        Ok(options)
    }
}
