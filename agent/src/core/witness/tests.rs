//! Tests of `witness`: two trails, in every small way that they can differ.

use std::convert::Infallible;

use protocol::audit::proof::{consistency, root};
use protocol::audit::tree::{Node, leaf_hash, node_hash};
use protocol::exchange::Handover;
use protocol::limits::{COSIGNED_MAX, WITNESS_NOTE_BYTES_MAX};
use zeroize::Zeroizing;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const ORIGIN: &str = "outhaul-1/audit";

fn audit_key(byte: u8) -> Secret<Audit> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn host_key(byte: u8) -> Secret<Host> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn vkey(byte: u8) -> Vkey<Audit> {
    Vkey::new(ORIGIN, audit_key(byte).public()).unwrap()
}

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A trail whose rows are `rows`: what is equal there is the same row.
#[derive(Clone, Debug)]
struct Log(Vec<u8>);

impl Log {
    /// The first rows are those of every trail; from `fork` on they are `branch`'s own.
    fn forked(size: usize, fork: usize, branch: u8) -> Self {
        let row = |at: usize| {
            if at < fork { 0 } else { branch }
        };
        Self((0..size).map(row).collect())
    }

    fn node(&self, node: Node) -> Result<[u8; 32], Infallible> {
        if node.level == 0 {
            let at = usize::try_from(node.index).unwrap();
            return Ok(leaf_hash(&[self.0[at], u8::try_from(at).unwrap()]));
        }
        let below = |index| {
            self.node(Node {
                level: node.level - 1,
                index,
            })
        };
        Ok(node_hash(
            &below(2 * node.index)?,
            &below(2 * node.index + 1)?,
        ))
    }

    fn size(&self) -> u64 {
        self.0.len().try_into().unwrap()
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        let Ok(root) = root(size, &mut |node| self.node(node));
        Checkpoint::new(ORIGIN, size, root).unwrap()
    }

    fn note(&self, size: u64, keys: &[u8]) -> SignedCheckpoint {
        let keys: Vec<_> = keys.iter().map(|byte| audit_key(*byte)).collect();
        SignedCheckpoint::sign(self.checkpoint(size), &keys.iter().collect::<Vec<_>>())
    }

    fn proof(&self, from: u64) -> Vec<ByteArray<32>> {
        let Ok(proof) = consistency(from, self.size(), &mut |node| self.node(node));
        proof.into_iter().map(Into::into).collect()
    }

    /// What a broker with this trail shows to a host that kept `from` rows.
    fn shown(&self, from: u64) -> Trail {
        Trail {
            note: self.note(self.size(), &[1]).to_string(),
            vkey: vkey(1).to_string(),
            proof: self.proof(from),
            others: Vec::new(),
            handovers: Vec::new(),
        }
    }

    fn kept(&self) -> Witness {
        Witness {
            kept: Some(Kept {
                at: NOW,
                vkey: vkey(1),
                note: self.note(self.size(), &[1]),
            }),
            stop: None,
        }
    }

    /// What another host cosigned when this was the trail, as a broker with the trail `later` hands it out.
    fn cosigned(&self, later: &Self) -> Cosigned {
        let note = self
            .kept()
            .cosigned(&host("edge-2"), &host_key(9), NOW)
            .unwrap();
        Cosigned {
            note,
            proof: later.proof(self.size()),
        }
    }
}

fn judge(witness: &Witness, trail: &Trail) -> Result<Verdict, BadTrail> {
    witness.judge(Some(trail), None, NOW)
}

fn stopped(verdict: Result<Verdict, BadTrail>) -> Option<Why> {
    match verdict {
        Ok(Verdict::Stopped(witness)) => witness.stop.map(|stop| stop.why),
        _ => None,
    }
}

