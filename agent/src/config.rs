//! Settings: a TOML file, under the environment (`OUTHAUL_AGENT_…`), under flags. Read once, then nothing is optional that need not be.
//!
//! Secrets are never settings: the install key lies in the bundle, proxy credentials in a file of their own.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::shell::log::Format;
use crate::shell::transport::Proxy;

/// Where state is kept if nothing says otherwise.
pub const STATE_DIR: &str = "/var/lib/outhaul-agent";
/// Where Docker listens if nothing says otherwise.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The shim's file name, beside this program if nothing says otherwise.
pub const SHIM: &str = "outhaul-sandbox";

/// Settings as they come, from the file or from the command line with its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Folder with bundle.toml, ca.crt and (until enrolled) install.key, which may lie in the state directory instead
    #[arg(long, env = "OUTHAUL_AGENT_BUNDLE", value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Where the host's keys and records are kept, mode 0700 [default: /var/lib/outhaul-agent]
    #[arg(long, env = "OUTHAUL_AGENT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where sandboxes meet the operator; must allow programs to run from it (default: `run` in the state directory)
    #[arg(long, env = "OUTHAUL_AGENT_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// What you allow on this host; without it nothing runs
    #[arg(long, env = "OUTHAUL_AGENT_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The static outhaul-sandbox program [default: beside this program]
    #[arg(long, env = "OUTHAUL_AGENT_SHIM", value_name = "FILE")]
    pub shim: Option<PathBuf>,
    /// The engine's socket [default: /var/run/docker.sock]
    #[arg(long, env = "OUTHAUL_AGENT_DOCKER_SOCKET", value_name = "SOCKET")]
    pub docker_socket: Option<PathBuf>,
    /// The broker's authority, if it is not the bundle's (egress only)
    #[arg(long, env = "OUTHAUL_AGENT_BROKER", value_name = "NAME:PORT")]
    pub broker: Option<String>,
    /// HTTP proxy on the way to the broker, http://name:port
    #[arg(long, env = "OUTHAUL_AGENT_PROXY", value_name = "URL")]
    pub proxy: Option<String>,
    /// File with user:password for the proxy, mode 0600
    #[arg(long, env = "OUTHAUL_AGENT_PROXY_CREDENTIALS", value_name = "FILE")]
    pub proxy_credentials: Option<PathBuf>,
    /// What to log: a level, or targets with levels [default: info]
    #[arg(long, env = "OUTHAUL_AGENT_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log it [default: text]
    #[arg(
        long,
        env = "OUTHAUL_AGENT_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT"
    )]
    pub log_format: Option<Format>,
}

impl RawConfig {
    /// Reads a settings file.
    ///
    /// # Errors
    /// If it cannot be read, or has a key that means nothing.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// These settings, and for each that is not set, `under`'s.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            bundle: self.bundle.or(under.bundle),
            state_dir: self.state_dir.or(under.state_dir),
            run_dir: self.run_dir.or(under.run_dir),
            policy: self.policy.or(under.policy),
            shim: self.shim.or(under.shim),
            docker_socket: self.docker_socket.or(under.docker_socket),
            broker: self.broker.or(under.broker),
            proxy: self.proxy.or(under.proxy),
            proxy_credentials: self.proxy_credentials.or(under.proxy_credentials),
            log: self.log.or(under.log),
            log_format: self.log_format.or(under.log_format),
        }
    }
}

/// Settings that were decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bundle's folder, for the commands that need one.
    pub bundle: Option<PathBuf>,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The policy file; none allows nothing.
    pub policy: Option<PathBuf>,
    /// The shim.
    pub shim: PathBuf,
    /// The engine's socket.
    pub docker_socket: PathBuf,
    /// The broker's authority, in place of the bundle's.
    pub broker: Option<String>,
    /// The proxy on the way to the broker.
    pub proxy: Option<Proxy>,
    /// What to log.
    pub log: String,
    /// How to log it.
    pub log_format: Format,
}

impl Config {
    /// The bundle's folder.
    ///
    /// # Errors
    /// If none was named.
    pub fn bundle(&self) -> anyhow::Result<&Path> {
        self.bundle
            .as_deref()
            .context("no bundle: name its folder with --bundle (`outhaul host add NAME --out DIR` makes one)")
    }

