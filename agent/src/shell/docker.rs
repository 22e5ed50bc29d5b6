//! The Docker engine, over its socket.
//!
//! Every call has a deadline. What is stopped, killed, waited for or removed is looked at first, and left alone unless it
//! carries the labels of a sandbox of this host. Nothing is ever executed in a container that runs: a sandbox's first
//! process is all that the operator starts.

mod fault;
pub mod source;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::Future,
    path::Path,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, ClientVersion, Docker,
    errors::Error,
    models::{ContainerInspectResponse, ImageInspect},
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, InspectContainerOptions, KillContainerOptions,
        ListContainersOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
        WaitContainerOptions,
    },
};
use futures_lite::StreamExt as _;
use protocol::{id::HostId, report::Reason};
use smol::Timer;

use super::tokio::guest;
use crate::core::{
    launch::{ImageFacts, LABEL_HOST, Spec, create_body, engine::EngineFacts, observed::Observed},
    policy::image::Reference,
};
pub use fault::EngineError;
pub use start::{Launched, Prepared, launch, prepare};

/// The oldest API that is spoken (Docker 20.10).
const API_MIN: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};
/// Questions that the engine answers from memory. A loaded engine takes a second or two.
const ASK_WAIT_MAX: Duration = Duration::from_secs(15);
/// Making a container: the engine prepares its file system.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Starting a container, as users are promised.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// Removing a container: the engine kills it and deletes its files.
const REMOVE_WAIT_MAX: Duration = Duration::from_secs(60);
/// What a stop takes beyond its grace.
const STOP_WAIT_EXTRA: Duration = Duration::from_secs(15);
/// The longest grace before a stop turns into a kill.
const GRACE_MAX: Duration = Duration::from_secs(300);
/// Fetching an image, as users are promised.
const PULL_WAIT_MAX: Duration = Duration::from_secs(600);
/// bollard's own deadline for the beginning of an answer, in seconds: longer than any of ours, so that ours decide.
const BOLLARD_WAIT_S: u64 = 900;
/// Containers that are listed: more than a policy may allow at once.
const CONTAINERS_MAX: i32 = 4096;

/// Hexadecimal digits of a container's id.
const CONTAINER_ID_DIGITS: usize = 64;

/// A connection to the engine. Cheap to clone; every call dials anew, so an engine that restarts is found again.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    host: HostId,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code: above 128 it was a signal.
    pub code: u64,
    /// Whether the engine saw it use more memory than its limit. It misses some (about one in six on control groups v1, when
    /// several run out at once), so `false` beside the exit code 137 proves nothing.
    pub oom: bool,
}

impl Engine {
    /// Connects to the engine behind `socket` for the sandboxes of `host`, and agrees on a version.
    ///
    /// # Errors
    /// `engine_unavailable`, if it does not answer or is too old.
    pub async fn connect(socket: &Path, host: HostId) -> Result<Self, EngineError> {
        let path = socket
            .to_str()
            .ok_or_else(|| EngineError::unavailable("its socket's path is not UTF-8"))?;
        let docker = Docker::connect_with_unix(path, BOLLARD_WAIT_S, API_DEFAULT_VERSION)
            .map_err(|error| fault::read("connect to the engine", &error))?;
        let docker = within(
            "ask the engine for its version",
            ASK_WAIT_MAX,
            docker.negotiate_version(),
        )
        .await?;
        if docker.client_version() < API_MIN {
            return Err(EngineError::unavailable(
                "it is older than Docker 20.10: update it",
            ));
        }
        Ok(Self { docker, host })
    }

