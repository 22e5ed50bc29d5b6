//! Keeps an eye on the engine: reaches it, lists this host's containers, and says so when it does not answer.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use smol::Timer;
use smol::channel::Receiver;

use super::said::Said;
use super::site::{Mail, Site};
use crate::core::launch::observed::{Observed, Phase};
use crate::core::pace::{Lane, Pace};
use crate::core::reconcile::{Doing, Seen};
use crate::shell::docker::{Engine, EngineError};
use crate::shell::server_time::random;

/// How often the engine is looked at when nothing else asks for it. An orphan lives no longer than this.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks at the engine for ever: at once, whenever `look` says so, and every minute. Each list goes to the loop.
pub(super) async fn watch(site: Arc<Site>, look: Receiver<()>) {
    let (mut pace, mut said) = (Pace::default(), Said::default());
    let mut was_heard = false;
    loop {
        let wait = match observe(&site).await {
            Ok(found) => {
                pace.reset();
                said.clear();
                site.set_engine_answers(true);
                was_heard = true;
                if site.mail.send(Mail::Listed(found)).await.is_err() {
                    return;
                }
                LOOK_EVERY
            }
            Err(error) => {
                site.set_engine_answers(false);
                if was_heard && site.mail.send(Mail::EngineSilent).await.is_err() {
                    return;
                }
                was_heard = false;
                said.warn(
                    "the engine does not answer, no sandbox can be started",
                    format!("{error} ({})", site.docker_socket.display()),
                );
                let random = random().map_or(u64::MAX, u64::from_le_bytes);
                pace.after_failure(Lane::Ordinary, random)
            }
        };
        let later = async {
            Timer::after(wait).await;
        };
        let asked = async {
            if look.recv().await.is_err() {
                smol::future::pending::<()>().await;
            }
        };
        or(later, asked).await;
    }
}

async fn observe(site: &Site) -> Result<Vec<Observed>, EngineError> {
    let is_back = !site
        .engine_answers
        .load(std::sync::atomic::Ordering::Relaxed);
    let engine = match site.engine() {
        Some((engine, _)) if !is_back => engine,
        // It may have been updated while it was away.
        Some(_) | None => {
            let engine = Engine::connect(&site.docker_socket, site.host.clone()).await?;
            let facts = engine.info().await?;
            tracing::info!(
                version = facts.version,
                rootless = facts.rootless,
                "the engine answers"
            );
            for warning in facts.warnings() {
                tracing::warn!("{warning}");
            }
            site.set_engine(engine.clone(), facts);
            engine
        }
    };
    engine.list().await
}

/// A container as reconciliation sees it.
pub(super) fn seen(observed: &Observed) -> Seen {
    Seen {
        container: observed.container.clone(),
        sandbox: observed.sandbox.clone(),
        command: observed.command,
        doing: match observed.phase {
            Phase::Created => Doing::Created,
            Phase::Running | Phase::Paused => Doing::Running,
            Phase::Exited => Doing::Exited,
        },
    }
}
