//! Signed text (C2SP `signed-note`): a text, an empty line, and a line for each signature.
//!
//! A signature's line names a key and carries the first four bytes of that key's hash, so a reader finds those of keys that it knows and
//! passes over the others.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::checkpoint::Checkpoint;
use super::{from_base64, to_base64};
use crate::id::hex;
use crate::key::{Audit, BadKey, Host, Public, Role};

/// The longest signed note, in bytes: 64 signatures of Ed25519 keys with ordinary names, or some of longer kinds.
pub const NOTE_BYTES_MAX: usize = 32 * 1024;

/// Signatures of one note. `signed-note` asks for 16 at least; more hosts than these cosign no checkpoint to any purpose.
pub const NOTE_SIGNATURES_MAX: usize = 64;

/// The longest name of a key, and origin of a log, in bytes: two ids with words between them fit.
pub const KEY_NAME_BYTES_MAX: usize = 256;

/// The longest verifier's key, in bytes: a name, 8 digits, and 33 bytes in base64.
pub const VKEY_BYTES_MAX: usize = KEY_NAME_BYTES_MAX + 8 + 44 + 2;

/// What every signature's line starts with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// Why a note was refused. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// Longer than any of ours, or more signatures.
    #[error("longer than its limit")]
    TooLong,
    /// Not of the form that the specification gives, to the byte.
    #[error("not well-formed")]
    Malformed,
    /// Another log's.
    #[error("of another log")]
    Origin,
    /// The key that was asked for did not sign.
    #[error("not signed with this key")]
    Unsigned,
    /// A signature in the key's name does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// The verifier's key is not one.
    #[error("not a verifier's key of this kind")]
    Key,
}

impl From<BadKey> for BadNote {
    fn from(_: BadKey) -> Self {
        Self::Key
    }
}

/// A role whose keys sign notes.
pub trait NoteRole: Role {
    /// The signature type of `signed-note`, which goes into the key's hash.
    const SIGNATURE_TYPE: u8;
}

impl NoteRole for Audit {
    /// Ed25519 over the text.
    const SIGNATURE_TYPE: u8 = 1;
}

impl NoteRole for Host {
    /// A cosignature with a time.
    const SIGNATURE_TYPE: u8 = 4;
}

/// Whether `name` may name a key or a log: 1 to [`KEY_NAME_BYTES_MAX`] bytes without spaces, control characters and plus signs.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A key that verifies notes, by its name: `<name>+<hash>+<base64>`.
pub struct Vkey<R> {
    name: String,
    key: Public<R>,
}

impl<R: NoteRole> Vkey<R> {
    /// Names a key.
    ///
    /// # Errors
    /// [`BadNote::Key`] if the name is none.
    pub fn new(name: &str, key: Public<R>) -> Result<Self, BadNote> {
        if !is_key_name(name) {
            return Err(BadNote::Key);
        }
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }

    /// The key of the log that a checkpoint speaks of, whose origin is a name.
    pub(super) fn of_origin(checkpoint: &Checkpoint, key: Public<R>) -> Self {
        Self {
            name: checkpoint.origin().to_owned(),
            key,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Public<R> {
        &self.key
    }

    /// The start of its hash, which its signatures carry: `SHA-256(name ‖ 0x0A ‖ type ‖ key)[:4]`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', R::SIGNATURE_TYPE])
            .chain_update(self.key.as_bytes())
            .finalize()
            .into();
        [a, b, c, d]
    }

    /// A line for a signature of this key.
    pub(super) fn line(&self, signature: &[u8]) -> SignatureLine {
        SignatureLine {
            name: self.name.clone(),
            key_id: self.id(),
            signature: signature.to_vec(),
        }
    }
}

impl<R> Clone for Vkey<R> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            key: self.key,
        }
    }
}

impl<R> PartialEq for Vkey<R> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.key == other.key
    }
}

impl<R> Eq for Vkey<R> {}