    /// The host whose sandboxes these are.
    #[must_use]
    pub fn host(&self) -> &HostId {
        &self.host
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// `engine_unavailable`.
    pub async fn ping(&self) -> Result<(), EngineError> {
        within("ping the engine", ASK_WAIT_MAX, self.docker.ping())
            .await
            .map(drop)
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// `engine_unavailable`.
    pub async fn info(&self) -> Result<EngineFacts, EngineError> {
        let info = within(
            "ask the engine about itself",
            ASK_WAIT_MAX,
            self.docker.info(),
        )
        .await?;
        Ok(EngineFacts::read(&info))
    }

    /// What it says about an image.
    ///
    /// # Errors
    /// `image_not_found`; `digest_mismatch`, if it answers with another image than the one that was asked for.
    pub async fn image(&self, reference: &Reference) -> Result<ImageFacts, EngineError> {
        let text = reference.text();
        let asking = self.docker.inspect_image(&text);
        let facts = match within("look at the image", ASK_WAIT_MAX, asking).await {
            Ok(image) => image_facts(image),
            Err(error) if error.reason == Reason::NotFound => return Err(EngineError::no_image()),
            Err(error) => return Err(error),
        };
        let is_asked_for = match reference {
            Reference::Id(id) => facts.id == *id,
            Reference::Digest { digest, .. } => {
                facts.id == *digest
                    || facts
                        .digests
                        .iter()
                        .any(|known| known.ends_with(&format!("@{digest}")))
            }
            Reference::Tag { .. } => true,
        };
        if is_asked_for && facts.id.starts_with("sha256:") {
            Ok(facts)
        } else {
            Err(EngineError::digest())
        }
    }

    /// Fetches an image. An id cannot be fetched: nobody knows from where.
    ///
    /// # Errors
    /// `image_not_found`, `image_pull_failed`.
    pub async fn pull(&self, reference: &Reference) -> Result<(), EngineError> {
        let (name, tag) = match reference {
            Reference::Id(_) => return Err(EngineError::no_image()),
            Reference::Tag { name, tag } => (name, tag),
            Reference::Digest { name, digest } => (name, digest),
        };
        let options = CreateImageOptions {
            from_image: Some(name.clone()),
            tag: Some(tag.clone()),
            ..CreateImageOptions::default()
        };
        let mut progress = self.docker.create_image(Some(options), None, None);
        let pulling = async {
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok(())
        };
        within("pull the image", PULL_WAIT_MAX, pulling)
            .await
            .map_err(EngineError::while_pulling)
    }

    /// Makes a container and says its id. The engine's warnings are logged: what it degrades shows in the comparison.
    ///
    /// # Errors
    /// `conflict`, if its name is taken; `disk_full`; `engine_refused`.
    pub async fn create(&self, spec: &Spec) -> Result<String, EngineError> {
        let options = CreateContainerOptions {
            name: Some(spec.name()),
            platform: String::new(),
        };
        let creating = self
            .docker
            .create_container(Some(options), create_body(spec));
        let made = within("make the container", CREATE_WAIT_MAX, creating).await?;
        for warning in made.warnings {
            tracing::warn!(sandbox = %spec.sandbox(), "the engine warns: {}", fault::plain(&warning));
        }
        Ok(made.id)
    }

    /// Everything that the engine says about a container.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, EngineError> {
        // A name would do for the engine, and a path would be another call.
        if !is_container_id(container) {
            return Err(EngineError::not_ours());
        }
        let asking = self
            .docker
            .inspect_container(container, None::<InspectContainerOptions>);
        within("look at the container", ASK_WAIT_MAX, asking).await
    }

    /// One of this host's sandboxes.
    ///
    /// # Errors
    /// `not_found`, also for a container that is not ours.
    pub async fn observe(&self, container: &str) -> Result<Observed, EngineError> {
        let inspected = self.inspect(container).await?;
        Observed::read(&self.host, &inspected).map_err(|_| EngineError::not_ours())
    }

    /// The sandboxes of this host, running or not.
    ///
    /// # Errors
    /// `engine_unavailable`: then nothing is known about any of them.
    pub async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        let label = format!("{LABEL_HOST}={}", self.host);
        let options = ListContainersOptions {
            all: true,
            limit: Some(CONTAINERS_MAX),
            size: false,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
        };
        let listing = self.docker.list_containers(Some(options));
        let mut found = Vec::new();
        for summary in within("list containers", ASK_WAIT_MAX, listing).await? {
            let Some(container) = summary.id else {
                continue;
            };
            match self.inspect(&container).await {
                Ok(inspected) => match Observed::read(&self.host, &inspected) {
                    Ok(observed) => found.push(observed),
                    Err(error) => tracing::warn!(container, "left alone: {error}"),
                },
                // Removed since.
                Err(error) if error.reason == Reason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// `start_timeout`, `engine_refused`, `not_found`.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        let starting = self
            .docker
            .start_container(container, None::<StartContainerOptions>);
        within("start the container", START_WAIT_MAX, starting)
            .await
            .map_err(EngineError::while_starting)
    }

    /// Asks a sandbox to end, and ends it after `grace`. That it has ended is as good.
    ///
    /// # Errors
    /// `not_found`, also for a container that is not ours.
    pub async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        self.observe(container).await?;
        let grace = grace.min(GRACE_MAX);
        let options = StopContainerOptions {
            signal: None,
            t: Some(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)),
        };
        let stopping = self.docker.stop_container(container, Some(options));
        within("stop the container", grace + STOP_WAIT_EXTRA, stopping).await
    }

