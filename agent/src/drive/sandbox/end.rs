//! The end of a sandbox: looked at, told, and cleared away.

use protocol::limits::MESSAGE_BYTES_MAX;
use protocol::report::{Ended, Forwarded, News, Reason, Refused};
use protocol::stream::Batch;
use smol::Timer;

use super::launch::tell_launched;
use super::{End, wait_for_engine};
use crate::core::detail;
use crate::core::launch::observed::{Observed, Phase};
use crate::core::outbox::{Class, ROOM_WAIT};
use crate::core::record::{Ending, Running, SandboxRecord};
use crate::drive::site::Site;
use crate::shell::docker::{Engine, EngineError, Exit};
use crate::shell::egress_control;
use crate::shell::rundir::{Leftover, SandboxDir};

/// What a report needs beside the batch it forwards, in bytes: names, numbers, envelope.
const FORWARD_EXTRA_BYTES: usize = 512;

/// How often a directory that cannot be removed is tried again before it is left for a person.
const REMOVE_TRIES: usize = 3;

/// How a container that was found ended has ended.
pub(super) async fn look(site: &Site, record: &mut SandboxRecord, container: &str) -> End {
    let observed = loop {
        let Some((engine, _)) = site.engine() else {
            wait_for_engine().await;
            continue;
        };
        match engine.observe(container).await {
            Ok(observed) => break observed,
            Err(error) if error.reason == Reason::NotFound => return End::lost(),
            Err(_) => wait_for_engine().await,
        }
    };
    launched_unseen(site, record, &observed).await;
    let why = record.stopped.then_some(Reason::Stopped);
    match (observed.phase, observed.exit_code) {
        (Phase::Exited, Some(code)) => {
            let oom = observed.oom;
            End::exited(Exit { code, oom }, why)
        }
        (Phase::Exited | Phase::Created | Phase::Running | Phase::Paused, _) => End::lost(),
    }
}

/// A sandbox that started and ended before its launch was told: its key is told first, or nobody could check its events.
async fn launched_unseen(site: &Site, record: &mut SandboxRecord, observed: &Observed) {
    if record.running.is_some() || record.ending.is_some() {
        return;
    }
    let key = site
        .run_dir
        .get(&record.sandbox)
        .and_then(|dir| dir.read_key());
    if let Ok(Some(key)) = key {
        record.image = Some(observed.image.clone());
        record.running = Some(Running {
            container: observed.container.clone(),
            key,
            until: site.time.now().unix,
        });
        site.save_surely(record).await;
        tell_launched(site, record).await;
    }
}

/// Forwards what the sandbox left, and reports its end.
pub(super) async fn tell(site: &Site, record: &mut SandboxRecord, end: &End) {
    record.ending = Some(Ending { reported: false });
    site.save_surely(record).await;
    // Before the end is told, so that who follows the sandbox has all of it when it ends.
    forward(site, record).await;
    let sandbox = record.sandbox.clone();
    let reason = end.reason.map(Reason::word);
    let why = reason.map(|_| end.detail.as_str());
    if end.refused {
        tracing::info!(%sandbox, reason, why, "launch refused");
    } else {
        tracing::info!(%sandbox, exit_code = end.exit_code, reason, why, "sandbox ended");
    }
    let news = match end.reason {
        Some(reason) if end.refused && record.running.is_none() => News::Refused(Refused {
            command: record.command,
            sandbox,
            reason,
            detail: detail::outward(&end.detail),
        }),
        Some(_) | None => News::Ended(Ended {
            command: Some(record.command),
            sandbox,
            state: end.state(),
            exit_code: end.exit_code,
            reason: end.reason,
            detail: detail::outward(&end.detail),
        }),
    };
    // An outcome always finds room.
    let _ = site.report(news, Class::Outcome).await;
    record.ending = Some(Ending { reported: true });
    site.save_surely(record).await;
}

async fn forward(site: &Site, record: &SandboxRecord) {
    let sandbox = &record.sandbox;
    // There is none if it was never launched.
    let Ok(dir) = site.run_dir.get(sandbox) else {
        return;
    };
    let leftovers = dir.leftovers().unwrap_or_else(|error| {
        tracing::warn!(%sandbox, "{error:#}; what it left unsent is lost, and shows as a gap");
        Vec::new()
    });
    for leftover in leftovers {
        if let Some(batch) = read(&dir, record, &leftover) {
            let news = News::Forwarded(Forwarded {
                sandbox: sandbox.clone(),
                batch: batch.into(),
            });
            while site.report(news.clone(), Class::Forwarded).await.is_err() {
                Timer::after(ROOM_WAIT).await;
            }
        }
        if let Err(error) = dir.remove_leftover(&leftover) {
            tracing::warn!(%sandbox, "{error:#}");
        }
    }
}

/// A leftover batch, if it is one: the sandbox may have written anything there.
fn read(dir: &SandboxDir, record: &SandboxRecord, leftover: &Leftover) -> Option<Vec<u8>> {
    let sandbox = &record.sandbox;
    match dir.read_leftover(leftover) {
        Ok(Some(batch)) => {
            let fits = batch.len() + FORWARD_EXTRA_BYTES <= MESSAGE_BYTES_MAX;
            let is_batch = fits && Batch::parse(&batch).is_ok();
            if !is_batch {
                tracing::warn!(%sandbox, number = leftover.number, "left out: not a batch");
            }
            is_batch.then_some(batch)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%sandbox, number = leftover.number, "left out: {error:#}");
            None
        }
    }
}

/// Removes whatever a sandbox was made of.
pub(super) async fn remove(site: &Site, record: &SandboxRecord, container: Option<String>) {
    let sandbox = &record.sandbox;
    // Nothing was made if the engine was never reached.
    if let Some((engine, _)) = site.engine() {
        remove_containers(&engine, record, container).await;
    }
    // The process may not run; its sockets go with the directory.
    if let Err(error) = egress_control::close(site.run_dir.path(), sandbox).await {
        tracing::debug!(%sandbox, "{error:#}");
    }
    for _ in 0..REMOVE_TRIES {
        match site.run_dir.remove(sandbox).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%sandbox, "{error:#}"),
        }
        wait_for_engine().await;
    }
}

/// Removes the container; if it is not known, whichever the same command made: a launch that was cut short may have left one.
pub(super) async fn remove_containers(
    engine: &Engine,
    record: &SandboxRecord,
    known: Option<String>,
) {
    let sandbox = &record.sandbox;
    while let Err(error) = remove_once(engine, record, known.as_deref()).await {
        tracing::warn!(%sandbox, "remove its container: {error}; trying again");
        wait_for_engine().await;
    }
}

async fn remove_once(
    engine: &Engine,
    record: &SandboxRecord,
    known: Option<&str>,
) -> Result<(), EngineError> {
    let own = match known {
        Some(container) => vec![container.to_owned()],
        None => {
            let is_its_own =
                |seen: &Observed| seen.sandbox == record.sandbox && seen.command == record.command;
            let found = engine.list().await?;
            found
                .into_iter()
                .filter(is_its_own)
                .map(|seen| seen.container)
                .collect()
        }
    };
    for container in own {
        match engine.remove(&container).await {
            Err(error) if error.reason != Reason::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
