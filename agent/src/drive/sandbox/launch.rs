//! From a command to a sandbox at work, and known to be.

use std::time::Duration;

use anyhow::Context as _;
use futures_lite::future::or;
use protocol::command::Launch;
use protocol::report::{Launched, News, Reason};
use smol::Timer;
use smol::channel::Receiver;

use super::end::remove_containers;
use super::{Control, End};
use crate::core::launch::Spec;
use crate::core::launch::engine::EngineFacts;
use crate::core::outbox::Class;
use crate::core::record::{Running, SandboxRecord};
use crate::drive::site::Site;
use crate::sandbox::launch as shim;
use crate::shell::docker::{self, Engine};
use crate::shell::egress_control;
use crate::shell::rundir::{Files, SandboxDir};

/// How long the shim may take from its start to its key.
const KEY_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a launch waits for the host to have a token to mint from. The shim gives up after 60 s.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(50);

/// How long a launch waits for the engine to be reached for the first time.
const ENGINE_WAIT_MAX: Duration = Duration::from_secs(20);

/// How often a launch looks whether what it waits for is there.
const POLL: Duration = Duration::from_millis(100);

/// How often a container is made anew when one of the same name is in the way.
const START_TRIES: usize = 5;

/// How long the shim may hold up a sandbox's end for what is unsent.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Room for what a sandbox could not send, in bytes.
pub(super) const SPOOL_BYTES_MAX: u64 = 64 << 20;

/// Launches a sandbox, unless a stop comes first. Its container, if all went well.
pub(super) async fn launch(
    site: &Site,
    record: &mut SandboxRecord,
    order: &Launch,
    control: &Receiver<Control>,
) -> Result<String, End> {
    let stopped = async {
        loop {
            match control.recv().await {
                Ok(Control::Stop { .. }) => {
                    return Err(End::refused(
                        Reason::Stopped,
                        "stopped before it was started",
                    ));
                }
                // It is minted from the newest anyway.
                Ok(Control::Remint) => {}
                Err(_) => smol::future::pending().await,
            }
        }
    };
    or(stopped, steps(site, record, order)).await
}

async fn steps(site: &Site, record: &mut SandboxRecord, order: &Launch) -> Result<String, End> {
    let sandbox = record.sandbox.clone();
    let (engine, facts) = reach_engine(site).await?;
    let others = site.records().len().saturating_sub(1);
    let prepared =
        docker::prepare(&engine, &facts, &site.policy, order, others, &site.secrets).await?;
    record.content = prepared.permit.content;
    record.life_s = prepared.permit.limits.life_s;
    record.image = Some(prepared.image.id.clone());
    site.save_surely(record).await;
    let spec = Spec::new(
        &site.host,
        record.command,
        order,
        &prepared.permit,
        prepared.image,
        site.run_dir.path(),
        prepared.tolerated,
    )
    .map_err(|error| End::refused(Reason::EngineRefused, &error.to_string()))?;
    let dir = make_dir(site, record, facts.user)?;
    egress_control::open(site.run_dir.path(), &sandbox)
        .await
        .map_err(|error| {
            tracing::error!(%sandbox, "{error:#}");
            End::refused(
                Reason::EngineUnavailable,
                "the host's egress process does not answer: its owner starts it with `outhaul-agent egress`",
            )
        })?;
    let started = start(&engine, &spec, record).await?;
    tracing::info!(%sandbox, container = started.container, "sandbox started");
    announce(site, record, &dir, &started.container).await?;
    Ok(started.container)
}

/// The engine. A command may come before it was first reached: the operator connects to both at once.
async fn reach_engine(site: &Site) -> Result<(Engine, EngineFacts), End> {
    // The next look may be a minute away, if it has been silent for long.
    if site.engine().is_none() {
        site.look_at_engine();
    }
    let reached = async {
        loop {
            if let Some(engine) = site.engine() {
                return Ok(engine);
            }
            Timer::after(POLL).await;
        }
    };
    let give_up = async {
        Timer::after(ENGINE_WAIT_MAX).await;
        Err(End::refused(
            Reason::EngineUnavailable,
            "the engine does not answer",
        ))
    };
    or(reached, give_up).await
}

/// Makes and starts the container. If one of the same command is in the way, an operator that was killed had asked the engine for
/// it, and the engine came to it later: it was never started, and makes room.
async fn start(
    engine: &Engine,
    spec: &Spec,
    record: &SandboxRecord,
) -> Result<docker::Launched, End> {
    for _ in 1..START_TRIES {
        match docker::launch(engine, spec).await {
            Err(error) if error.reason == Reason::Conflict => {
                tracing::info!(sandbox = %record.sandbox, "a container of an earlier try is in the way");
                remove_containers(engine, record, None).await;
                Timer::after(POLL).await;
            }
            done => return Ok(done?),
        }
    }
    Ok(docker::launch(engine, spec).await?)
}

