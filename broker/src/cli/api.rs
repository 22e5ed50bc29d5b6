//! What the broker's local API says, as far as the command line reads it. Nothing here is proven: it is the broker's word.

use anyhow::{Context as _, bail};
use protocol::{
    id::{HostId, SandboxId},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

use super::client::{Client, is_unreachable};
use crate::core::{
    backup::Hex,
    incarnation::{History, Incarnation, Restored},
};

/// A host in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// What people call it beside that.
    pub(crate) label: Option<String>,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) connected: bool,
    pub(crate) generation: u64,
    pub(crate) created_ms: u64,
    pub(crate) last_seen_ms: Option<u64>,
}

/// A sandbox in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) host: HostId,
    pub(crate) sandbox: SandboxId,
    pub(crate) image: Option<String>,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) detail: Option<String>,
    pub(crate) created_ms: u64,
    pub(crate) updated_ms: u64,
    pub(crate) first_offset: Option<u64>,
}

/// A key that a host had, and its predecessor's signature over it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HostKey {
    pub(crate) generation: u64,
    pub(crate) key: String,
    /// A signed succession, hexadecimal; none for the key it enrolled with.
    pub(crate) succession: Option<String>,
}

/// A dispatcher in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Dispatcher {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) added_ms: u64,
    /// When it ends, being followed by another.
    #[serde(default)]
    pub(crate) until_ms: Option<u64>,
}

/// The broker, as it describes itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) next_offset: u64,
}

/// Where something stands in the journal.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Submitted {
    pub(crate) offset: u64,
}

#[derive(Deserialize)]
struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Deserialize)]
struct Sandboxes {
    sandboxes: Vec<Sandbox>,
}

#[derive(Deserialize)]
struct HostKeys {
    keys: Vec<HostKey>,
}

#[derive(Deserialize)]
struct Dispatchers {
    dispatchers: Vec<Dispatcher>,
}

/// The hosts; with `all`, those too that were removed.
pub(crate) async fn hosts(client: &Client, all: bool) -> anyhow::Result<Vec<Host>> {
    let path = if all {
        "/v1/hosts?all=true"
    } else {
        "/v1/hosts"
    };
    let answer: Hosts = client.get(path).await.context("list hosts")?;
    Ok(answer.hosts)
}

/// A host's keys, oldest first.
pub(crate) async fn host_keys(client: &Client, host: &HostId) -> anyhow::Result<Vec<HostKey>> {
    let answer: HostKeys = client
        .get(&format!("/v1/hosts/{host}/keys"))
        .await
        .with_context(|| format!("ask for the keys of host {host}"))?;
    Ok(answer.keys)
}

/// The dispatchers.
pub(crate) async fn dispatchers(client: &Client) -> anyhow::Result<Vec<Dispatcher>> {
    let answer: Dispatchers = client
        .get("/v1/dispatchers")
        .await
        .context("list dispatchers")?;
    Ok(answer.dispatchers)
}

/// The sandboxes that run, or all.
pub(crate) async fn sandboxes(client: &Client, all: bool) -> anyhow::Result<Vec<Sandbox>> {
    let answer: Sandboxes = client
        .get(&format!("/v1/sandboxes?all={all}"))
        .await
        .context("list sandboxes")?;
    Ok(answer.sandboxes)
}

/// One sandbox.
pub(crate) async fn sandbox(
    client: &Client,
    host: &HostId,
    sandbox: &SandboxId,
) -> anyhow::Result<Sandbox> {
    client
        .get(&format!("/v1/sandboxes/{host}/{sandbox}"))
        .await
        .with_context(|| format!("look up sandbox {host}/{sandbox}"))
}

/// The broker's own state.
pub(crate) async fn status(client: &Client) -> anyhow::Result<Status> {
    client.get("/v1/status").await.context("ask for status")
}

#[derive(Deserialize)]
struct Incarnations {
    incarnations: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    number: u64,
    id: Hex<16>,
    first_offset: u64,
    began_ms: u64,
    withdrawn_from: Option<u64>,
    backup: Option<Hex<16>>,
    backup_ms: Option<u64>,
}

impl From<Told> for Incarnation {
    fn from(told: Told) -> Self {
        let restored = told
            .withdrawn_from
            .zip(told.backup)
            .map(|(end, backup)| Restored {
                backup: backup.0,
                made: UnixMillis(told.backup_ms.unwrap_or_default()),
                end,
            });
        Self {
            number: told.number,
            id: told.id.0,
            first: told.first_offset,
            began: UnixMillis(told.began_ms),
            restored,
        }
    }
}

/// Which offsets are of which incarnation; none from a broker that does not say so in a way that makes sense.
pub(crate) async fn history(client: &Client) -> anyhow::Result<Option<History>> {
    match client.get::<Incarnations>("/v1/incarnations").await {
        Ok(told) => Ok(History::new(
            told.incarnations.into_iter().map(Into::into).collect(),
        )),
        Err(error) if is_unreachable(&error) => Err(error.context("ask for incarnations")),
        Err(_) => Ok(None),
    }
}

