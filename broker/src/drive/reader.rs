//! Readers: added and removed by the owner, checked by the gate, and where each goes on.

use std::{sync::PoisonError, time::Duration};

use anyhow::Context as _;
use protocol::{id::ReaderName, reader_token::ReaderToken, time::UnixMillis};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Accepted, Denied, Peer, Plane, Withdrawn, clerk::Errand};
use crate::{
    core::{
        gate::Kept,
        journal::{Entry, RecordKind, bench_payload},
        reader::{self, Account, Admitted, BadReader, Reader, Rights},
    },
    shell::{
        journal::Journal,
        keys::fill_random,
        places::PlaceFile,
        room::Waits,
        store::{NewReader, ReaderRow},
    },
};

/// How long a reader that goes may take to have its place kept: less than a newcomer waits for its seat.
const KEEP_LAST_WAIT: Duration = Duration::from_secs(2);

/// A reader, made: its token is shown once.
#[derive(Debug)]
pub struct NewToken {
    /// `ort1_…`. Wiped on drop.
    pub token: ReaderToken,
    /// When it ends.
    pub expires: UnixMillis,
}

impl Plane {
    /// Adds a reader, whose token is good for `life`. `None`: the name is taken. Blocks.
    ///
    /// # Errors
    /// The disk refuses, or the system gives no random bytes.
    pub fn add_reader(
        &self,
        name: &ReaderName,
        rights: Rights,
        life: Duration,
        peer: &Peer,
    ) -> anyhow::Result<Option<NewToken>> {
        let (mut kid, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        fill_random(&mut kid)?;
        fill_random(&mut *secret)?;
        let token = ReaderToken::new(kid, secret);
        let now = self.now();
        let expires = peer.outlive(now.plus(life));
        let new = NewReader {
            account: Account {
                name: name.clone(),
                secret_sha256: token.hash(),
                rights,
                expires_ms: expires.0,
            },
            kid,
            added_ms: now.0,
            actor: peer.actor(),
        };
        if !self.store().add_reader(&new)? {
            return Ok(None);
        }
        self.load_readers()?;
        Ok(Some(NewToken { token, expires }))
    }

    /// Takes a reader's rights away; its connections are closed. `false`: there is none of that name. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_reader(&self, name: &ReaderName, peer: &Peer) -> anyhow::Result<bool> {
        let removed = self
            .store()
            .remove_reader(name, &peer.actor(), self.now().0)?;
        if removed {
            self.load_readers()?;
            // Nobody listens where no gate runs.
            let _ = self.inner.withdrawn.send(Withdrawn::Reader(name.clone()));
        }
        Ok(removed)
    }

