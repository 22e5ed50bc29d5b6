//! Hosts witness the audit trail: with each grant they are shown its newest checkpoint, that it goes on from the one they kept, and what
//! other hosts cosigned.

use protocol::{
    audit::{SignedCheckpoint, Vkey, proof::check_consistency},
    cbor,
    exchange::{Cosigned, Grant, Handover, Trail, Witnessing},
    id::HostId,
    key::{Audit, Host, Public},
    limits::{COSIGNED_MAX, EXCHANGE_BYTES_MAX, HANDOVERS_MAX, WITNESS_NOTE_BYTES_MAX},
    time::UnixMillis,
};
use serde_bytes::ByteArray;

use super::Plane;

/// What a request shows of its host as witness, read. Nothing is verified.
#[derive(Debug)]
pub(super) struct Asked {
    note: Option<SignedCheckpoint>,
}

impl Asked {
    /// Reads it.
    ///
    /// # Errors
    /// Its note is none, or too long.
    pub(super) fn read(witnessing: &Witnessing) -> Result<Self, ()> {
        let note = match &witnessing.note {
            None => None,
            Some(note) if note.len() > WITNESS_NOTE_BYTES_MAX => return Err(()),
            Some(note) => Some(SignedCheckpoint::parse(note).map_err(|_| ())?),
        };
        Ok(Self { note })
    }
}

