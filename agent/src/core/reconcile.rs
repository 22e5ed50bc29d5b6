//! What to do about the difference between what was written down and what the engine shows.
//!
//! Records are written before containers are made and removed after they are gone, and the list of containers is taken *before* the
//! records are looked at. So a container that carries our labels and has no record is an orphan, and a record whose container is
//! not in the list is a ghost: both are positive evidence. An engine that does not answer shows nothing, and nothing is
//! decided then. Matching is by label, host, sandbox and command; never by name.

use std::collections::BTreeMap;

use protocol::id::{CommandId, SandboxId};

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted; its container may or may not exist.
    Creating,
    /// Its container runs, or did when last seen; reported as launched.
    Running {
        /// The engine's id of the container.
        container: String,
    },
    /// It has ended, and what it left is being reported and removed.
    Ending,
}

/// A sandbox as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The command that asked for it.
    pub command: CommandId,
    /// Where it stands.
    pub stage: Stage,
    /// A task is at work on it now, and will see what happens to its container by itself.
    pub attended: bool,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Made, never started.
    Created,
    /// Running or paused.
    Running,
    /// Ended.
    Exited,
}

/// A container that carries our host's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The engine's id.
    pub container: String,
    /// Its sandbox label.
    pub sandbox: SandboxId,
    /// Its command label.
    pub command: CommandId,
    /// What it does.
    pub doing: Doing,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove a container that no record explains, running or not, and report it.
    Sweep {
        /// The engine's id.
        container: String,
        /// Its sandbox label.
        sandbox: SandboxId,
    },
    /// Launch again from the beginning: nothing was started yet.
    Relaunch {
        /// Which.
        sandbox: SandboxId,
    },
    /// Go on with a running container: announce it if that was not done, watch it, keep its token fresh.
    Adopt {
        /// Which.
        sandbox: SandboxId,
        /// The engine's id.
        container: String,
    },
    /// It ended meanwhile: report how, forward what it left, remove it.
    Finish {
        /// Which.
        sandbox: SandboxId,
        /// The engine's id, unless the container is gone already.
        container: Option<String>,
    },
    /// Its container is gone, and nobody here removed it: report it as lost.
    Lose {
        /// Which.
        sandbox: SandboxId,
    },
}

/// Compares records with containers. Actions on containers that have no record come first, so that names are free again.
#[must_use]
pub fn reconcile(recorded: &BTreeMap<SandboxId, Recorded>, seen: &[Seen]) -> Vec<Action> {
    let mut sweeps = Vec::new();
    let mut own: BTreeMap<&SandboxId, &Seen> = BTreeMap::new();
    for container in seen {
        let belongs = recorded
            .get(&container.sandbox)
            .is_some_and(|record| is_its_own(record, container, seen));
        if belongs {
            own.insert(&container.sandbox, container);
        } else {
            sweeps.push(Action::Sweep {
                container: container.container.clone(),
                sandbox: container.sandbox.clone(),
            });
        }
    }
    let mut actions = Vec::new();
    for (sandbox, record) in recorded.iter().filter(|(_, record)| !record.attended) {
        let container = own.get(sandbox).copied();
        actions.push(act(sandbox, record, container));
        // A container that was made and never started is removed; its sandbox is launched again.
        if let (Stage::Creating, Some(container)) = (&record.stage, container)
            && container.doing == Doing::Created
        {
            sweeps.push(Action::Sweep {
                container: container.container.clone(),
                sandbox: sandbox.clone(),
            });
        }
    }
    sweeps.extend(actions);
    sweeps
}

/// What a record that nobody attends to needs, given its container.
fn act(sandbox: &SandboxId, record: &Recorded, container: Option<&Seen>) -> Action {
    let sandbox = sandbox.clone();
    let id = |seen: &Seen| seen.container.clone();
    match (&record.stage, container) {
        (Stage::Creating, None) => Action::Relaunch { sandbox },
        (Stage::Creating, Some(seen)) => match seen.doing {
            Doing::Created => Action::Relaunch { sandbox },
            Doing::Running => Action::Adopt {
                sandbox,
                container: id(seen),
            },
            Doing::Exited => Action::Finish {
                sandbox,
                container: Some(id(seen)),
            },
        },
        (Stage::Running { .. }, None) => Action::Lose { sandbox },
        (Stage::Running { .. }, Some(seen)) => match seen.doing {
            Doing::Running => Action::Adopt {
                sandbox,
                container: id(seen),
            },
            // A started container does not become unstarted; whatever the engine means, it does not run.
            Doing::Created | Doing::Exited => Action::Finish {
                sandbox,
                container: Some(id(seen)),
            },
        },
        (Stage::Ending, container) => Action::Finish {
            sandbox,
            container: container.map(id),
        },
    }
}

