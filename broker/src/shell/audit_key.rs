//! The key that signs the audit trail, and how the next one takes its place.
//!
//! A new key is on disk, as `audit.next.key`, before the trail names it; it becomes `audit.key` after that. A crash between the two is
//! put right at the next start, by which key the trail has named last.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use protocol::{
    audit::{Vkey, checkpoint},
    key::{Audit, Secret},
};
use zeroize::Zeroizing;

use super::{
    keys::{self, DataDir, fill_random, read_secret, write_secret},
    store::{CheckpointRow, Inconsistent, Store},
};

const FILE: &str = "audit.key";
const NEXT_FILE: &str = "audit.next.key";

/// The audit key in use.
#[derive(Debug)]
pub struct AuditKey {
    directory: DataDir,
    /// What the trail is called: as it was when its first key was named.
    origin: String,
    current: Mutex<Arc<Secret<Audit>>>,
    /// Why the trail is not signed any more, if it is not.
    fault: Mutex<Option<Inconsistent>>,
}

impl AuditKey {
    /// Takes up the key that was read from the directory, and settles what a crash left of a rotation. The first key of a trail is
    /// named in the store.
    ///
    /// # Errors
    /// The trail was last signed with a key that is not here, or the disk refuses.
    pub fn open(
        directory: &DataDir,
        key: Secret<Audit>,
        store: &Store,
        audience: &str,
    ) -> anyhow::Result<Self> {
        let (origin, key) = match store.audit_keys()?.pop() {
            None => {
                let origin = checkpoint::origin(audience);
                store.begin_audit_keys(&Vkey::new(&origin, key.public())?)?;
                (origin, key)
            }
            Some((_, named)) => (
                named.name().to_owned(),
                settle(directory, key, &named).context("open the audit key")?,
            ),
        };
        Ok(Self {
            directory: directory.clone(),
            origin,
            current: Mutex::new(Arc::new(key)),
            fault: Mutex::default(),
        })
    }

    /// Why the trail is not signed any more, if it is not.
    #[must_use]
    pub fn fault(&self) -> Option<Inconsistent> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes down what was found at the last signing; whether that is news.
    pub fn note(&self, fault: Option<&Inconsistent>) -> bool {
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last.as_ref() != fault;
        *last = fault.cloned();
        is_news
    }

    /// What the trail is called.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key.
    #[must_use]
    pub fn current(&self) -> Arc<Secret<Audit>> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs the trail as it stands; the newest checkpoint. Blocks.
    ///
    /// # Errors
    /// As [`Store::sign_checkpoint`].
    pub fn sign(&self, store: &Store, time_ms: u64) -> anyhow::Result<CheckpointRow> {
        // Held throughout: what a key signs comes before it gives way to another.
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        store.sign_checkpoint(time_ms, &current, &self.origin)
    }

    /// Makes a new key, hands the trail over to it, and gives the checkpoint that both signed. Blocks.
    ///
    /// # Errors
    /// As [`Store::hand_over_audit`], or the disk refuses. The old key goes on then.
    pub fn rotate(
        &self,
        store: &Store,
        time_ms: u64,
        actor: &str,
    ) -> anyhow::Result<CheckpointRow> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(&mut *seed)?;
        let next = Secret::<Audit>::from_seed(&seed);
        let text = next.to_file_text();
        write_secret(&self.directory.key(NEXT_FILE), text.as_bytes())?;
        let row = store.hand_over_audit(time_ms, actor, (&current, &next), &self.origin)?;
        // From here on the trail is the new key's, whatever becomes of the files: a start puts those right.
        *current = Arc::new(next);
        write_secret(&self.directory.key(FILE), text.as_bytes())?;
        keys::remove(&self.directory.key(NEXT_FILE))?;
        Ok(row)
    }
}

/// The key that the trail named last, wherever a rotation left it.
fn settle(
    directory: &DataDir,
    key: Secret<Audit>,
    named: &Vkey<Audit>,
) -> anyhow::Result<Secret<Audit>> {
    let next_path = directory.key(NEXT_FILE);
    if key.public() == *named.key() {
        keys::remove(&next_path)?;
        return Ok(key);
    }
    if let Some(text) = read_secret(&next_path)? {
        let next = Secret::<Audit>::from_file_text(&text)
            .with_context(|| format!("read key {}", next_path.display()))?;
        if next.public() == *named.key() {
            write_secret(&directory.key(FILE), text.as_bytes())?;
            keys::remove(&next_path)?;
            return Ok(next);
        }
    }
    bail!(
        "{} is {}, and the audit trail was last signed with {}: put that key's file there, from a backup of the keys that is no \
         older than the trail",
        directory.key(FILE).display(),
        key.public(),
        named.key()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &DataDir, byte: u8, store: &Store) -> anyhow::Result<AuditKey> {
        let key = match read_secret(&directory.key(FILE))? {
            Some(text) => Secret::from_file_text(&text)?,
            None => Secret::from_seed(&Zeroizing::new([byte; 32])),
        };
        write_secret(&directory.key(FILE), key.to_file_text().as_bytes())?;
        AuditKey::open(directory, key, store, "outhaul-1")
    }

    #[test]
    fn a_crash_in_a_rotation_leaves_the_key_that_the_trail_named() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        let store = Store::open(&directory.store()).unwrap();
        let first = open(&directory, 1, &store).unwrap();
        assert_eq!(first.origin(), "outhaul-1/audit");
        let old = first.current();
        // Before the trail names the next key: that one was never used.
        write_secret(
            &directory.key(NEXT_FILE),
            secret(2).to_file_text().as_bytes(),
        )
        .unwrap();
        let again = open(&directory, 1, &store).unwrap();
        assert_eq!(again.current().public(), old.public());
        assert!(!directory.key(NEXT_FILE).exists());
        // After it: the next key is the key, though its file has the other name.
        again.rotate(&store, 5, "uid:0").unwrap();
        let new = again.current();
        assert_ne!(new.public(), old.public());
        write_secret(&directory.key(NEXT_FILE), new.to_file_text().as_bytes()).unwrap();
        write_secret(&directory.key(FILE), old.to_file_text().as_bytes()).unwrap();
        let again = open(&directory, 1, &store).unwrap();
        assert_eq!(again.current().public(), new.public());
        assert!(!directory.key(NEXT_FILE).exists());
        let third = open(&directory, 1, &store).unwrap();
        assert_eq!(third.current().public(), new.public());
        // Neither: a backup of the keys that is too old.
        write_secret(&directory.key(FILE), old.to_file_text().as_bytes()).unwrap();
        let error = format!("{:#}", open(&directory, 1, &store).unwrap_err());
        assert!(error.contains("was last signed with oha1_"), "{error}");
    }

    fn secret(byte: u8) -> Secret<Audit> {
        Secret::from_seed(&Zeroizing::new([byte; 32]))
    }
}
