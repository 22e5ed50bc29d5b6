//! Tests of `intake`.

use protocol::command::{Content, Limits, sign};
use protocol::key::Secret;
use zeroize::Zeroizing;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn key(byte: u8) -> Secret<Dispatcher> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn host() -> HostId {
    HostId::new("edge-1").unwrap()
}

fn sandbox(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

fn launch(name: &str, isolation: Option<&str>) -> Order {
    Order::Launch(Launch {
        sandbox: sandbox(name),
        image: "tool:1".into(),
        arguments: vec![],
        environment: vec![],
        sources: vec![],
        limits: Limits::default(),
        content: Content::Metadata,
        isolation: isolation.map(|key| IsolationKey::new(key).unwrap()),
    })
}

fn stop(name: &str) -> Order {
    Order::Stop(Stop {
        sandbox: sandbox(name),
        grace_s: 1,
    })
}

fn command(id: u8, order: Order) -> Command {
    Command {
        id: CommandId([id; 16]),
        host: host(),
        issued: NOW,
        expires: UnixMillis(NOW.0 + 60_000),
        order,
    }
}

fn remembered(name: &str, settled: bool, used: bool) -> Remembered {
    Remembered {
        expires: UnixMillis(NOW.0 + 60_000),
        sandbox: sandbox(name),
        settled,
        used,
    }
}

#[derive(Default)]
struct Place {
    memory: Memory,
    standing: BTreeMap<SandboxId, Standing>,
    clogged: bool,
    stopped: Option<&'static str>,
}

impl Place {
    fn with(mut self, name: &str, isolation: Option<&str>) -> Self {
        let standing = Standing {
            command: CommandId([99; 16]),
            isolation: isolation.map(|key| IsolationKey::new(key).unwrap()),
        };
        self.standing.insert(sandbox(name), standing);
        self
    }

    fn decide_bytes(&self, bytes: &[u8], now: UnixMillis) -> Decision {
        let world = World {
            host: &host(),
            dispatchers: &[key(1).public()],
            memory: &self.memory,
            standing: &self.standing,
            parallel: 2,
            is_clogged: self.clogged,
            stopped: self.stopped,
        };
        decide(bytes, &world, now)
    }

    fn decide(&self, order: Order) -> Decision {
        self.decide_bytes(&sign(&key(1), &command(1, order)), NOW)
    }
}

fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Refuse { reason, .. } => Some(*reason),
        Decision::Ignore(_)
        | Decision::Defer
        | Decision::Again { .. }
        | Decision::Launch(_)
        | Decision::Stop(_)
        | Decision::AlreadyStopped(_) => None,
    }
}

#[test]
fn only_a_listed_dispatchers_command_in_its_time_starts_anything() {
    let place = Place::default();
    let good = sign(&key(1), &command(1, launch("a", None)));
    assert!(matches!(
        place.decide_bytes(&good, NOW),
        Decision::Launch(_)
    ));
    let stranger = sign(&key(2), &command(1, launch("a", None)));
    let mut elsewhere = command(1, launch("a", None));
    elsewhere.host = HostId::new("edge-2").unwrap();
    let elsewhere = sign(&key(1), &elsewhere);
    for bytes in [&stranger, &elsewhere, &vec![], &vec![0xff; 100]] {
        assert!(matches!(
            place.decide_bytes(bytes, NOW),
            Decision::Ignore(_)
        ));
    }
    for now in [NOW.0 - 60_001, NOW.0 + 120_000] {
        assert!(matches!(
            place.decide_bytes(&good, UnixMillis(now)),
            Decision::Ignore(_)
        ));
    }
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert!(
            matches!(place.decide_bytes(&changed, NOW), Decision::Ignore(_)),
            "byte {index}"
        );
    }
}

#[test]
fn a_replay_is_answered_from_memory_whatever_it_asked() {
    for (settled, order) in [
        (true, launch("a", None)),
        (false, launch("a", None)),
        (true, stop("a")),
    ] {
        let mut place = Place::default();
        place
            .memory
            .insert(CommandId([1; 16]), remembered("a", settled, true));
        let Decision::Again {
            command,
            settled: was,
        } = place.decide(order)
        else {
            panic!("a replay was not seen")
        };
        assert_eq!((command, was), (CommandId([1; 16]), settled));
    }
}