/// Whether a container is the one a record speaks of. Of several that could be (which only a hand other than ours can have made),
/// the one furthest along is, and among equals the first by id; so the choice does not depend on the order of the list.
fn is_its_own(record: &Recorded, container: &Seen, seen: &[Seen]) -> bool {
    let could_be = |other: &Seen| {
        other.sandbox == container.sandbox
            && other.command == record.command
            && match &record.stage {
                Stage::Running { container } => *container == other.container,
                Stage::Creating | Stage::Ending => true,
            }
    };
    let rank = |other: &Seen| match other.doing {
        Doing::Running => 0,
        Doing::Exited => 1,
        Doing::Created => 2,
    };
    let best = seen
        .iter()
        .filter(|other| could_be(other))
        .min_by_key(|other| (rank(other), other.container.as_str()));
    best.is_some_and(|best| best.container == container.container)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Records = BTreeMap<SandboxId, Recorded>;

    fn sandbox(index: usize) -> SandboxId {
        SandboxId::new(["a", "b"][index]).unwrap()
    }

    fn command(number: u8) -> CommandId {
        CommandId([number; 16])
    }

    /// Every record that a sandbox may have: its container, if it runs, is called `c1`.
    fn record_worlds() -> Vec<Option<Recorded>> {
        let mut worlds = vec![None];
        for stage in [
            Stage::Creating,
            Stage::Running {
                container: "c1".into(),
            },
            Stage::Ending,
        ] {
            for attended in [false, true] {
                worlds.push(Some(Recorded {
                    command: command(1),
                    stage: stage.clone(),
                    attended,
                }));
            }
        }
        worlds
    }

    /// Every set of up to two containers of one sandbox, of its own command and of another.
    fn container_worlds(index: usize) -> Vec<Vec<Seen>> {
        let mut one = vec![];
        for id in ["c1", "c2"] {
            for by in [1, 2] {
                for doing in [Doing::Created, Doing::Running, Doing::Exited] {
                    one.push(Seen {
                        container: format!("{id}{}", if index == 0 { "" } else { "-b" }),
                        sandbox: sandbox(index),
                        command: command(by),
                        doing,
                    });
                }
            }
        }
        let mut worlds = vec![vec![]];
        worlds.extend(one.iter().map(|seen| vec![seen.clone()]));
        for first in &one {
            for second in one.iter().filter(|s| s.container != first.container) {
                worlds.push(vec![first.clone(), second.clone()]);
            }
        }
        worlds
    }

    /// The world once an action is carried out: a task attends to what is launched or adopted, what is finished or lost is gone.
    fn apply(records: &mut Records, seen: &mut Vec<Seen>, action: &Action) {
        match action {
            Action::Sweep { container, .. } => seen.retain(|s| s.container != *container),
            Action::Relaunch { sandbox } => {
                let record = records.get_mut(sandbox).unwrap();
                assert!(
                    !seen.iter().any(|s| s.sandbox == *sandbox),
                    "launched again beside an old container"
                );
                record.attended = true;
                seen.push(Seen {
                    container: format!("new-{sandbox}"),
                    sandbox: sandbox.clone(),
                    command: record.command,
                    doing: Doing::Running,
                });
                record.stage = Stage::Running {
                    container: format!("new-{sandbox}"),
                };
            }
            Action::Adopt { sandbox, container } => {
                let record = records.get_mut(sandbox).unwrap();
                record.attended = true;
                record.stage = Stage::Running {
                    container: container.clone(),
                };
            }
            Action::Finish { sandbox, container } => {
                records.remove(sandbox);
                seen.retain(|s| Some(&s.container) != container.as_ref());
            }
            Action::Lose { sandbox } => drop(records.remove(sandbox)),
        }
    }

    fn check(records: &Records, seen: &[Seen]) {
        let actions = reconcile(records, seen);
        let (mut after, mut seen_after) = (records.clone(), seen.to_vec());
        for action in &actions {
            apply(&mut after, &mut seen_after, action);
        }
        let again = reconcile(&after, &seen_after);
        assert_eq!(again, [], "{records:?} with {seen:?}");
        for (sandbox, record) in &after {
            let count = seen_after.iter().filter(|s| s.sandbox == *sandbox).count();
            assert!(count <= 1, "{record:?} has {count} containers");
        }
        let no_orphans = seen_after.iter().all(|s| after.contains_key(&s.sandbox));
        assert!(no_orphans, "{seen_after:?}");
    }

    #[test]
    fn every_small_world_settles_in_one_round() {
        for record in record_worlds() {
            for seen in container_worlds(0) {
                let records = record.iter().map(|r| (sandbox(0), r.clone())).collect();
                check(&records, &seen);
                let reversed: Vec<Seen> = seen.iter().rev().cloned().collect();
                check(&records, &reversed);
            }
        }
    }

    #[test]
    fn two_sandboxes_do_not_disturb_each_other() {
        let mut of_b = container_worlds(1);
        of_b.truncate(14);
        for first in record_worlds() {
            for second in record_worlds() {
                for of_a in container_worlds(0).into_iter().step_by(3) {
                    for of_b in &of_b {
                        let mut records = Records::new();
                        first
                            .iter()
                            .for_each(|r| drop(records.insert(sandbox(0), r.clone())));
                        second
                            .iter()
                            .for_each(|r| drop(records.insert(sandbox(1), r.clone())));
                        check(&records, &[of_a.clone(), of_b.clone()].concat());
                    }
                }
            }
        }
    }

    #[test]
    fn a_running_container_of_a_record_is_never_swept() {
        for record in record_worlds().into_iter().flatten() {
            for seen in container_worlds(0) {
                let own = Seen {
                    container: "c1".into(),
                    sandbox: sandbox(0),
                    command: record.command,
                    doing: Doing::Running,
                };
                let others = seen.into_iter().filter(|s| s.container != "c1");
                let is_only = |s: &Seen| s.doing != Doing::Running || s.command != command(1);
                let seen: Vec<Seen> = std::iter::once(own).chain(others.filter(is_only)).collect();
                let records = Records::from([(sandbox(0), record.clone())]);
                for action in reconcile(&records, &seen) {
                    assert!(
                        !matches!(&action, Action::Sweep { container, .. } if container == "c1"),
                        "{record:?} {seen:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_ghosts_and_orphans_of_a_restart_get_what_they_need() {
        let record = |stage| Recorded {
            command: command(1),
            stage,
            attended: false,
        };
        let running = || Stage::Running {
            container: "c1".into(),
        };
        let seen = |doing| Seen {
            container: "c1".into(),
            sandbox: sandbox(0),
            command: command(1),
            doing,
        };
        let act =
            |stage, seen: &[Seen]| reconcile(&Records::from([(sandbox(0), record(stage))]), seen);
        let a = || sandbox(0);
        let c1 = || String::from("c1");
        let sweep = || Action::Sweep {
            container: c1(),
            sandbox: a(),
        };
        let relaunch = || Action::Relaunch { sandbox: a() };
        let adopt = || Action::Adopt {
            sandbox: a(),
            container: c1(),
        };
        let finish = |container| Action::Finish {
            sandbox: a(),
            container,
        };
        assert_eq!(act(Stage::Creating, &[]), [relaunch()]);
        assert_eq!(
            act(Stage::Creating, &[seen(Doing::Created)]),
            [sweep(), relaunch()]
        );
        assert_eq!(act(Stage::Creating, &[seen(Doing::Running)]), [adopt()]);
        assert_eq!(
            act(Stage::Creating, &[seen(Doing::Exited)]),
            [finish(Some(c1()))]
        );
        assert_eq!(act(running(), &[]), [Action::Lose { sandbox: a() }]);
        assert_eq!(act(running(), &[seen(Doing::Running)]), [adopt()]);
        assert_eq!(act(running(), &[seen(Doing::Exited)]), [finish(Some(c1()))]);
        assert_eq!(act(Stage::Ending, &[]), [finish(None)]);
        assert_eq!(
            reconcile(&Records::new(), &[seen(Doing::Running)]),
            [sweep()]
        );
    }
}
