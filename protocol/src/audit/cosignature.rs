//! What a witness adds to a checkpoint (C2SP `tlog-cosignature`, Ed25519): that it follows from all that it saw before, and when.
//!
//! Signed are two lines, `cosignature/v1` and `time N`, and the checkpoint's text. The signature's line carries N, 8 bytes, and the
//! signature.

use super::checkpoint::Checkpoint;
use super::note::{BadNote, NoteRole, SignatureLine, Vkey};
use crate::key::Secret;

/// Cosigns a checkpoint as `name`, at `time_s` seconds since 1970.
///
/// The caller has checked that the checkpoint is the log's, and that it goes on from the one that it cosigned before.
///
/// # Errors
/// [`BadNote::Key`] if `name` cannot name a key.
pub fn cosign<R: NoteRole>(
    checkpoint: &Checkpoint,
    name: &str,
    key: &Secret<R>,
    time_s: u64,
) -> Result<SignatureLine, BadNote> {
    let signature = key.sign(message(&checkpoint.to_string(), time_s).as_bytes());
    let mut timed = time_s.to_be_bytes().to_vec();
    timed.extend_from_slice(&signature);
    Ok(Vkey::new(name, key.public())?.line(&timed))
}

/// The time of a cosignature over the checkpoint's text, in seconds since 1970.
pub(super) fn verify<R: NoteRole>(
    text: &str,
    line: &SignatureLine,
    vkey: &Vkey<R>,
) -> Result<u64, BadNote> {
    let (time, signature) = line
        .signature()
        .split_first_chunk()
        .ok_or(BadNote::Signature)?;
    let time_s = u64::from_be_bytes(*time);
    let signature = signature.try_into().map_err(|_| BadNote::Signature)?;
    // The specification's end of time: what passes it was not written by a clock.
    if i64::try_from(time_s).is_err() {
        return Err(BadNote::Signature);
    }
    vkey.key()
        .verify(message(text, time_s).as_bytes(), signature)
        .map_err(|_| BadNote::Signature)?;
    Ok(time_s)
}

fn message(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}
