//! A trail as an export has it, with every kind of meddling.

use protocol::audit::tree::leaf_hash;
use protocol::key::Secret;
use zeroize::Zeroizing;

use super::*;

const ORIGIN: &str = "outhaul-1/audit";

fn secret(byte: u8) -> Secret<Audit> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn vkey(byte: u8) -> Vkey<Audit> {
    Vkey::new(ORIGIN, secret(byte).public()).unwrap()
}

/// An exported trail: rows, their hashes, checkpoints.
#[derive(Clone, Default)]
struct Export {
    rows: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
    notes: Vec<SignedCheckpoint>,
}

impl Export {
    fn write(&mut self, name: &str, subject: &str, fields: &str, time_ms: u64) {
        let prev = self.hashes.last().copied().unwrap_or(NO_LEAF);
        let row = Leaf {
            seq: self.rows.len() as u64,
            time_ms,
            name,
            subject,
            actor: "uid:0",
            fields,
            prev: &prev,
        }
        .to_bytes();
        self.hashes.push(leaf_hash(&row));
        self.rows.push(row);
    }

    fn sign(&mut self, keys: &[&Secret<Audit>]) -> SignedCheckpoint {
        let mut frontier = Frontier::new();
        self.hashes.iter().for_each(|hash| frontier.push(*hash));
        let checkpoint = Checkpoint::new(ORIGIN, frontier.size(), frontier.root()).unwrap();
        let note = SignedCheckpoint::sign(checkpoint, keys);
        self.notes.push(note.clone());
        note
    }

    /// Eight rows, signed after three and at the end.
    fn sample() -> Self {
        let mut export = Self::default();
        for number in 0..8 {
            export.write("content.read", "edge-1", "{}", 1_000_000 + number);
            if number == 2 {
                export.sign(&[&secret(1)]);
            }
        }
        export.sign(&[&secret(1)]);
        export
    }

    /// The first bad row, or the checkpoint that does not stand.
    fn judge(&self) -> (Option<(u64, Fault)>, Result<(), Unsigned>) {
        let mut trail = Trail::new(vkey(1));
        let mut notes = self.notes.iter().peekable();
        let mut stands = Ok(());
        for index in 0..=self.hashes.len() {
            while let Some(note) = notes.next_if(|note| note.unverified().size() <= index as u64) {
                stands = stands.and_then(|()| trail.checkpoint(note));
            }
            if let Some(hash) = self.hashes.get(index) {
                let row = self.rows.get(index).ok_or(Fault::Truncated);
                trail.push(hash, row.map(Vec::as_slice));
            }
        }
        if notes.next().is_some() {
            stands = stands.and(Err(Unsigned::Beyond));
        }
        trail.finish();
        (trail.bad(), stands)
    }
}

#[test]
fn a_whole_trail_stands_and_so_does_an_empty_one() {
    assert_eq!(Export::sample().judge(), (None, Ok(())));
    let mut empty = Export::default();
    empty.sign(&[&secret(1)]);
    assert_eq!(empty.judge(), (None, Ok(())));
}

#[test]
fn every_flipped_bit_shows_at_its_row() {
    let whole = Export::sample();
    for row in 0..whole.rows.len() {
        for byte in 0..whole.rows[row].len() {
            let mut changed = whole.clone();
            changed.rows[row][byte] ^= 1 << (byte % 8);
            let (bad, stands) = changed.judge();
            let (index, fault) = bad.unwrap_or_else(|| panic!("{row} {byte}"));
            assert_eq!(index, row as u64, "{byte} {fault:?}");
            assert_eq!(stands, Ok(()), "the list of hashes is whole");
        }
    }
}

#[test]
fn dropped_and_swapped_rows_and_a_cut_end_show_at_the_first_that_is_gone() {
    let whole = Export::sample();
    for row in 0..whole.rows.len() {
        let mut dropped = whole.clone();
        dropped.rows.remove(row);
        let fault = if row == 7 {
            Fault::Truncated
        } else {
            Fault::Misplaced
        };
        assert_eq!(dropped.judge(), (Some((row as u64, fault)), Ok(())));
        if row < 7 {
            let mut swapped = whole.clone();
            swapped.rows.swap(row, row + 1);
            let at = Some((row as u64, Fault::Misplaced));
            assert_eq!(swapped.judge(), (at, Ok(())));
        }
    }
}

