//! A simulated fleet: replicas, servers, the network between them, and what goes wrong there.
//!
//! Everything that happens follows from a seed. `SIMULATION_SEED=17 cargo test --features redis
//! --lib simulation` replays one seed, and `SIMULATION_SEEDS=100000` tries that many.

mod faults;
mod fleet;
mod network;
mod referee;
mod requests;
mod scenario;
mod server;

use std::env;

use fleet::Fleet;
use scenario::Scenario;

/// How many seeds are tried of each scenario.
const SEEDS: u64 = 40;

/// Runs a scenario with many seeds, or the one in `SIMULATION_SEED`.
fn simulate(scenario: Scenario) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = fleet::Seen::default();
    for seed in seeds {
        let run = || Fleet::new(seed, scenario).run();
        match std::panic::catch_unwind(run) {
            Ok(of_seed) => seen += of_seed,
            Err(panic) => {
                eprintln!("{scenario:?}: SIMULATION_SEED={seed} replays the failure");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A scenario in which nothing happens proves nothing.
    println!("{scenario:?}: {seen:?}");
    if number("SIMULATION_SEED").is_none() {
        seen.is_worth_it(scenario);
    }
}

#[test]
fn nothing_goes_wrong_and_the_server_decides_all() {
    simulate(Scenario::Calm);
}

#[test]
fn the_server_freezes_again_and_again() {
    simulate(Scenario::Freezes);
}

#[test]
fn the_server_is_well_for_a_moment_only_and_all_replicas_use_it() {
    simulate(Scenario::BrownOuts);
}

#[test]
fn the_server_is_killed_and_comes_back_with_its_data() {
    simulate(Scenario::Restarts);
}

#[test]
fn connections_are_cut_while_the_server_is_well() {
    simulate(Scenario::Cuts);
}

#[test]
fn some_replicas_are_cut_off() {
    simulate(Scenario::Partitions);
}

#[test]
fn the_network_is_slow_now_and_then() {
    simulate(Scenario::Delays);
}

#[test]
fn the_clock_of_the_server_is_set() {
    simulate(Scenario::Clocks);
}

#[test]
fn buckets_move_between_servers() {
    simulate(Scenario::Moves);
}

#[test]
fn scripts_are_not_told_the_time() {
    simulate(Scenario::NamedTime);
}

#[test]
fn everything_goes_wrong() {
    simulate(Scenario::Everything);
}
