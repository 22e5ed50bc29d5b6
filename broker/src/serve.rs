//! `outhaul serve`: everything opened in order, served, and closed in order.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use protocol::{bundle::fingerprint, mqtt::ReasonCode};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    config::{Authority, Config},
    core::{expiry::Watch, gate::Offer, network::Network},
    drive::{Parts, Plane},
    shell::{
        audit_key::AuditKey,
        certificate::Certificates,
        clock,
        connection::Gate,
        descriptors,
        http::Web,
        issuer::Issuers,
        journal::Journal,
        keys::{DataDir, SigningKeys},
        listener,
        local::{self, LocalSocket},
        metrics::Metrics,
        places::Places,
        registry::{End, Registry, close_withdrawn},
        room::Room,
        router::Router,
        store::{AuditEntry, Store},
    },
};

/// How often the certificates are looked at: their ends, and whether the owner's files have changed.
const CERTIFICATE_ROUND: Duration = Duration::from_secs(60);
/// How long links may take to go when the broker stops.
const LINKS_WAIT: Duration = Duration::from_secs(3);
/// How long tasks may take to end when the broker stops.
const TASKS_WAIT: Duration = Duration::from_secs(5);

/// Runs the broker until a signal (SIGTERM, SIGINT) ends it.
///
/// # Errors
/// Something could not be opened, or failed in a way that only a new start heals.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything is opened: a signal must not find it half open.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    // A file that may grow no further is then an error that says so, and not the end without a word.
    let limit = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _ignored = signal(limit).context("listen for SIGXFSZ")?;
    descriptors::raise();
    let broker = Broker::start(config).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    broker.run(stop).await
}

/// A broker, open, and accepting nothing yet.
#[derive(Debug)]
pub struct Broker {
    plane: Plane,
    certificates: Arc<Certificates>,
    listener: TcpListener,
    listen: SocketAddr,
    socket: LocalSocket,
    socket_path: PathBuf,
    data_dir: PathBuf,
    hangup: Signal,
    proxies: Vec<Network>,
}

/// What is on disk, opened.
struct Opened {
    store: Store,
    room: Room,
    journal: Journal,
    bench: Option<Journal>,
    places: Places,
    issuer: Issuers,
    audit: AuditKey,
    certificates: Certificates,
}

