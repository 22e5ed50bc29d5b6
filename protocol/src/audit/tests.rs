//! The tree against RFC 6962 word for word, and the texts against those of other programs.

use std::convert::Infallible;

use proptest::prelude::*;

use super::note::{self, NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX};
use super::proof::{BadProof, check_consistency, check_inclusion, consistency, inclusion, root};
use super::tree::{Node, cover, empty_root, fold, leaf_hash, node_hash};
use super::*;
use crate::id::hex;
use crate::key::{Audit, Host, seeded};

/// RFC 6962 §2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// RFC 6962 §2.1.1.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    if index < left.len() {
        [naive_path(index, left), vec![naive_root(right)]].concat()
    } else {
        [
            naive_path(index - left.len(), right),
            vec![naive_root(left)],
        ]
        .concat()
    }
}

/// RFC 6962 §2.1.2, SUBPROOF.
fn naive_subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole {
            Vec::new()
        } else {
            vec![naive_root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    if old <= left.len() {
        [naive_subproof(old, left, whole), vec![naive_root(right)]].concat()
    } else {
        let inner = naive_subproof(old - left.len(), right, false);
        [inner, vec![naive_root(left)]].concat()
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn source(leaves: &[Hash]) -> impl FnMut(Node) -> Result<Hash, Infallible> {
    |node: Node| {
        let width = 1_usize << node.level;
        let start = usize::try_from(node.index).unwrap() * width;
        Ok(naive_root(&leaves[start..start + width]))
    }
}

const SIZES: u64 = 64;

#[test]
fn roots_are_those_of_the_reference_implementation() {
    let inputs: [&[u8]; 8] = [
        &[],
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::new();
    for (input, root) in inputs.iter().zip(roots) {
        frontier.push(leaf_hash(input));
        assert_eq!(hex(&frontier.root()), root, "{}", frontier.size());
    }
}

#[test]
fn a_frontier_has_the_root_of_every_size_and_tells_every_node_once() {
    let mut frontier = Frontier::new();
    let mut told = Vec::new();
    for size in 0..=SIZES {
        let all = leaves(size);
        assert_eq!(frontier.size(), size);
        assert_eq!(frontier.root(), naive_root(&all), "{size}");
        assert_eq!(root(size, &mut source(&all)), Ok(naive_root(&all)));
        let peaks: Vec<_> = cover(0, size)
            .map(|node| source(&all)(node).unwrap())
            .collect();
        assert_eq!(fold(&peaks), frontier.root());
        assert_eq!(
            Frontier::from_peaks(size, peaks.clone()),
            Some(frontier.clone())
        );
        assert_eq!(
            Frontier::from_peaks(size, [peaks, vec![[0; 32]]].concat()),
            None
        );
        frontier.push_with(
            leaves(size + 1)[usize::try_from(size).unwrap()],
            |node, hash| {
                told.push((node, *hash));
            },
        );
    }
    let all = leaves(SIZES + 1);
    assert_eq!(told.len(), 128, "65 leaves, 32 pairs, and so on");
    for (node, hash) in &told {
        assert_eq!(source(&all)(*node), Ok(*hash), "{node:?}");
    }
    let mut nodes: Vec<_> = told.iter().map(|(node, _)| *node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), told.len());
}

#[test]
fn every_leaf_of_every_tree_is_proven_and_no_other() {
    for size in 0..=SIZES {
        let all = leaves(size);
        let top = naive_root(&all);
        for index in 0..size {
            let proof = inclusion(index, size, &mut source(&all)).unwrap();
            let at = usize::try_from(index).unwrap();
            assert_eq!(proof, naive_path(at, &all), "{index} of {size}");
            let check = |leaf: &Hash, index, size, proof: &[Hash], root: &Hash| {
                check_inclusion(leaf, index, size, proof, root)
            };
            assert_eq!(check(&all[at], index, size, &proof, &top), Ok(()));
            let refused = Err(BadProof::NotIncluded);
            assert_eq!(check(&[0; 32], index, size, &proof, &top), refused);
            assert_eq!(check(&all[at], index, size, &proof, &[0; 32]), refused);
            for other in (0..=size).filter(|other| *other != index) {
                assert_eq!(check(&all[at], other, size, &proof, &top), refused);
            }
            let longer = [proof.clone(), vec![[0; 32]]].concat();
            assert_eq!(check(&all[at], index, size, &longer, &top), refused);
            for broken in 0..proof.len() {
                let mut proof = proof.clone();
                proof[broken][31] ^= 1;
                assert_eq!(check(&all[at], index, size, &proof, &top), refused);
                proof.remove(broken);
                assert_eq!(check(&all[at], index, size, &proof, &top), refused);
            }
        }
        assert_eq!(inclusion(size, size, &mut source(&all)), Ok(Vec::new()));
    }
}

#[test]
fn every_tree_is_the_beginning_of_every_larger_one_and_of_no_other() {
    for new in 0..=SIZES {
        let all = leaves(new);
        let new_root = naive_root(&all);
        for old in 0..=new {
            let at = usize::try_from(old).unwrap();
            let old_root = naive_root(&all[..at]);
            let proof = consistency(old, new, &mut source(&all)).unwrap();
            if old > 0 {
                assert_eq!(proof, naive_subproof(at, &all, true), "{old} {new}");
            }
            let good = check_consistency(old, new, &proof, &old_root, &new_root);
            assert_eq!(good, Ok(()), "{old} {new}");
            let refused = Err(BadProof::Inconsistent);
            let longer = [proof.clone(), vec![[0; 32]]].concat();
            for (old, new, proof, old_root, new_root) in [
                (old, new, &longer, &old_root, &new_root),
                (old, new, &proof, &[0; 32], &new_root),
                (new + 1, new, &proof, &old_root, &new_root),
            ] {
                let bad = check_consistency(old, new, proof, old_root, new_root);
                assert_eq!(bad, refused, "{old} {new}");
            }
            if old > 0 {
                let bad = check_consistency(old, new, &proof, &old_root, &[0; 32]);
                assert_eq!(bad, refused, "{old} {new}");
            }
            for broken in 0..proof.len() {
                let mut proof = proof.clone();
                proof[broken][0] ^= 1;
                let bad = check_consistency(old, new, &proof, &old_root, &new_root);
                assert_eq!(bad, refused, "{old} {new}");
            }
        }
        assert_eq!(consistency(new + 1, new, &mut source(&all)), Ok(Vec::new()));
    }
}

#[test]
fn a_fork_has_no_proof_of_consistency() {
    let mut forked = leaves(40);
    forked[17] = [7; 32];
    for new in 18..=40 {
        let honest = leaves(new);
        for old in 18..new {
            let (at, to) = (usize::try_from(old).unwrap(), usize::try_from(new).unwrap());
            for proof in [
                consistency(old, new, &mut source(&honest)).unwrap(),
                consistency(old, new, &mut source(&forked[..to])).unwrap(),
            ] {
                let bad = check_consistency(
                    old,
                    new,
                    &proof,
                    &naive_root(&honest[..at]),
                    &naive_root(&forked[..to]),
                );
                assert_eq!(bad, Err(BadProof::Inconsistent), "{old} {new}");
            }
        }
    }
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new("outhaul-1/audit", size, naive_root(&leaves(size))).unwrap()
}

fn vkey(byte: u8) -> Vkey<Audit> {
    Vkey::new("outhaul-1/audit", seeded(byte).public()).unwrap()
}

#[test]
fn a_verifiers_key_is_written_as_others_write_it() {
    let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key: Vkey<Audit> = text.parse().unwrap();
    assert_eq!(key.to_string(), text);
    for bad in [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX",
    ] {
        assert_eq!(bad.parse::<Vkey<Audit>>(), Err(BadNote::Key), "{bad}");
    }
    assert_eq!(
        text.parse::<Vkey<Host>>(),
        Err(BadNote::Key),
        "another type"
    );
    let host = Vkey::<Host>::new("h", seeded(1).public()).unwrap();
    assert_eq!(host.to_string().parse(), Ok(host));
}

#[test]
fn a_note_signed_by_another_program_is_taken_apart_and_put_together() {
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let line = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let whole = format!("{text}\n{line}\n");
    let (read, signatures) = note::parse(&whole).unwrap();
    assert_eq!(read, text);
    assert_eq!(note::format(read, &signatures), whole);
    let key: Vkey<Audit> = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        .parse()
        .unwrap();
    let [signature] = signatures.as_slice() else {
        panic!("one signature")
    };
    assert!(signature.is_of(&key));
    let bytes = signature.signature().try_into().unwrap();
    assert_eq!(key.key().verify(text.as_bytes(), bytes), Ok(()));
}

#[test]
fn a_checkpoint_is_believed_for_the_logs_key_alone() {
    let signed = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]);
    let read = SignedCheckpoint::parse(&signed.to_string()).unwrap();
    assert_eq!(read, signed);
    assert_eq!(read.verify(&vkey(1)), Ok(&checkpoint(5)));
    assert_eq!(read.verify(&vkey(2)), Err(BadNote::Unsigned));
    let other = Vkey::new("outhaul-2/audit", seeded(1).public()).unwrap();
    assert_eq!(read.verify(&other), Err(BadNote::Origin));
    let forged = signed.to_string().replacen("\n5\n", "\n6\n", 1);
    let forged = SignedCheckpoint::parse(&forged).unwrap();
    assert_eq!(forged.verify(&vkey(1)), Err(BadNote::Signature));
}

#[test]
fn while_a_key_gives_way_to_the_next_either_verifies() {
    let signed = SignedCheckpoint::sign(checkpoint(9), &[&seeded(1), &seeded(2)]);
    let read = SignedCheckpoint::parse(&signed.to_string()).unwrap();
    for byte in [1, 2] {
        assert_eq!(read.verify(&vkey(byte)), Ok(&checkpoint(9)));
    }
    assert_eq!(read.verify(&vkey(3)), Err(BadNote::Unsigned));
}

#[test]
fn a_cosignature_says_when_and_stands_for_nothing_else() {
    let mut signed = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]);
    let host = seeded::<Host>(3);
    let witness = Vkey::new("outhaul-1/edge-1", host.public()).unwrap();
    for time in [10, 20] {
        let line = cosignature::cosign(&checkpoint(5), witness.name(), &host, time).unwrap();
        signed.add(line.clone()).unwrap();
        signed.add(line).unwrap();
    }
    let read = SignedCheckpoint::parse(&signed.to_string()).unwrap();
    assert_eq!(read.signatures().len(), 3);
    assert_eq!(read.verify(&vkey(1)), Ok(&checkpoint(5)));
    assert_eq!(read.verify_cosigned(&witness), Ok(20));
    let stranger = Vkey::new("outhaul-1/edge-1", seeded::<Host>(4).public()).unwrap();
    assert_eq!(read.verify_cosigned(&stranger), Err(BadNote::Unsigned));

    // Another checkpoint, another time, and a plain signature by the same key: none is the cosignature of this one.
    let line = cosignature::cosign(&checkpoint(6), witness.name(), &host, 10).unwrap();
    let mut other = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]);
    other.add(line).unwrap();
    assert_eq!(other.verify_cosigned(&witness), Err(BadNote::Signature));
    let line = cosignature::cosign(&checkpoint(5), witness.name(), &host, 10).unwrap();
    let mut timed = line.signature().to_vec();
    timed[7] ^= 1;
    let mut other = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]);
    other.add(witness.line(&timed)).unwrap();
    assert_eq!(other.verify_cosigned(&witness), Err(BadNote::Signature));
    let text = checkpoint(5).to_string();
    let plain = [&[0; 8], host.sign(text.as_bytes()).as_slice()].concat();
    let mut other = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]);
    other.add(witness.line(&plain)).unwrap();
    assert_eq!(other.verify_cosigned(&witness), Err(BadNote::Signature));
}

