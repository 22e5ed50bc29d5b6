//! A sandbox at work: its token is kept fresh, its life and its disk are bounded, its end is awaited.

use std::time::Duration;

use futures_lite::future::or;
use protocol::report::Reason;
use protocol::time::UnixMillis;
use smol::channel::Receiver;
use smol::{Task, Timer};

use super::launch::SPOOL_BYTES_MAX;
use super::{Control, End, wait_for_engine};
use crate::core::record::SandboxRecord;
use crate::drive::site::Site;
use crate::shell::docker::{Engine, Exit};
use crate::shell::tokio::spawn;

/// How often dates and the disk are looked at: waits stand still during suspension, dates do not.
const TICK: Duration = Duration::from_secs(30);

/// The shortest wait, and the shortest time between two tokens, however short their lives.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// What a sandbox's part of the run directory may hold: its spool, and what its making leaves.
const RUN_BYTES_MAX: u64 = SPOOL_BYTES_MAX + (16 << 20);

/// The grace of a sandbox that is ended for living too long or writing too much.
const GRACE: Duration = Duration::from_secs(10);

enum Happened {
    Ended(Option<Exit>),
    Told(Control),
    Tick,
}

/// Watches a running container until it ends.
pub(super) async fn watch(
    site: &Site,
    record: &mut SandboxRecord,
    container: &str,
    control: &Receiver<Control>,
) -> End {
    let Some((engine, _)) = site.engine() else {
        // The engine was reached before anything was launched or adopted.
        return End::lost();
    };
    let waiting = wait(site, &engine, container);
    let mut waiting = std::pin::pin!(waiting);
    let mut why = record.stopped.then_some(Reason::Stopped);
    let mut stopping: Option<Task<()>> = None;
    let mut mint_at = site.time.now().unix;
    loop {
        mint_at = remint(site, record, mint_at);
        if why.is_none() {
            why = overstep(site, record);
            if why.is_some() {
                stopping = Some(stop(engine.clone(), container.to_owned(), GRACE));
            }
        }
        let now = site.time.now().unix;
        let life = match (&record.running, why) {
            (Some(running), None) => running.until.since(now),
            (Some(_) | None, _) => TICK,
        };
        let wait_max = mint_at.since(now).min(life).clamp(WAIT_MIN, TICK);
        let ended = async { Happened::Ended(waiting.as_mut().await) };
        let told = async {
            match control.recv().await {
                Ok(control) => Happened::Told(control),
                Err(_) => smol::future::pending().await,
            }
        };
        let tick = async {
            Timer::after(wait_max).await;
            Happened::Tick
        };
        match or(ended, or(told, tick)).await {
            Happened::Ended(Some(exit)) => return End::exited(exit, why),
            Happened::Ended(None) => return End::lost(),
            Happened::Told(Control::Stop { grace }) => {
                record.stopped = true;
                site.save_surely(record).await;
                why = why.or(Some(Reason::Stopped));
                stopping = Some(stop(engine.clone(), container.to_owned(), grace));
            }
            Happened::Told(Control::Remint) => mint_at = site.time.now().unix,
            Happened::Tick => {}
        }
        // Held so that it goes on; a later stop, with another grace, takes its place.
        let _ = &stopping;
    }
}

/// Mints a token if it is time, and says when it is time again.
fn remint(site: &Site, record: &SandboxRecord, mint_at: UnixMillis) -> UnixMillis {
    let now = site.time.now().unix;
    let Some(running) = record.running.as_ref().filter(|_| now >= mint_at) else {
        return mint_at;
    };
    let sandbox = &record.sandbox;
    let minted = site
        .mint(sandbox, &running.key)
        .and_then(|minted| match minted {
            None => Ok(None),
            Some((token, ends)) => {
                let dir = site.run_dir.get(sandbox)?;
                dir.write_token(&token).map(|()| Some(ends))
            }
        });
    match minted {
        // Before two thirds of its life are over.
        Ok(Some(ends)) => now.plus(ends.since(now) * 6 / 10).max(now.plus(WAIT_MIN)),
        // The host's own token is over; when there is a fresh one this task is told.
        Ok(None) => now.plus(TICK),
        Err(error) => {
            tracing::error!(%sandbox, "mint a token: {error:#}");
            now.plus(TICK)
        }
    }
}

/// Whether it lived too long or wrote too much.
fn overstep(site: &Site, record: &SandboxRecord) -> Option<Reason> {
    let sandbox = &record.sandbox;
    let is_over = record
        .running
        .as_ref()
        .is_some_and(|running| site.time.now().unix >= running.until);
    if is_over {
        tracing::info!(%sandbox, "the sandbox has lived as long as it may");
        return Some(Reason::DeadlineExceeded);
    }
    let dir = site.run_dir.get(sandbox).ok()?;
    match dir.is_over(RUN_BYTES_MAX) {
        Ok(true) => {
            tracing::warn!(%sandbox, "the sandbox fills its run directory");
            Some(Reason::QuotaExceeded)
        }
        Ok(false) => None,
        Err(error) => {
            tracing::warn!(%sandbox, "{error:#}");
            None
        }
    }
}

/// Asks the engine to end a container until it has done so.
fn stop(engine: Engine, container: String, grace: Duration) -> Task<()> {
    spawn(async move {
        while let Err(error) = engine.stop(&container, grace).await {
            if error.reason == Reason::NotFound {
                return;
            }
            tracing::warn!(container, "stop a sandbox: {error}; trying again");
            wait_for_engine().await;
        }
    })
}

/// How the container ended; nothing if it is gone. An engine that goes away tells nothing: it is asked again when it is back.
async fn wait(site: &Site, engine: &Engine, container: &str) -> Option<Exit> {
    loop {
        match engine.wait(container).await {
            Ok(exit) => return Some(exit),
            Err(error) if error.reason == Reason::NotFound => return None,
            Err(error) => {
                tracing::debug!(container, "wait for a sandbox: {error}; trying again");
                site.look_at_engine();
                wait_for_engine().await;
            }
        }
    }
}
