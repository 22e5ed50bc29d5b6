//! An image, a run directory and a host of its own for each test, all gone at its end.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
};

use bollard::query_parameters::RemoveImageOptions;
use protocol::{
    command::{Content, Launch, Limits},
    id::{CommandId, IsolationKey, SandboxId, SourceName},
};
use tempfile::TempDir;

use super::super::*;
use crate::{
    core::{policy::Policy, rundir::OUT},
    shell::{
        rundir::{Files, RunDir},
        tokio::block_on,
    },
};

const SOCKET: &str = "/var/run/docker.sock";

pub(super) struct Bench {
    pub(super) engine: Engine,
    facts: EngineFacts,
    run: RunDir,
    tmp: TempDir,
}

/// Runs a test, and takes away what it made, however it ended.
pub(super) fn with_bench<F: Future<Output = ()>>(test: impl FnOnce(Rc<Bench>) -> F) {
    block_on(async {
        let Some(bench) = Bench::open().await else {
            return;
        };
        let bench = Rc::new(bench);
        let test = std::panic::AssertUnwindSafe(test(bench.clone()));
        let ended = futures_lite::FutureExt::catch_unwind(test).await;
        bench.close().await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    })
    .unwrap();
}

impl Bench {
    async fn open() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let host = HostId::new(&format!("test-{}-{number}", std::process::id())).unwrap();
        let engine = match Engine::connect(Path::new(SOCKET), host).await {
            Ok(engine) => engine,
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED: no container engine on this machine: {error}");
                return None;
            }
            Err(error) => panic!("CI needs a container engine: {error}"),
        };
        let tmp = tempfile::tempdir().unwrap();
        fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let source = tmp.path().join("project");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "source").unwrap();
        let run = RunDir::open(&tmp.path().join("run"), &compile(tmp.path())).unwrap();
        let facts = engine.info().await.unwrap();
        let bench = Self {
            engine,
            facts,
            run,
            tmp,
        };
        bench.import().await;
        Some(bench)
    }

    /// An image that holds nothing, and declares what a careless one would.
    async fn import(&self) {
        let changes = [
            "VOLUME /data",
            "EXPOSE 80",
            "LABEL x=y",
            "ENV FROM_IMAGE=1",
            "USER 0",
            "HEALTHCHECK NONE",
        ];
        let options = CreateImageOptions {
            from_src: Some("-".into()),
            repo: Some(self.repository()),
            tag: Some("1".into()),
            changes: changes.map(String::from).to_vec(),
            ..CreateImageOptions::default()
        };
        // An archive of nothing is two blocks of zeros.
        let body = bollard::body_full(vec![0; 1024].into());
        let mut importing = self
            .engine
            .docker
            .create_image(Some(options), Some(body), None);
        while let Some(step) = importing.next().await {
            step.unwrap();
        }
    }

    async fn close(&self) {
        for left in self.engine.list().await.unwrap_or_default() {
            let _ = self.engine.remove(&left.container).await;
        }
        let options = RemoveImageOptions {
            force: true,
            ..RemoveImageOptions::default()
        };
        let image = format!("{}:1", self.repository());
        let _ = self
            .engine
            .docker
            .remove_image(&image, Some(options), None)
            .await;
    }

    pub(super) fn repository(&self) -> String {
        format!("outhaul-{}", self.engine.host())
    }

    /// The name of the one container.
    pub(super) fn name(&self) -> String {
        format!("outhaul-{}-build-7", self.engine.host())
    }

    pub(super) fn launch(&self, arguments: &[&str]) -> Launch {
        Launch {
            sandbox: SandboxId::new("build-7").unwrap(),
            image: format!("{}:1", self.repository()),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            environment: vec![("FROM_COMMAND".into(), "2".into())],
            sources: vec![SourceName::new("project").unwrap()],
            limits: Limits {
                memory_bytes: 32 << 20,
                scratch_bytes: 1 << 20,
                ..Limits::default()
            },
            content: Content::Redacted,
            isolation: Some(IsolationKey::new("ticket-9").unwrap()),
        }
    }

    pub(super) async fn prepare(&self, launch: &Launch) -> Result<Prepared, EngineError> {
        let text = format!(
            "images = [\"{}:*\"]\ncontent = \"full\"\n[sources]\nproject = \"{}\"",
            self.repository(),
            self.tmp.path().join("project").display()
        );
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        let secrets = [PathBuf::from(SOCKET), self.run.path().to_owned()];
        prepare(&self.engine, &self.facts, &policy, launch, 0, &secrets).await
    }

    pub(super) fn spec(&self, launch: &Launch, prepared: &Prepared) -> Spec {
        self.run
            .create(
                &launch.sandbox,
                Files {
                    launch: b"{}",
                    ca: b"",
                },
                self.facts.user,
            )
            .unwrap();
        Spec::new(
            self.engine.host(),
            CommandId([7; 16]),
            launch,
            &prepared.permit,
            prepared.image.clone(),
            self.run.path(),
            prepared.tolerated.clone(),
        )
        .unwrap()
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Launched, EngineError> {
        let launch = self.launch(arguments);
        let prepared = self.prepare(&launch).await?;
        super::super::launch(&self.engine, &self.spec(&launch, &prepared)).await
    }

    /// What the probe wrote.
    pub(super) fn said(&self) -> String {
        let out = self.run.path().join("build-7").join(OUT);
        fs::read_to_string(out.join("said")).unwrap_or_default()
    }
}

/// Builds the probe, static: `--target` keeps that from the build's own parts.
fn compile(dir: &Path) -> PathBuf {
    let program = dir.join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shell/docker/tests/probe.rs");
    let built = Command::new("rustc")
        .args([
            "--edition=2024",
            "-Ctarget-feature=+crt-static",
            "-Cdebuginfo=0",
            "-Cstrip=symbols",
            "-o",
        ])
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    program
}
