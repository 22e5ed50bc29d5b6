//! What a log says of itself (C2SP `tlog-checkpoint`): which log, how many leaves, which root.

use std::fmt;

use super::cosignature;
use super::note::{self, BadNote, NOTE_SIGNATURES_MAX, NoteRole, SignatureLine, Vkey, is_key_name};
use super::tree::Hash;
use super::{decimal, hash_from_base64, to_base64};
use crate::key::{Audit, Secret};

/// What a broker's audit trail is called, where its audience is `audience`.
#[must_use]
pub fn origin(audience: &str) -> String {
    format!("{audience}/audit")
}

/// A state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
}

impl Checkpoint {
    /// A state of the log `origin`: its first `size` leaves have the root `root`.
    ///
    /// # Errors
    /// [`BadNote::Origin`] if the origin cannot name a key as well, which ours does.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, BadNote> {
        if !is_key_name(origin) {
            return Err(BadNote::Origin);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }

    /// Which log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Reads a note's text. Lines beyond the third are refused: ours has none, and nobody could audit them.
    ///
    /// # Errors
    /// [`BadNote`] if it is not three lines in their one form.
    pub fn parse(text: &str) -> Result<Self, BadNote> {
        let mut lines = text
            .strip_suffix('\n')
            .ok_or(BadNote::Malformed)?
            .split('\n');
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let (Some(origin), Some(size), Some(root), None) = (origin, size, root, lines.next())
        else {
            return Err(BadNote::Malformed);
        };
        let size = decimal(size).ok_or(BadNote::Malformed)?;
        let root = hash_from_base64(root).ok_or(BadNote::Malformed)?;
        Self::new(origin, size, root).map_err(|_| BadNote::Malformed)
    }

    /// Signs it in the log's own name.
    ///
    /// The caller has made sure that it is consistent with every checkpoint signed before.
    #[must_use]
    pub fn sign(&self, key: &Secret<Audit>) -> SignatureLine {
        let signature = key.sign(self.to_string().as_bytes());
        Vkey::of_origin(self, key.public()).line(&signature)
    }
}

impl fmt::Display for Checkpoint {
    /// The note's text: what is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, size, root } = self;
        writeln!(f, "{origin}\n{size}\n{}", to_base64(root))
    }
}

/// A checkpoint and who signed it, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    signatures: Vec<SignatureLine>,
}

impl SignedCheckpoint {
    /// Signs a checkpoint with the log's keys: one, or while a key gives way to the next, both.
    #[must_use]
    pub fn sign(checkpoint: Checkpoint, keys: &[&Secret<Audit>]) -> Self {
        let signatures = keys.iter().map(|key| checkpoint.sign(key)).collect();
        Self {
            checkpoint,
            signatures,
        }
    }

    /// Reads a signed note.
    ///
    /// # Errors
    /// [`BadNote`] if it is not a checkpoint in the one form that it has.
    pub fn parse(note: &str) -> Result<Self, BadNote> {
        let (text, signatures) = note::parse(note)?;
        Ok(Self {
            checkpoint: Checkpoint::parse(text)?,
            signatures,
        })
    }

    /// What it says, whoever says so. To be believed it has to be verified.
    #[must_use]
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Its signatures, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// What it says, if the log's key `vkey` signed it. Lines of other keys are passed over.
    ///
    /// # Errors
    /// [`BadNote`] if it is another log's, the key did not sign, or a signature in its name does not verify.
    pub fn verify(&self, vkey: &Vkey<Audit>) -> Result<&Checkpoint, BadNote> {
        if self.checkpoint.origin != vkey.name() {
            return Err(BadNote::Origin);
        }
        let text = self.checkpoint.to_string();
        self.each_of(vkey, |line| {
            let signature = line
                .signature()
                .try_into()
                .map_err(|_| BadNote::Signature)?;
            vkey.key()
                .verify(text.as_bytes(), signature)
                .map_err(|_| BadNote::Signature)
        })?;
        Ok(&self.checkpoint)
    }

    /// When the witness `vkey` cosigned it, in seconds since 1970; the latest time if more than once.
    ///
    /// # Errors
    /// [`BadNote`] if the key did not cosign, or a cosignature in its name does not verify.
    pub fn verify_cosigned<R: NoteRole>(&self, vkey: &Vkey<R>) -> Result<u64, BadNote> {
        let text = self.checkpoint.to_string();
        let mut latest = 0;
        self.each_of(vkey, |line| {
            latest = latest.max(cosignature::verify(&text, line, vkey)?);
            Ok(())
        })?;
        Ok(latest)
    }

    /// Adds a signature of another; one that is there already is not added twice.
    ///
    /// # Errors
    /// [`BadNote::TooLong`] if there is no room for one more.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), BadNote> {
        if self.signatures.contains(&line) {
            return Ok(());
        }
        if self.signatures.len() >= NOTE_SIGNATURES_MAX {
            return Err(BadNote::TooLong);
        }
        self.signatures.push(line);
        Ok(())
    }

    fn each_of<R: NoteRole>(
        &self,
        vkey: &Vkey<R>,
        mut check: impl FnMut(&SignatureLine) -> Result<(), BadNote>,
    ) -> Result<(), BadNote> {
        let mut lines = self
            .signatures
            .iter()
            .filter(|line| line.is_of(vkey))
            .peekable();
        lines.peek().ok_or(BadNote::Unsigned)?;
        lines.try_for_each(&mut check)
    }
}

impl fmt::Display for SignedCheckpoint {
    /// The whole note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&note::format(
            &self.checkpoint.to_string(),
            &self.signatures,
        ))
    }
}
