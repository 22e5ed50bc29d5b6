//! What hosts are shown of the audit trail, and what becomes of what they show.

use protocol::{
    audit::{Checkpoint, SignedCheckpoint, Vkey, cosignature::cosign, proof::check_consistency},
    exchange::{Trail, Witnessing},
    key::Audit,
    limits::WITNESS_NOTE_BYTES_MAX,
};

use super::*;

/// Renews `host` as a witness that kept `note`.
async fn show(
    plane: &Plane,
    (old, new): (u8, u8),
    generation: u64,
    note: Option<String>,
) -> Result<Grant, Refusal> {
    let succession = Succession {
        host: edge(),
        generation,
        key: secret::<Host>(new).public(),
        time: UnixMillis(1),
    };
    let signed = signed::sign(&secret::<Host>(old), &succession, b"");
    let key = secret::<Host>(new);
    let request = Request {
        nonce: plane.challenge().unwrap().nonce,
        host: edge(),
        key: key.public(),
        generation,
        proof: Proof::HostKey(ByteBuf::from(signed)),
        witness: Some(Witnessing { note }),
    };
    let answer = plane.exchange(sign_request(&key, &request)).await;
    answer.map_err(|no| no.reason)
}

/// A plane, and a host of generation 1 that has key 3.
async fn enrolled() -> (TempDir, Plane) {
    let (place, plane) = plane().await;
    let install = bundle(&plane, false);
    let grant = enroll(&plane, &install, 3).await.unwrap();
    assert_eq!(grant.trail, None, "it did not ask");
    (place, plane)
}

fn note(trail: &Trail) -> SignedCheckpoint {
    let note = SignedCheckpoint::parse(&trail.note).unwrap();
    let vkey: Vkey<Audit> = trail.vkey.parse().unwrap();
    note.verify(&vkey).unwrap();
    note
}

/// What the host sends that kept this checkpoint and signs its request with `key`.
fn cosigned(note: &SignedCheckpoint, key: u8) -> String {
    let mut note = note.clone();
    let line = cosign(note.unverified(), edge().as_str(), &secret::<Host>(key), 7).unwrap();
    note.add(line).unwrap();
    note.to_string()
}

fn conflicts(plane: &Plane) -> usize {
    let rows = plane.store().audit_rows(0, 1_000).unwrap();
    let names = rows.iter().filter(|row| row.name == "witness.conflict");
    names.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_shown_that_the_trail_goes_on_and_what_it_cosigned_is_kept_for_others() {
    let (_place, plane) = enrolled().await;
    let first = show(&plane, (3, 4), 2, None).await.unwrap().trail.unwrap();
    assert!(first.proof.is_empty() && first.others.is_empty() && first.handovers.is_empty());
    let old = note(&first);
    let sent = cosigned(&old, 5);
    let second = show(&plane, (4, 5), 3, Some(sent.clone())).await.unwrap();
    let second = second.trail.unwrap();
    let new = note(&second);
    let (before, after) = (old.unverified(), new.unverified());
    assert!(before.size() < after.size(), "each renewal is a row");
    let hashes: Vec<_> = second.proof.iter().map(|hash| hash.into_array()).collect();
    let goes_on = check_consistency(
        before.size(),
        after.size(),
        &hashes,
        before.root(),
        after.root(),
    );
    assert_eq!(goes_on, Ok(()));
    assert!(
        second.others.is_empty(),
        "nobody is shown what they said themselves"
    );
    let kept = plane.store().cosigned_by_others("edge-2", 4).unwrap();
    assert_eq!(kept, [(before.size(), sent)]);
    assert_eq!(conflicts(&plane), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_trail_does_not_go_on_from_is_on_record_once_and_its_host_is_answered_all_the_same()
 {
    let (_place, plane) = enrolled().await;
    let origin = plane.audit_key().origin().to_owned();
    let ahead = Checkpoint::new(&origin, 1_000, [7; 32]).unwrap();
    let ahead = SignedCheckpoint::sign(ahead, &[&*plane.audit_key().current()]);
    for (round, keys) in [(3, 4), (4, 5)].into_iter().enumerate() {
        let generation = u64::try_from(round).unwrap() + 2;
        let grant = show(&plane, keys, generation, Some(cosigned(&ahead, keys.1))).await;
        let trail = grant.unwrap().trail.unwrap();
        assert!(trail.proof.is_empty() && note(&trail).unverified().size() < 1_000);
    }
    // Its time is another each time, and so is the note: what is on record is that the host was there twice.
    assert_eq!(conflicts(&plane), 2);
    let same = cosigned(&ahead, 5);
    let again = show(&plane, (4, 5), 3, Some(same)).await.unwrap();
    assert!(again.trail.is_some());
    assert_eq!(conflicts(&plane), 2, "a repeat is no news");
    assert!(
        plane
            .store()
            .cosigned_by_others("edge-2", 4)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_none_of_our_keys_signed_or_the_host_did_not_cosign_is_not_kept() {
    let (_place, plane) = enrolled().await;
    let first = show(&plane, (3, 4), 2, None).await.unwrap().trail.unwrap();
    let checkpoint = note(&first).unverified().clone();
    let strange = SignedCheckpoint::sign(checkpoint, &[&secret::<Audit>(9)]);
    for shown in [
        first.note.clone(),
        cosigned(&note(&first), 9),
        cosigned(&strange, 5),
    ] {
        let grant = show(&plane, (4, 5), 3, Some(shown)).await.unwrap();
        assert!(grant.trail.is_some());
    }
    assert!(plane.store().witnesses().unwrap().is_empty());
    for bad in [
        "x".to_owned(),
        format!("{}{}", first.note, "x".repeat(WITNESS_NOTE_BYTES_MAX)),
    ] {
        let refused = show(&plane, (4, 5), 3, Some(bad)).await;
        assert_eq!(refused.unwrap_err(), Refusal::Malformed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_audit_key_is_shown_with_what_both_keys_signed() {
    let (_place, plane) = enrolled().await;
    let first = show(&plane, (3, 4), 2, None).await.unwrap().trail.unwrap();
    plane.rotate_audit_key(&PEER).unwrap();
    let second = show(&plane, (4, 5), 3, None).await.unwrap().trail.unwrap();
    assert_ne!(first.vkey, second.vkey);
    let [handover] = second.handovers.as_slice() else {
        panic!("{:?}", second.handovers);
    };
    assert_eq!(handover.vkey, second.vkey);
    let both = SignedCheckpoint::parse(&handover.note).unwrap();
    for vkey in [&first.vkey, &second.vkey] {
        assert!(both.verify(&vkey.parse().unwrap()).is_ok());
    }
    let added = plane
        .add_host(
            &HostId::new("edge-2").unwrap(),
            HostKind::Docker,
            &[secret::<Dispatcher>(2).public()],
            false,
            &PEER,
        )
        .unwrap();
    assert!(
        added.bundle_toml.contains(&second.vkey),
        "a bundle names the key in use"
    );
}
