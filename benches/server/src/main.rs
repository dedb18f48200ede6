//! What a rate limiter costs a whole server: axum over loopback, with and without one, under the
//! load generator `wrk`.
//!
//! ```sh
//! cargo run --release --manifest-path benches/server/Cargo.toml
//! ```
//!
//! Each server is a process with one thread; where `taskset` is at hand, it has a core of its own
//! and `wrk` another. Interleaved rounds, medians, each server compared with the bare one of the
//! same round. Options: `--rounds N`, and `--seconds N` for each measurement.

mod measurement;
mod process;
mod subject;

use std::env;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use measurement::wrk;
use process::{Cores, Server};
use subject::{Case, Subject};

const SUBJECTS: [(Subject, Case); 6] = [
    (Subject::Bare, Case::Admit),
    (Subject::Idle, Case::Admit),
    (Subject::Bolna, Case::Admit),
    (Subject::TowerGovernor, Case::Admit),
    (Subject::Bolna, Case::Refuse),
    (Subject::TowerGovernor, Case::Refuse),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", subject, case, seconds] => serve(subject, case, seconds),
        _ => Options::parse(&arguments).and_then(|options| run(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    measurement::find_wrk()?;
    let cores = Cores::find();
    println!(
        "{cores}, {} rounds of {} s, {} connections\n",
        options.rounds,
        options.seconds,
        measurement::CONNECTIONS
    );

    // Ended by themselves at that time, should this process be stopped in a way that leaves it no
    // chance to end them.
    let lifetime = options.expected() * 2 + Duration::from_secs(60);
    let mut servers = Vec::new();
    for (subject, case) in SUBJECTS {
        let server = Server::start(subject, case, lifetime, cores)?;
        measurement::check(&server, case)
            .map_err(|problem| format!("{subject}, {case}: {problem}"))?;
        servers.push((subject, case, server, Vec::new()));
    }
    for round in 0..options.rounds {
        for turn in 0..SUBJECTS.len() {
            let (subject, case, server, per_second) = &mut servers[(round + turn) % SUBJECTS.len()];
            let measured =
                wrk(server, options.seconds, cores).and_then(|measured| measured.check(*case));
            per_second.push(
                measured.map_err(|problem| format!("{subject}, {case}: {problem}"))?.per_second,
            );
        }
    }
    let measured =
        servers.into_iter().map(|(subject, case, _, per_second)| (subject, case, per_second));
    print!("{}", table(&measured.collect::<Vec<_>>()));
    Ok(())
}

fn serve(subject: &str, case: &str, seconds: &str) -> Result<(), String> {
    let seconds = seconds.parse().map_err(|error| format!("{seconds}: {error}"))?;
    subject::serve(Subject::named(subject)?, Case::named(case)?, Duration::from_secs(seconds))
        .map_err(|error| format!("{subject}: {error}"))
}

/// Each measurement is compared with that of the bare server in the same round: whatever else the
/// machine does has a share in both.
fn table(measured: &[(Subject, Case, Vec<f64>)]) -> String {
    let bare = measured
        .iter()
        .find(|(subject, ..)| *subject == Subject::Bare)
        .map_or(&[][..], |(.., rounds)| rounds);
    let mut table = String::from(
        "| server | case | requests a second | range | ratio to bare | µs a request over bare |\n",
    );
    table.push_str("|---|---|--:|--:|--:|--:|\n");
    for (subject, case, rounds) in measured {
        let [least, middle, greatest] = spread(rounds.iter().copied());
        let pairs = || rounds.iter().zip(bare);
        let [_, ratio, _] = spread(pairs().map(|(limited, bare)| limited / bare));
        let [_, over_bare, _] = spread(pairs().map(|(limited, bare)| 1e6 / limited - 1e6 / bare));
        let range = format!("{least:.0} to {greatest:.0}");
        writeln!(
            table,
            "| {subject} | {case} | {middle:.0} | {range} | {ratio:.3} | {over_bare:.2} |"
        )
        .expect("a String takes everything");
    }
    table
}

/// The least, the median and the greatest.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    [0, values.len() / 2, values.len() - 1].map(|nth| values[nth])
}

struct Options {
    rounds: usize,
    seconds: u64,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { rounds: 11, seconds: 2 };
        for pair in arguments.chunks(2) {
            let number =
                |value: &str| value.parse().ok().filter(|number| (1..=1000).contains(number));
            match pair {
                [name, value] if name == "--rounds" && number(value).is_some() => {
                    options.rounds = number(value).map_or(1, |number| number as usize);
                }
                [name, value] if name == "--seconds" && number(value).is_some() => {
                    options.seconds = number(value).unwrap_or(1);
                }
                _ => {
                    return Err(format!(
                        "{}: there are --rounds N and --seconds N, up to 1000",
                        pair.join(" ")
                    ));
                }
            }
        }
        Ok(options)
    }

    fn expected(&self) -> Duration {
        Duration::from_secs(self.seconds + 1) * (self.rounds * SUBJECTS.len()) as u32
    }
}