#[test]
fn a_note_has_one_form() {
    let signed = SignedCheckpoint::sign(checkpoint(5), &[&seeded(1)]).to_string();
    let root = to_base64(checkpoint(5).root());
    let (text, line) = signed.split_once("\n\n").unwrap();
    for (bad, what) in [
        (String::new(), "nothing"),
        (text.to_owned(), "no signatures"),
        (format!("{text}\n\n"), "an empty list of signatures"),
        (signed.trim_end().to_owned(), "no newline at the end"),
        (format!("{signed}\n"), "one newline too many"),
        (signed.replacen("\n5\n", "\n05\n", 1), "a leading zero"),
        (signed.replacen("\n5\n", "\n+5\n", 1), "a sign"),
        (signed.replacen("\n5\n", "\n\n", 1), "no size"),
        (
            signed.replacen("\n5\n", "\n18446744073709551616\n", 1),
            "a size past 64 bits",
        ),
        (signed.replacen(&root, &root[1..], 1), "a short root"),
        (
            signed.replacen(&root, &format!("{root}\nmore"), 1),
            "an extension",
        ),
        (signed.replacen('\n', "\r\n", 1), "a carriage return"),
        (
            signed.replacen("outhaul-1", "outhaul 1", 1),
            "a space in the origin",
        ),
        (
            signed.replacen("\u{2014} outhaul-1", "\u{2014} outhaul+1", 1),
            "a plus in a name",
        ),
        (signed.replacen('\u{2014}', "-", 1), "a hyphen for the dash"),
        (
            format!("{text}\n\n{}", line.replacen('=', "", 1)),
            "no padding",
        ),
        (
            format!("{text}\n\n\u{2014} name AAAAAA==\n"),
            "a key's hash and no signature",
        ),
    ] {
        assert_eq!(
            SignedCheckpoint::parse(&bad),
            Err(BadNote::Malformed),
            "{what}"
        );
    }
    let many = format!("{text}\n\n{}", line.repeat(NOTE_SIGNATURES_MAX + 1));
    assert_eq!(SignedCheckpoint::parse(&many), Err(BadNote::TooLong));
    let long = format!("{}\n\n{line}", "x".repeat(NOTE_BYTES_MAX));
    assert_eq!(SignedCheckpoint::parse(&long), Err(BadNote::TooLong));
}

