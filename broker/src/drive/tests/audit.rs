//! What is signed of the trail, by a plane.

use protocol::audit::SignedCheckpoint;
use serde_json::json;

use super::*;
use crate::shell::store::{AuditEntry, Inconsistent};

fn write_row(plane: &Plane) {
    let fields = json!({});
    let entry = AuditEntry {
        time_ms: plane.now().0,
        name: "content.read",
        subject: "s",
        actor: "a",
        fields: &fields,
    };
    plane.store().record_audit(&entry).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_does_not_go_on_from_what_was_signed_is_not_signed_and_the_broker_is_not_ready()
 {
    let (_place, plane) = plane().await;
    write_row(&plane);
    let signed = plane.sign_audit().unwrap();
    assert!(SignedCheckpoint::parse(&signed.note).is_ok());
    assert!(
        !plane
            .health()
            .await
            .reasons
            .iter()
            .any(|why| why.contains("audit trail"))
    );
    // Somebody without the key has put their own checkpoint over rows of their own.
    write_row(&plane);
    let origin = plane.audit_key().origin().to_owned();
    let stranger = secret(9);
    plane.store().forge_checkpoint(&stranger, &origin).unwrap();
    let error = plane.sign_audit().unwrap_err();
    let fault = error.downcast_ref::<Inconsistent>().unwrap();
    assert!(matches!(fault, Inconsistent::Forged { .. }), "{fault}");
    let rotated = plane.rotate_audit_key(&PEER).unwrap_err();
    assert!(rotated.downcast_ref::<Inconsistent>().is_some());
    // An answer counts for a while.
    let deadline = clock::mono() + Duration::from_secs(20);
    loop {
        let reasons = plane.health().await.reasons;
        if reasons.iter().any(|why| why.contains("audit trail")) {
            break;
        }
        assert!(clock::mono() < deadline, "{reasons:?}");
        tokio::task::yield_now().await;
    }
    // Rights are still taken away, and recorded: only signing stops.
    write_row(&plane);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_signed_without_being_asked_for() {
    let (_place, plane) = plane().await;
    write_row(&plane);
    let deadline = clock::mono() + Duration::from_secs(20);
    while plane.store().newest_checkpoint().unwrap().is_none() {
        assert!(clock::mono() < deadline);
        tokio::task::yield_now().await;
    }
}