#[test]
fn in_every_small_world_only_a_trail_that_goes_on_is_kept() {
    for before in 1..=9 {
        for after in 1..=9 {
            for fork in 0..=9 {
                let (old, new) = (Log::forked(before, 9, 0), Log::forked(after, fork, 1));
                let witness = old.kept();
                let verdict = judge(&witness, &new.shown(old.size()));
                let world = format!("{before} rows kept, {after} shown, another from {fork} on");
                if after < before {
                    assert_eq!(stopped(verdict), Some(Why::Behind), "{world}");
                } else if fork < before {
                    assert_eq!(stopped(verdict), Some(Why::Rewritten), "{world}");
                } else if after == before {
                    assert_eq!(verdict, Ok(Verdict::Same), "{world}");
                } else {
                    assert_eq!(verdict, Ok(Verdict::Grown(new.kept())), "{world}");
                }
            }
        }
    }
}

#[test]
fn in_every_small_world_two_views_show_by_what_another_host_cosigned() {
    for theirs in 1..=7 {
        for ours in 1..=7 {
            for fork in 0..=7 {
                let (other, new) = (Log::forked(theirs, 7, 0), Log::forked(ours, fork, 1));
                let mut trail = new.shown(0);
                trail.others = vec![new.cosigned(&new), other.cosigned(&new)];
                // Whoever kept nothing yet is shown it too.
                let verdict = judge(&Witness::default(), &trail);
                let world = format!("{theirs} rows there, {ours} here, another from {fork} on");
                if theirs <= ours && theirs <= fork {
                    assert_eq!(verdict, Ok(Verdict::Grown(new.kept())), "{world}");
                } else {
                    let Ok(Verdict::Stopped(Witness {
                        stop: Some(stop), ..
                    })) = verdict
                    else {
                        panic!("{world}");
                    };
                    assert_eq!(stop.why, Why::SplitView, "{world}");
                    assert_eq!(stop.other.unwrap().name, "edge-2");
                }
            }
        }
    }
}

#[test]
fn a_proof_that_is_wrong_missing_or_of_another_size_shows_nothing() {
    let (old, new) = (Log::forked(5, 9, 0), Log::forked(9, 9, 0));
    let twists: [fn(&mut Trail); 4] = [
        |trail| trail.proof.clear(),
        |trail| trail.proof.reverse(),
        |trail| trail.proof[0] = [0; 32].into(),
        |trail| trail.proof.push([0; 32].into()),
    ];
    for twist in twists {
        let mut trail = new.shown(old.size());
        twist(&mut trail);
        assert_eq!(stopped(judge(&old.kept(), &trail)), Some(Why::Rewritten));
    }
    let shown_from_elsewhere = new.shown(4);
    assert_eq!(
        stopped(judge(&old.kept(), &shown_from_elsewhere)),
        Some(Why::Rewritten)
    );
}

#[test]
fn what_cannot_be_read_or_is_not_signed_is_no_evidence_and_no_grant() {
    let log = Log::forked(3, 9, 0);
    let witness = log.kept();
    assert_eq!(witness.judge(None, None, NOW), Err(BadTrail::Missing));
    type Twist = fn(&mut Trail);
    let twists: [(Twist, BadTrail); 6] = [
        (
            |trail| trail.note.clear(),
            BadTrail::Note(BadNote::Malformed),
        ),
        (|trail| trail.vkey.clear(), BadTrail::Note(BadNote::Key)),
        (
            |trail| trail.vkey = vkey(2).to_string(),
            BadTrail::Note(BadNote::Unsigned),
        ),
        (
            |trail| trail.note = trail.note.replacen('3', "4", 1),
            BadTrail::Note(BadNote::Signature),
        ),
        (
            |trail| trail.note = trail.note.replacen("outhaul-1", "outhaul-2", 1),
            BadTrail::Note(BadNote::Origin),
        ),
        (
            |trail| trail.note.push_str(&"x".repeat(WITNESS_NOTE_BYTES_MAX)),
            BadTrail::TooLong,
        ),
    ];
    for (twist, expected) in twists {
        let mut trail = log.shown(3);
        twist(&mut trail);
        assert_eq!(judge(&witness, &trail), Err(expected));
    }
    let mut many = log.shown(3);
    many.others = vec![log.cosigned(&log); COSIGNED_MAX + 1];
    assert_eq!(judge(&witness, &many), Err(BadTrail::TooLong));
    // Another host's note that the trail's key did not sign says nothing about the trail.
    let mut forged = log.shown(3);
    let other = Log::forked(3, 0, 7).note(3, &[5]);
    forged.others = vec![Cosigned {
        note: other.to_string(),
        proof: Vec::new(),
    }];
    assert_eq!(judge(&witness, &forged), Ok(Verdict::Same));
}

