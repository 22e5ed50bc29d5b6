//! Which keys are a host's: pinned at first sight, and from then on only by each key signing its successor.
//!
//! `known_hosts.toml` keeps two keys for each host. The first is the anchor that everything follows from; it stays, so that old
//! records can be verified too. The last is how far the chain was seen: a chain that has another key at that place, or ends before
//! it, is a fork or a rollback, and trusted no more.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    exchange,
    id::HostId,
    key::{Host, Public},
    signed::VerifyError,
};
use serde::{Deserialize, Serialize};

use super::{api::HostKey, place};

/// The file's name in the configuration directory.
const FILE: &str = "known_hosts.toml";
/// Locked while the file is read and replaced: two commands may run at once.
const LOCK_FILE: &str = "known_hosts.lock";
/// The longest file read, in bytes: thousands of hosts.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A key and which of its host's keys it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    generation: u64,
    key: String,
}

/// What is known of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    first: Pin,
    last: Pin,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    hosts: BTreeMap<String, Known>,
}

/// Why the keys that the broker names are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    /// What the broker sent are not keys.
    #[error("the broker's list of its keys is malformed")]
    Malformed,
    /// The pinned key is not in the list.
    #[error("the key that was pinned at first sight is not among its keys any more")]
    AnchorGone,
    /// A key that no earlier key signed.
    #[error("a key does not follow from the one before it ({0})")]
    Chain(VerifyError),
    /// It enrolled again, with a key that nothing vouches for.
    #[error("it was enrolled again, with a key that its last one did not sign")]
    Enrolled,
    /// Another key where one was seen before.
    #[error(
        "another key stands where one was seen before: two machines use its identity, or the broker lies"
    )]
    Fork,
    /// Keys that were seen before are missing.
    #[error("its newest keys are missing: the broker was restored from an old copy, or it lies")]
    Rollback,
}

/// A host's keys, oldest first, and what to remember of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trusted {
    /// Every key that follows from the anchor.
    pub(crate) keys: Vec<Public<Host>>,
    /// What to remember.
    pub(crate) known: Known,
    /// Whether it was not known before.
    pub(crate) is_first_sight: bool,
}

/// Judges the keys that the broker names for `host`. None: it has no key yet, since it has not enrolled.
pub(crate) fn judge(
    known: Option<&Known>,
    host: &HostId,
    listed: &[HostKey],
) -> Result<Option<Trusted>, Distrust> {
    let start = match known {
        Some(known) => listed
            .iter()
            .position(|listed| is_pin(&known.first, listed))
            .ok_or(Distrust::AnchorGone)?,
        // At first sight: the key it enrolled with, the last time it did.
        None => match listed.iter().rposition(|key| key.succession.is_none()) {
            Some(start) => start,
            None if listed.is_empty() => return Ok(None),
            None => return Err(Distrust::Malformed),
        },
    };
    let (anchor, later) = listed
        .get(start..)
        .and_then(<[HostKey]>::split_first)
        .ok_or(Distrust::Malformed)?;
    let links = later.iter().map(link).collect::<Result<Vec<_>, _>>()?;
    let first: Public<Host> = anchor.key.parse().map_err(|_| Distrust::Malformed)?;
    let chain = exchange::follow(
        host,
        first,
        anchor.generation,
        links.iter().map(Vec::as_slice),
    )
    .map_err(Distrust::Chain)?;
    let pins: Vec<Pin> = chain
        .iter()
        .map(|(generation, key)| Pin {
            generation: *generation,
            key: key.to_string(),
        })
        .collect();
    if let Some(known) = known {
        match pins
            .iter()
            .find(|pin| pin.generation == known.last.generation)
        {
            None => return Err(Distrust::Rollback),
            Some(pin) if *pin != known.last => return Err(Distrust::Fork),
            Some(_) => {}
        }
    }
    let (Some(first), Some(last)) = (pins.first(), pins.last()) else {
        return Err(Distrust::Malformed);
    };
    Ok(Some(Trusted {
        known: Known {
            first: first.clone(),
            last: last.clone(),
        },
        keys: chain.into_iter().map(|(_, key)| key).collect(),
        is_first_sight: known.is_none(),
    }))
}