#[test]
fn ids_and_isolation_keys_are_used_by_one_sandbox_at_a_time() {
    let conflict = Some(Reason::Conflict);
    assert_eq!(
        reason(&Place::default().with("a", None).decide(launch("a", None))),
        conflict
    );
    let held = Place::default().with("b", Some("repo-1"));
    assert_eq!(reason(&held.decide(launch("a", Some("repo-1")))), conflict);
    assert!(matches!(
        held.decide(launch("a", Some("repo-2"))),
        Decision::Launch(_)
    ));
    assert!(matches!(
        held.decide(launch("a", None)),
        Decision::Launch(_)
    ));
}

#[test]
fn an_id_that_ran_is_not_used_again_but_one_that_was_refused_is() {
    for (used, expected) in [(true, Some(Reason::Conflict)), (false, None)] {
        let mut place = Place::default();
        place
            .memory
            .insert(CommandId([7; 16]), remembered("a", true, used));
        assert_eq!(reason(&place.decide(launch("a", None))), expected);
    }
}

#[test]
fn a_full_host_is_busy_and_says_conflict_first() {
    let full = Place::default().with("a", None).with("b", Some("k"));
    assert_eq!(reason(&full.decide(launch("c", None))), Some(Reason::Busy));
    assert_eq!(
        reason(&full.decide(launch("c", Some("k")))),
        Some(Reason::Conflict)
    );
    assert!(
        matches!(full.decide(stop("a")), Decision::Stop(_)),
        "stopping needs no room"
    );
}

#[test]
fn a_stop_finds_what_runs_what_ran_and_what_never_was() {
    let mut place = Place::default().with("a", None);
    assert!(matches!(place.decide(stop("a")), Decision::Stop(_)));
    assert_eq!(reason(&place.decide(stop("b"))), Some(Reason::NotFound));
    place
        .memory
        .insert(CommandId([7; 16]), remembered("b", true, true));
    assert!(matches!(
        place.decide(stop("b")),
        Decision::AlreadyStopped(_)
    ));
}

#[test]
fn what_cannot_be_remembered_or_answered_is_neither_acknowledged_nor_done() {
    let full = (0..COMMANDS_MAX).map(|number| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        id[15] = 9;
        (CommandId(id), remembered("z", true, false))
    });
    let place = Place {
        memory: Memory::new(full),
        ..Place::default()
    };
    assert!(matches!(place.decide(launch("a", None)), Decision::Defer));
    let clogged = Place {
        clogged: true,
        ..Place::default()
    };
    assert!(matches!(clogged.decide(stop("a")), Decision::Defer));
}

#[test]
fn memory_is_kept_until_a_replay_would_be_void_and_the_outcome_is_known() {
    let mut memory = Memory::default();
    memory.insert(CommandId([1; 16]), remembered("a", true, true));
    memory.insert(CommandId([2; 16]), remembered("b", false, false));
    let void = NOW.0 + 60_000;
    assert!(memory.forget(UnixMillis(void + 119_999)).is_empty());
    assert_eq!(memory.unsettled(), [CommandId([2; 16])]);
    assert_eq!(
        memory.forget(UnixMillis(void + 120_000)),
        [CommandId([1; 16])]
    );
    memory.settle(CommandId([2; 16]), true);
    assert!(memory.has_used(&sandbox("b")));
    assert_eq!(memory.forget(UnixMillis(u64::MAX)), [CommandId([2; 16])]);
}

#[test]
fn a_host_that_its_witness_stopped_refuses_every_new_command_and_answers_old_ones() {
    let mut place = Place::default().with("old", None);
    place.stopped = Some("witness: rows are gone");
    place
        .memory
        .insert(CommandId([9; 16]), remembered("past", true, true));
    for order in [
        launch("new", None),
        stop("old"),
        stop("past"),
        stop("never"),
    ] {
        let Decision::Refuse { reason, detail, .. } = place.decide(order) else {
            panic!("obeyed");
        };
        assert_eq!(reason, Reason::PolicyRefused);
        assert_eq!(detail, "witness: rows are gone");
    }
    let past = sign(&key(1), &command(9, launch("past", None)));
    let again = place.decide_bytes(&past, NOW);
    assert!(matches!(again, Decision::Again { settled: true, .. }));
}
