//! The policy file: TOML as it is written, and from it a [`Policy`] or the key that is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use protocol::{
    command::{Content, Limits},
    id::SourceName,
    key::{Dispatcher, Public},
    limits::DISPATCHERS_MAX,
};
use serde::Deserialize;

use super::{Policy, Pull, exposes, image::ImageRule, unit};
use crate::core::launch::engine::Degradation;

/// Entries of `images`; more are better written as a prefix.
const IMAGES_MAX: usize = 1024;
/// Entries of `[sources]`.
const SOURCES_LISTED_MAX: usize = 256;
/// Sandboxes at once that a policy may allow.
const PARALLEL_MAX: usize = 1000;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    images: Option<Vec<String>>,
    pull: Option<String>,
    content: Option<String>,
    parallel: Option<usize>,
    dispatchers: Option<Vec<String>>,
    tolerate: Option<Vec<String>>,
    limits: Option<RawLimits>,
    sources: Option<BTreeMap<String, PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    cpus: Option<f64>,
    memory: Option<String>,
    pids: Option<u64>,
    scratch: Option<String>,
    life: Option<String>,
}

/// What is wrong, before the name of the file is known.
pub(super) struct BadKey {
    pub(super) key: String,
    pub(super) problem: String,
}

fn bad(key: &str, problem: impl Into<String>) -> BadKey {
    BadKey {
        key: key.to_owned(),
        problem: problem.into(),
    }
}

impl TryFrom<RawPolicy> for Policy {
    type Error = BadKey;

    fn try_from(raw: RawPolicy) -> Result<Self, BadKey> {
        let unset = Self::default();
        let parallel = raw.parallel.unwrap_or(unset.parallel);
        if !(1..=PARALLEL_MAX).contains(&parallel) {
            return Err(bad("parallel", format!("1 to {PARALLEL_MAX}")));
        }
        let pull = match raw.pull.as_deref() {
            None | Some("never") => Pull::Never,
            Some("missing") => Pull::Missing,
            Some(_) => return Err(bad("pull", "use \"never\" or \"missing\"")),
        };
        let content = raw.content.map_or(Ok(unset.content), |word| {
            Content::from_word(&word)
                .ok_or_else(|| bad("content", "use \"metadata\", \"redacted\" or \"full\""))
        })?;
        Ok(Self {
            images: read_images(raw.images.unwrap_or_default())?,
            pull,
            content,
            parallel,
            dispatchers: read_dispatchers(&raw.dispatchers.unwrap_or_default())?,
            ceilings: read_limits(&raw.limits.unwrap_or_default(), &unset.ceilings)?,
            sources: read_sources(raw.sources.unwrap_or_default())?,
            tolerate: raw
                .tolerate
                .map_or(Ok(unset.tolerate), |words| read_tolerate(&words))?,
        })
    }
}

fn read_images(entries: Vec<String>) -> Result<Vec<ImageRule>, BadKey> {
    if entries.len() > IMAGES_MAX {
        return Err(bad(
            "images",
            format!("more than {IMAGES_MAX}; use a prefix"),
        ));
    }
    entries
        .into_iter()
        .map(|entry| {
            ImageRule::parse(&entry)
                .map_err(|problem| bad("images", format!("{entry:?}: {problem}")))
        })
        .collect()
}

fn read_dispatchers(entries: &[String]) -> Result<Vec<Public<Dispatcher>>, BadKey> {
    if entries.len() > DISPATCHERS_MAX {
        return Err(bad("dispatchers", format!("more than {DISPATCHERS_MAX}")));
    }
    entries
        .iter()
        .map(|entry| {
            entry
                .parse()
                .map_err(|problem| bad("dispatchers", format!("{entry:?}: {problem}: use ohd1_…")))
        })
        .collect()
}

fn read_limits(raw: &RawLimits, unset: &Limits) -> Result<Limits, BadKey> {
    let size = |key: &str, text: &Option<String>, unset: u64| match text {
        None => Ok(unset),
        Some(text) => unit::bytes(text).ok_or_else(|| {
            bad(
                key,
                format!("{text:?} is not a size such as \"512MiB\" or \"2GiB\""),
            )
        }),
    };
    let cpu_millis = raw.cpus.map_or(Ok(unset.cpu_millis), |cpus| {
        unit::cpu_millis(cpus).ok_or_else(|| bad("limits.cpus", "a number such as 0.5 or 2"))
    })?;
    let life_s = raw.life.as_deref().map_or(Ok(unset.life_s), |text| {
        unit::seconds(text).ok_or_else(|| {
            bad(
                "limits.life",
                format!("{text:?} is not a time such as \"30m\" or \"24h\""),
            )
        })
    })?;
    let pids = raw.pids.unwrap_or(unset.pids);
    if pids == 0 {
        return Err(bad("limits.pids", "at least 1"));
    }
    Ok(Limits {
        cpu_millis,
        memory_bytes: size("limits.memory", &raw.memory, unset.memory_bytes)?,
        pids,
        scratch_bytes: size("limits.scratch", &raw.scratch, unset.scratch_bytes)?,
        life_s,
    })
}

fn read_sources(raw: BTreeMap<String, PathBuf>) -> Result<BTreeMap<SourceName, PathBuf>, BadKey> {
    /// Where the kernel and the host's services live: no sandbox has a business there.
    const FORBIDDEN: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/var/run"];
    if raw.len() > SOURCES_LISTED_MAX {
        return Err(bad("sources", format!("more than {SOURCES_LISTED_MAX}")));
    }
    raw.into_iter()
        .map(|(name, path)| {
            let key = format!("sources.{name}");
            let name = SourceName::new(&name).map_err(|problem| bad(&key, problem.to_string()))?;
            let is_plain = path.is_absolute()
                && path
                    .to_str()
                    .is_some_and(|text| !text.contains(['\0', '\n']))
                && path.components().all(|part| match part {
                    Component::RootDir | Component::Normal(_) => true,
                    Component::Prefix(_) | Component::CurDir | Component::ParentDir => false,
                });
            if !is_plain {
                return Err(bad(&key, "an absolute path without \"..\""));
            }
            if FORBIDDEN
                .iter()
                .any(|place| exposes(&path, Path::new(place)))
            {
                return Err(bad(
                    &key,
                    "may not be, hold, or lie in /proc, /sys, /dev or /run",
                ));
            }
            Ok((name, path))
        })
        .collect()
}

fn read_tolerate(words: &[String]) -> Result<BTreeSet<Degradation>, BadKey> {
    words
        .iter()
        .map(|word| {
            Degradation::from_word(word).ok_or_else(|| {
                let known: Vec<_> = Degradation::ALL.iter().map(|one| one.word()).collect();
                bad("tolerate", format!("{word:?}: use {}", known.join(", ")))
            })
        })
        .collect()
}