impl Broker {
    /// Opens everything. What fails leaves nothing half made behind.
    ///
    /// # Errors
    /// The address is taken, another broker uses the data directory, a file is damaged or open to others, the router does not
    /// start, or the local socket is in use.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        // It would end the process.
        let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        let listener = listener::bind(config.listen)
            .with_context(|| format!("listen on {}", config.listen))?;
        let listen = listener
            .local_addr()
            .context("read the address that is listened on")?;
        let address = with_port(config.public_address.clone(), listen.port());
        let opening = (config.clone(), address.clone());
        let opened = blocking(move || open(&opening.0, &opening.1)).await?;
        let router = Router::spawn(config.router).await.context("start router")?;
        let parts = Parts {
            store: opened.store,
            room: opened.room,
            journal: opened.journal,
            bench: opened.bench,
            places: opened.places,
            admitted: config.admitted,
            retention: config.retention,
            router,
            issuer: opened.issuer,
            audit: opened.audit,
            recovery_window: config.recovery_window,
            token_life: config.token_life,
            install_key_life: config.install_key_life,
            address: address.to_string(),
            is_address_set: config.is_public_address_set,
            certificates: opened.certificates.facts(),
        };
        let plane = blocking(move || {
            let plane = Plane::open(parts)?;
            record_start(&plane)?;
            Ok(plane)
        })
        .await
        .context("open control plane")?;
        // Last: whoever finds the socket finds a broker behind it.
        let socket = LocalSocket::open(&config.socket)?;
        Ok(Self {
            plane,
            certificates: Arc::new(opened.certificates),
            listener,
            listen,
            socket,
            socket_path: config.socket,
            data_dir: config.data_dir,
            hangup,
            proxies: config.proxy_protocol_from,
        })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// Serves until `stop` resolves, and then ends in order: no new links, a goodbye to those there are, answers under way
    /// finished, everything accepted on disk.
    ///
    /// # Errors
    /// The router, the journal or the store failed, or a task ended that must not.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let registry = Registry::default();
        let plane = self.plane;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %self.listen,
            address = plane.address(),
            socket = %self.socket_path.display(),
            data_dir = %self.data_dir.display(),
            durability = plane.durability(),
            audience = plane.audience(),
            "the broker serves: MQTT and HTTPS on `listen`, which hosts dial as `address`; the command line on `socket`"
        );
        let metrics = Arc::new(Metrics::new());
        let serving = self.socket.serve(
            plane.clone(),
            Arc::clone(&metrics),
            Arc::clone(&self.certificates),
            stopped.clone(),
        );
        let mut local = tokio::spawn(serving);
        let gate = Gate {
            plane: plane.clone(),
            registry: registry.clone(),
            metrics,
            offer: Offer {
                durability: plane.durability(),
                readers: plane.admitted().any(),
            },
        };
        let mut gate = tokio::spawn(serve_gate(
            self.listener,
            gate,
            (Arc::clone(&self.certificates), self.proxies),
            stopped,
        ));
        let withdrawals = tokio::spawn(close_withdrawn(registry.clone(), plane.clone()));
        let renewals = tokio::spawn(watch_certificates(
            self.certificates,
            plane.clone(),
            self.hangup,
        ));
        let router = plane.router().clone();
        let ended = tokio::select! {
            () = stop => Ok(()),
            () = plane.failed() => Err(anyhow!("the journal or the store has failed, and nothing more is acknowledged: start the broker again once the disk is well")),
            error = router.failed() => Err(error.context("the router has failed")),
            _ = &mut local => Err(anyhow!("the local socket ended")),
            _ = &mut gate => Err(anyhow!("the gate ended")),
        };
        tracing::info!("the broker stops");
        // Nobody listens where both have ended already.
        stopping.send_replace(true);
        say_goodbye(&registry).await;
        for task in [local, gate] {
            if !task.is_finished() && timeout(TASKS_WAIT, task).await.is_err() {
                tracing::warn!("a task did not end in time");
            }
        }
        withdrawals.abort();
        renewals.abort();
        plane.settle().await;
        ended
    }
}

/// Everything on disk, in the order that makes a second broker, or a lost key, show before anything is written.
fn open(config: &Config, address: &Authority) -> anyhow::Result<Opened> {
    let directory = DataDir::open(&config.data_dir)?;
    Store::refuse_newer(&directory.store())?;
    let room = Room::open(directory.root(), config.disk_reserve_bytes)?;
    // What fails on such a disk mostly fails for that.
    open_in(&directory, &room, config, address).map_err(|error| match room.look() {
        Some(shortage) => error.context(shortage.advice()),
        None => error,
    })
}

fn open_in(
    directory: &DataDir,
    room: &Room,
    config: &Config,
    address: &Authority,
) -> anyhow::Result<Opened> {
    // Its lock comes first: one broker for each data directory.
    let journal = Journal::open(&directory.journal(), config.durability)?;
    let bench = match config.admitted.bench {
        true => Some(Journal::open_bench(&directory.bench(), config.durability)?),
        false => None,
    };
    let places = Places::open(&directory.places()).context("open the places of readers")?;
    let SigningKeys { issuer, audit } = SigningKeys::open(directory)?;
    let certificates = Certificates::open(directory, &address.name, &config.tls, clock::unix())?;
    // The store is the mark that the directory has been used: after the keys.
    let store = Store::open(&directory.store())?;
    store.use_ballast(room);
    journal.use_ballast(room);
    let audit = AuditKey::open(directory, audit, &store, issuer.audience())?;
    Ok(Opened {
        store,
        room: room.clone(),
        journal,
        bench,
        places,
        issuer,
        audit,
        certificates,
    })
}

