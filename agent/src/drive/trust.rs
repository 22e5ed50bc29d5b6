//! Whom this host trusts now, on disk and in the connections to come.

use std::sync::Arc;

use anyhow::Context as _;
use protocol::bundle::fingerprint;
use rustls::time_provider::TimeProvider;
use serde_bytes::ByteBuf;

use crate::core::trust::Learned;
use crate::shell::exchange::ALPN;
use crate::shell::store::Store;
use crate::shell::tls::{Tls, certificates, to_pem};

/// The ALPN of MQTT on the broker's port.
const ALPN_MQTT: &[u8] = b"mqtt";

/// The bundle's authorities, what was learned since, and the clients made of both.
pub(super) struct Trust {
    bundle_pem: Vec<u8>,
    time: Arc<dyn TimeProvider>,
    learned: Learned,
    pub(super) clients: Clients,
}

/// One client for each way to speak, and the authorities that they trust.
#[derive(Clone)]
pub(super) struct Clients {
    /// The bundle's and the learned, PEM: the `ca.crt` of sandboxes.
    pub(super) ca_pem: Arc<[u8]>,
    pub(super) exchange: Tls,
    pub(super) mqtt: Tls,
}

impl Trust {
    pub(super) fn open(
        bundle_pem: &[u8],
        store: &Store,
        time: Arc<dyn TimeProvider>,
    ) -> anyhow::Result<Self> {
        let hash = *blake3::hash(bundle_pem).as_bytes();
        let learned = Learned::under(&hash, store.load_learned()?);
        Ok(Self {
            clients: Clients::new(bundle_pem, &learned, &time)?,
            bundle_pem: bundle_pem.to_vec(),
            time,
            learned,
        })
    }

    /// Takes what the broker named in a grant. On disk first: a broker that uses its next authority must find us knowing it.
    pub(super) fn learn(&mut self, told: &[ByteBuf], store: &Store) -> anyhow::Result<()> {
        let Some(next) = self.learned.after(told) else {
            return Ok(());
        };
        let clients = Clients::new(&self.bundle_pem, &next, &self.time)
            .context("use the authorities that the broker names")?;
        store.save_learned(&next)?;
        let prints: Vec<_> = next.authorities().map(fingerprint).collect();
        tracing::info!(
            sha256 = prints.join(" "),
            "the broker names these certificate authorities: this host trusts them beside its bundle's"
        );
        self.learned = next;
        self.clients = clients;
        Ok(())
    }
}

impl Clients {
    fn new(
        bundle_pem: &[u8],
        learned: &Learned,
        time: &Arc<dyn TimeProvider>,
    ) -> anyhow::Result<Self> {
        let carried = certificates(bundle_pem)?;
        let mut ca_pem = bundle_pem.to_vec();
        for der in learned.authorities() {
            // What the bundle has already need not stand there twice.
            if carried.iter().all(|one| one.as_ref() != der) {
                ca_pem.push(b'\n');
                ca_pem.extend_from_slice(to_pem(der).as_bytes());
            }
        }
        Ok(Self {
            exchange: Tls::new(&ca_pem, ALPN, Arc::clone(time))?,
            mqtt: Tls::new(&ca_pem, ALPN_MQTT, Arc::clone(time))?,
            ca_pem: ca_pem.into(),
        })
    }
}
