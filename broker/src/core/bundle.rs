//! What lies in a bundle beside the broker's part: how to run the operator on the host, bounded and hardened, in three ways.
//!
//! These files are applied by root on somebody else's machine. So they are written by the command line of whoever adds the host, out of
//! this program, and never taken from the broker; and what is put into them is checked letter by letter.

use protocol::{
    bundle::Bundle,
    id::HostId,
    key::{Dispatcher, Public},
};

/// The longest name of an image, in bytes; Docker's own bound is 255 for the name and 128 for the tag.
const IMAGE_BYTES_MAX: usize = 255;
/// The longest authority, in bytes: a name of 253, and a port.
const BROKER_BYTES_MAX: usize = 259;

/// The files, as they lie in the bundle: name, mode, text with what is to be put in.
const TEMPLATES: [(&str, u32, &str); 8] = [
    ("README.txt", 0o644, include_str!("bundle/README.txt")),
    ("agent.env", 0o644, include_str!("bundle/agent.env")),
    ("compose.yaml", 0o644, include_str!("bundle/compose.yaml")),
    ("install.sh", 0o755, include_str!("bundle/install.sh")),
    ("policy.toml", 0o644, include_str!("bundle/policy.toml")),
    (
        "systemd/outhaul-agent.service",
        0o644,
        include_str!("bundle/outhaul-agent.service"),
    ),
    (
        "systemd/outhaul-agent.sysusers",
        0o644,
        include_str!("bundle/outhaul-agent.sysusers"),
    ),
    (
        "systemd/outhaul-egress.service",
        0o644,
        include_str!("bundle/outhaul-egress.service"),
    ),
];

/// What differs from one host's files to another's.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The host.
    pub host: &'a HostId,
    /// The broker's authority, `name:port`.
    pub broker: &'a str,
    /// The operator's image, as the engine knows it.
    pub image: &'a str,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, with the folder it lies in.
    pub name: &'static str,
    /// Its mode.
    pub mode: u32,
    /// What it says.
    pub text: String,
}

/// Why there are no files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFacts {
    /// Letters that no name of an image has, or too many of them.
    #[error("{0:?} is no name of an image: write name:tag, in small letters")]
    Image(String),
    /// The broker said where it is, and that is no place.
    #[error("the broker's address is no name and port")]
    Broker,
}

/// Why a broker's part of a bundle is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Another host, or another kind of host.
    #[error("it is for another host")]
    Host,
    /// Dispatchers that nobody asked for, or fewer than asked for.
    #[error("it names other dispatchers than were asked for: they could launch work on the host")]
    Dispatchers,
    /// It names two places of the broker.
    #[error("it names another broker than the answer that it came with")]
    Broker,
}

/// Writes the files.
///
/// # Errors
/// [`BadFacts`]: something has letters that could mean more in a file than they say.
pub fn files(facts: &Facts<'_>) -> Result<Vec<File>, BadFacts> {
    if !is_image(facts.image) {
        // Its debug form shows every letter and acts on none.
        return Err(BadFacts::Image(
            facts.image.chars().take(IMAGE_BYTES_MAX).collect(),
        ));
    }
    if !is_authority(facts.broker) {
        return Err(BadFacts::Broker);
    }
    let fill = |text: &str| {
        text.replace("@HOST@", facts.host.as_str())
            .replace("@BROKER@", facts.broker)
            .replace("@IMAGE@", facts.image)
    };
    Ok(TEMPLATES
        .iter()
        .map(|(name, mode, text)| File {
            name,
            mode: *mode,
            text: fill(text),
        })
        .collect())
}

/// Checks that the broker's part of a bundle is what was asked for: a broker adds nobody to those whom a host obeys.
///
/// # Errors
/// [`Foreign`].
pub fn check(
    bundle: &Bundle,
    host: &HostId,
    broker: &str,
    dispatchers: &[Public<Dispatcher>],
) -> Result<(), Foreign> {
    if bundle.host != host.as_str() {
        return Err(Foreign::Host);
    }
    let asked = dispatchers.iter().map(ToString::to_string);
    if !asked.eq(bundle.dispatchers.iter().cloned()) {
        return Err(Foreign::Dispatchers);
    }
    if bundle.broker != broker {
        return Err(Foreign::Broker);
    }
    Ok(())
}

/// Whether this can name an image, and in YAML, a shell and a unit means nothing but itself.
fn is_image(text: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':');
    !text.is_empty()
        && text.len() <= IMAGE_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_plain)
}

