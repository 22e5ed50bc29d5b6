//! Recovery by the broker's own code, in this process: everything opened as `outhaul serve` opens it, in its order.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use broker::{
    core::{gate::Kept, journal::RecordKind, reader::Admitted, retention::Limits},
    drive::{Parts, Plane},
    shell::{
        audit_key::AuditKey,
        certificate::{Certificates, TlsFiles},
        clock,
        journal::{Durability, Filter, Item, Journal, OwnedRecord},
        keys::{DataDir, SigningKeys},
        places::Places,
        room::Room,
        router::{self, Router},
        store::{
            AuditCheck, AuditRow, DispatcherRow, HostKeyRow, HostRow, ReaderRow, Redeem, Redeemed,
            SandboxRow, Store,
        },
    },
};
use protocol::{id::ReaderName, install_key::InstallKey};
use tests::wait;
use tokio::runtime::Runtime;

use crate::recording::DATA;

/// Records and bytes read at once.
const STEP_RECORDS: usize = 4_096;
const STEP_BYTES: usize = 8 * 1024 * 1024;

/// How long another may hold the journal's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What every recovery shares.
pub(crate) struct Recovery {
    runtime: Runtime,
    router: Router,
    /// Where the router lives on.
    _elsewhere: Runtime,
}

/// Everything that a broker knows after it has opened an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    pub(crate) next: u64,
    pub(crate) hosts: Vec<HostRow>,
    pub(crate) host_keys: Vec<HostKeyRow>,
    pub(crate) readers: Vec<ReaderRow>,
    pub(crate) dispatchers: Vec<DispatcherRow>,
    pub(crate) sandboxes: Vec<SandboxRow>,
    pub(crate) audit: Vec<AuditRow>,
    pub(crate) audit_check: AuditCheck,
    pub(crate) session: Option<Kept>,
}

impl Found {
    pub(crate) fn records(&self) -> impl Iterator<Item = &OwnedRecord> {
        self.items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Gap { .. } => None,
        })
    }

    pub(crate) fn of_kind(&self, kind: RecordKind) -> impl Iterator<Item = &OwnedRecord> {
        self.records().filter(move |record| record.kind == kind)
    }
}

impl Recovery {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let elsewhere = Runtime::new()?;
        let router = elsewhere.block_on(Router::spawn(router::default_config()))?;
        Ok(Self {
            // One thread, and only while we wait on it: what the plane starts in the background never runs beside a check.
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            router,
            _elsewhere: elsewhere,
        })
    }

    /// Opens what is below `place`, and looks at everything.
    pub(crate) fn open(&self, place: &Path, reader: &str) -> anyhow::Result<Found> {
        self.with_plane(place, |plane| look(plane, reader))
    }

    /// The first of these hosts whose install key opens something again, for anyone with another key.
    pub(crate) fn unused<'a>(
        &self,
        place: &Path,
        install_keys: &[(&'a str, &str)],
    ) -> anyhow::Result<Option<&'a str>> {
        self.with_plane(place, |plane| {
            for (host, install_key) in install_keys {
                let key = InstallKey::from_text(install_key).context("read an install key")?;
                let redeem = Redeem {
                    kid: &key.kid,
                    secret_sha256: &key.secret().hash(),
                    host,
                    public_key: &[9; 32],
                    again_ms: 0,
                };
                let said = plane.store().redeem_install_key(&redeem, plane.now().0)?;
                if !matches!(said, Redeemed::Refused(_)) {
                    return Ok(Some(*host));
                }
            }
            Ok(None)
        })
    }

    fn with_plane<T>(
        &self,
        place: &Path,
        work: impl FnOnce(&Plane) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let guard = self.runtime.enter();
        let directory = DataDir::open(&place.join(DATA))?;
        let journal = open_journal(&directory.journal())?;
        let keys = SigningKeys::open(&directory)?;
        let certificates =
            Certificates::open(&directory, "localhost", &TlsFiles::default(), clock::unix())?;
        let store = Store::open(&directory.store())?;
        let audit = AuditKey::open(&directory, keys.audit, &store, keys.issuer.audience())?;
        let parts = Parts {
            store,
            audit,
            journal,
            bench: None,
            places: Places::open(&directory.places())?,
            admitted: Admitted {
                readers: true,
                bench: false,
                access: false,
            },
            retention: Limits::default(),
            room: Room::open(&place.join(DATA), 1)?,
            router: self.router.clone(),
            issuer: keys.issuer,
            recovery_window: Duration::from_secs(72 * 3600),
            token_life: Duration::from_secs(3600),
            install_key_life: Duration::from_secs(24 * 3600),
            address: "localhost:8443".to_owned(),
            is_address_set: true,
            certificates: certificates.facts(),
        };
        let plane = Plane::open(parts)?;
        let value = work(&plane);
        drop(plane);
        drop(guard);
        // What it started finds it gone, and ends.
        self.runtime.block_on(tokio::task::yield_now());
        value
    }
}

/// Its lock may be held for a moment longer: another test in this process starts programs, and between fork and exec they have all that
/// we have.
fn open_journal(place: &Path) -> anyhow::Result<Journal> {
    let opened = wait::until_ok(LOCK_WAIT, || {
        match Journal::open(place, Durability::Fsync) {
            Err(error) if format!("{error:#}").contains("another process") => Err(error),
            opened => Ok(opened),
        }
    });
    opened?
}

fn look(plane: &Plane, reader: &str) -> anyhow::Result<Found> {
    let mut cursor = plane.journal().reader(0, Filter::default());
    let mut items = Vec::new();
    loop {
        let batch = cursor.next_batch(STEP_RECORDS, STEP_BYTES)?;
        items.extend(batch.items);
        if batch.caught_up {
            break;
        }
    }
    let store = plane.store();
    let hosts = store.hosts()?;
    let mut host_keys = Vec::new();
    for host in &hosts {
        host_keys.extend(store.host_keys(&host.name)?);
    }
    let reader = ReaderName::new(reader)?;
    Ok(Found {
        items,
        next: plane.journal().next_offset(),
        hosts,
        host_keys,
        readers: store.readers()?,
        dispatchers: store.dispatchers()?,
        sandboxes: store.list_sandboxes(true)?,
        audit: store.audit_rows(0, u32::MAX)?,
        audit_check: store.audit_verify()?,
        session: store.kept_session(&reader, reader.as_str(), plane.now().0)?,
    })
}
