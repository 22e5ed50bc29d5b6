//! A broker whose disk is ours to break, with a host and publishers.

use std::{
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use protocol::{
    id::HostId,
    key::{Dispatcher, Host, Secret},
    stream::{Verdict, Verifier},
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;
use tests::{
    client::tls_config,
    enroll, local, wait,
    world::{BrokerTerms, World},
};
use zeroize::Zeroizing;

use crate::{
    mount::{self, Mount},
    publisher::{Publisher, Shared},
};

/// See the module. Whoever uses it ends the broker before its disk goes: fields are dropped in their order.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) publisher: Publisher,
    mount: Option<Mount>,
}

impl Site {
    /// With its data directory on this disk, or among everything else.
    pub(crate) fn new(mount: Option<Mount>, terms: BrokerTerms<'_>) -> Self {
        let mut world = World::empty().unwrap();
        if let Some(mount) = &mount {
            mount::link(&mount.data(), &world.path("broker"));
        }
        world.start_broker_with(terms).unwrap();
        let host = HostId::new("edge-1").unwrap();
        let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
        let host_key = Secret::<Host>::from_seed(&Zeroizing::new([102; 32]));
        enroll::add_dispatcher(&world, &dispatcher).unwrap();
        let token = enroll::enroll(&world, &host, &dispatcher, &host_key, &mut Vec::new()).unwrap();
        let publisher = Publisher::new(&world, &host, 1, [102; 32], &token);
        Self {
            world,
            publisher,
            mount,
        }
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("a disk of its own")
    }

    /// A publisher begins, and goes on until it is told that it is over.
    pub(crate) fn publish(&self) -> Publishing {
        let shared = Arc::new(Shared::default());
        let (publisher, for_it) = (self.publisher.clone(), Arc::clone(&shared));
        Publishing {
            shared,
            thread: std::thread::spawn(move || publisher.run(&for_it)),
        }
    }

    /// What `/readyz` says over TLS, as a probe asks it: whether it is ready, and why not.
    pub(crate) fn readiness(&self) -> Option<(bool, Vec<String>)> {
        let ca = self.world.path("broker/keys/ca.crt");
        let config = tls_config(&ca, &[b"http/1.1"]).ok()?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.world.port)).ok()?;
        let stream = StreamOwned::new(tls, tcp);
        let (status, body) = local::http(stream, "GET", "/readyz", "text/plain", b"").ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let reasons = body["reasons"].as_array().unwrap();
        let reasons = reasons
            .iter()
            .map(|reason| reason.as_str().unwrap().to_owned());
        Some((status == 200, reasons.collect()))
    }

    /// Waits until it is not ready, for a reason with these words.
    pub(crate) fn wait_red(&self, words: &str) {
        wait::until(&format!("readiness to be red: {words}"), || {
            let (is_ready, reasons) = self.readiness()?;
            assert_eq!(is_ready, reasons.is_empty());
            reasons
                .iter()
                .any(|reason| reason.contains(words))
                .then_some(())
        });
    }

    pub(crate) fn wait_green(&self) {
        wait::until("readiness to be green", || {
            self.readiness()?.0.then_some(())
        });
    }

    /// A figure of the metrics; of one that has a fraction, the whole part.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = local::get(&self.world.socket(), "/v1/metrics").unwrap();
        let page = String::from_utf8(page).unwrap();
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{name} is not in\n{page}"));
        value.split('.').next().unwrap().parse().unwrap()
    }

    /// Adds a host and revokes it, which must succeed and be in the audit trail.
    pub(crate) fn add_and_revoke(&self, name: &str) {
        self.add(name);
        self.revoke(name);
    }

    /// Adds a host that nobody installs.
    pub(crate) fn add(&self, name: &str) {
        let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
        let dispatchers = [dispatcher.public().to_string()];
        let body =
            serde_json::json!({ "name": name, "kind": "docker", "dispatchers": dispatchers });
        let body = body.to_string();
        local::post(
            &self.world.socket(),
            "/v1/hosts",
            "application/json",
            body.as_bytes(),
        )
        .unwrap();
    }

    /// Revokes a host, which must succeed and be in the audit trail.
    pub(crate) fn revoke(&self, name: &str) {
        self.world.outhaul_ok(&["host", "revoke", name]).unwrap();
        assert!(
            self.audit_has("host.revoked", name),
            "the revocation of {name} is on record"
        );
    }

    /// Whether the audit trail has such a row.
    pub(crate) fn audit_has(&self, name: &str, subject: &str) -> bool {
        let mut from = 0;
        loop {
            let page =
                local::get_json(&self.world.socket(), &format!("/v1/audit?from={from}")).unwrap();
            let rows = page["rows"].as_array().unwrap();
            if rows
                .iter()
                .any(|row| row["name"] == name && row["subject"] == subject)
            {
                return true;
            }
            if rows.is_empty() {
                return false;
            }
            from += u64::try_from(rows.len()).unwrap();
        }
    }

    /// Of the publisher's stream the journal has these batches, each once, in order, and the chain holds.
    pub(crate) fn check_kept(&self, sent: &[Vec<u8>]) {
        let records = local::records(&self.world.socket(), self.publisher.host.as_str()).unwrap();
        assert!(
            records.iter().all(|record| record.kind == 1),
            "no gap, and events only"
        );
        let kept: Vec<_> = records
            .iter()
            .map(|record| record.payload.as_slice())
            .collect();
        assert!(kept == *sent, "{} sent, {} kept", sent.len(), kept.len());
        let publisher = &self.publisher;
        let mut verifier = Verifier::new(&publisher.host, &publisher.sandbox, publisher.key());
        for batch in kept {
            let verdict = verifier.check(batch).unwrap();
            assert!(matches!(verdict, Verdict::Next(..)), "{verdict:?}");
        }
    }
}

/// A publisher at work.
pub(crate) struct Publishing {
    pub(crate) shared: Arc<Shared>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Publishing {
    /// Waits until so many batches more were acknowledged.
    pub(crate) fn wait_acknowledged(&self, more: u64) {
        let until = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        wait::until("more acknowledgements", || {
            (self.shared.acknowledged.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Waits until so many batches more were told to wait.
    pub(crate) fn wait_refused(&self, more: u64) {
        let until = self.shared.waited.load(Ordering::Relaxed) + more;
        wait::until("batches to be told to wait", || {
            (self.shared.waited.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Everything that was acknowledged, once everything is.
    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