fn is_pin(pin: &Pin, listed: &HostKey) -> bool {
    pin.generation == listed.generation && pin.key == listed.key
}

/// The signed succession that names a listed key.
pub(crate) fn link(key: &HostKey) -> Result<Vec<u8>, Distrust> {
    let text = key.succession.as_deref().ok_or(Distrust::Enrolled)?;
    if text.len() % 2 != 0 || !text.is_ascii() {
        return Err(Distrust::Malformed);
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            protocol::id::unhex::<1>(pair).map(|[byte]| byte)
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or(Distrust::Malformed)
}

/// The file of pins.
#[derive(Clone, Debug)]
pub(crate) struct KnownHosts {
    directory: PathBuf,
}

impl KnownHosts {
    /// The file in this configuration directory; it need not exist.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Judges the keys that the broker names for `host`, and remembers what was learnt.
    ///
    /// # Errors
    /// The outer one: the file cannot be read or written. The inner one: the keys are not believed.
    pub(crate) fn judge(
        &self,
        host: &HostId,
        listed: &[HostKey],
    ) -> anyhow::Result<Result<Option<Trusted>, Distrust>> {
        place::make_private_dir(&self.directory)?;
        let lock_path = self.directory.join(LOCK_FILE);
        let lock = std::fs::File::create(&lock_path)
            .with_context(|| format!("make {}", lock_path.display()))?;
        lock.lock()
            .with_context(|| format!("lock {}", lock_path.display()))?;
        let mut file = self.read()?;
        let known = file.hosts.get(host.as_str());
        let judged = judge(known, host, listed);
        if let Ok(Some(trusted)) = &judged
            && known != Some(&trusted.known)
        {
            file.hosts
                .insert(host.as_str().to_owned(), trusted.known.clone());
            self.write(&file)?;
        }
        Ok(judged)
    }

    /// The first key that was pinned for `host`, if one was.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn anchor(&self, host: &HostId) -> anyhow::Result<Option<Public<Host>>> {
        let file = self.read()?;
        let known = file.hosts.get(host.as_str());
        known
            .map(|known| {
                known
                    .first
                    .key
                    .parse()
                    .with_context(|| format!("read the key of {host} in {}", self.path().display()))
            })
            .transpose()
    }

    fn read(&self) -> anyhow::Result<File> {
        let path = self.path();
        let context = || format!("read {}", path.display());
        if !place::is_taken(&path) {
            return Ok(File::default());
        }
        let length = path.metadata().with_context(context)?.len();
        anyhow::ensure!(length <= FILE_BYTES_MAX, "{}: too long", context());
        let text = std::fs::read_to_string(&path).with_context(context)?;
        toml::from_str(&text).with_context(context)
    }

    fn write(&self, file: &File) -> anyhow::Result<()> {
        let path = self.path();
        let text = toml::to_string(file).context("encode known hosts")?;
        let new = self.directory.join(format!("{FILE}.new"));
        remove(&new)?;
        place::write_new(&new, 0o600, text.as_bytes())?;
        std::fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))
    }
}

