//! What an engine says about itself, and the closed list of what an engine may lack.

use std::collections::BTreeSet;

use bollard::models::SystemInfo;

use super::USER_ID;

/// The first release without a known way around its own authorisation.
const VERSION_MIN: [u32; 3] = [29, 3, 1];

macro_rules! degradations {
    ($( $(#[$meta:meta])* $name:ident = $word:literal, $remedy:literal; )*) => {
        /// Something that a kernel or an engine is known not to do. What is not in this list is a difference.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Degradation {
            $( $(#[$meta])* $name, )*
        }

        impl Degradation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$name ),*];

            /// Its name in the policy file and in reports.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }

            /// What the host's owner can do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $( Self::$name => $remedy, )* }
            }

            /// The degradation of that name.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word)
            }
        }
    };
}

degradations! {
    /// Swap is not counted: a sandbox may swap beyond its memory limit.
    SwapLimit = "swap_limit", "boot with swapaccount=1, use cgroup v2, or turn swap off";
    /// Processes are not counted.
    PidsLimit = "pids_limit", "enable the pids controller of the kernel's control groups";
    /// Memory is not limited.
    MemoryLimit = "memory_limit", "enable the memory controller (rootless engines need cgroup v2 and delegation)";
    /// Processor time is not limited.
    CpuLimit = "cpu_limit", "enable the cpu controller (rootless engines need cgroup v2 and delegation)";
    /// Processor time is not shared by weight.
    CpuShares = "cpu_shares", "enable the cpu controller (rootless engines need cgroup v2 and delegation)";
}

/// What an engine says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its release.
    pub version: String,
    /// Whether it runs containers under a seccomp profile.
    pub seccomp: bool,
    /// Whether it runs without root.
    pub rootless: bool,
    /// What it lacks.
    pub degradations: BTreeSet<Degradation>,
    /// The user and group on the host that a sandbox's own are, as far as it can be known: not for a rootless engine.
    pub user: Option<(u32, u32)>,
    /// Processors of the host.
    pub cpus: u64,
    /// Memory of the host, in bytes.
    pub memory_bytes: u64,
}

impl EngineFacts {
    /// Reads them from the engine's answer. What it does not say counts as missing.
    #[must_use]
    pub fn read(info: &SystemInfo) -> Self {
        let options = info.security_options.as_deref().unwrap_or_default();
        let has = |name: &str| {
            let name = format!("name={name}");
            options
                .iter()
                .find(|option| option.split(',').any(|part| part == name))
        };
        let seccomp = has("seccomp").is_some_and(|option| !option.contains("profile=unconfined"));
        let rootless = has("rootless").is_some();
        let user = match (rootless, has("userns")) {
            (true, _) => None,
            (false, None) => Some((USER_ID, USER_ID)),
            (false, Some(_)) => remapped(info.docker_root_dir.as_deref().unwrap_or_default()),
        };
        let degradations = [
            (Degradation::SwapLimit, info.swap_limit),
            (Degradation::PidsLimit, info.pids_limit),
            (Degradation::MemoryLimit, info.memory_limit),
            (Degradation::CpuLimit, info.cpu_cfs_quota),
            (Degradation::CpuShares, info.cpu_shares),
        ]
        .into_iter()
        .filter_map(|(degradation, works)| (works != Some(true)).then_some(degradation))
        .collect();
        Self {
            version: info.server_version.clone().unwrap_or_default(),
            seccomp,
            rootless,
            degradations,
            user,
            cpus: positive(info.ncpu),
            memory_bytes: positive(info.mem_total),
        }
    }

    /// What the host's owner should know when the operator starts.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.seccomp {
            warnings
                .push("the engine has no seccomp profile: no sandbox will be started".to_owned());
        }
        if !self.rootless {
            warnings.push(
                "the engine runs as root, so its socket is root: a rootless engine is safer"
                    .to_owned(),
            );
        }
        if is_older(&self.version, VERSION_MIN) {
            let [major, minor, patch] = VERSION_MIN;
            warnings.push(format!(
                "the engine is older than {major}.{minor}.{patch}: update it"
            ));
        }
        warnings.extend(self.degradations.iter().map(|degradation| {
            format!(
                "the engine lacks {}: {}",
                degradation.word(),
                degradation.remedy()
            )
        }));
        warnings
    }
}

/// The host's user for a sandbox's under user namespace remapping: the engine then keeps its files in `<root>/<uid>.<gid>`.
fn remapped(root_dir: &str) -> Option<(u32, u32)> {
    let (uid, gid) = root_dir.rsplit('/').next()?.split_once('.')?;
    let shift = |id: &str| id.parse::<u32>().ok()?.checked_add(USER_ID);
    Some((shift(uid)?, shift(gid)?))
}

fn positive(number: Option<i64>) -> u64 {
    number
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or(0)
}

/// Whether a release comes before another; one that cannot be read counts as old.
fn is_older(version: &str, least: [u32; 3]) -> bool {
    let mut parts = version
        .split(['.', '+', '-', '~'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = [(); 3].map(|()| parts.next().unwrap_or(0));
    version < least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(options: &[&str]) -> SystemInfo {
        SystemInfo {
            server_version: Some("29.3.1".into()),
            security_options: Some(options.iter().map(|&option| option.into()).collect()),
            docker_root_dir: Some("/var/lib/docker/231072.231073".into()),
            swap_limit: Some(true),
            pids_limit: Some(true),
            memory_limit: Some(true),
            cpu_cfs_quota: Some(true),
            cpu_shares: Some(true),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn seccomp_is_there_only_if_the_engine_says_so() {
        for (options, there) in [
            (&["name=seccomp,profile=default"][..], true),
            (&["name=apparmor", "name=seccomp,profile=builtin"], true),
            (&["name=seccomp,profile=unconfined"], false),
            (&["name=apparmor"], false),
            (&[], false),
        ] {
            assert_eq!(
                EngineFacts::read(&info(options)).seccomp,
                there,
                "{options:?}"
            );
        }
    }

    #[test]
    fn a_sandboxes_user_on_the_host_is_known_unless_the_engine_is_rootless() {
        let user = |options: &[&str]| EngineFacts::read(&info(options)).user;
        assert_eq!(user(&[]), Some((10001, 10001)));
        assert_eq!(user(&["name=userns"]), Some((241_073, 241_074)));
        assert_eq!(user(&["name=rootless"]), None);
    }

    #[test]
    fn what_an_engine_does_not_say_it_can_it_cannot() {
        let all: BTreeSet<_> = Degradation::ALL.iter().copied().collect();
        assert_eq!(EngineFacts::read(&SystemInfo::default()).degradations, all);
        assert_eq!(EngineFacts::read(&info(&[])).degradations, BTreeSet::new());
    }

    #[test]
    fn an_old_or_rootful_engine_is_warned_about() {
        let good = EngineFacts::read(&info(&["name=seccomp,profile=default", "name=rootless"]));
        assert_eq!(good.warnings(), Vec::<String>::new());
        for (version, old) in [
            ("20.10.24+dfsg1", true),
            ("29.3.0", true),
            ("29.3.1", false),
            ("30", false),
            ("", true),
        ] {
            let facts = EngineFacts {
                version: version.into(),
                ..good.clone()
            };
            assert_eq!(!facts.warnings().is_empty(), old, "{version}");
        }
    }

    #[test]
    fn every_degradation_is_found_by_its_word() {
        for degradation in Degradation::ALL {
            assert_eq!(
                Degradation::from_word(degradation.word()),
                Some(*degradation)
            );
        }
    }
}