    /// Ends a sandbox at once. That it has ended is as good.
    ///
    /// # Errors
    /// `not_found`, also for a container that is not ours.
    pub async fn kill(&self, container: &str) -> Result<(), EngineError> {
        self.observe(container).await?;
        let killing = self.docker.kill_container(
            container,
            Some(KillContainerOptions {
                signal: "SIGKILL".to_owned(),
            }),
        );
        match within("kill the container", ASK_WAIT_MAX, killing).await {
            // It is not running.
            Err(error) if error.reason == Reason::Conflict => Ok(()),
            result => result,
        }
    }

    /// Waits until a sandbox that was started has ended. This wait alone has no deadline of its own: a sandbox's life has.
    ///
    /// # Errors
    /// `engine_unavailable`, if the engine goes away meanwhile: nothing is known then, list again. `not_found`.
    pub async fn wait(&self, container: &str) -> Result<Exit, EngineError> {
        self.observe(container).await?;
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let mut waiting = Box::pin(self.docker.wait_container(container, Some(options)));
        // bollard takes a code other than zero for a failure of its own.
        let code = match guest(waiting.next()).await {
            Some(Ok(ended)) => ended.status_code,
            Some(Err(Error::DockerContainerWaitError { code, error })) if error.is_empty() => code,
            Some(Err(error)) => return Err(fault::read("wait for the container", &error)),
            None => return Err(EngineError::unavailable("it hung up on a wait")),
        };
        let observed = self.observe(container).await?;
        Ok(Exit {
            code: observed
                .exit_code
                .or_else(|| u64::try_from(code).ok())
                .unwrap_or(u64::MAX),
            oom: observed.oom,
        })
    }

    /// Removes a sandbox's container, running or not. That it is gone is as good.
    ///
    /// # Errors
    /// `engine_unavailable`, `engine_refused`; `not_found` for a container that is not ours.
    pub async fn remove(&self, container: &str) -> Result<(), EngineError> {
        match self.inspect(container).await {
            Err(error) if error.reason == Reason::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(inspected) => {
                Observed::read(&self.host, &inspected).map_err(|_| EngineError::not_ours())?
            }
        };
        self.discard(container).await
    }

    /// Removes a container without looking at its labels: for one that this call of ours has just made.
    async fn discard(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        let removing = self.docker.remove_container(container, Some(options));
        match within("remove the container", REMOVE_WAIT_MAX, removing).await {
            // Gone, or somebody else is removing it.
            Err(error) if [Reason::NotFound, Reason::Conflict].contains(&error.reason) => Ok(()),
            result => result,
        }
    }
}

fn is_container_id(text: &str) -> bool {
    text.len() == CONTAINER_ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Runs a call to the engine inside tokio's context, for at most `wait_max`.
async fn within<T>(
    doing: &'static str,
    wait_max: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    let answer = async {
        guest(call)
            .await
            .map_err(|error| fault::read(doing, &error))
    };
    let give_up = async {
        Timer::after(wait_max).await;
        Err(EngineError::silent(doing, wait_max))
    };
    futures_lite::future::or(answer, give_up).await
}

fn image_facts(image: ImageInspect) -> ImageFacts {
    let config = image.config.unwrap_or_default();
    ImageFacts {
        id: image.id.unwrap_or_default(),
        digests: image.repo_digests.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        environment: config.env.unwrap_or_default(),
        volumes: BTreeSet::from_iter(config.volumes.unwrap_or_default()),
        ports: BTreeSet::from_iter(config.exposed_ports.unwrap_or_default()),
        labels: BTreeMap::from_iter(config.labels.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