    /// All readers, by name. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn readers(&self) -> anyhow::Result<Vec<ReaderRow>> {
        self.store().readers()
    }

    /// What kinds of readers are let in.
    #[must_use]
    pub fn admitted(&self) -> Admitted {
        self.inner.parts.admitted
    }

    /// Checks a reader's token as it was shown.
    ///
    /// # Errors
    /// [`BadReader`].
    pub fn check_reader(&self, shown: &[u8], now: UnixMillis) -> Result<Reader, BadReader> {
        let readers = self.inner.readers.read();
        let readers = readers.unwrap_or_else(PoisonError::into_inner);
        reader::check(shown, &readers, self.admitted(), now)
    }

    /// Whether there is a reader of that name.
    #[must_use]
    pub fn is_reader(&self, name: &ReaderName) -> bool {
        let readers = self.inner.readers.read();
        let readers = readers.unwrap_or_else(PoisonError::into_inner);
        readers.values().any(|account| account.name == *name)
    }

    /// What is known of every reader.
    #[must_use]
    pub fn reader_accounts(&self) -> Vec<Account> {
        let readers = self.inner.readers.read();
        let readers = readers.unwrap_or_else(PoisonError::into_inner);
        readers.values().cloned().collect()
    }

    /// Whether the reader of that name is for load tests.
    #[must_use]
    pub fn is_load_test(&self, name: &ReaderName) -> bool {
        let readers = self.inner.readers.read();
        let readers = readers.unwrap_or_else(PoisonError::into_inner);
        let mut of_name = readers.values().filter(|account| account.name == *name);
        of_name.any(|account| account.rights == Rights::Bench)
    }

    pub(super) fn load_readers(&self) -> anyhow::Result<()> {
        let accounts = self.store().reader_accounts()?;
        let mut readers = self
            .inner
            .readers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *readers = accounts;
        Ok(())
    }

    /// The journal's partition for load tests, if there is one.
    #[must_use]
    pub fn bench(&self) -> Option<&Journal> {
        self.inner.parts.bench.as_ref()
    }

    /// Takes messages of a load test, of one topic; answers for each, in their order, when all of them are durable. Nothing in them is
    /// looked at.
    pub async fn accept_bench(&self, topic: &str, payloads: &[Vec<u8>]) -> Vec<Accepted> {
        let all = |accepted| vec![accepted; payloads.len()];
        let Some(journal) = self.bench() else {
            return all(Accepted::Failed);
        };
        let framed: Option<Vec<_>> = payloads
            .iter()
            .map(|payload| bench_payload(topic, payload))
            .collect();
        let Some(framed) = framed else {
            return all(Accepted::Malformed);
        };
        if self.room().refuse(Waits::Bench).is_some() {
            return all(Accepted::Busy);
        }
        let entry = |payload| Entry {
            kind: RecordKind::Bench,
            host: BENCH_HOST,
            sandbox: None,
            time_ms: self.now().0,
            payload,
        };
        let entries = framed.iter().map(|payload| entry(payload));
        let bytes = entries.clone().map(|entry| entry.frame_bytes()).sum();
        let mut slot = match self.place(journal, bytes).await {
            Ok(slot) => slot,
            Err(refused) => return all(refused),
        };
        for entry in entries {
            if slot.push(&entry).is_err() {
                return all(Accepted::Failed);
            }
        }
        if slot.submit().await.is_err() {
            return all(Accepted::Failed);
        }
        all(Accepted::Stored)
    }

    /// Where a reader's session goes on; forgotten here if it is not wanted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn take_up_session(
        &self,
        name: &ReaderName,
        client_id: &str,
        resume: bool,
    ) -> anyhow::Result<Option<Kept>> {
        let (name, client_id) = (name.clone(), client_id.to_owned());
        self.blocking(move |plane| {
            if resume {
                let kept = plane
                    .store()
                    .kept_session(&name, &client_id, plane.now().0)?;
                let place = plane.inner.parts.places.read(&name, &client_id);
                return Ok(kept.map(|kept| kept.at(place)));
            }
            // Looked at first: most who begin anew never had one, and a look costs no write.
            if plane.store().kept_session(&name, &client_id, 0)?.is_some() {
                plane.store().forget_session(&name, &client_id)?;
            }
            Ok(None)
        })
        .await
    }

    /// Where a reader's place is written down at every step; none if the disk refuses.
    pub async fn take_place(
        &self,
        name: &ReaderName,
        client_id: &str,
        goes_on: bool,
    ) -> Option<PlaceFile> {
        let (name, client_id) = (name.clone(), client_id.to_owned());
        let take = move |plane: &Self| {
            let file = plane.inner.parts.places.take(&name, &client_id, goes_on);
            file.context("open the file of a reader's place")
        };
        self.blocking(take)
            .await
            .inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::warn!(error, "a reader's place is not written down at every step: if this broker is killed, messages come to it twice");
            })
            .ok()
    }

    /// Forgets a reader's session: it ended, and was not to be kept.
    pub async fn forget_session(&self, name: &ReaderName, client_id: &str) {
        let (name, client_id) = (name.clone(), client_id.to_owned());
        let forget = move |plane: &Self| {
            plane.store().forget_session(&name, &client_id)?;
            plane.inner.parts.places.forget(&name, &client_id);
            Ok(())
        };
        if let Err(error) = self.blocking(forget).await {
            let error = format!("{error:#}");
            tracing::warn!(error, "a reader's session was not forgotten");
        }
    }

    /// Keeps a reader's session for `seconds` from now, in its own time.
    pub fn keep_session(&self, name: &ReaderName, client_id: &str, kept: Kept, seconds: u32) {
        let errand = self.session_errand(name, client_id, kept, seconds);
        if let Err(error) = self.inner.errands.try_send(errand) {
            tracing::warn!(%error, "a reader's place was not kept: some messages will come to it twice");
        }
    }

    /// The same, and waits until it is kept; at most [`KEEP_LAST_WAIT`], since somebody may want the seat of who waits.
    pub async fn keep_session_now(
        &self,
        name: &ReaderName,
        client_id: &str,
        kept: Kept,
        seconds: u32,
    ) {
        let errand = self.session_errand(name, client_id, kept, seconds);
        let (done, said) = tokio::sync::oneshot::channel();
        let keeping = async {
            if self.inner.errands.send(errand).await.is_ok()
                && self.inner.errands.send(Errand::Say(done)).await.is_ok()
            {
                let _ = said.await;
            }
        };
        if timeout(KEEP_LAST_WAIT, keeping).await.is_err() {
            tracing::warn!(
                "a reader's place was not kept in time: some messages may come to it twice"
            );
        }
    }

    fn session_errand(
        &self,
        name: &ReaderName,
        client_id: &str,
        kept: Kept,
        seconds: u32,
    ) -> Errand {
        let life = Duration::from_secs(u64::from(seconds));
        Errand::Keep {
            name: name.clone(),
            client_id: client_id.to_owned(),
            kept,
            expires: self.now().plus(life),
        }
    }
}

/// Stands where a record of the journal names its host.
const BENCH_HOST: &str = "bench";

impl From<BadReader> for Denied {
    fn from(bad: BadReader) -> Self {
        Self::Reader(bad)
    }
}
