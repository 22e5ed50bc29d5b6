//! How keys other than a host's follow each other: a dispatcher's, which hosts obey, and the broker's issuer key. And what else only a
//! dispatcher can say: that a broker which shows less than before was restored.
//!
//! The old key signs for the new one, so nobody else can make such a word: whoever passes it on can only hold it back. A dispatcher can
//! also take the right of another one away. Hosts take statements on their command topic, like commands, and keep them.

use crate::{
    audit::{SignedCheckpoint, Vkey, note::BadNote},
    key::{Audit, Dispatcher, Issuer, Public, Secret},
    limits::{COMMAND_LIFE_MS_MAX, LEEWAY_S},
    signed::{self, Envelope, Message, Typ, Verified, VerifyError},
    time::UnixMillis,
};

int_map! {
    /// The signer's next key.
    pub struct NextKey {
        /// The key.
        1 => req key: Public<Dispatcher>,
        /// Until when the signer's own is obeyed beside it: commands of it may be on their way.
        2 => req until: UnixMillis,
    }
}

int_map! {
    /// A key that is to be obeyed no more.
    pub struct RevokedKey {
        /// Whose.
        1 => req key: Public<Dispatcher>,
    }
}

int_map! {
    /// The broker was restored from a backup, and that was meant: witnesses go on from here, whatever they had seen until then.
    pub struct RestoredTrail {
        /// When, by the restored broker's clock. What a host has seen since is not undone by this.
        1 => req at: UnixMillis,
        /// The audit key that signed `note`.
        2 => req vkey: String,
        /// A checkpoint of the trail since the restore.
        3 => req note: String,
    }
}

impl RestoredTrail {
    /// The checkpoint, and the key that signed it.
    ///
    /// # Errors
    /// [`BadNote`] if it is none, or the key did not sign it.
    pub fn checkpoint(&self) -> Result<(Vkey<Audit>, SignedCheckpoint), BadNote> {
        let vkey: Vkey<Audit> = self.vkey.parse()?;
        let note = SignedCheckpoint::parse(&self.note)?;
        note.verify(&vkey)?;
        Ok((vkey, note))
    }
}

int_choice! {
    /// What becomes of whose right.
    pub enum Change {
        /// The signer's key is followed by another.
        1 => Next(NextKey),
        /// Another dispatcher's key, and whatever it named, is revoked.
        2 => Revoke(RevokedKey),
        /// The broker's, to show a trail that does not go on from what it showed before.
        3 => Restored(RestoredTrail),
    }
}

int_map! {
    /// What a dispatcher says about the right to be obeyed.
    pub struct Statement {
        /// What changes.
        1 => req change: Change,
        /// When it was said, by the signer's clock.
        2 => req time: UnixMillis,
    }
}

impl Message for Statement {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.dispatcher-statement+cbor");
    type Signer = Dispatcher;
    // A checkpoint has about 300, with the longest names 1,200.
    const BYTES_MAX: usize = 2048;
}

impl Statement {
    /// Whether `bytes` claim to be one: what else comes on a host's command topic is a command.
    #[must_use]
    pub fn is_claimed(bytes: &[u8]) -> bool {
        Envelope::is_at_front(bytes, Self::TYP)
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, key: &Secret<Dispatcher>) -> Vec<u8> {
        signed::sign(key, self, b"")
    }

    /// Checks that one of `keys` said it, and that it may be said.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(
        bytes: &[u8],
        keys: &[Public<Dispatcher>],
        now: UnixMillis,
    ) -> Result<Verified<Self, Dispatcher>, StatementError> {
        let verified = signed::verify::<Self>(bytes, keys, b"")?;
        let said = verified.value();
        if said.time.0 > now.0.saturating_add(LEEWAY_S * 1000) {
            return Err(StatementError::Early);
        }
        let is_bounded = match &said.change {
            Change::Next(next) => {
                let most = said.time.0.saturating_add(COMMAND_LIFE_MS_MAX);
                let is_in_time = next.until >= said.time && next.until.0 <= most;
                is_in_time && next.key != verified.signer()
            }
            Change::Revoke(revoked) => revoked.key != verified.signer(),
            Change::Restored(restored) => {
                restored.checkpoint()?;
                restored.at <= said.time
            }
        };
        if is_bounded {
            Ok(verified)
        } else {
            Err(StatementError::Bounds)
        }
    }
}

