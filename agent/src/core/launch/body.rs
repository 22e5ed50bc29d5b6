//! A specification in the engine's language: a pure mapping, and everything that is constant about a sandbox.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{SOURCES_DIR, Spec, USER_ID, WORKSPACE};
use crate::core::rundir;

/// Room in `/dev/shm`, in bytes: the engines' own default, said aloud.
const SHM_BYTES: i64 = 64 << 20;
/// Open files of one process: enough for a build, too few to starve the host, and below what engines themselves may have, for
/// one that is confined cannot give more than that.
const OPEN_FILES_MAX: i64 = 16_384;
/// Linux cuts a host name here.
const HOST_NAME_BYTES_MAX: usize = 63;
/// How often the engine asks the shim for its health, in nanoseconds.
const HEALTH_INTERVAL_NS: i64 = 60_000_000_000;
/// How long the shim may take to answer, in nanoseconds.
const HEALTH_TIMEOUT_NS: i64 = 5_000_000_000;

/// The specification in the engine's language.
#[must_use]
pub fn create_body(spec: &Spec) -> ContainerCreateBody {
    let shim = format!("{}/{}", rundir::INSIDE_IN, rundir::SHIM_FILE);
    let mut host_name = spec.sandbox.to_string();
    host_name.truncate(HOST_NAME_BYTES_MAX);
    ContainerCreateBody {
        hostname: Some(host_name),
        user: Some(format!("{USER_ID}:{USER_ID}")),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        tty: Some(false),
        open_stdin: Some(false),
        exposed_ports: some_list(spec.image.ports.iter().cloned().collect()),
        env: Some(
            spec.environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        entrypoint: Some(vec![shim.clone(), "run".to_owned(), "--".to_owned()]),
        cmd: Some(spec.arguments.clone()),
        // The id and not the name: what was checked is what runs.
        image: Some(spec.image.id.clone()),
        volumes: some_list(spec.image.volumes.iter().cloned().collect()),
        working_dir: Some(WORKSPACE.to_owned()),
        labels: Some(spec.labels().into_iter().collect()),
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["CMD".to_owned(), shim, "health".to_owned()]),
            interval: Some(HEALTH_INTERVAL_NS),
            timeout: Some(HEALTH_TIMEOUT_NS),
            retries: Some(3),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &Spec) -> HostConfig {
    let limits = &spec.limits;
    let memory = signed(limits.memory_bytes);
    HostConfig {
        // Who it is and what it may do. Seccomp and the masked paths are the engine's default, by being left out.
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        readonly_rootfs: Some(true),
        // What it may use: swap is the same as memory, so there is none.
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(signed(limits.cpu_millis.saturating_mul(1_000_000))),
        cpu_shares: Some(cpu_shares(limits.cpu_millis)),
        pids_limit: Some(signed(limits.pids)),
        ulimits: Some(vec![ulimit("nofile", OPEN_FILES_MAX), ulimit("core", 0)]),
        shm_size: Some(SHM_BYTES),
        // What it can reach: nothing.
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        mounts: Some(mounts(spec)),
        tmpfs: Some(tmpfs(spec)),
        // How it lives: its shim is its first process, nobody keeps a copy of its output, and it ends once.
        init: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: Some(HashMap::new()),
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: Some(0),
        }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

fn mounts(spec: &Spec) -> Vec<Mount> {
    let own = [
        bind(&spec.in_dir, rundir::INSIDE_IN, true),
        bind(&spec.out_dir, rundir::INSIDE_OUT, false),
    ];
    let sources = spec
        .sources
        .iter()
        .map(|(name, path)| bind(path, &format!("{SOURCES_DIR}/{name}"), true));
    own.into_iter().chain(sources).collect()
}

/// A directory of the host. Not recursive: older engines leave what is mounted below a read-only mount writable.
fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// The writable places, all in memory and counted against its limit. An image's volumes are among them: else the engine would
/// make volumes on disk that no limit bounds.
fn tmpfs(spec: &Spec) -> HashMap<String, String> {
    let scratch = spec.limits.scratch_bytes;
    let options = |exec: &str, mode: &str| {
        format!("rw,{exec},nosuid,nodev,size={scratch},uid={USER_ID},gid={USER_ID},mode={mode}")
    };
    let volumes = spec
        .image
        .volumes
        .iter()
        .map(|volume| (volume.clone(), options("noexec", "0700")));
    [
        ("/tmp".to_owned(), options("noexec", "1777")),
        (WORKSPACE.to_owned(), options("exec", "0700")),
    ]
    .into_iter()
    .chain(volumes)
    .collect()
}

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(most),
        hard: Some(most),
    }
}

/// The weight of a share of processor time: 1024 for a whole processor, within what the kernel takes.
pub(super) fn cpu_shares(cpu_millis: u64) -> i64 {
    signed((cpu_millis.saturating_mul(1024) / 1000).clamp(2, 262_144))
}

/// [`Spec::new`] has checked that it fits.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn some_list(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}
