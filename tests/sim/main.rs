//! Simulation: the operator's real core and the broker's real rules, and between them whatever a network, a disk and a power cut can
//! do. No sockets and no clock; every world is made of its seed. `OUTHAUL_SIM_SEED=7` runs one world alone.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in a test a failed step is a failed test"
)]

mod broker;
mod operator;
mod orders;
mod random;
mod world;

use ::broker::core::hosts::HostState;
use operator::{Disk, Operator};
use protocol::exchange::Refusal;
use world::{Weather, World};

const SEEDS: u64 = 100;
const MINUTE_MS: u64 = 60_000;

/// Runs a claim over every seed; a failure names its seed.
fn over_seeds(claim: impl Fn(World)) {
    for seed in seeds() {
        let world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| claim(world));
        assert!(
            std::panic::catch_unwind(run).is_ok(),
            "fails in the world of seed {seed}: OUTHAUL_SIM_SEED={seed}"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "one seed alone, for whoever looks for the reason of a failure"
)]
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("OUTHAUL_SIM_SEED").map(|seed| seed.parse::<u64>()) {
        Ok(seed) => {
            let seed = seed.unwrap();
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    }
}

/// Foul weather with a mishap every few minutes, then fair weather for long enough.
fn live(world: &mut World, foul_ms: u64) {
    world.weather = Weather::FOUL;
    let end_ms = world.at_ms + foul_ms;
    while world.at_ms < end_ms {
        let span_ms = world.random.below(10 * MINUTE_MS);
        world.run(span_ms);
        world.mishap();
    }
    world.weather = Weather::FAIR;
    world.run(15 * MINUTE_MS);
}

#[test]
fn an_operator_always_gets_online_in_the_end() {
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        live(&mut world, 120 * MINUTE_MS);
        assert_eq!(world.operators[0].gave_up, None);
        assert!(world.operators[0].is_online(), "not online");
    });
}

#[test]
fn an_install_key_enrols_once_whatever_is_lost() {
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        world.add_operator(Disk::default());
        live(&mut world, 10 * MINUTE_MS);
        assert_eq!(world.broker.enrolments, 1);
        let online = world.operators.iter().filter(|o| o.is_online()).count();
        let refused = |o: &&Operator| o.gave_up == Some(Refusal::InstallKey);
        let refused = world.operators.iter().filter(refused).count();
        assert_eq!((online, refused), (1, 1), "one has it, and one was refused");
    });
}

#[test]
fn a_lost_answer_never_locks_a_host() {
    let repeats = std::cell::Cell::new(0);
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        live(&mut world, 60 * MINUTE_MS);
        for _ in 0..10 {
            world.weather = Weather {
                loss: 40,
                ..Weather::FOUL
            };
            world.restart(0, true);
            world.run(5 * MINUTE_MS);
        }
        repeats.set(repeats.get() + world.broker.repeats);
        assert_eq!(world.broker.state, HostState::Enrolled);
        assert!(world.broker.generation() > 5);
    });
    assert!(repeats.get() > 0, "no answer was lost");
}

#[test]
fn a_request_that_was_held_up_on_its_way_never_locks_a_host() {
    let late = std::cell::Cell::new(0);
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        world.weather = Weather::FAIR;
        world.run(MINUTE_MS);
        // Nearly as long as a challenge is good; and a machine that starts again asks for a token at once.
        world.weather = Weather {
            loss: 0,
            repeat: 60,
            delay_ms_max: 55_000,
            disk_failure: 0,
        };
        for _ in 0..60 {
            world.restart(0, true);
            let span_ms = world.random.below(MINUTE_MS);
            world.run(span_ms);
            world.weather.delay_ms_max = if world.random.chance(50) { 55_000 } else { 500 };
        }
        world.weather = Weather::FAIR;
        world.run(15 * MINUTE_MS);
        assert_eq!(world.broker.state, HostState::Enrolled);
        assert!(world.operators[0].is_online(), "not online");
        late.set(late.get() + world.broker.late);
    });
    assert!(late.get() > 0, "no request came late");
}

#[test]
fn a_first_answer_that_is_lost_for_hours_is_given_in_the_end() {
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        world.answers_lost = true;
        world.run(3 * 60 * MINUTE_MS);
        assert_eq!(world.broker.enrolments, 1, "the broker knows it");
        assert!(!world.operators[0].is_online());
        world.answers_lost = false;
        world.weather = Weather::FAIR;
        world.run(15 * MINUTE_MS);
        assert_eq!(world.operators[0].gave_up, None);
        assert!(world.operators[0].is_online(), "not online");
        assert_eq!(world.broker.enrolments, 1);
    });
}

