//! The host owner's policy: what may run here, whatever a command says.
//!
//! It is read from one file, checked before any container is made, and says no by default: without a file, nothing runs.

mod file;
pub mod image;
pub mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use protocol::{
    command::{Content, Launch, Limits},
    id::SourceName,
    key::{Dispatcher, Public},
    report::Reason,
};

use self::{
    file::RawPolicy,
    image::{ImageRule, Reference},
};
use super::launch::engine::{Degradation, EngineFacts};

/// Sandboxes at once if the policy does not say.
const PARALLEL: usize = 8;

/// What the owner of the host allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    images: Vec<ImageRule>,
    pull: Pull,
    content: Content,
    parallel: usize,
    dispatchers: Vec<Public<Dispatcher>>,
    ceilings: Limits,
    sources: BTreeMap<SourceName, PathBuf>,
    tolerate: BTreeSet<Degradation>,
}

/// Whether the engine may fetch an image that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Never: images are loaded by hand.
    Never,
    /// If it is missing.
    Missing,
}

/// What a launch may have, once the policy has said yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What its events carry: what was asked for, or the owner's cap if that is less.
    pub content: Content,
    /// What it may use.
    pub limits: Limits,
    /// The directories behind the sources it named.
    pub sources: BTreeMap<SourceName, PathBuf>,
}

/// The part of the policy that refused; printed as the key in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `images`.
    Images,
    /// `parallel`.
    Parallel,
    /// `limits.cpus`.
    Cpus,
    /// `limits.memory`.
    Memory,
    /// `limits.pids`.
    Pids,
    /// `limits.scratch`.
    Scratch,
    /// `limits.life`.
    Life,
    /// `sources`.
    Sources,
    /// `tolerate`: what the engine cannot do.
    Tolerate,
    /// No key: an engine without seccomp runs nothing here.
    Seccomp,
}

impl Rule {
    /// Its name in reports and in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Parallel => "parallel",
            Self::Cpus => "limits.cpus",
            Self::Memory => "limits.memory",
            Self::Pids => "limits.pids",
            Self::Scratch => "limits.scratch",
            Self::Life => "limits.life",
            Self::Sources => "sources",
            Self::Tolerate => "tolerate",
            Self::Seccomp => "seccomp",
        }
    }
}

/// The policy says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", rule.word())]
pub struct PolicyRefusal {
    /// The rule that refused.
    pub rule: Rule,
    /// For a person: why, and what to do.
    pub detail: String,
}

impl PolicyRefusal {
    /// The word for it in a report: a full host is `busy`, for the command may be placed elsewhere.
    #[must_use]
    pub fn reason(&self) -> Reason {
        if self.rule == Rule::Parallel {
            Reason::Busy
        } else {
            Reason::PolicyRefused
        }
    }
}

/// The file says what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read policy {file}: {key}: {problem}")]
pub struct PolicyError {
    /// The file.
    pub file: String,
    /// The key in it.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Default for Policy {
    /// No file: nothing may run. The ceilings are those of a file that does not name them.
    fn default() -> Self {
        Self {
            images: Vec::new(),
            pull: Pull::Never,
            content: Content::Metadata,
            parallel: PARALLEL,
            dispatchers: Vec::new(),
            ceilings: Limits {
                cpu_millis: 2000,
                memory_bytes: 2 << 30,
                pids: 512,
                scratch_bytes: 2 << 30,
                life_s: 24 * 3600,
            },
            sources: BTreeMap::new(),
            tolerate: BTreeSet::from([
                Degradation::SwapLimit,
                Degradation::PidsLimit,
                Degradation::CpuShares,
            ]),
        }
    }
}

impl Policy {
    /// Reads a policy. `file` is its name, for errors.
    ///
    /// # Errors
    /// [`PolicyError`] names the key and says what is wrong with it.
    pub fn parse(text: &str, file: &str) -> Result<Self, PolicyError> {
        let error = |key: &str, problem: String| PolicyError {
            file: file.to_owned(),
            key: key.to_owned(),
            problem,
        };
        let raw: RawPolicy = toml::from_str(text)
            .map_err(|problem| error("TOML", problem.to_string().trim_end().to_owned()))?;
        Self::try_from(raw).map_err(|bad| error(&bad.key, bad.problem))
    }

    /// Whether a launch is allowed while `running` sandboxes exist. `image_id` is what the engine says the image is, if it has
    /// it; ask again once it is known, for a rule may name the id.
    ///
    /// # Errors
    /// [`PolicyRefusal`] names the rule that refused, and what the owner can do.
    pub fn check(
        &self,
        launch: &Launch,
        running: usize,
        image_id: Option<&str>,
    ) -> Result<Permit, PolicyRefusal> {
        self.check_image(&launch.image, image_id)?;
        self.check_limits(&launch.limits)?;
        let sources = self.find_sources(&launch.sources)?;
        // Last: a command that is never allowed here must not be told to try again later.
        if running >= self.parallel {
            let detail = format!("{running} sandboxes of at most {} exist", self.parallel);
            return Err(refuse(Rule::Parallel, detail));
        }
        Ok(Permit {
            content: launch.content.min(self.content),
            limits: launch.limits.clone(),
            sources,
        })
    }

