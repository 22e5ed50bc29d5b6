//! The bundle that a host's owner carried here: where the broker is, whom this host obeys, and the key that enrols it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use protocol::audit::Vkey;
use protocol::bundle::{self, BUNDLE_FILE, CA_FILE, INSTALL_KEY_FILE, VERSION};
use protocol::id::HostId;
use protocol::install_key::InstallKey;
use protocol::key::{Audit, Dispatcher, Public};
use protocol::limits::DISPATCHERS_MAX;
use protocol::time::UnixMillis;
use zeroize::Zeroizing;

/// The longest file of a bundle, in bytes: a CA bundle with a few certificates.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The kind of host that this program serves.
const KIND: &str = "docker";

/// A bundle that was read and makes sense.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Where it lies.
    pub dir: PathBuf,
    /// The host it is for.
    pub host: HostId,
    /// The broker, `name:port`.
    pub broker: String,
    /// When it was made.
    pub issued: UnixMillis,
    /// Whom the host obeys.
    pub dispatchers: Vec<Public<Dispatcher>>,
    /// The key of the broker's audit trail, if it names one.
    pub audit_vkey: Option<Vkey<Audit>>,
    /// The broker's authority, PEM.
    pub ca: Vec<u8>,
    /// Where the install key may lie too, for a bundle that is mounted read-only.
    state_dir: PathBuf,
}

impl Bundle {
    /// Reads a bundle, but for its install key.
    ///
    /// # Errors
    /// If a file is missing, or says what this release does not understand.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(BUNDLE_FILE);
        let text = String::from_utf8(read(&path)?.to_vec())
            .map_err(|_| anyhow!("read {}: not text", path.display()))?;
        let parsed = parse(&text).with_context(|| format!("read {}", path.display()))?;
        let ca = read(&dir.join(CA_FILE))?.to_vec();
        Ok(Self {
            dir: dir.to_owned(),
            ca,
            ..parsed
        })
    }

    /// The same bundle, whose install key may also lie in the state directory. There it can be removed once it is used up, while
    /// the bundle itself is read-only to the operator.
    #[must_use]
    pub fn with_state_dir(mut self, state_dir: &Path) -> Self {
        self.state_dir = state_dir.to_owned();
        self
    }

    /// Where the install key is, or would be.
    fn install_key_path(&self) -> PathBuf {
        let moved = self.state_dir.join(INSTALL_KEY_FILE);
        if moved.exists() {
            moved
        } else {
            self.dir.join(INSTALL_KEY_FILE)
        }
    }

    /// Reads the install key, for a host that is not enrolled.
    ///
    /// # Errors
    /// If it is not there, open to others, or no install key.
    pub fn install_key(&self) -> anyhow::Result<InstallKey> {
        let path = self.install_key_path();
        ensure!(
            path.exists(),
            "host {} is not enrolled, and {} is not there, nor in the state directory: fetch a fresh bundle (`outhaul host \
             bundle`), or point --state-dir to where this host was enrolled",
            self.host,
            path.display()
        );
        let text = read(&path)?;
        let mode = fs::metadata(&path).map_or(0, |metadata| metadata.mode() & 0o777);
        ensure!(
            mode & 0o077 == 0,
            "{} is open to other users (mode {mode:04o}): run `chmod 600 {}`; if others may have read it, fetch a \
             fresh bundle",
            path.display(),
            path.display()
        );
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| InstallKey::from_text(text).ok())
            .ok_or_else(|| {
                anyhow!(
                    "{} holds no install key, or one that was not copied whole",
                    path.display()
                )
            })
    }

    /// Removes the install key: it is used up. False if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove_install_key(&self) -> anyhow::Result<bool> {
        let path = self.install_key_path();
        // Asked first: a read-only file system refuses to remove what is not there.
        if !path.exists() {
            return Ok(false);
        }
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        Ok(true)
    }
}

/// The version alone, which is read first: the rest may have changed with it.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