fn proven(index: u64, size: u64) -> TlogProof {
    let rows: Vec<Vec<u8>> = (0..size).map(row).collect();
    let hashes: Vec<_> = rows.iter().map(|row| leaf_hash(row)).collect();
    let checkpoint = Checkpoint::new("outhaul-1/audit", size, naive_root(&hashes)).unwrap();
    TlogProof {
        leaf: row(index),
        index,
        hashes: inclusion(index, size, &mut source(&hashes)).unwrap(),
        checkpoint: SignedCheckpoint::sign(checkpoint, &[&seeded(1)]),
    }
}

fn row(seq: u64) -> Vec<u8> {
    Leaf {
        seq,
        time_ms: 1,
        name: "host.enrolled",
        subject: "edge-1",
        actor: "host:edge-1",
        fields: "{}",
        prev: &NO_LEAF,
    }
    .to_bytes()
}

#[test]
fn a_row_is_proven_by_a_text_of_its_own() {
    for (index, size) in [(0, 1), (3, 7), (6, 7), (8, 16)] {
        let text = proven(index, size).to_string();
        let read = TlogProof::parse(&text).unwrap();
        assert_eq!(read, proven(index, size));
        assert_eq!(read.check().map(|leaf| leaf.seq), Ok(index));
        assert!(read.checkpoint.verify(&vkey(1)).is_ok());
    }
    let mut moved = proven(3, 7);
    moved.leaf = row(4);
    assert_eq!(moved.check(), Err(BadProof::NotIncluded));
    let text = proven(3, 7).to_string();
    for (bad, what) in [
        (text.replacen("@v1", "@v2", 1), "another version"),
        (text.replacen("index 3", "index 03", 1), "a leading zero"),
        (text.replacen("extra ", "extra  ", 1), "two spaces"),
        (text.replacen("\nindex 3", "", 1), "no index"),
    ] {
        assert_eq!(TlogProof::parse(&bad), Err(BadNote::Malformed), "{what}");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_again_to_the_byte(
        text in "[\\PC\n\u{2014}= +]{0,200}",
        at in 0..400_usize,
        to in any::<char>(),
    ) {
        let _ = note::parse(&text);
        let whole = proven(2, 5).to_string();
        let changed: String = whole
            .chars()
            .enumerate()
            .map(|(index, c)| if index == at { to } else { c })
            .collect();
        if let Ok(read) = TlogProof::parse(&changed) {
            prop_assert_eq!(read.to_string(), changed);
        }
        let signed = proven(2, 5).checkpoint.to_string();
        let changed: String = signed
            .chars()
            .enumerate()
            .map(|(index, c)| if index == at % 200 { to } else { c })
            .collect();
        if let Ok(read) = SignedCheckpoint::parse(&changed) {
            prop_assert_eq!(read.to_string(), changed);
        }
    }
}
