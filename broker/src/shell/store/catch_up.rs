//! Hosts that are ahead of a restored store, and what their chains show.

use super::host::{self, HostKeyRow, change_state, record, set_key};
use super::{Store, hex};
use crate::core::catch_up::Link;
use crate::core::hosts::HostState;
use serde_json::json;

/// What [`Store::catch_up_host`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// The host is known up to this generation now.
    To(u64),
    /// Somebody was faster, or another host has one of these keys: nothing changed.
    Overtaken,
}

impl Store {
    /// Records the keys that a host had since this store was backed up. The caller has verified that each is named by the one before,
    /// the first by the host's current key; `granted` is the key that a token is to be granted for, if the chain reaches it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn catch_up_host(
        &self,
        host: &str,
        links: &[Link],
        granted: Option<&[u8; 32]>,
        incarnation: u64,
        now_ms: u64,
    ) -> anyhow::Result<CaughtUp> {
        self.write("catch up with host", |tx| {
            let (Some(row), Some(first), Some(last)) =
                (host::find(tx, host)?, links.first(), links.last())
            else {
                return Ok(CaughtUp::Overtaken);
            };
            let is_next = row.generation.checked_add(1) == Some(first.generation);
            let is_void = row.identity().is_void(row.generation);
            if row.state != HostState::Enrolled || is_void || !is_next {
                return Ok(CaughtUp::Overtaken);
            }
            for link in links {
                if host::is_key_known(tx, link.key.as_bytes())? {
                    return Ok(CaughtUp::Overtaken);
                }
            }
            for link in links {
                let is_granted = granted == Some(link.key.as_bytes());
                let key = HostKeyRow {
                    generation: link.generation,
                    public_key: *link.key.as_bytes(),
                    succession: Some(link.succession.clone()),
                    enrolled_ms: now_ms,
                    caught_up: (!is_granted).then_some(incarnation),
                };
                set_key(tx, host, &key)?;
            }
            let fields = json!({
                "from_generation": row.generation,
                "generation": last.generation,
                "public_key": hex(last.key.as_bytes()),
                "incarnation": incarnation,
                "granted": granted == Some(last.key.as_bytes()),
            });
            let actor = format!("host:{host}");
            record(tx, "host.caught_up", host, &actor, &fields, now_ms)?;
            Ok(CaughtUp::To(last.generation))
        })
    }

    /// Locks a host whose key of some generation has named two successors; the one that is not known is `presented`. `false`: it is
    /// not enrolled.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn lock_forked_host(
        &self,
        host: &str,
        generation: u64,
        presented: &[u8; 32],
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("lock forked host", |tx| {
            // Who holds a key that was revoked cannot have its host locked.
            let signer = generation.saturating_sub(1);
            if host::find(tx, host)?.is_none_or(|row| row.identity().is_void(signer)) {
                return Ok(false);
            }
            if !change_state(tx, host, &[HostState::Enrolled], HostState::Locked)? {
                return Ok(false);
            }
            let fields = json!({
                "reason": "a succession to another key for the same generation",
                "presented_generation": generation,
                "presented_key": hex(presented),
            });
            let actor = format!("host:{host}");
            record(tx, "host.locked", host, &actor, &fields, now_ms)?;
            Ok(true)
        })
    }
}
