//! Commands: made, signed with the user's key, and handed to the broker, which cannot change them.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use protocol::{
    command::{self, Command, Order},
    id::{CommandId, HostId, SandboxId},
    key::{Dispatcher, Secret},
    limits::{COMMAND_LIFE_MS_MAX, ID_BYTES_MAX},
    time::UnixMillis,
};
use zeroize::Zeroizing;

use super::{api, client::Client};
use crate::shell::clock;

/// The key file's name in the configuration directory.
pub(crate) const KEY_FILE: &str = "dispatcher.key";
/// The longest key file, in bytes; ours has 77.
const KEY_FILE_BYTES_MAX: u64 = 256;
/// Random characters at the end of a sandbox's name: 30 bits, enough for the sandboxes of one host.
const SUFFIX_CHARACTERS: usize = 6;

/// A command that the broker has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Its id.
    pub(crate) id: CommandId,
    /// Where it stands in the journal: what concerns it comes after.
    pub(crate) offset: u64,
    /// When it is void.
    pub(crate) expires: UnixMillis,
}

/// Signs an order for a host and hands it to the broker.
pub(crate) async fn send(
    client: &Client,
    key: &Secret<Dispatcher>,
    host: &HostId,
    order: Order,
    life: Duration,
) -> anyhow::Result<Sent> {
    let now = clock::unix();
    let command = Command {
        id: CommandId(random()?),
        host: host.clone(),
        issued: now,
        expires: now.plus(life),
        order,
    };
    let bytes = sign(key, &command)?;
    let submitted = api::submit(client, bytes).await?;
    Ok(Sent {
        id: command.id,
        offset: submitted.offset,
        expires: command.expires,
    })
}

/// Signs, and checks as the host will, so that what it would refuse is refused here with a reason.
fn sign(key: &Secret<Dispatcher>, command: &Command) -> anyhow::Result<Vec<u8>> {
    let life_ms = command.expires.0.saturating_sub(command.issued.0);
    if life_ms == 0 || life_ms > COMMAND_LIFE_MS_MAX {
        bail!("sign command: it may be valid for up to 7 days, and no less than a moment");
    }
    let bytes = command::sign(key, command);
    command::verify(&bytes, &[key.public()], &command.host, command.issued)
        .context("sign command: arguments, environment, sources or limits are more than one command may carry")?;
    Ok(bytes)
}

/// Bytes of the system's generator.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("get random bytes: {error}"))?;
    Ok(bytes)
}

/// A new name for a sandbox of this image: what the image is called, and random characters.
pub(crate) fn name(image: &str, random: [u8; SUFFIX_CHARACTERS]) -> anyhow::Result<SandboxId> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let suffix: String = random
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 32)))
        .map(|character| char::from(*character))
        .collect();
    let name = format!("{}-{suffix}", base(image));
    SandboxId::new(&name).context("name sandbox")
}

/// What an image is called, in the letters of an id: `registry:5000/team/web_app:1` is `web-app`.
fn base(image: &str) -> String {
    let without_digest = image.split('@').next().unwrap_or_default();
    let last = without_digest.rsplit('/').next().unwrap_or_default();
    let called = match last.split_once(':') {
        // The engine's own id of an image says nothing to people.
        Some(("sha256", _)) => "sandbox",
        Some((called, _)) => called,
        None => last,
    };
    let letters: String = called
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(ID_BYTES_MAX - SUFFIX_CHARACTERS - 1)
        .collect();
    let letters = letters.trim_matches('-');
    if letters.is_empty() {
        "sandbox".to_owned()
    } else {
        letters.to_owned()
    }
}

/// Reads the user's dispatcher key.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<Secret<Dispatcher>> {
    use std::os::unix::fs::MetadataExt as _;
    let context = || format!("read dispatcher key {}", path.display());
    let metadata = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "you have no dispatcher key at {}: make one with `outhaul dispatcher init`",
            path.display()
        ),
        other => other.with_context(context)?,
    };
    if metadata.mode() & 0o077 != 0 {
        bail!(
            "{}: others may read it; if none has, close it with `chmod 600`, else make another",
            context()
        );
    }
    if metadata.len() > KEY_FILE_BYTES_MAX {
        bail!("{}: not a dispatcher key", context());
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(context)?);
    Secret::from_file_text(&text).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::super::known_hosts::tests::secret;
    use super::super::place::write_new;
    use super::*;
    use protocol::command::{Content, Launch, Limits, Stop};

    fn command(order: Order, life_ms: u64) -> Command {
        Command {
            id: CommandId([1; 16]),
            host: HostId::new("edge-1").unwrap(),
            issued: UnixMillis(1000),
            expires: UnixMillis(1000 + life_ms),
            order,
        }
    }

    fn stop() -> Order {
        Order::Stop(Stop {
            sandbox: SandboxId::new("a").unwrap(),
            grace_s: 10,
        })
    }

    #[test]
    fn a_command_that_hosts_would_refuse_is_not_sent() {
        let key = secret::<Dispatcher>(1);
        assert!(sign(&key, &command(stop(), 60_000)).is_ok());
        assert!(sign(&key, &command(stop(), 0)).is_err());
        assert!(sign(&key, &command(stop(), COMMAND_LIFE_MS_MAX + 1)).is_err());
        let launch = Order::Launch(Launch {
            sandbox: SandboxId::new("a").unwrap(),
            image: "not an image".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            sources: Vec::new(),
            limits: Limits::default(),
            content: Content::Full,
            isolation: None,
        });
        let error = sign(&key, &command(launch, 60_000)).unwrap_err();
        assert!(format!("{error:#}").ends_with("out of bounds"), "{error:#}");
    }

    #[test]
    fn a_sandbox_is_named_for_its_image() {
        for (image, name_is) in [
            ("web", "web-abcdef"),
            ("outhaul-quickstart:1", "outhaul-quickstart-abcdef"),
            ("registry:5000/team/Web_App:1", "web-app-abcdef"),
            ("web@sha256:00", "web-abcdef"),
            ("sha256:0011", "sandbox-abcdef"),
            ("___", "sandbox-abcdef"),
        ] {
            let name = name(image, [0, 1, 2, 3, 4, 5]).unwrap();
            assert_eq!(name.as_str(), name_is, "{image}");
        }
        let long = name(&"a".repeat(300), [255; 6]).unwrap();
        assert_eq!(long.as_str().len(), ID_BYTES_MAX);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_a_missing_one_has_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        let error = read_key(&path).unwrap_err().to_string();
        assert!(error.contains("outhaul dispatcher init"), "{error}");
        let text = secret::<Dispatcher>(1).to_file_text();
        write_new(&path, 0o644, text.as_bytes()).unwrap();
        assert!(read_key(&path).unwrap_err().to_string().contains("chmod"));
        std::fs::remove_file(&path).unwrap();
        write_new(&path, 0o600, text.as_bytes()).unwrap();
        assert_eq!(
            read_key(&path).unwrap().public(),
            secret::<Dispatcher>(1).public()
        );
    }
}