/// The first offset that came at a time or later, by the broker's clock.
pub(crate) async fn offset_since(client: &Client, time: UnixMillis) -> anyhow::Result<u64> {
    let path = format!("/v1/offset?since_ms={}", time.0);
    let found: Submitted = client.get(&path).await.context("look for a time")?;
    Ok(found.offset)
}

/// Hands in a signed command.
pub(crate) async fn submit(client: &Client, command: Vec<u8>) -> anyhow::Result<Submitted> {
    client
        .post_cbor("/v1/commands", command)
        .await
        .context("submit command")
}

/// A sandbox as people name it: `SANDBOX`, or `HOST/SANDBOX` where two hosts have one of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) host: Option<HostId>,
    pub(crate) sandbox: SandboxId,
}

impl std::str::FromStr for Name {
    type Err = protocol::id::BadId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, sandbox) = match text.split_once('/') {
            Some((host, sandbox)) => (Some(HostId::new(host)?), sandbox),
            None => (None, text),
        };
        Ok(Self {
            host,
            sandbox: SandboxId::new(sandbox)?,
        })
    }
}

/// Finds the one sandbox that `name` means.
pub(crate) async fn find(client: &Client, name: &Name) -> anyhow::Result<Sandbox> {
    match &name.host {
        Some(host) => sandbox(client, host, &name.sandbox).await,
        None => choose(sandboxes(client, true).await?, &name.sandbox),
    }
}

fn choose(sandboxes: Vec<Sandbox>, wanted: &SandboxId) -> anyhow::Result<Sandbox> {
    let mut named = sandboxes
        .into_iter()
        .filter(|sandbox| sandbox.sandbox == *wanted);
    let Some(first) = named.next() else {
        bail!("no sandbox is called {wanted}: see `outhaul ps -a`");
    };
    let others: Vec<String> = named
        .map(|sandbox| format!("{}/{wanted}", sandbox.host))
        .collect();
    if !others.is_empty() {
        bail!(
            "more than one host has a sandbox {wanted}: say {}/{wanted} or {}",
            first.host,
            others.join(" or ")
        );
    }
    Ok(first)
}

/// The one host there is, for commands that name none.
pub(crate) fn only_host(hosts: &[Host]) -> anyhow::Result<HostId> {
    let usable: Vec<&Host> = hosts
        .iter()
        .filter(|host| host.state != "revoked")
        .collect();
    match usable.as_slice() {
        [] => bail!("there is no host yet: add one with `outhaul host add NAME --kind docker`"),
        [host] => HostId::new(&host.name).context("read the host's name"),
        several => {
            let names: Vec<&str> = several.iter().map(|host| host.name.as_str()).collect();
            bail!("which host? Say --host with one of: {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox_on(host: &str, sandbox: &str) -> Sandbox {
        serde_json::from_value(serde_json::json!({
            "host": host, "sandbox": sandbox, "image": "web:1", "state": "running", "reason": null, "exit_code": null,
            "detail": null, "created_ms": 1, "updated_ms": 1, "first_offset": 3, "added_later": true,
        }))
        .unwrap()
    }

    fn host(name: &str, state: &str) -> Host {
        Host {
            name: name.to_owned(),
            label: None,
            kind: "docker".to_owned(),
            state: state.to_owned(),
            connected: true,
            generation: 1,
            created_ms: 1,
            last_seen_ms: None,
        }
    }

    #[test]
    fn a_sandbox_is_named_with_or_without_its_host() {
        let plain: Name = "build-7".parse().unwrap();
        assert_eq!(plain.host, None);
        let full: Name = "edge-1/build-7".parse().unwrap();
        assert_eq!(full.host, HostId::new("edge-1").ok());
        for bad in ["", "/", "a/b/c", "edge-1/", "/build-7", "Edge/x"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_two_hosts_have_is_asked_about_and_never_guessed() {
        let wanted = SandboxId::new("a").unwrap();
        let list = vec![sandbox_on("edge-1", "a"), sandbox_on("edge-1", "b")];
        assert_eq!(
            choose(list.clone(), &wanted).unwrap().host.as_str(),
            "edge-1"
        );
        let twice = [list, vec![sandbox_on("edge-2", "a")]].concat();
        let error = choose(twice, &wanted).unwrap_err().to_string();
        assert!(error.contains("edge-1/a or edge-2/a"), "{error}");
        assert!(choose(Vec::new(), &wanted).is_err());
    }

    #[test]
    fn a_host_may_be_left_out_only_where_there_is_one() {
        assert!(only_host(&[]).is_err());
        let one = [host("edge-1", "enrolled"), host("old", "revoked")];
        assert_eq!(only_host(&one).unwrap().as_str(), "edge-1");
        let error = only_host(&[host("a", "new"), host("b", "enrolled")]).unwrap_err();
        assert!(error.to_string().ends_with("a, b"), "{error}");
    }
}