impl<R: NoteRole> fmt::Display for Vkey<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed: Vec<u8> = [R::SIGNATURE_TYPE]
            .into_iter()
            .chain(*self.key.as_bytes())
            .collect();
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), to_base64(&typed))
    }
}

impl<R: NoteRole> fmt::Debug for Vkey<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<R: NoteRole> std::str::FromStr for Vkey<R> {
    type Err = BadNote;
    fn from_str(text: &str) -> Result<Self, BadNote> {
        let text = text.trim();
        if text.len() > VKEY_BYTES_MAX {
            return Err(BadNote::Key);
        }
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(_), Some(key)) = (name, id, key) else {
            return Err(BadNote::Key);
        };
        let typed: [u8; 33] = from_base64(key)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(BadNote::Key)?;
        let (kind, key) = typed.split_first().ok_or(BadNote::Key)?;
        let key = <&[u8; 32]>::try_from(key).map_err(|_| BadNote::Key)?;
        if *kind != R::SIGNATURE_TYPE {
            return Err(BadNote::Key);
        }
        let vkey = Self::new(name, Public::from_bytes(key)?)?;
        // As we would write it: the hash is its own, and in lower case.
        if vkey.to_string() != text {
            return Err(BadNote::Key);
        }
        Ok(vkey)
    }
}

/// One signature under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

impl SignatureLine {
    /// Who says to have signed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The start of the hash of the key that it says to be of.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The signature's bytes; what they are is the key's to say.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether it says to be of this key.
    #[must_use]
    pub fn is_of<R: NoteRole>(&self, vkey: &Vkey<R>) -> bool {
        self.name == vkey.name && self.key_id == vkey.id()
    }
}

impl fmt::Display for SignatureLine {
    /// The line, without its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id, self.signature.as_slice()].concat();
        write!(f, "{DASH}{} {}", self.name, to_base64(&bytes))
    }
}

impl std::str::FromStr for SignatureLine {
    type Err = BadNote;
    /// Reads a line without its newline.
    fn from_str(line: &str) -> Result<Self, BadNote> {
        if line.len() > NOTE_BYTES_MAX {
            return Err(BadNote::TooLong);
        }
        let (name, encoded) = line
            .strip_prefix(DASH)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(BadNote::Malformed)?;
        let bytes = from_base64(encoded).ok_or(BadNote::Malformed)?;
        match bytes.split_first_chunk() {
            Some((key_id, signature)) if is_key_name(name) && !signature.is_empty() => Ok(Self {
                name: name.to_owned(),
                key_id: *key_id,
                signature: signature.to_vec(),
            }),
            _ => Err(BadNote::Malformed),
        }
    }
}

/// Takes a note apart: its text, with the newline that ends it, and its signatures, one at least. Nothing is verified.
///
/// # Errors
/// [`BadNote`] if it is not a note in the one form that it has.
pub fn parse(note: &str) -> Result<(&str, Vec<SignatureLine>), BadNote> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(BadNote::TooLong);
    }
    if note.contains(|c: char| c.is_ascii_control() && c != '\n') {
        return Err(BadNote::Malformed);
    }
    // The last empty line divides; the text keeps the newline before it.
    let divide = note.rfind("\n\n").ok_or(BadNote::Malformed)?;
    let (text, lines) = note
        .split_at_checked(divide + 1)
        .ok_or(BadNote::Malformed)?;
    let lines = lines
        .strip_prefix('\n')
        .and_then(|lines| lines.strip_suffix('\n'))
        .ok_or(BadNote::Malformed)?;
    if lines.split('\n').count() > NOTE_SIGNATURES_MAX {
        return Err(BadNote::TooLong);
    }
    let signatures = lines
        .split('\n')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok((text, signatures))
}

/// Puts a note together; `text` ends with a newline.
#[must_use]
pub fn format(text: &str, signatures: &[SignatureLine]) -> String {
    let mut note = format!("{text}\n");
    for line in signatures {
        note.push_str(&line.to_string());
        note.push('\n');
    }
    note
}