#[test]
fn an_audit_key_is_followed_where_the_one_before_vouches_for_it_and_nowhere_else() {
    let (old, new) = (Log::forked(3, 9, 0), Log::forked(9, 9, 0));
    let under = |keys: &[u8], key: u8, handovers: &[(u64, &[u8], u8)]| Trail {
        note: new.note(9, keys).to_string(),
        vkey: vkey(key).to_string(),
        handovers: handovers
            .iter()
            .map(|(size, keys, next)| Handover {
                note: new.note(*size, keys).to_string(),
                vkey: vkey(*next).to_string(),
            })
            .collect(),
        ..new.shown(3)
    };
    let good = [
        under(&[1, 2], 2, &[]),
        under(&[2], 2, &[(5, &[1, 2], 2)]),
        under(&[3], 3, &[(5, &[1, 2], 2), (7, &[2, 3], 3)]),
        under(&[2, 3], 3, &[(5, &[1, 2], 2)]),
        // Some that do not concern a host that knows the first of them.
        under(&[1], 1, &[(5, &[4, 1], 1)]),
    ];
    for trail in good {
        let Ok(Verdict::Grown(next)) = judge(&old.kept(), &trail) else {
            panic!("{trail:?}");
        };
        assert_eq!(next.kept.unwrap().vkey.to_string(), trail.vkey);
    }
    let bad = [
        under(&[2], 2, &[]),
        under(&[2], 2, &[(5, &[2], 2)]),
        under(&[2], 2, &[(5, &[1], 2)]),
        under(&[3], 3, &[(7, &[2, 3], 3), (5, &[1, 2], 2)]),
        under(&[3], 3, &[(5, &[1, 2], 2)]),
    ];
    for trail in bad {
        assert_eq!(
            stopped(judge(&old.kept(), &trail)),
            Some(Why::OtherKey),
            "{trail:?}"
        );
    }
    // What another host kept under the key before is evidence still.
    let mut split = under(&[1, 2], 2, &[]);
    split.others = vec![Log::forked(4, 2, 1).cosigned(&new)];
    assert_eq!(stopped(judge(&old.kept(), &split)), Some(Why::SplitView));
}

#[test]
fn the_first_checkpoint_is_taken_under_the_bundles_key_alone_if_it_names_one() {
    let log = Log::forked(3, 9, 0);
    let first = Witness::default();
    let judge = |pin: Option<u8>| first.judge(Some(&log.shown(0)), pin.map(vkey).as_ref(), NOW);
    assert_eq!(judge(None), Ok(Verdict::Grown(log.kept())));
    assert_eq!(judge(Some(1)), Ok(Verdict::Grown(log.kept())));
    assert_eq!(stopped(judge(Some(2))), Some(Why::OtherKey));
    // Later it does not count: keys change.
    let verdict = log.kept().judge(Some(&log.shown(3)), Some(&vkey(2)), NOW);
    assert_eq!(verdict, Ok(Verdict::Same));
}

