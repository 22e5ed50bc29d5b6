//! The issuer key's rotation: on record before it is in force.

use protocol::id::hex;
use serde_json::json;

use super::{Plane, Withdrawn};
use crate::shell::{issuer::Listed, store::AuditEntry};

impl Plane {
    /// The issuer keys whose tokens are accepted, the one that signs first.
    #[must_use]
    pub fn issuer_keys(&self) -> Vec<Listed> {
        self.inner.parts.issuer.list(self.now())
    }

    /// How often all tokens were made void since this start: a connection whose token was checked before the last time is to end.
    #[must_use]
    pub fn tokens_voided(&self) -> u64 {
        self.inner.parts.issuer.voided()
    }

    /// Follows the issuer key by a new one: records, then signs with it. Tokens of the old one are accepted until they end; with
    /// `is_void` they are not, and every host's link, and its sandboxes', is closed: each host proves its own key and gets a new token.
    /// Blocks.
    ///
    /// # Errors
    /// The store or the disk refuses, or it was rotated too often.
    pub fn rotate_issuer(&self, is_void: bool, actor: &str) -> anyhow::Result<()> {
        let now = self.now();
        self.inner.parts.issuer.rotate(now, is_void, |rotation| {
            let fields = json!({
                "key": "issuer",
                "before": rotation.before.to_string(),
                "after": rotation.after.to_string(),
                "accepted_until_ms": rotation.until.map(|until| until.0),
                "succession": hex(&rotation.succession),
            });
            self.store().record_audit(&AuditEntry {
                time_ms: now.0,
                name: "key.rotated",
                subject: self.audience(),
                actor,
                fields: &fields,
            })?;
            tracing::info!(
                before = %rotation.before,
                after = %rotation.after,
                is_void,
                "the issuer key is followed by the next"
            );
            Ok(())
        })?;
        if is_void {
            // Nobody listens only where there is no gate.
            let _ = self.inner.withdrawn.send(Withdrawn::Tokens);
        }
        Ok(())
    }
}