impl Plane {
    /// The trail as `host` is to see it, whose request `key` signed. What the host kept is on record when this returns, for others to see
    /// or as a contradiction. Blocks.
    ///
    /// # Errors
    /// The trail is not signed any more, since it contradicts itself; or the store fails.
    pub(super) fn trail_for(
        &self,
        host: &HostId,
        key: Public<Host>,
        asked: &Asked,
        now: UnixMillis,
    ) -> anyhow::Result<Trail> {
        let newest = self.sign_audit()?;
        let keys: Vec<Vkey<Audit>> = self
            .store()
            .audit_keys()?
            .into_iter()
            .map(|(_, key)| key)
            .collect();
        let proof = match &asked.note {
            None => Vec::new(),
            Some(note) => self.proof_from(note.unverified().size(), newest.size)?,
        };
        let newest_note = SignedCheckpoint::parse(&newest.note)?;
        if let Some(note) = &asked.note {
            self.file(host, key, note, &keys, (&newest_note, &proof), now)?;
        }
        let others = self
            .store()
            .cosigned_by_others(host.as_str(), COSIGNED_MAX)?;
        let others = others
            .into_iter()
            .map(|(size, note)| {
                let proof = self.proof_from(size, newest.size)?;
                Ok(Cosigned { note, proof })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Trail {
            note: newest.note,
            vkey: keys.last().map(ToString::to_string).unwrap_or_default(),
            proof,
            others,
            handovers: self.handovers()?,
        })
    }

    /// The key that signs the audit trail now, as a bundle names it. Blocks.
    pub(super) fn audit_vkey(&self) -> anyhow::Result<String> {
        let vkey = Vkey::new(
            self.audit_key().origin(),
            self.audit_key().current().public(),
        )?;
        Ok(vkey.to_string())
    }

    /// That the trail of `new` rows goes on from that of `old`; empty where there is nothing to prove.
    fn proof_from(&self, old: u64, new: u64) -> anyhow::Result<Vec<ByteArray<32>>> {
        if old >= new {
            return Ok(Vec::new());
        }
        let hashes = self.store().audit_consistency(old, new)?;
        Ok(hashes.into_iter().map(Into::into).collect())
    }

    /// Files what a host kept: for others to see if the trail goes on from it and the host cosigned it, as a contradiction if the trail
    /// does not. What our own keys did not sign is neither.
    fn file(
        &self,
        host: &HostId,
        key: Public<Host>,
        kept: &SignedCheckpoint,
        keys: &[Vkey<Audit>],
        (newest, proof): (&SignedCheckpoint, &[ByteArray<32>]),
        now: UnixMillis,
    ) -> anyhow::Result<()> {
        if !keys.iter().any(|key| kept.verify(key).is_ok()) {
            tracing::warn!(%host, "a host shows a checkpoint that none of this broker's audit keys signed");
            return Ok(());
        }
        let (old, new) = (kept.unverified(), newest.unverified());
        let hashes: Vec<_> = proof.iter().map(|hash| hash.into_array()).collect();
        let goes_on = if old.size() == new.size() {
            old.root() == new.root()
        } else {
            old.size() < new.size()
                && check_consistency(old.size(), new.size(), &hashes, old.root(), new.root())
                    .is_ok()
        };
        let text = kept.to_string();
        if !goes_on {
            if self
                .store()
                .witness_conflict(host.as_str(), old.size(), &text, now.0)?
            {
                tracing::error!(
                    %host,
                    kept = old.size(),
                    rows = new.size(),
                    "a host has seen an audit trail that this one does not go on from: unless this broker was restored from a backup, \
                     its history was changed. The host obeys no command until its owner decides (`outhaul-agent accept-restore` there), or after a restore a \
                     dispatcher whom it lists (`outhaul dispatcher accept-restore`)"
                );
            }
            return Ok(());
        }
        let is_cosigned =
            Vkey::new(host.as_str(), key).is_ok_and(|vkey| kept.verify_cosigned(&vkey).is_ok());
        if is_cosigned {
            self.store()
                .cosigned(host.as_str(), old.size(), &text, now.0)?;
        }
        Ok(())
    }

    /// The last changes of the audit key, the oldest first: the checkpoints that both keys signed.
    fn handovers(&self) -> anyhow::Result<Vec<Handover>> {
        let keys = self.store().audit_keys()?;
        let later = keys.get(1..).unwrap_or_default();
        let last = later
            .get(later.len().saturating_sub(HANDOVERS_MAX)..)
            .unwrap_or_default();
        let mut handovers = Vec::new();
        for (size, vkey) in last {
            let row = self.store().audit_checkpoints(*size, 1)?.pop();
            if let Some(row) = row.filter(|row| row.size == *size) {
                handovers.push(Handover {
                    note: row.note,
                    vkey: vkey.to_string(),
                });
            }
        }
        Ok(handovers)
    }
}

/// Takes out of a grant what the exchange has no room for: what other hosts cosigned first, the oldest before the newest, for there is
/// more at the next renewal; then the list of authorities, of which hosts keep the last.
pub(super) fn fit(grant: &mut Grant) {
    while cbor::to_vec(grant).len() > EXCHANGE_BYTES_MAX {
        let trail = grant.trail.as_mut();
        if trail.is_some_and(|trail| trail.others.pop().is_some()) {
            continue;
        }
        if grant.authorities.take().is_none() {
            return;
        }
        tracing::warn!(
            "a grant has no room for the certificate authorities beside the audit trail: list fewer of them"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;

    #[test]
    fn a_grant_fits_the_exchange_whatever_there_is_to_show() {
        let cosigned = || Cosigned {
            note: "n".repeat(WITNESS_NOTE_BYTES_MAX),
            proof: vec![[1; 32].into(); 30],
        };
        let full = |authorities: usize| Grant {
            token: ByteBuf::from(vec![0; 600]),
            time: UnixMillis(1),
            generation: 1,
            authorities: Some(vec![ByteBuf::from(vec![0; authorities])]),
            trail: Some(Trail {
                note: "n".repeat(WITNESS_NOTE_BYTES_MAX),
                vkey: "v".repeat(300),
                proof: vec![[1; 32].into(); 65],
                others: (0..COSIGNED_MAX).map(|_| cosigned()).collect(),
                handovers: Vec::new(),
            }),
        };
        for (authorities, others, kept) in [(500, 1, true), (3000, 0, true), (5000, 0, false)] {
            let mut grant = full(authorities);
            fit(&mut grant);
            assert!(cbor::to_vec(&grant).len() <= EXCHANGE_BYTES_MAX);
            assert_eq!(grant.trail.unwrap().others.len(), others, "{authorities}");
            assert_eq!(grant.authorities.is_some(), kept, "{authorities}");
        }
    }
}
