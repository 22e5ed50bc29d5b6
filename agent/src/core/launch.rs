//! The container that a sandbox is: constants, and a few typed fields that a policy has let through.
//!
//! There is no way to say privileged, a device, a capability, a host namespace, an unconfined profile or an arbitrary mount
//! here, so a command cannot ask for one either. [`create_body`] writes the specification for the engine;
//! [`differences`] compares what the engine made of it, before it starts.

mod body;
pub mod difference;
pub mod engine;
pub mod observed;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use protocol::{
    command::{Content, Launch, Limits},
    id::{CommandId, HostId, IsolationKey, SandboxId, SourceName, hex},
};

use self::engine::Degradation;
pub use self::{
    body::create_body,
    difference::{Difference, differences},
};
use super::{policy::Permit, rundir};

/// The user and the group of everything in a sandbox. Never 0, and above what hosts give to people.
pub const USER_ID: u32 = 10_001;

/// The label that names the host; what carries another value, or none, is not ours to touch.
pub const LABEL_HOST: &str = "outhaul.host";
/// The label that names the sandbox.
pub const LABEL_SANDBOX: &str = "outhaul.sandbox";
/// The label that names the command, in hexadecimal.
pub const LABEL_COMMAND: &str = "outhaul.command";
/// The label with [`Spec::hash`].
pub const LABEL_SPEC: &str = "outhaul.spec";
/// The label that says what events carry.
pub const LABEL_CONTENT: &str = "outhaul.content";
/// The label that says how long the sandbox may live, in seconds.
pub const LABEL_LIFE: &str = "outhaul.life";
/// The label with the isolation key, if there is one.
pub const LABEL_ISOLATION: &str = "outhaul.isolation";

/// What all our labels begin with. An image cannot bring one.
const LABEL_PREFIX: &str = "outhaul.";
/// What the variables begin with that only the operator and the shim set.
const VARIABLE_PREFIX: &str = "OUTHAUL_";
/// Counts up when the constants change: a sandbox of another version is not the same sandbox.
const SPEC_VERSION: u32 = 1;
/// Where the one writable place is, gone with the sandbox.
const WORKSPACE: &str = "/workspace";
/// Where sources are mounted, by name.
const SOURCES_DIR: &str = "/sources";
/// For images that do not set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Volumes that an image may declare; each becomes scratch space.
const VOLUMES_MAX: usize = 16;
/// Variables of the image, the operator and the command together.
const VARIABLES_MAX: usize = 512;

/// What the engine says of an image. Whatever it brings into a container is expected there; whatever else is, is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// The engine's id, `sha256:…`.
    pub id: String,
    /// Registry digests it is known by, `name@sha256:…`.
    pub digests: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its command.
    pub command: Vec<String>,
    /// Its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Paths it declares as volumes.
    pub volumes: BTreeSet<String>,
    /// Ports it declares; nothing publishes them.
    pub ports: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A sandbox cannot be made of this image and command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither says what to run.
    #[error("the image has no command of its own: give one")]
    NoCommand,
    /// A variable that only the operator sets.
    #[error("variables that begin with OUTHAUL_ are reserved")]
    ReservedVariable,
    /// A label that only the operator sets.
    #[error("the image has a label that begins with outhaul.: those are reserved")]
    ReservedLabel,
    /// Too many variables.
    #[error("more than {VARIABLES_MAX} environment variables with those of the image")]
    Variables,
    /// Too many volumes, or one where the sandbox's own places are.
    #[error("the image declares volumes that a sandbox cannot have")]
    Volumes,
    /// The engine's language cannot say this path.
    #[error("a path on the host is not UTF-8, or has a colon or a comma in it")]
    Path,
    /// More than the engine can count.
    #[error("a limit is out of range")]
    Range,
}

/// Everything that is not constant about a sandbox's container.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    host: HostId,
    sandbox: SandboxId,
    command: CommandId,
    isolation: Option<IsolationKey>,
    image: ImageFacts,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    limits: Limits,
    content: Content,
    sources: BTreeMap<SourceName, String>,
    in_dir: String,
    out_dir: String,
    tolerated: BTreeSet<Degradation>,
}

impl Spec {
    /// The specification for a launch that the policy permits. `run` is the run directory (of all sandboxes) as the engine sees
    /// it; `tolerated` is what the policy accepts that this engine lacks.
    ///
    /// # Errors
    /// [`SpecError`], if the image and the command do not make a sandbox.
    pub fn new(
        host: &HostId,
        command: CommandId,
        launch: &Launch,
        permit: &Permit,
        image: ImageFacts,
        run: &Path,
        tolerated: BTreeSet<Degradation>,
    ) -> Result<Self, SpecError> {
        let arguments = if launch.arguments.is_empty() {
            [&*image.entrypoint, &*image.command].concat()
        } else {
            launch.arguments.clone()
        };
        if arguments.is_empty() {
            return Err(SpecError::NoCommand);
        }
        if image
            .labels
            .keys()
            .any(|label| label.starts_with(LABEL_PREFIX))
        {
            return Err(SpecError::ReservedLabel);
        }
        check_volumes(&image.volumes)?;
        check_limits(&permit.limits)?;
        let environment = merge_environment(host, launch, &image)?;
        let run = run.join(launch.sandbox.as_str());
        let sources = permit
            .sources
            .iter()
            .map(|(name, path)| Ok((name.clone(), path_text(path)?)));
        Ok(Self {
            host: host.clone(),
            sandbox: launch.sandbox.clone(),
            command,
            isolation: launch.isolation.clone(),
            arguments,
            environment,
            limits: permit.limits.clone(),
            content: permit.content,
            sources: sources.collect::<Result<_, SpecError>>()?,
            in_dir: path_text(&run.join(rundir::IN))?,
            out_dir: path_text(&run.join(rundir::OUT))?,
            image,
            tolerated,
        })
    }