#[test]
fn two_operators_with_one_identity_are_locked() {
    over_seeds(|mut world| {
        let first = world.add_operator(Disk::default());
        world.weather = Weather::FAIR;
        world.run(MINUTE_MS);
        assert!(world.operators[first].is_online());
        let copy = world.operators[first].disk.clone();
        world.add_operator(copy);
        live(&mut world, 30 * MINUTE_MS);
        assert_eq!(world.broker.state, HostState::Locked);
        assert!(!world.operators.iter().any(Operator::is_online));
    });
}

#[test]
fn no_token_is_presented_that_its_holder_knows_to_be_expired() {
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        world.weather = Weather::FAIR;
        world.run(MINUTE_MS);
        // Nobody answers for longer than a token lives, and operators keep trying; `Operator::token` looks at each one presented.
        world.weather.loss = 90;
        world.run(150 * MINUTE_MS);
        live(&mut world, 60 * MINUTE_MS);
        assert!(world.presented > 2);
    });
}

/// Commands in foul weather, with power cuts between any two steps. That a command or a report is on disk before it is acknowledged
/// is looked at where it is acknowledged; that a key is on disk before it is sent, in `Operator::request`.
fn live_with_commands(world: &mut World) {
    world.add_operator(Disk::default());
    for number in 1..=8 {
        world.submit(number);
        live_a_little(world);
    }
    world.weather = Weather::FAIR;
    world.run(15 * MINUTE_MS);
}

fn live_a_little(world: &mut World) {
    let span_ms = world.random.below(8 * MINUTE_MS);
    world.run(span_ms);
    world.mishap();
}

#[test]
fn a_command_is_applied_at_most_once_and_settled_in_the_end() {
    let cuts = std::cell::Cell::new(0);
    over_seeds(|mut world| {
        live_with_commands(&mut world);
        let starts = &world.operators[0].disk.shelf.starts;
        for (id, (_, settled)) in &world.broker.commands {
            assert_eq!(starts.get(id), Some(&1), "{id} was carried out once");
            assert!(settled, "{id} is not settled");
        }
        cuts.set(cuts.get() + world.cuts);
    });
    assert!(cuts.get() > 0, "the power was never cut");
}

#[test]
fn persist_comes_before_acknowledge() {
    over_seeds(|mut world| {
        live_with_commands(&mut world);
        assert_eq!(world.broker.reports.len(), world.broker.commands.len());
    });
}

/// Three days online, and a backup of the broker in the middle of them.
fn live_past_a_backup(world: &mut World) -> broker::Backup {
    world.add_operator(Disk::default());
    world.weather = Weather::FAIR;
    world.run(600 * MINUTE_MS);
    let backup = world.broker.back_up(world.unix());
    // More renewals than the chain of one request holds.
    world.run(2_400 * MINUTE_MS);
    backup
}

#[test]
fn a_host_comes_back_by_its_chain_after_a_declared_restore_and_not_after_an_undeclared_one() {
    let shown = std::cell::Cell::new(0);
    over_seeds(|mut world| {
        let backup = live_past_a_backup(&mut world);
        let generation = world.broker.generation();
        world.restore(&backup, false);
        world.run(60 * MINUTE_MS);
        assert!(
            !world.operators[0].is_online(),
            "a copy of a broker is none"
        );
        assert_eq!(world.broker.state, HostState::Enrolled);
        world.restore(&backup, true);
        live(&mut world, 30 * MINUTE_MS);
        assert!(world.operators[0].is_online(), "not online");
        assert!(world.broker.generation() > generation);
        assert_eq!(world.broker.state, HostState::Enrolled);
        shown.set(shown.get() + world.broker.caught_up);
    });
    let worlds = seeds().end - seeds().start;
    assert!(shown.get() > 40 * worlds, "{}", shown.get());
}

#[test]
fn a_clone_that_parted_after_the_backup_is_found_out_whoever_comes_first() {
    over_seeds(|mut world| {
        world.add_operator(Disk::default());
        world.weather = Weather::FAIR;
        world.run(120 * MINUTE_MS);
        let backup = world.broker.back_up(world.unix());
        world.run(120 * MINUTE_MS);
        // A copy, and a broker that forgot them both: they part from here, each with a broker of its own.
        let copy = world.operators[0].disk.clone();
        world.run(240 * MINUTE_MS);
        world.restore(&backup, true);
        world.add_operator(copy);
        live(&mut world, 60 * MINUTE_MS);
        assert_eq!(world.broker.state, HostState::Locked);
    });
}