fn record_start(plane: &Plane) -> anyhow::Result<()> {
    let fields = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "durability": plane.durability(),
        "audit_key": plane.audit_key().current().public().to_string(),
    });
    plane.store().record_audit(&AuditEntry {
        time_ms: plane.now().0,
        name: "broker.started",
        subject: plane.audience(),
        actor: "broker",
        fields: &fields,
    })?;
    Ok(())
}

fn with_port(mut address: Authority, port: u16) -> Authority {
    if address.port == 0 {
        address.port = port;
    }
    address
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("run blocking work")?
}

/// Accepts until the broker stops.
async fn serve_gate(
    listener: TcpListener,
    gate: Gate,
    (certificates, proxies): (Arc<Certificates>, Vec<Network>),
    mut stopped: watch::Receiver<bool>,
) {
    let api = gate.plane.admitted().access.then(|| {
        let (plane, metrics) = (gate.plane.clone(), Arc::clone(&gate.metrics));
        local::remote(plane, metrics, Arc::clone(&certificates), stopped.clone())
    });
    let web = Web::new(&gate, api);
    let serve_http = move |stream, _peer, stay| {
        let web = web.clone();
        async move { web.serve(stream, stay).await }
    };
    tokio::select! {
        () = listener::serve(listener, certificates.current(), gate, proxies, serve_http) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Tells every link that the broker stops, and waits for them to be gone.
async fn say_goodbye(registry: &Registry) {
    const END: End = End {
        reason: ReasonCode::SERVER_SHUTTING_DOWN,
        why: "the broker stops",
    };
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let gone = async {
        while registry.count() > 0 {
            // Again each time: one may have been on its way in.
            registry.disconnect_if(|_| true, END);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if timeout(LINKS_WAIT, gone).await.is_err() {
        tracing::warn!(links = registry.count(), "some links did not go in time");
    }
}

/// Keeps the certificates from ending while the broker runs, takes up what their owner changes, and says what it cannot keep from
/// ending. Each trouble is said once, and again at every SIGHUP.
async fn watch_certificates(certificates: Arc<Certificates>, plane: Plane, mut hangup: Signal) {
    let (mut server, mut authority) = (Watch::default(), Watch::default());
    let mut said = None;
    loop {
        let (looked, at) = (Arc::clone(&certificates), plane.clone());
        match blocking(move || look_at_certificates(&looked, &at)).await {
            Ok(has_changed) => {
                said = None;
                if has_changed {
                    say_certificates("the certificates have changed", &plane);
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if said.as_ref() != Some(&error) {
                    tracing::error!(error, "the certificates stay as they are");
                    said = Some(error);
                }
            }
        }
        let (now, expiry) = (plane.now(), certificates.expiry());
        for (what, watch, end) in [
            ("server", &mut server, expiry.server),
            ("authority", &mut authority, expiry.authority),
        ] {
            if let Some(days) = watch.look(end, now) {
                tracing::warn!(
                    what,
                    days,
                    "a certificate ends within so many days, and nothing has followed it"
                );
            }
        }
        // A missed signal is no loss: the round is short.
        if let Ok(Some(())) = timeout(CERTIFICATE_ROUND, hangup.recv()).await {
            said = None;
        }
    }
}

fn look_at_certificates(certificates: &Certificates, plane: &Plane) -> anyhow::Result<bool> {
    let is_due = certificates.is_rotation_due(plane.now());
    if is_due {
        plane.rotate_authority(certificates, "broker")?;
    }
    Ok(certificates.refresh(plane.now())? || is_due)
}

fn say_certificates(what: &str, plane: &Plane) {
    let facts = plane.certificates();
    let first = facts.authorities.first();
    tracing::info!(
        server = fingerprint(&facts.server),
        authority = first.map(|one| fingerprint(&one.der)),
        "{what}: new connections get this one"
    );
}

#[cfg(test)]
mod tests;
