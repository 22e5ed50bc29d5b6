//! From a launch to a container that runs: all of it, or nothing.

use std::{collections::BTreeSet, path::PathBuf};

use protocol::{command::Launch, report::Reason};

use super::{Engine, EngineError, source};
use crate::core::{
    launch::{
        ImageFacts, Spec, differences,
        engine::{Degradation, EngineFacts},
    },
    policy::{Permit, Policy, PolicyRefusal, Pull, image::Reference},
};

/// Differences that a report names; the log has all of them.
const DIFFERENCES_SHOWN: usize = 4;

/// What a launch may have and what it is made of, before anything is made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What the policy permits; sources are where they are without links.
    pub permit: Permit,
    /// The image.
    pub image: ImageFacts,
    /// What the engine lacks and the policy accepts.
    pub tolerated: BTreeSet<Degradation>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The engine's id of the container.
    pub container: String,
    /// The engine's id of the image.
    pub image: String,
}

impl From<PolicyRefusal> for EngineError {
    fn from(refusal: PolicyRefusal) -> Self {
        Self::new(refusal.reason(), refusal.to_string())
    }
}

/// Asks the policy, finds the image, and looks at the sources. Nothing is fetched that the policy does not allow by name,
/// and nothing is made. `running` counts the sandboxes that exist; `secrets` are paths that no source may show.
///
/// # Errors
/// The reason for the report, with what to do.
pub async fn prepare(
    engine: &Engine,
    facts: &EngineFacts,
    policy: &Policy,
    launch: &Launch,
    running: usize,
    secrets: &[PathBuf],
) -> Result<Prepared, EngineError> {
    let tolerated = policy.check_engine(facts)?;
    let reference = Reference::parse(&launch.image)
        .map_err(|error| EngineError::new(Reason::ImageNotFound, error.to_string()))?;
    let image = match engine.image(&reference).await {
        Err(missing) if missing.reason == Reason::ImageNotFound => {
            // By its name alone: a stranger's image is not fetched to see whether its id is listed.
            policy.check(launch, running, None)?;
            if policy.pull() == Pull::Never {
                return Err(missing);
            }
            engine.pull(&reference).await?;
            engine.image(&reference).await?
        }
        found => found?,
    };
    let mut permit = policy.check(launch, running, Some(&image.id))?;
    for (name, path) in &mut permit.sources {
        *path = source::check(name, path, facts.user, secrets)?;
    }
    Ok(Prepared {
        permit,
        image,
        tolerated,
    })
}

/// Makes a container, compares it with its specification, and starts it. Whatever fails, no container is left.
///
/// # Errors
/// `spec_mismatch`, if the engine made something else; else as [`Engine::create`] and [`Engine::start`].
pub async fn launch(engine: &Engine, spec: &Spec) -> Result<Launched, EngineError> {
    let container = engine.create(spec).await?;
    match check_and_start(engine, spec, &container).await {
        Ok(()) => Ok(Launched {
            container,
            image: spec.image_id().to_owned(),
        }),
        Err(error) => {
            if let Err(left) = engine.discard(&container).await {
                // It carries our labels: the next look at the engine finds it.
                tracing::warn!(sandbox = %spec.sandbox(), container, "a container that did not start is left: {left}");
            }
            Err(error)
        }
    }
}

async fn check_and_start(engine: &Engine, spec: &Spec, container: &str) -> Result<(), EngineError> {
    let made = engine.inspect(container).await?;
    let different = differences(spec, &made);
    if !different.is_empty() {
        for difference in &different {
            tracing::warn!(sandbox = %spec.sandbox(), "the container is not what was asked for: {difference}");
        }
        let shown: Vec<String> = different
            .iter()
            .take(DIFFERENCES_SHOWN)
            .map(ToString::to_string)
            .collect();
        return Err(EngineError::new(Reason::SpecMismatch, shown.join("; ")));
    }
    engine.start(container).await
}