    /// Whether this engine is good enough, and what of its shortcomings the owner accepts.
    ///
    /// # Errors
    /// [`PolicyRefusal`] names what the engine cannot do, and the remedy.
    pub fn check_engine(
        &self,
        engine: &EngineFacts,
    ) -> Result<BTreeSet<Degradation>, PolicyRefusal> {
        if !engine.seccomp {
            let detail = "the engine runs containers without a seccomp profile; enable it and restart the engine";
            return Err(refuse(Rule::Seccomp, detail.to_owned()));
        }
        match engine.degradations.difference(&self.tolerate).next() {
            None => Ok(engine.degradations.clone()),
            Some(degradation) => {
                let (word, remedy) = (degradation.word(), degradation.remedy());
                let detail =
                    format!("the engine lacks {word}: {remedy}, or list {word:?} under `tolerate`");
                Err(refuse(Rule::Tolerate, detail))
            }
        }
    }

    /// Refuses a policy that would show a sandbox what it must never see: each of `secrets` (the engine's socket, the state
    /// directory, the run directory) must lie outside every source.
    ///
    /// # Errors
    /// [`PolicyError`] names the source.
    pub fn check_sources(&self, secrets: &[&Path], file: &str) -> Result<(), PolicyError> {
        for (name, path) in &self.sources {
            if let Some(secret) = secrets.iter().find(|secret| exposes(path, secret)) {
                return Err(PolicyError {
                    file: file.to_owned(),
                    key: format!("sources.{name}"),
                    problem: format!("would show {} to a sandbox", secret.display()),
                });
            }
        }
        Ok(())
    }

    /// Dispatchers that the host obeys, beside the bundle's.
    #[must_use]
    pub fn dispatchers(&self) -> &[Public<Dispatcher>] {
        &self.dispatchers
    }

    /// Whether the engine may fetch images.
    #[must_use]
    pub fn pull(&self) -> Pull {
        self.pull
    }

    /// Sandboxes at once.
    #[must_use]
    pub fn parallel(&self) -> usize {
        self.parallel
    }

    /// The most that events may carry.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    fn check_image(&self, text: &str, image_id: Option<&str>) -> Result<(), PolicyRefusal> {
        let detail = match Reference::parse(text) {
            Err(problem) => problem.to_string(),
            Ok(reference)
                if self
                    .images
                    .iter()
                    .any(|rule| rule.allows(&reference, image_id)) =>
            {
                return Ok(());
            }
            Ok(_) if self.images.is_empty() => {
                "nothing may run on this host until its owner lists images in the policy file"
                    .into()
            }
            Ok(_) => {
                "the image is not listed; the host's owner can add it to the policy file".into()
            }
        };
        Err(refuse(Rule::Images, detail))
    }

    fn check_limits(&self, asked: &Limits) -> Result<(), PolicyRefusal> {
        let most = &self.ceilings;
        let cpus: Show = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
        let plain: Show = |number: u64| number.to_string();
        let time: Show = |seconds: u64| format!("{seconds} s");
        let rows: [(Rule, u64, u64, Show); 5] = [
            (Rule::Cpus, asked.cpu_millis, most.cpu_millis, cpus),
            (
                Rule::Memory,
                asked.memory_bytes,
                most.memory_bytes,
                unit::show_bytes,
            ),
            (Rule::Pids, asked.pids, most.pids, plain),
            (
                Rule::Scratch,
                asked.scratch_bytes,
                most.scratch_bytes,
                unit::show_bytes,
            ),
            (Rule::Life, asked.life_s, most.life_s, time),
        ];
        for (rule, asked, most, show) in rows {
            if asked > most {
                let detail = format!(
                    "asked for {}, this host gives at most {}",
                    show(asked),
                    show(most)
                );
                return Err(refuse(rule, detail));
            }
        }
        Ok(())
    }

    fn find_sources(
        &self,
        names: &[SourceName],
    ) -> Result<BTreeMap<SourceName, PathBuf>, PolicyRefusal> {
        names
            .iter()
            .map(|name| match self.sources.get(name) {
                Some(path) => Ok((name.clone(), path.clone())),
                None => Err(refuse(
                    Rule::Sources,
                    format!(
                        "no source {name} here; the host's owner can add it to the policy file"
                    ),
                )),
            })
            .collect()
    }
}

/// Writes a number with its unit.
type Show = fn(u64) -> String;

fn refuse(rule: Rule, detail: String) -> PolicyRefusal {
    PolicyRefusal { rule, detail }
}

/// Whether a mounted `source` would show `secret`: it is above, at, or below it.
fn exposes(source: &Path, secret: &Path) -> bool {
    secret.starts_with(source) || source.starts_with(secret)
}

#[cfg(test)]
mod tests;
