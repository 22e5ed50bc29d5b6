//! Against the engine of this machine. A machine without one skips these, and says so; CI must have one.

mod bench;

use self::bench::with_bench;
use super::*;
use crate::core::launch::{differences, observed::Phase};

/// How often a sandbox may run out of memory unnoticed by the engine, which was seen about once in six times.
const OOM_TRIES_MAX: u32 = 10;

#[test]
fn a_sandbox_is_made_as_asked_and_its_end_is_seen() {
    with_bench(|bench| async move {
        let launch = bench.launch(&["exit", "7"]);
        let prepared = bench.prepare(&launch).await.unwrap();
        let spec = bench.spec(&launch, &prepared);
        let container = bench.engine.create(&spec).await.unwrap();
        let made = bench.engine.inspect(&container).await.unwrap();
        assert_eq!(differences(&spec, &made), [], "before the start");
        bench.engine.start(&container).await.unwrap();
        let exit = bench.engine.wait(&container).await.unwrap();
        assert_eq!(
            exit,
            Exit {
                code: 7,
                oom: false
            }
        );
        let made = bench.engine.inspect(&container).await.unwrap();
        assert_eq!(differences(&spec, &made), [], "after the end");
        let listed = bench.engine.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].container, container);
        assert_eq!(
            (listed[0].phase, listed[0].exit_code),
            (Phase::Exited, Some(7))
        );
        assert_eq!(listed[0].spec, spec.hash());
        assert!(listed[0].started.is_some());
        bench.engine.remove(&container).await.unwrap();
        bench.engine.remove(&container).await.unwrap();
        assert_eq!(bench.engine.list().await.unwrap(), []);
        assert_eq!(
            bench.engine.wait(&container).await.unwrap_err().reason,
            Reason::NotFound
        );
    });
}

#[test]
fn what_is_promised_of_a_sandbox_holds_inside_it() {
    with_bench(|bench| async move {
        let launched = bench.run(&["probe"]).await.unwrap();
        let exit = bench.engine.wait(&launched.container).await.unwrap();
        let said = bench.said();
        assert_eq!(exit.code, 0, "{said}");
        assert_eq!(said, "fine\n");
    });
}

#[test]
fn a_sandbox_can_be_stopped_killed_or_run_out_of_memory() {
    with_bench(|bench| async move {
        let polite = bench.run(&["sleep"]).await.unwrap();
        let again = bench.run(&["sleep"]).await.unwrap_err();
        assert_eq!(again.reason, Reason::Conflict, "the name is taken: {again}");
        bench
            .engine
            .stop(&polite.container, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(
            bench.engine.wait(&polite.container).await.unwrap().code,
            137
        );
        bench
            .engine
            .stop(&polite.container, Duration::ZERO)
            .await
            .unwrap();
        bench.engine.kill(&polite.container).await.unwrap();
        bench.engine.remove(&polite.container).await.unwrap();
        // The engine misses some, above all when several sandboxes run out at once: once is enough here.
        let mut is_seen = false;
        for _ in 0..OOM_TRIES_MAX {
            let greedy = bench.run(&["eat"]).await.unwrap();
            let exit = bench.engine.wait(&greedy.container).await.unwrap();
            assert_eq!(
                exit.code, 137,
                "the limit holds, whether the engine says so or not"
            );
            bench.engine.remove(&greedy.container).await.unwrap();
            is_seen = exit.oom;
            if is_seen {
                break;
            }
        }
        assert!(is_seen);
    });
}

#[test]
fn a_container_that_is_not_as_asked_never_starts_and_is_removed() {
    with_bench(|bench| async move {
        let launch = bench.launch(&["sleep"]);
        let mut prepared = bench.prepare(&launch).await.unwrap();
        // The image brings a volume that we pretend not to know of.
        assert!(!prepared.image.volumes.is_empty());
        prepared.image.volumes.clear();
        let spec = bench.spec(&launch, &prepared);
        let error = super::launch(&bench.engine, &spec).await.unwrap_err();
        assert_eq!(error.reason, Reason::SpecMismatch);
        assert!(error.detail.contains("Mounts"), "{error}");
        assert_eq!(bench.engine.list().await.unwrap(), []);
    });
}

#[test]
fn what_is_not_ours_is_not_touched() {
    with_bench(|bench| async move {
        let launched = bench.run(&["sleep"]).await.unwrap();
        let other = Engine {
            host: HostId::new("another").unwrap(),
            ..bench.engine.clone()
        };
        assert_eq!(other.list().await.unwrap(), []);
        for error in [
            other
                .stop(&launched.container, Duration::ZERO)
                .await
                .unwrap_err(),
            other.kill(&launched.container).await.unwrap_err(),
            other.remove(&launched.container).await.unwrap_err(),
            other.wait(&launched.container).await.unwrap_err(),
            bench.engine.kill(&bench.name()).await.unwrap_err(),
        ] {
            assert_eq!(error.reason, Reason::NotFound, "{error}");
        }
        assert_eq!(bench.engine.list().await.unwrap()[0].phase, Phase::Running);
    });
}

#[test]
fn a_missing_image_is_named_so() {
    with_bench(|bench| async move {
        let mut launch = bench.launch(&[]);
        launch.image = format!("{}:nowhere", bench.repository());
        assert_eq!(
            bench.prepare(&launch).await.unwrap_err().reason,
            Reason::ImageNotFound
        );
        launch.image = "other:1".into();
        assert_eq!(
            bench.prepare(&launch).await.unwrap_err().reason,
            Reason::PolicyRefused
        );
    });
}

#[test]
fn an_engine_that_is_not_there_is_unavailable() {
    let tmp = tempfile::tempdir().unwrap();
    let host = HostId::new("edge-1").unwrap();
    let socket = tmp.path().join("none.sock");
    let error = smol::block_on(Engine::connect(&socket, host)).unwrap_err();
    assert_eq!(error.reason, Reason::EngineUnavailable);
}