#[test]
fn a_stopped_witness_stays_so_until_its_owner_accepts_what_stopped_it() {
    let (old, new) = (Log::forked(5, 9, 0), Log::forked(3, 9, 0));
    let Ok(Verdict::Stopped(stopped)) = judge(&old.kept(), &new.shown(5)) else {
        panic!("the trail went backwards");
    };
    assert!(stopped.refusal().unwrap().starts_with("witness: "));
    assert_eq!(old.kept().refusal(), None);
    // A broker that shows the old trail again, or goes on from it, changes nothing.
    for shown in [old.shown(5), Log::forked(8, 9, 0).shown(5), new.shown(5)] {
        assert_eq!(judge(&stopped, &shown), Ok(Verdict::StillStopped));
    }
    let digest = stopped.stop.as_ref().unwrap().digest();
    assert_eq!(stopped.accept(&[0; 32], NOW), Err(NotThat));
    assert_eq!(
        old.kept().accept(&digest, NOW),
        Err(NotThat),
        "nothing to accept"
    );
    let accepted = stopped.accept(&digest, NOW).unwrap();
    assert_eq!(accepted, new.kept());
    let later = Log::forked(9, 3, 4);
    assert_eq!(
        judge(&accepted, &later.shown(3)),
        Ok(Verdict::Grown(later.kept()))
    );
}

/// A dispatcher's word that a broker with this trail was restored then.
fn restored(log: &Log, at: u64) -> RestoredTrail {
    RestoredTrail {
        at: UnixMillis(at),
        vkey: vkey(1).to_string(),
        note: log.note(log.size(), &[1]).to_string(),
    }
}

#[test]
fn in_every_small_world_a_word_for_a_restore_undoes_what_was_seen_before_it_and_nothing_since() {
    let later = UnixMillis(NOW.0 + 10);
    for seen in 1..=6 {
        for size in 1..=6 {
            for fork in 0..=6 {
                let (old, new) = (Log::forked(seen, 9, 0), Log::forked(size, fork, 3));
                let shown = match judge(&old.kept(), &new.shown(old.size())) {
                    Ok(Verdict::Stopped(stopped)) => stopped,
                    _ => old.kept(),
                };
                for before in [old.kept(), shown] {
                    for at in [NOW.0 - 1, NOW.0] {
                        let word = restored(&new, at);
                        assert_eq!(before.restored(&word, later), Err(NotUndone::Seen));
                    }
                    let word = restored(&new, NOW.0 + 1);
                    let next = before.restored(&word, later).unwrap();
                    assert_eq!(next.kept.as_ref().unwrap().note, new.note(new.size(), &[1]));
                    assert_eq!(next.stop, None);
                    // What goes on from there is believed, and what does not is as wrong as ever.
                    let Ok(verdict) =
                        judge(&next, &Log::forked(size + 1, fork, 3).shown(new.size()))
                    else {
                        panic!("it can be judged");
                    };
                    assert!(matches!(verdict, Verdict::Grown(_)), "{verdict:?}");
                    let other = Log::forked(size + 1, 0, 4).shown(new.size());
                    assert_eq!(stopped(judge(&next, &other)), Some(Why::Rewritten));
                    // The same word again, however often and late.
                    assert_eq!(next.restored(&word, later), Err(NotUndone::Seen));
                    let late = UnixMillis(later.0 * 2);
                    assert_eq!(next.restored(&word, late), Err(NotUndone::Seen));
                }
            }
        }
    }
}

#[test]
fn a_word_for_a_restore_that_was_held_back_undoes_nothing_that_was_shown_or_accepted_since() {
    let (old, new) = (Log::forked(5, 9, 0), Log::forked(3, 9, 0));
    let word = restored(&new, NOW.0 + 1);
    let since = UnixMillis(NOW.0 + 2);
    // The owner came first.
    let Ok(Verdict::Stopped(stopped)) = judge(&old.kept(), &new.shown(5)) else {
        panic!("the trail went backwards");
    };
    let digest = stopped.stop.as_ref().unwrap().digest();
    let accepted = stopped.accept(&digest, since).unwrap();
    assert_eq!(accepted.restored(&word, since), Err(NotUndone::Seen));
    // Or the host never saw what was lost, and has gone on with the restored trail.
    let grown = Log::forked(4, 9, 0);
    let Ok(Verdict::Grown(seen)) = new.kept().judge(Some(&grown.shown(3)), None, since) else {
        panic!("it goes on");
    };
    assert_eq!(seen.restored(&word, since), Err(NotUndone::Seen));
    // A file from before knows no time, and is undone by nobody.
    let mut unknown = old.kept();
    unknown.kept.as_mut().unwrap().at = UnixMillis(u64::MAX);
    assert_eq!(unknown.restored(&word, since), Err(NotUndone::Seen));
}