#[test]
fn a_tail_cut_off_with_its_checkpoint_shows_against_a_saved_one_alone() {
    let whole = Export::sample();
    let mut cut = whole.clone();
    cut.rows.truncate(3);
    cut.hashes.truncate(3);
    cut.notes.truncate(1);
    assert_eq!(
        cut.judge(),
        (None, Ok(())),
        "a chain cannot show its own end"
    );
    cut.notes.push(whole.notes[1].clone());
    assert_eq!(cut.judge(), (None, Err(Unsigned::Beyond)));
}

#[test]
fn a_log_rewritten_and_signed_again_by_the_key_holder_shows_against_a_saved_checkpoint_alone() {
    let saved = Export::sample().notes[0].clone();
    let mut forged = Export::default();
    for number in 0..8 {
        forged.write("content.read", "edge-2", "{}", 1_000_000 + number);
    }
    forged.sign(&[&secret(1)]);
    assert_eq!(forged.judge(), (None, Ok(())));
    forged.notes.insert(0, saved);
    assert_eq!(forged.judge(), (None, Err(Unsigned::Root)), "two views");
}

#[test]
fn without_the_key_nothing_can_be_rewritten() {
    let mut forged = Export::sample();
    forged.rows.pop();
    forged.hashes.pop();
    forged.write("content.read", "edge-2", "{}", 1_000_007);
    assert_eq!(forged.judge(), (None, Err(Unsigned::Root)));
    forged.notes.pop();
    forged.sign(&[&secret(2)]);
    let unsigned = Err(Unsigned::Signature(BadNote::Unsigned));
    assert_eq!(forged.judge(), (None, unsigned));
}

#[test]
fn a_clock_that_went_back_shows_at_its_row() {
    let mut export = Export::default();
    for time_ms in [1_000_000, 1_000_000, 999_999, 999_998] {
        export.write("content.read", "edge-1", "{}", time_ms);
    }
    let mut trail = Trail::new(vkey(1));
    for (row, hash) in export.rows.iter().zip(&export.hashes) {
        trail.push(hash, Ok(row));
    }
    assert_eq!((trail.bad(), trail.went_back()), (None, Some(2)));
}

#[test]
fn a_key_hands_over_only_with_both_signatures() {
    let (one, two, three) = (secret(1), secret(2), secret(3));
    let hand_over = |export: &mut Export, old: u8, new: u8| {
        let fields = serde_json::json!({
            "key": "audit", "old": vkey(old).to_string(), "new": vkey(new).to_string(),
        });
        export.write("key.rotated", ORIGIN, &fields.to_string(), 1_000_010);
    };
    let mut export = Export::sample();
    hand_over(&mut export, 1, 2);
    export.sign(&[&one, &two]);
    export.write("content.read", "edge-1", "{}", 1_000_011);
    hand_over(&mut export, 2, 3);
    export.sign(&[&two, &three]);
    export.sign(&[&three]);
    assert_eq!(export.judge(), (None, Ok(())));

    let mut alone = Export::sample();
    hand_over(&mut alone, 1, 2);
    alone.sign(&[&one]);
    assert_eq!(alone.judge().0, Some((8, Fault::HandOver)));
    alone.notes.pop();
    alone.sign(&[&two]);
    assert!(alone.judge().1.is_err(), "the new key alone");
    let mut other = Export::sample();
    hand_over(&mut other, 3, 2);
    assert_eq!(
        other.judge().0,
        Some((8, Fault::HandOver)),
        "not from the key in use"
    );
    // A host may be called as it likes; its keys are its own affair.
    let mut host = Export::sample();
    host.write("key.rotated", "audit", "{}", 1_000_012);
    host.sign(&[&one]);
    assert_eq!(host.judge(), (None, Ok(())));
}

#[test]
fn a_withheld_value_is_proven_by_its_salt_and_no_other() {
    let fields = serde_json::json!({ "to": commitment(&[7; 16], "/backup/monday"), "n": 1 });
    let fields = fields.to_string();
    assert!(!fields.contains("monday"));
    assert!(opens(&fields, "to", &[7; 16], "/backup/monday"));
    assert!(
        !opens(&fields, "to", &[8; 16], "/backup/monday"),
        "wrong salt"
    );
    assert!(
        !opens(&fields, "to", &[7; 16], "/backup/tuesday"),
        "wrong value"
    );
    assert!(!opens(&fields, "n", &[7; 16], "1"), "not committed to");
    assert!(!opens("", "to", &[7; 16], ""));
}