/// Makes the sandbox's directory, with what the shim is told.
fn make_dir(
    site: &Site,
    record: &SandboxRecord,
    user: Option<(u32, u32)>,
) -> Result<SandboxDir, End> {
    let told = shim::Launch {
        version: shim::VERSION,
        host: site.host.to_string(),
        sandbox: record.sandbox.to_string(),
        broker: site.broker.clone(),
        content: record.content.word().to_owned(),
        drain_ms: u64::try_from(DRAIN_WAIT_MAX.as_millis()).unwrap_or(u64::MAX),
        spool_bytes: SPOOL_BYTES_MAX,
        boot_unix_ms: site.time.boot_unix_ms(),
    };
    let made = serde_json::to_vec(&told)
        .context("write launch.json")
        .and_then(|launch| {
            let files = Files {
                launch: &launch,
                ca: &site.clients().ca_pem,
            };
            site.run_dir.create(&record.sandbox, files, user)
        });
    made.map_err(|error| {
        tracing::error!(sandbox = %record.sandbox, "{error:#}");
        let reason = if is_disk_full(&error) {
            Reason::DiskFull
        } else {
            Reason::EngineRefused
        };
        End::refused(
            reason,
            "the operator cannot write the sandbox's directory: see its log",
        )
    })
}

fn is_disk_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let errno = cause.downcast_ref::<rustix::io::Errno>();
        io == Some(std::io::ErrorKind::StorageFull) || errno == Some(&rustix::io::Errno::NOSPC)
    })
}

/// Goes on with a container that was found running: if it was not announced before, now.
pub(super) async fn announce_again(
    site: &Site,
    record: &mut SandboxRecord,
    container: &str,
) -> Result<(), End> {
    let is_known = record
        .running
        .as_ref()
        .is_some_and(|running| running.container == container);
    if is_known {
        return Ok(());
    }
    match site.run_dir.get(&record.sandbox) {
        Ok(dir) => announce(site, record, &dir, container).await,
        Err(error) => {
            tracing::error!(sandbox = %record.sandbox, "{error:#}");
            Err(End::failed(
                Reason::NoFirstEvent,
                "its run directory is gone",
            ))
        }
    }
}

/// Waits for the shim's key, reports the sandbox as launched with it, and only then gives the shim its token: written down, in
/// this order, so that a restart at any point comes to the same report, and so that whoever follows knows the key before the
/// first event, as a rule.
async fn announce(
    site: &Site,
    record: &mut SandboxRecord,
    dir: &SandboxDir,
    container: &str,
) -> Result<(), End> {
    let silent = |detail: &str| End::failed(Reason::NoFirstEvent, detail);
    let key = match dir.wait_key(KEY_WAIT_MAX).await {
        Ok(Some(key)) => key,
        Ok(None) => return Err(silent("its shim did not announce its key in time")),
        Err(error) => return Err(silent(&format!("{error:#}"))),
    };
    record.running = Some(Running {
        container: container.to_owned(),
        key,
        until: site
            .time
            .now()
            .unix
            .plus(Duration::from_secs(record.life_s)),
    });
    site.save_surely(record).await;
    tell_launched(site, record).await;
    let mint = async {
        loop {
            match site.mint(&record.sandbox, &key) {
                Ok(Some((token, _))) => return Some(dir.write_token(&token)),
                Ok(None) => drop(Timer::after(POLL).await),
                Err(error) => return Some(Err(error)),
            }
        }
    };
    let give_up = async {
        Timer::after(TOKEN_WAIT_MAX).await;
        None
    };
    match or(mint, give_up).await {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(silent(&format!("{error:#}"))),
        None => return Err(silent("the host has no token to mint the sandbox's from")),
    }
    Ok(())
}

/// Reports a sandbox as launched: this binds its key to it.
pub(super) async fn tell_launched(site: &Site, record: &SandboxRecord) {
    if let Some(running) = &record.running {
        let news = News::Launched(Launched {
            command: record.command,
            sandbox: record.sandbox.clone(),
            key: running.key,
            image: record.image.clone().unwrap_or_default(),
            container: running.container.clone(),
            content: record.content,
        });
        // An outcome always finds room.
        let _ = site.report(news, Class::Outcome).await;
    }
}