#[test]
fn a_word_for_a_restore_names_the_audit_key_too_and_nothing_unsigned_is_kept() {
    let (old, new) = (Log::forked(5, 9, 0), Log::forked(3, 9, 0));
    let mut word = restored(&new, NOW.0 + 1);
    word.vkey = vkey(2).to_string();
    assert_eq!(
        old.kept().restored(&word, NOW),
        Err(NotUndone::Note(BadNote::Unsigned))
    );
    // A restore from before the audit key changed hands.
    word.note = new.note(3, &[2]).to_string();
    let next = old.kept().restored(&word, NOW).unwrap();
    assert_eq!(next.kept.unwrap().vkey, vkey(2));
    // Before anything was seen there is nothing to undo, and what is named counts.
    let first = Witness::default()
        .restored(&restored(&new, 1), NOW)
        .unwrap();
    assert_eq!(first, new.kept());
}

#[test]
fn what_is_kept_is_shown_with_a_cosignature_and_while_stopped_without() {
    let log = Log::forked(5, 9, 0);
    let (edge, key) = (host("edge-1"), host_key(3));
    assert_eq!(Witness::default().cosigned(&edge, &key, NOW), None);
    let own = Vkey::new("edge-1", key.public()).unwrap();
    let shown = |witness: &Witness| {
        let text = witness.cosigned(&edge, &key, NOW).unwrap();
        SignedCheckpoint::parse(&text).unwrap()
    };
    let note = shown(&log.kept());
    assert_eq!(note.verify_cosigned(&own), Ok(NOW.seconds()));
    assert_eq!(note.verify(&vkey(1)), Ok(&log.checkpoint(5)));
    let Ok(Verdict::Stopped(stopped)) = judge(&log.kept(), &Log::forked(3, 9, 0).shown(5)) else {
        panic!("the trail went backwards");
    };
    assert_eq!(
        shown(&stopped).verify_cosigned(&own),
        Err(BadNote::Unsigned)
    );
    // What others signed is not kept, so what is shown stays within its limit.
    let mut crowded = log.shown(5);
    crowded.note = shown(&log.kept()).to_string();
    let Ok(Verdict::Grown(kept)) = judge(&Witness::default(), &crowded) else {
        panic!("it is the first");
    };
    assert_eq!(kept, log.kept());
}

#[test]
fn a_witness_round_trips_and_nothing_else_is_read() {
    let (old, new) = (Log::forked(5, 9, 0), Log::forked(6, 2, 1));
    let mut split = new.shown(0);
    split.others = vec![old.cosigned(&new)];
    let witnesses = [
        Ok(Verdict::Grown(Witness::default())),
        Ok(Verdict::Grown(old.kept())),
        judge(&old.kept(), &new.shown(5)),
        judge(&old.kept(), &Log::forked(2, 9, 0).shown(5)),
        judge(&Witness::default(), &split),
        old.kept().judge(
            Some(&Trail {
                note: new.note(6, &[2]).to_string(),
                vkey: vkey(2).to_string(),
                ..new.shown(5)
            }),
            None,
            NOW,
        ),
    ];
    for verdict in witnesses {
        let (Ok(Verdict::Grown(witness)) | Ok(Verdict::Stopped(witness))) = verdict else {
            panic!("{verdict:?}");
        };
        let bytes = witness.to_bytes();
        assert_eq!(Witness::from_bytes(&bytes), Some(witness));
        assert_eq!(Witness::from_bytes(&bytes[1..]), None);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let _ = Witness::from_bytes(&bad);
        }
    }
}