/// Why a statement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not signed by one of the keys, or not a statement.
    #[error("statement: {0}")]
    Unverified(#[from] VerifyError),
    /// Dated in the future.
    #[error("statement: dated in the future")]
    Early,
    /// About the signer's own key, with an overlap that no command needs, or of a restore that is to come.
    #[error("statement: out of bounds")]
    Bounds,
    /// The checkpoint in it is none, or not signed by the key beside it.
    #[error("statement: the checkpoint is {0}")]
    Checkpoint(#[from] BadNote),
}

int_map! {
    /// The broker's issuer key is followed by another. Nobody but the broker checks tokens; the audit trail keeps this for who asks later
    /// which keys were the broker's.
    pub struct IssuerSuccession {
        /// The broker's name in tokens: it stays.
        1 => req audience: String,
        /// The next key.
        2 => req key: Public<Issuer>,
        /// When, by the broker's clock.
        3 => req time: UnixMillis,
        /// Until when tokens of the signer are accepted.
        4 => req until: UnixMillis,
    }
}

impl Message for IssuerSuccession {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.issuer-succession+cbor");
    type Signer = Issuer;
    const BYTES_MAX: usize = 512;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::Checkpoint, key::seeded};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn next(until: u64, key: u8) -> Change {
        Change::Next(NextKey {
            key: seeded::<Dispatcher>(key).public(),
            until: UnixMillis(NOW.0 + until),
        })
    }

    fn verify(change: Change, time: UnixMillis, signer: u8) -> Result<(), StatementError> {
        let bytes = Statement { change, time }.sign(&seeded(signer));
        assert!(Statement::is_claimed(&bytes));
        let keys = [1, 2].map(|byte| seeded::<Dispatcher>(byte).public());
        Statement::verify(&bytes, &keys, NOW).map(|_| ())
    }

    #[test]
    fn a_statement_is_anothers_word_in_its_time_and_bounds() {
        let early = UnixMillis(NOW.0 + 61_000);
        let unknown = Err(StatementError::Unverified(VerifyError::UnknownKey));
        let bounds = Err(StatementError::Bounds);
        let revoke = |key: u8| {
            Change::Revoke(RevokedKey {
                key: seeded::<Dispatcher>(key).public(),
            })
        };
        assert_eq!(verify(next(0, 3), NOW, 1), Ok(()));
        assert_eq!(verify(next(COMMAND_LIFE_MS_MAX, 3), NOW, 1), Ok(()));
        assert_eq!(verify(next(COMMAND_LIFE_MS_MAX + 1, 3), NOW, 1), bounds);
        assert_eq!(verify(next(0, 3), UnixMillis(NOW.0 + 1), 1), bounds);
        assert_eq!(verify(next(0, 1), NOW, 1), bounds, "its own");
        assert_eq!(verify(revoke(2), NOW, 1), Ok(()));
        assert_eq!(verify(revoke(1), NOW, 1), bounds, "its own");
        assert_eq!(verify(revoke(1), NOW, 3), unknown);
        assert_eq!(verify(revoke(2), early, 1), Err(StatementError::Early));
    }

    #[test]
    fn a_restore_is_named_by_a_checkpoint_that_its_key_signed_and_lies_behind() {
        let audit = seeded::<Audit>(7);
        let vkey = Vkey::new("a.example/audit", audit.public()).unwrap();
        let checkpoint = Checkpoint::new(vkey.name(), 3, [9; 32]).unwrap();
        let signed = SignedCheckpoint::sign(checkpoint, &[&audit]);
        let restored = |at: u64, key: u8| {
            let vkey = Vkey::new(vkey.name(), seeded::<Audit>(key).public()).unwrap();
            Change::Restored(RestoredTrail {
                at: UnixMillis(at),
                vkey: vkey.to_string(),
                note: signed.to_string(),
            })
        };
        assert_eq!(verify(restored(NOW.0, 7), NOW, 1), Ok(()));
        let bounds = Err(StatementError::Bounds);
        assert_eq!(verify(restored(NOW.0 + 1, 7), NOW, 1), bounds);
        let unsigned = Err(StatementError::Checkpoint(BadNote::Unsigned));
        assert_eq!(verify(restored(NOW.0, 8), NOW, 1), unsigned);
        let unknown = Err(StatementError::Unverified(VerifyError::UnknownKey));
        assert_eq!(verify(restored(NOW.0, 7), NOW, 3), unknown);
    }

    #[test]
    fn a_command_is_no_statement() {
        let keys = [seeded::<Dispatcher>(1).public()];
        for bytes in [&b""[..], &[0x84; 40]] {
            assert!(!Statement::is_claimed(bytes));
            assert!(Statement::verify(bytes, &keys, NOW).is_err());
        }
    }
}
