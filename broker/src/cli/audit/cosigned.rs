//! `outhaul audit checkpoint --cosigned`: which hosts have seen the trail, how far, and their signatures.

use anyhow::Context as _;
use protocol::{audit::SignedCheckpoint, time::UnixMillis};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::cli::units::date;

#[derive(Debug, Deserialize, Serialize)]
struct Witnesses {
    witnesses: Vec<Witness>,
}

/// A host as witness.
#[derive(Debug, Deserialize, Serialize)]
struct Witness {
    host: String,
    size: Option<u64>,
    cosigned_ms: Option<u64>,
    note: Option<String>,
    conflict: Option<String>,
}

/// Shows every witness, and the newest checkpoint that any of them cosigned, with all their signatures. Exit code 1 if one of them saw
/// what the trail does not go on from.
pub(super) async fn cosigned(context: &Context) -> anyhow::Result<u8> {
    let found: Witnesses = context
        .client
        .get("/v1/audit/witnesses")
        .await
        .context("ask who witnesses the audit trail")?;
    let contradicting: Vec<_> = found
        .witnesses
        .iter()
        .filter(|witness| witness.conflict.is_some())
        .map(|witness| witness.host.as_str())
        .collect();
    let code = u8::from(!contradicting.is_empty());
    if context.output.is_json() {
        context.output.json(&found)?;
        return Ok(code);
    }
    for witness in &found.witnesses {
        let seen = match (witness.size, witness.cosigned_ms) {
            (Some(size), Some(time)) => {
                format!("cosigned {size} rows, shown {}", date(UnixMillis(time)))
            }
            _ => "cosigned nothing yet".to_owned(),
        };
        context
            .output
            .remark(&format!("{}: {seen}", witness.host))?;
    }
    if !contradicting.is_empty() {
        context.output.remark(&format!(
            "WARNING: {} saw a trail that this one does not go on from: unless this broker was restored from a backup, its history \
             was changed (`outhaul audit list --name witness.conflict`)",
            contradicting.join(", ")
        ))?;
    }
    match newest(&found.witnesses) {
        Some(note) => context.output.text(&note.to_string())?,
        None => context.output.remark(
            "no host has cosigned a checkpoint yet: each does with the renewal after it first saw one",
        )?,
    }
    Ok(code)
}

/// The newest checkpoint that was cosigned, with the signatures of all who cosigned it.
fn newest(witnesses: &[Witness]) -> Option<SignedCheckpoint> {
    let notes = witnesses
        .iter()
        .filter_map(|witness| witness.note.as_deref());
    let mut newest: Option<SignedCheckpoint> = None;
    for note in notes.filter_map(|note| SignedCheckpoint::parse(note).ok()) {
        match &mut newest {
            Some(best) if best.unverified() == note.unverified() => {
                for line in note.signatures() {
                    // Past the limit of a note there are enough.
                    let _ = best.add(line.clone());
                }
            }
            Some(best) if best.unverified().size() >= note.unverified().size() => {}
            Some(_) | None => newest = Some(note),
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use protocol::{
        audit::{Checkpoint, cosignature::cosign},
        key::{Audit, Host, Secret},
    };
    use zeroize::Zeroizing;

    use super::*;

    fn witness(host: &str, size: u64) -> Witness {
        let seed = Zeroizing::new([7; 32]);
        let checkpoint = Checkpoint::new("b/audit", size, [3; 32]).unwrap();
        let line = cosign(&checkpoint, host, &Secret::<Host>::from_seed(&seed), 9).unwrap();
        let mut note = SignedCheckpoint::sign(checkpoint, &[&Secret::<Audit>::from_seed(&seed)]);
        note.add(line).unwrap();
        Witness {
            host: host.into(),
            size: Some(size),
            cosigned_ms: Some(9),
            note: Some(note.to_string()),
            conflict: None,
        }
    }

    #[test]
    fn the_newest_checkpoint_is_shown_with_the_signatures_of_all_who_cosigned_it() {
        let witnesses = [
            witness("a", 3),
            witness("b", 5),
            witness("c", 4),
            witness("d", 5),
        ];
        let note = newest(&witnesses).unwrap();
        assert_eq!(note.unverified().size(), 5);
        let names: Vec<_> = note.signatures().iter().map(|line| line.name()).collect();
        assert_eq!(names, ["b/audit", "b", "d"]);
        assert!(newest(&[]).is_none());
    }
}