/// The same of `name:port`.
fn is_authority(text: &str) -> bool {
    let Some((name, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|inner| {
            inner
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }),
        None => !name.is_empty() && name.bytes().all(is_plain),
    };
    text.len() <= BROKER_BYTES_MAX && is_name && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use protocol::{bundle::VERSION, key::Secret};
    use zeroize::Zeroizing;

    use super::*;

    fn host() -> HostId {
        HostId::new("edge-1").unwrap()
    }

    fn render(broker: &str, image: &str) -> Result<Vec<File>, BadFacts> {
        let host = host();
        files(&Facts {
            host: &host,
            broker,
            image,
        })
    }

    fn text(name: &str) -> String {
        let files = render("broker.example:8443", "outhaul-agent:1.2").unwrap();
        files
            .into_iter()
            .find(|file| file.name == name)
            .unwrap()
            .text
    }

    #[test]
    fn nothing_is_left_to_be_put_in() {
        for file in render("broker.example:8443", "outhaul-agent:1.2").unwrap() {
            for word in ["@HOST@", "@BROKER@", "@IMAGE@"] {
                assert!(!file.text.contains(word), "{word} in {}", file.name);
            }
            assert!(
                file.text.ends_with('\n') && !file.text.contains('\t'),
                "{}",
                file.name
            );
        }
        assert!(text("compose.yaml").contains("image: \"outhaul-agent:1.2\""));
        assert!(text("README.txt").contains("broker.example:8443"));
    }

    #[test]
    fn a_word_that_could_mean_more_than_it_says_is_put_into_no_file() {
        for image in [
            "",
            "a\nprivileged: true",
            "a\"b",
            "$(id)",
            "`id`",
            "a b",
            "-v",
            "é",
            &"a".repeat(256),
        ] {
            assert!(
                matches!(render("b:1", image), Err(BadFacts::Image(_))),
                "{image:?}"
            );
        }
        for broker in [
            "", "b", "b:", "b:0", "b:x", ":1", "b b:1", "b\n:1", "$(id):1", "[::1:1", "[a;b]:1",
        ] {
            assert_eq!(render(broker, "a:1"), Err(BadFacts::Broker), "{broker:?}");
        }
        for broker in [
            "broker.example:8443",
            "192.0.2.7:443",
            "[2001:db8::7]:8443",
            "localhost:1",
        ] {
            assert!(
                render(broker, "registry.example:5000/a/b:1_2").is_ok(),
                "{broker}"
            );
        }
    }

    #[test]
    fn both_processes_are_bounded_and_hardened_whichever_way_they_are_run() {
        let compose = text("compose.yaml");
        for line in [
            "user: \"10500:10500\"",
            "read_only: true",
            "cap_drop: [ALL]",
            "security_opt: [\"no-new-privileges:true\"]",
            "mem_limit: 64m",
            "memswap_limit: 64m",
            "cpus: 0.5",
            "pids_limit: 64",
            "network_mode: bridge",
        ] {
            assert!(compose.contains(line), "{line}");
        }
        assert_eq!(
            compose.matches("<<: *outhaul").count(),
            2,
            "operator and egress"
        );
        for word in [
            "ports:",
            "privileged",
            "cap_add",
            "network_mode: host",
            "install.key",
        ] {
            assert!(!compose.contains(word), "{word}");
        }
        for unit in [
            "systemd/outhaul-agent.service",
            "systemd/outhaul-egress.service",
        ] {
            let unit = text(unit);
            for line in [
                "User=outhaul-agent",
                "NoNewPrivileges=yes",
                "CapabilityBoundingSet=\n",
                "ProtectSystem=strict",
                "MemoryMax=64M",
                "CPUQuota=50%",
                "TasksMax=64",
                "SystemCallFilter=@system-service",
            ] {
                assert!(unit.contains(line), "{line}");
            }
        }
        assert!(
            !text("systemd/outhaul-egress.service").contains("docker"),
            "no engine for egress"
        );
    }

    #[test]
    fn a_broker_adds_nobody_to_those_whom_a_host_obeys() {
        let key = |byte| Secret::<Dispatcher>::from_seed(&Zeroizing::new([byte; 32])).public();
        let asked = [key(1), key(2)];
        let bundle = |names: &[Public<Dispatcher>]| {
            // As a broker sends it: fields that come later are its own to add.
            let text = format!(
                "version = {VERSION}\nhost = \"edge-1\"\nkind = \"docker\"\nbroker = \"b:1\"\nissued_ms = 1\ndispatchers = [{}]\n",
                names
                    .iter()
                    .map(|name| format!("\"{name}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            toml::from_str::<Bundle>(&text).unwrap()
        };
        assert_eq!(check(&bundle(&asked), &host(), "b:1", &asked), Ok(()));
        for others in [
            &[key(1), key(2), key(3)][..],
            &[key(1)],
            &[key(2), key(1)],
            &[],
        ] {
            let checked = check(&bundle(others), &host(), "b:1", &asked);
            assert_eq!(checked, Err(Foreign::Dispatchers));
        }
        let other = HostId::new("edge-2").unwrap();
        assert_eq!(
            check(&bundle(&asked), &other, "b:1", &asked),
            Err(Foreign::Host)
        );
        assert_eq!(
            check(&bundle(&asked), &host(), "c:1", &asked),
            Err(Foreign::Broker)
        );
    }
}