/// Removes what a killed command left behind; the lock keeps live ones apart.
fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use protocol::{exchange::Succession, key::Secret, signed, time::UnixMillis};
    use zeroize::Zeroizing;

    pub(crate) fn secret<R: protocol::key::Role>(byte: u8) -> Secret<R> {
        Secret::from_seed(&Zeroizing::new([byte; 32]))
    }

    fn host() -> HostId {
        HostId::new("edge-1").unwrap()
    }

    /// A host's keys made from `seeds`, each signed by the one before.
    fn chain(seeds: &[u8]) -> Vec<HostKey> {
        let mut listed: Vec<HostKey> = Vec::new();
        for (index, seed) in seeds.iter().enumerate() {
            let generation = index as u64 + 1;
            let key = secret::<Host>(*seed).public();
            let succession = index.checked_sub(1).map(|before| {
                let succession = Succession {
                    host: host(),
                    generation,
                    key,
                    time: UnixMillis(0),
                };
                protocol::id::hex(&signed::sign(
                    &secret::<Host>(seeds[before]),
                    &succession,
                    b"",
                ))
            });
            listed.push(HostKey {
                generation,
                key: key.to_string(),
                succession,
            });
        }
        listed
    }

    fn known(seeds: &[u8]) -> Known {
        judge(None, &host(), &chain(seeds)).unwrap().unwrap().known
    }

    #[test]
    fn the_first_key_is_pinned_and_later_ones_follow_from_it() {
        let pinned = known(&[1]);
        let trusted = judge(Some(&pinned), &host(), &chain(&[1, 2, 3]))
            .unwrap()
            .unwrap();
        assert!(!trusted.is_first_sight);
        assert_eq!(trusted.keys.len(), 3);
        assert_eq!(trusted.known.first, pinned.first, "the anchor stays");
        assert_eq!(trusted.known.last.generation, 3);
    }

    #[test]
    fn a_host_that_has_not_enrolled_has_no_keys_and_is_not_pinned() {
        assert_eq!(judge(None, &host(), &[]), Ok(None));
    }

    #[test]
    fn what_does_not_follow_from_the_pin_is_not_believed() {
        let judge = |seen: &[u8], listed: &[HostKey]| {
            judge(Some(&known(seen)), &host(), listed).map(|trusted| trusted.is_some())
        };
        assert_eq!(
            judge(&[1], &chain(&[9, 2])),
            Err(Distrust::AnchorGone),
            "another host"
        );
        assert_eq!(judge(&[1], &[]), Err(Distrust::AnchorGone));
        assert_eq!(judge(&[1, 2, 3], &chain(&[1, 2])), Err(Distrust::Rollback));
        assert_eq!(
            judge(&[1, 2, 3], &chain(&[1, 2, 4])),
            Err(Distrust::Fork),
            "a stolen key signed another successor"
        );
        let mut invented = chain(&[1, 2, 3]);
        invented[2].succession = chain(&[1, 9, 3])[2].succession.clone();
        assert!(matches!(judge(&[1], &invented), Err(Distrust::Chain(_))));
        let mut again = chain(&[1, 2, 3]);
        again[2].succession = None;
        assert_eq!(judge(&[1], &again), Err(Distrust::Enrolled));
        again[2].succession = Some("zz".to_owned());
        assert_eq!(judge(&[1], &again), Err(Distrust::Malformed));
    }

    #[test]
    fn the_key_that_counts_is_the_one_in_the_signed_link() {
        let mut listed = chain(&[1, 2]);
        listed[1].key = secret::<Host>(9).public().to_string();
        let trusted = judge(None, &host(), &listed).unwrap().unwrap();
        assert_eq!(trusted.keys[1], secret::<Host>(2).public());
    }

    #[test]
    fn pins_last_from_one_command_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let hosts = KnownHosts::new(directory.path().join("outhaul"));
        let first = hosts
            .judge(&host(), &chain(&[1]))
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(first.is_first_sight);
        let second = hosts.judge(&host(), &chain(&[1, 2])).unwrap().unwrap();
        assert!(!second.unwrap().is_first_sight);
        assert_eq!(
            hosts.judge(&host(), &chain(&[9])).unwrap(),
            Err(Distrust::AnchorGone)
        );
        let text = std::fs::read_to_string(hosts.path()).unwrap();
        assert!(text.contains("[hosts.edge-1.first]"), "{text}");
    }
}
