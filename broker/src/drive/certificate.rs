//! The certificates, as the plane has to do with them: hosts are told whom to trust, and a change of that is on record before it is
//! in force.

use std::sync::Arc;

use protocol::bundle::fingerprint;
use serde_bytes::ByteBuf;
use serde_json::json;

use super::Plane;
use crate::shell::{
    certificate::{Certificates, Facts},
    store::AuditEntry,
};

impl Plane {
    /// The certificates, as others may know them.
    #[must_use]
    pub fn certificates(&self) -> Arc<Facts> {
        Arc::clone(&self.inner.parts.certificates.borrow())
    }

    /// The authorities that a host is to trust, as a grant has them.
    pub(super) fn authorities(&self) -> Vec<ByteBuf> {
        let facts = self.certificates();
        let list = facts.authorities.iter();
        list.map(|one| ByteBuf::from(one.der.clone())).collect()
    }

    /// Makes the next certificate authority: records, then serves under it. Blocks.
    ///
    /// # Errors
    /// The authority is not ours, or the store or the disk refuses.
    pub fn rotate_authority(&self, certificates: &Certificates, actor: &str) -> anyhow::Result<()> {
        let before = self.first_authority();
        certificates.rotate(self.now(), |next| {
            let fields = json!({ "key": "ca", "before": before, "after": fingerprint(next) });
            self.record_authority("key.rotated", actor, &fields)
        })?;
        tracing::info!(
            before,
            after = self.first_authority(),
            "the certificate authority is followed by the next: hosts learn it when they renew their tokens"
        );
        Ok(())
    }

    /// Forgets the certificate authorities before the one in use; how many. Blocks.
    ///
    /// # Errors
    /// The authority is not ours, or the store or the disk refuses.
    pub fn retire_authorities(
        &self,
        certificates: &Certificates,
        actor: &str,
    ) -> anyhow::Result<usize> {
        let fields = json!({ "key": "ca", "kept": self.first_authority() });
        self.record_authority("key.retired", actor, &fields)?;
        let count = certificates.retire(self.now())?;
        tracing::info!(
            count,
            "certificate authorities before this one are forgotten"
        );
        Ok(count)
    }

    fn first_authority(&self) -> String {
        let facts = self.certificates();
        let first = facts.authorities.first();
        first.map_or_else(String::new, |one| fingerprint(&one.der))
    }

    fn record_authority(
        &self,
        name: &str,
        actor: &str,
        fields: &serde_json::Value,
    ) -> anyhow::Result<()> {
        self.store().record_audit(&AuditEntry {
            time_ms: self.now().0,
            name,
            subject: self.audience(),
            actor,
            fields,
        })?;
        Ok(())
    }
}