    /// The container's name: for people only, nothing matches on it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("outhaul-{}-{}", self.host, self.sandbox)
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &HostId {
        &self.host
    }

    /// The sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    /// The engine's id of the image.
    #[must_use]
    pub fn image_id(&self) -> &str {
        &self.image.id
    }

    /// What events carry.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// What it may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the engine lacks and the policy accepts.
    #[must_use]
    pub fn tolerated(&self) -> &BTreeSet<Degradation> {
        &self.tolerated
    }

    /// A hash of what the sandbox is, whatever it is called: two with the same hash do the same work in the same confines.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut put = |part: &[u8]| {
            // Lengths first, so that no two lists of parts read the same.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        put(&SPEC_VERSION.to_le_bytes());
        put(self.image.id.as_bytes());
        put(&(self.arguments.len() as u64).to_le_bytes());
        self.arguments
            .iter()
            .for_each(|argument| put(argument.as_bytes()));
        put(&(self.environment.len() as u64).to_le_bytes());
        for (name, value) in &self.environment {
            // The sandbox's own name is not part of what it is.
            if !name.starts_with(VARIABLE_PREFIX) {
                put(name.as_bytes());
                put(value.as_bytes());
            }
        }
        for (name, path) in &self.sources {
            put(name.as_str().as_bytes());
            put(path.as_bytes());
        }
        let Limits {
            cpu_millis,
            memory_bytes,
            pids,
            scratch_bytes,
            life_s,
        } = &self.limits;
        for limit in [cpu_millis, memory_bytes, pids, scratch_bytes, life_s] {
            put(&limit.to_le_bytes());
        }
        put(self.content.word().as_bytes());
        hex(hasher.finalize().as_bytes())
    }

    /// The labels it carries, with those of the image.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let own = [
            (LABEL_HOST, self.host.to_string()),
            (LABEL_SANDBOX, self.sandbox.to_string()),
            (LABEL_COMMAND, self.command.to_string()),
            (LABEL_SPEC, self.hash()),
            (LABEL_CONTENT, self.content.word().to_owned()),
            (LABEL_LIFE, self.limits.life_s.to_string()),
        ];
        let isolation = self
            .isolation
            .iter()
            .map(|key| (LABEL_ISOLATION, key.to_string()));
        let own = own
            .into_iter()
            .chain(isolation)
            .map(|(name, value)| (name.to_owned(), value));
        self.image.labels.clone().into_iter().chain(own).collect()
    }
}

fn check_volumes(volumes: &BTreeSet<String>) -> Result<(), SpecError> {
    /// Where a sandbox's own places and the kernel's are.
    const TAKEN: [&str; 7] = [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        WORKSPACE,
        SOURCES_DIR,
    ];
    let is_fine = |volume: &String| {
        let path = Path::new(volume);
        let text_is_plain =
            !volume.contains([':', ',', '\0']) && !volume.contains("..") && volume != "/";
        path.is_absolute() && text_is_plain && !TAKEN.iter().any(|taken| path.starts_with(taken))
    };
    if volumes.len() <= VOLUMES_MAX && volumes.iter().all(is_fine) {
        Ok(())
    } else {
        Err(SpecError::Volumes)
    }
}

/// The engine counts in signed numbers, and processors in thousandths of a millionth.
fn check_limits(limits: &Limits) -> Result<(), SpecError> {
    let Limits {
        cpu_millis,
        memory_bytes,
        pids,
        scratch_bytes,
        life_s: _,
    } = limits;
    let fits = [
        *memory_bytes,
        *pids,
        *scratch_bytes,
        cpu_millis.saturating_mul(1_000_000),
    ]
    .iter()
    .all(|limit| (1..=i64::MAX as u64).contains(limit));
    if fits { Ok(()) } else { Err(SpecError::Range) }
}

fn path_text(path: &Path) -> Result<String, SpecError> {
    match path.to_str() {
        Some(text) if path.is_absolute() && !text.contains([':', ',']) => Ok(text.to_owned()),
        Some(_) | None => Err(SpecError::Path),
    }
}

/// The image's variables, under ours, under the command's, under those that say where it is. All of them are written into the
/// specification, so that the engine has none to add.
fn merge_environment(
    host: &HostId,
    launch: &Launch,
    image: &ImageFacts,
) -> Result<BTreeMap<String, String>, SpecError> {
    let mut merged = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    for variable in &image.environment {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        merged.insert(name.to_owned(), value.to_owned());
    }
    merged.insert("HOME".to_owned(), WORKSPACE.to_owned());
    merged.insert("TMPDIR".to_owned(), "/tmp".to_owned());
    merged.extend(launch.environment.iter().cloned());
    if merged.keys().any(|name| name.starts_with(VARIABLE_PREFIX)) {
        return Err(SpecError::ReservedVariable);
    }
    merged.insert("OUTHAUL_HOST".to_owned(), host.to_string());
    merged.insert("OUTHAUL_SANDBOX".to_owned(), launch.sandbox.to_string());
    if merged.len() <= VARIABLES_MAX {
        Ok(merged)
    } else {
        Err(SpecError::Variables)
    }
}

#[cfg(test)]
pub(crate) mod tests;