fn parse(text: &str) -> anyhow::Result<Bundle> {
    let Version { version } = toml::from_str(text).context("it names no version")?;
    ensure!(
        version == VERSION,
        "it is of version {version}, and this release reads version {VERSION}: fetch a bundle that fits, or update"
    );
    let raw: bundle::Bundle = toml::from_str(text).context("it is not a bundle")?;
    ensure!(
        raw.kind == KIND,
        "it is for a host of kind {:?}, and this program serves {KIND:?}",
        raw.kind
    );
    ensure!(
        raw.dispatchers.len() <= DISPATCHERS_MAX,
        "it lists more than {DISPATCHERS_MAX} dispatchers"
    );
    let dispatcher = |text: &String| {
        text.parse()
            .with_context(|| format!("dispatcher {text:?} is no public key (ohd1_…)"))
    };
    let has_port = |broker: &str| {
        broker
            .rsplit_once(':')
            .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
    };
    ensure!(
        has_port(&raw.broker),
        "broker {:?} is not name:port",
        raw.broker
    );
    Ok(Bundle {
        dir: PathBuf::new(),
        host: HostId::new(&raw.host).with_context(|| format!("host {:?}", raw.host))?,
        broker: raw.broker,
        issued: UnixMillis(raw.issued_ms),
        dispatchers: raw
            .dispatchers
            .iter()
            .map(dispatcher)
            .collect::<anyhow::Result<_>>()?,
        audit_vkey: raw
            .audit_vkey
            .map(|text| text.parse())
            .transpose()
            .context("audit_vkey")?,
        ca: Vec::new(),
        state_dir: PathBuf::new(),
    })
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let describe = || format!("read {}", path.display());
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).with_context(describe)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(describe)?;
    ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "read {}: longer than {FILE_BYTES_MAX} bytes",
        path.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use protocol::key::Secret;
    use tempfile::TempDir;

    use super::*;

    fn audit_vkey() -> Vkey<Audit> {
        let key = Secret::from_seed(&Zeroizing::new([3; 32])).public();
        Vkey::new("outhaul-1/audit", key).unwrap()
    }

    fn bundle(change: impl Fn(String) -> String) -> TempDir {
        let key = Secret::<Dispatcher>::from_seed(&Zeroizing::new([1; 32])).public();
        let text = toml::to_string(&bundle::Bundle {
            version: 1,
            host: "edge-1".into(),
            kind: "docker".into(),
            broker: "broker.example:8443".into(),
            issued_ms: 7,
            dispatchers: vec![key.to_string()],
            audit_vkey: Some(audit_vkey().to_string()),
        })
        .unwrap();
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(BUNDLE_FILE), change(text)).unwrap();
        fs::write(dir.path().join(CA_FILE), "pem").unwrap();
        let install_key = InstallKey::new([1; 8], Zeroizing::new([2; 32]));
        let path = dir.path().join(INSTALL_KEY_FILE);
        fs::write(&path, &*install_key.to_text()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        dir
    }

    #[test]
    fn a_good_bundle_is_read_and_its_key_is_used_once() {
        let dir = bundle(|text| text);
        let bundle = Bundle::read(dir.path()).unwrap();
        assert_eq!(
            (bundle.host.as_str(), bundle.broker.as_str()),
            ("edge-1", "broker.example:8443")
        );
        assert_eq!(bundle.audit_vkey, Some(audit_vkey()));
        assert_eq!(bundle.install_key().unwrap().kid, [1; 8]);
        assert!(bundle.remove_install_key().unwrap());
        assert!(!bundle.remove_install_key().unwrap());
        let error = bundle.install_key().unwrap_err().to_string();
        assert!(error.contains("fetch a fresh bundle"), "{error}");
    }

    #[test]
    fn an_install_key_in_the_state_directory_enrols_too_and_is_removed_there() {
        let dir = bundle(|text| text);
        let state = TempDir::new().unwrap();
        let bundle = Bundle::read(dir.path())
            .unwrap()
            .with_state_dir(state.path());
        let moved = state.path().join(INSTALL_KEY_FILE);
        fs::rename(dir.path().join(INSTALL_KEY_FILE), &moved).unwrap();
        assert_eq!(bundle.install_key().unwrap().kid, [1; 8]);
        assert!(bundle.remove_install_key().unwrap());
        assert!(!moved.exists());
        let error = bundle.install_key().unwrap_err().to_string();
        assert!(
            error.contains("outhaul host bundle") && error.contains("nor in the state directory"),
            "{error}"
        );
    }

    #[test]
    fn every_bad_bundle_says_what_is_wrong() {
        let cases: [(&str, &str, &str); 7] = [
            ("version = 1", "version = 2\nnew = 1", "version 2"),
            ("docker", "kubernetes", "kubernetes"),
            ("edge-1", "Edge", "host"),
            (":8443", "", "name:port"),
            ("ohd1_", "ohh1_", "public key"),
            ("/audit+", "/audit+0", "audit_vkey"),
            ("version = 1", "version = 1\nsurprise = 1", "not a bundle"),
        ];
        for (from, to, says) in cases {
            let dir = bundle(|text| text.replace(from, to));
            let error = format!("{:#}", Bundle::read(dir.path()).unwrap_err());
            assert!(error.contains(says), "{error}");
            assert!(error.contains(BUNDLE_FILE), "{error}");
        }
        let dir = bundle(|text| text);
        fs::remove_file(dir.path().join(CA_FILE)).unwrap();
        let error = format!("{:#}", Bundle::read(dir.path()).unwrap_err());
        assert!(error.contains(CA_FILE), "{error}");
    }

    #[test]
    fn an_install_key_that_others_can_read_is_refused_and_never_shown() {
        let dir = bundle(|text| text);
        let bundle = Bundle::read(dir.path()).unwrap();
        let path = dir.path().join(INSTALL_KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = bundle.install_key().unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "ohk1_secret_words").unwrap();
        let error = bundle.install_key().unwrap_err().to_string();
        assert!(
            error.contains("not copied whole") && !error.contains("words"),
            "{error}"
        );
    }
}
