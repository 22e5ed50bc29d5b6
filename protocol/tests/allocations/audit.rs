//! Notes, proofs and keys of the audit trail: texts that strangers hand in, each cut, stretched and filled.

use protocol::{
    audit::{
        Checkpoint, Frontier, Leaf, NO_LEAF, SignedCheckpoint, TlogProof, Vkey,
        note::VKEY_BYTES_MAX, tree::leaf_hash,
    },
    key::{Audit, Host},
};

use crate::{cost, sample::secret};

/// What reading may allocate beyond twice the text, in bytes: the list of signatures and that of hashes, each grown by doubling.
const SPARE_BYTES: u64 = 24 * 1024;

fn row() -> Vec<u8> {
    Leaf {
        seq: 0,
        time_ms: 1,
        name: "host.enrolled",
        subject: "edge-1",
        actor: "host:edge-1",
        fields: "{}",
        prev: &NO_LEAF,
    }
    .to_bytes()
}

fn good() -> [String; 3] {
    let mut frontier = Frontier::new();
    frontier.push(leaf_hash(&row()));
    let checkpoint = Checkpoint::new("outhaul-1/audit", 1, frontier.root()).unwrap();
    let signed = SignedCheckpoint::sign(checkpoint, &[&secret::<Audit>(1)]);
    let vkey = Vkey::new("outhaul-1/audit", secret::<Audit>(1).public()).unwrap();
    let proof = TlogProof {
        leaf: row(),
        index: 0,
        hashes: Vec::new(),
        checkpoint: signed.clone(),
    };
    [signed.to_string(), proof.to_string(), vkey.to_string()]
}

fn hostile() -> Vec<String> {
    let mut all = vec![String::new(), "\n".repeat(100_000)];
    for good in good() {
        let line = good.lines().next_back().unwrap();
        for filling in [
            "a",
            "=",
            "+",
            "\n",
            "\n\n",
            "\u{2014} ",
            "A\n",
            line,
            "\u{2014} a AAAAAAA=\n",
        ] {
            let filling = filling.repeat(100_000 / filling.len());
            all.push(format!("{good}{filling}"));
            all.push(format!("{filling}{good}"));
            all.push(filling);
        }
        for (at, _) in good.char_indices() {
            all.push(good[..at].to_owned());
            all.push(format!(
                "{}{}{}",
                &good[..at],
                "A".repeat(20_000),
                &good[at..]
            ));
            all.push(format!(
                "{}{}{}",
                &good[..at],
                "AA==\n".repeat(4_000),
                &good[at..]
            ));
        }
    }
    all
}

#[test]
fn a_note_and_a_proof_cost_no_more_than_their_text_and_two_short_lists() {
    for text in hostile() {
        let start: String = text.chars().take(40).collect();
        let allowed = 2 * text.len() as u64 + SPARE_BYTES;
        let (_, cost) = cost::of(|| SignedCheckpoint::parse(&text));
        assert!(cost.peak <= allowed, "note {start:?}: {cost:?}");
        let (_, cost) = cost::of(|| TlogProof::parse(&text));
        assert!(cost.peak <= allowed, "proof {start:?}: {cost:?}");
        for (_, cost) in [
            cost::of(|| text.parse::<Vkey<Audit>>().is_ok()),
            cost::of(|| text.parse::<Vkey<Host>>().is_ok()),
        ] {
            assert!(
                cost.peak <= 4 * VKEY_BYTES_MAX as u64,
                "key {start:?}: {cost:?}"
            );
        }
    }
}

#[test]
fn a_row_costs_nothing_to_read() {
    let good = row();
    for end in 0..=good.len() {
        let (_, cost) = cost::of(|| Leaf::split_from(&good[..end]).is_ok());
        assert_eq!(cost.count, 0, "{end} bytes");
    }
}