    /// These settings as a file that would give them.
    #[must_use]
    pub fn to_raw(&self) -> RawConfig {
        RawConfig {
            bundle: self.bundle.clone(),
            state_dir: Some(self.state_dir.clone()),
            run_dir: Some(self.run_dir.clone()),
            policy: self.policy.clone(),
            shim: Some(self.shim.clone()),
            docker_socket: Some(self.docker_socket.clone()),
            broker: self.broker.clone(),
            proxy: self
                .proxy
                .as_ref()
                .map(|proxy| format!("http://{}", proxy.authority)),
            proxy_credentials: self
                .proxy
                .as_ref()
                .and_then(|proxy| proxy.credentials.clone()),
            log: Some(self.log.clone()),
            log_format: Some(self.log_format),
        }
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = anyhow::Error;

    fn try_from(raw: RawConfig) -> anyhow::Result<Self> {
        let state_dir = absolute(
            raw.state_dir
                .as_deref()
                .unwrap_or_else(|| Path::new(STATE_DIR)),
        )?;
        let run_dir = match raw.run_dir {
            Some(run_dir) => absolute(&run_dir)?,
            None => state_dir.join("run"),
        };
        let shim = match raw.shim {
            Some(shim) => absolute(&shim)?,
            None => env::current_exe()
                .context("find this program, and the shim beside it; or name it with --shim")?
                .with_file_name(SHIM),
        };
        Ok(Self {
            bundle: raw.bundle.as_deref().map(absolute).transpose()?,
            state_dir,
            run_dir,
            policy: raw.policy.as_deref().map(absolute).transpose()?,
            shim,
            docker_socket: absolute(
                raw.docker_socket
                    .as_deref()
                    .unwrap_or_else(|| Path::new(DOCKER_SOCKET)),
            )?,
            broker: raw.broker,
            proxy: read_proxy(raw.proxy.as_deref(), raw.proxy_credentials.as_deref())?,
            log: raw.log.unwrap_or_else(|| "info".into()),
            log_format: raw.log_format.unwrap_or_default(),
        })
    }
}

/// Paths are made absolute once, so that they mean the same to the engine.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        !path.as_os_str().is_empty(),
        "a path in the settings is empty"
    );
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}

fn read_proxy(url: Option<&str>, credentials: Option<&Path>) -> anyhow::Result<Option<Proxy>> {
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        ensure!(
            credentials.is_none(),
            "proxy_credentials without a proxy: set proxy too"
        );
        return Ok(None);
    };
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("proxy: write it as http://name:port (the tunnel inside is TLS to the broker)");
    };
    ensure!(
        !rest.contains('@'),
        "proxy: no user or password in the URL, where every process can read it; name a file with proxy_credentials"
    );
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
    ensure!(has_port, "proxy: write it as http://name:port");
    let credentials = credentials.map(absolute).transpose()?;
    if let Some(path) = &credentials {
        let mode = fs::metadata(path)
            .with_context(|| format!("read proxy credentials {}", path.display()))?
            .mode()
            & 0o777;
        ensure!(
            mode & 0o077 == 0,
            "proxy credentials {} are open to other users (mode {mode:04o}): run `chmod 600 {}`",
            path.display(),
            path.display()
        );
    }
    Ok(Some(Proxy {
        authority: authority.to_owned(),
        credentials,
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::NamedTempFile;

    use super::*;

    fn file(text: &str) -> anyhow::Result<RawConfig> {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        RawConfig::read(file.path())
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let config = Config::try_from(RawConfig::default()).unwrap();
        assert_eq!(config.state_dir, Path::new(STATE_DIR));
        assert_eq!(config.run_dir, Path::new(STATE_DIR).join("run"));
        assert_eq!(config.shim.file_name().unwrap(), SHIM);
        assert_eq!(
            (config.proxy.is_none(), config.log.as_str()),
            (true, "info")
        );
        assert!(
            config
                .bundle()
                .unwrap_err()
                .to_string()
                .contains("--bundle")
        );
    }

    #[test]
    fn what_is_said_later_wins_key_by_key() {
        let under = file("state_dir = \"/a\"\nlog = \"debug\"\nlog_format = \"json\"").unwrap();
        let over = RawConfig {
            state_dir: Some("/b".into()),
            ..RawConfig::default()
        };
        let config = Config::try_from(over.over(under)).unwrap();
        assert_eq!(config.state_dir, Path::new("/b"));
        assert_eq!(
            config.run_dir,
            Path::new("/b/run"),
            "what depends on it follows"
        );
        assert_eq!(
            (config.log.as_str(), config.log_format),
            ("debug", Format::Json)
        );
    }

    #[test]
    fn what_is_printed_gives_the_same_settings_again() {
        let raw = RawConfig {
            bundle: Some("/bundle".into()),
            proxy: Some("http://proxy:3128".into()),
            ..RawConfig::default()
        };
        let config = Config::try_from(raw).unwrap();
        let printed = toml::to_string(&config.to_raw()).unwrap();
        assert_eq!(Config::try_from(file(&printed).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_key_that_means_nothing_is_refused() {
        let error = format!("{:#}", file("state-dir = \"/a\"").unwrap_err());
        assert!(error.contains("state-dir"), "{error}");
    }

    #[test]
    fn a_proxy_is_a_plain_url_without_secrets() {
        let proxy = |url: &str| read_proxy(Some(url), None);
        for good in ["http://proxy:3128", "http://10.0.0.1:80/"] {
            assert!(proxy(good).unwrap().is_some());
        }
        assert!(proxy("").unwrap().is_none());
        for bad in [
            "proxy:3128",
            "https://proxy:1",
            "http://proxy",
            "http://:1",
            "http://proxy:x",
        ] {
            assert!(proxy(bad).is_err(), "{bad}");
        }
        let error = proxy("http://me:hunter2@proxy:1").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(read_proxy(None, Some(Path::new("/x"))).is_err());
    }

    #[test]
    fn proxy_credentials_that_others_can_read_are_refused() {
        let file = NamedTempFile::new().unwrap();
        let read = || read_proxy(Some("http://proxy:1"), Some(file.path()));
        assert!(read().unwrap().is_some());
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read().unwrap_err().to_string().contains("chmod 600"));
    }
}
