//! What `outhaul serve` is told: a file, the environment over it, flags over both, and one step from there to values.
//!
//! Nothing here is a secret, and no setting makes anything less safe: keys are files in the data directory, found by name.

mod journal;
mod tls;

pub use journal::RawJournal;
pub use tls::RawTls;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, bail};
use protocol::limits::HOST_TOKEN_LIFE_S_MAX;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::core::network::Network;
use crate::core::reader::Admitted;
use crate::core::retention::Limits;
use crate::shell::{
    certificate::{TlsFiles, host_name},
    journal::Durability,
    log::LogFormat,
    router::{self, RouterConfig},
};

/// Where the one port is, unless told otherwise.
const LISTEN: &str = "0.0.0.0:8443";
/// How long a host may be away after its last token ended, in hours.
const RECOVERY_WINDOW_HOURS: u64 = 72;
/// The most of it, in hours: ninety days. Past that, "no standing secrets" would be an empty word.
const RECOVERY_WINDOW_HOURS_MAX: u64 = 90 * 24;
/// The least of a token's life, in seconds: a host must fetch the next one, and present it, in half of that.
const TOKEN_LIFE_S_MIN: u64 = 20;
/// How long an unused install key is good, in hours.
const INSTALL_KEY_HOURS: u64 = 24;
/// The most of it, in hours: a week.
const INSTALL_KEY_HOURS_MAX: u64 = 7 * 24;
/// What is kept free on the disk, in MiB.
const DISK_RESERVE_MIB: u64 = 256;
/// The least that may be asked for as reserve, in MiB: a reserve that one commit takes is none.
const DISK_RESERVE_MIB_MIN: u64 = 16;
/// The most, in MiB: a tebibyte. Of any disk it is an eighth at most.
const DISK_RESERVE_MIB_MAX: u64 = 1024 * 1024;
/// The most threads that may serve connections: past this they stand in each other's way.
const WORKERS_MAX: usize = 256;
/// Ranges of load balancers: each connection is compared with all.
const NETWORKS_MAX: usize = 64;
/// The longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The flags of `outhaul serve`; each has an environment variable.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Configuration file (TOML); see deploy/broker.toml
    #[arg(long, env = "OUTHAUL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of keys, store and journal [default: /var/lib/outhaul for root, else $XDG_DATA_HOME/outhaul]
    #[arg(long, env = "OUTHAUL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port to listen on [default: 0.0.0.0:8443]
    #[arg(long, env = "OUTHAUL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Name and port that hosts dial; the certificate covers it, and every bundle carries it: without it no host is added
    #[arg(long, env = "OUTHAUL_PUBLIC_ADDRESS", value_name = "NAME:PORT")]
    pub public_address: Option<String>,
    /// When a message counts as kept: `fsync` survives a power cut, `os` the end of the broker only [default: fsync]
    #[arg(long, env = "OUTHAUL_DURABILITY", value_name = "fsync|os")]
    pub durability: Option<String>,
    /// Threads that serve connections, beside the journal's own [default: one fewer than there are processors, at least 1]
    #[arg(long, env = "OUTHAUL_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// Load balancers before the broker, as ranges of addresses: each must begin a connection with a PROXY header, version 2
    #[arg(
        long,
        env = "OUTHAUL_PROXY_PROTOCOL_FROM",
        value_name = "RANGE,…",
        value_delimiter = ','
    )]
    pub proxy_protocol_from: Option<Vec<String>>,
    /// Server certificate, PEM, with what leads to the authority behind it [default: the broker's own CA issues one]
    #[arg(long, env = "OUTHAUL_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The server certificate's key, PEM
    #[arg(long, env = "OUTHAUL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities that hosts are to trust, PEM; without a server certificate, beside the broker's own CA
    #[arg(long, env = "OUTHAUL_TLS_AUTHORITY", value_name = "FILE")]
    pub tls_authority: Option<PathBuf>,
    /// Hours that a host may be away after its last token ended [default: 72]
    #[arg(long, env = "OUTHAUL_RECOVERY_WINDOW_HOURS", value_name = "HOURS")]
    pub recovery_window_hours: Option<u64>,
    /// Seconds that a host's connection token lives; it renews itself at half to three quarters of that [default: 3600]
    #[arg(long, env = "OUTHAUL_TOKEN_LIFE_S", value_name = "SECONDS")]
    pub token_life_s: Option<u64>,
    /// Hours that an unused install key is good [default: 24]
    #[arg(long, env = "OUTHAUL_INSTALL_KEY_HOURS", value_name = "HOURS")]
    pub install_key_hours: Option<u64>,
    /// MiB of the disk that are kept for what must always work [default: 256, or an eighth of a small disk]
    #[arg(long, env = "OUTHAUL_DISK_RESERVE_MIB", value_name = "MIB")]
    pub disk_reserve_mib: Option<u64>,
    /// Let readers in: people and programs with a reader token, over MQTT 5 and 3.1.1 [default: off]
    #[arg(
        long,
        env = "OUTHAUL_ALLOW_READERS",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "true|false"
    )]
    pub allow_readers: Option<bool>,
    /// Let load tests in, below the topic bench/, into a journal of their own [default: off]
    #[arg(
        long,
        env = "OUTHAUL_ALLOW_BENCH",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "true|false"
    )]
    pub allow_bench: Option<bool>,
    /// Let people and programs with an access token use the command line over HTTPS [default: off]
    #[arg(
        long,
        env = "OUTHAUL_ALLOW_ACCESS",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "true|false"
    )]
    pub allow_access: Option<bool>,
    /// Days that the journal keeps records; 0 is for ever [default: 30]
    #[arg(long, env = "OUTHAUL_JOURNAL_KEEP_DAYS", value_name = "DAYS")]
    pub journal_keep_days: Option<u64>,
    /// MiB that the journal keeps of all hosts; 0 is without limit [default: 16384]
    #[arg(long, env = "OUTHAUL_JOURNAL_KEEP_MIB", value_name = "MIB")]
    pub journal_keep_mib: Option<u64>,
    /// MiB that the journal keeps of one host; 0 is without limit [default: 4096]
    #[arg(long, env = "OUTHAUL_JOURNAL_KEEP_HOST_MIB", value_name = "MIB")]
    pub journal_keep_host_mib: Option<u64>,
    /// What to log: `info`, or `broker=debug,info` [default: info]
    #[arg(long, env = "OUTHAUL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look: `text` or `json` [default: text]
    #[arg(long, env = "OUTHAUL_LOG_FORMAT", value_name = "text|json")]
    pub log_format: Option<String>,
    /// The local API's socket. No flag of its own: the command line has one for all subcommands.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
}

/// The same, as a file has it: all of it optional, nothing unknown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Directory of keys, store and journal.
    pub data_dir: Option<PathBuf>,
    /// The local API's socket.
    pub socket: Option<PathBuf>,
    /// Address and port to listen on.
    pub listen: Option<SocketAddr>,
    /// Name and port that hosts dial.
    pub public_address: Option<String>,
    /// `fsync` or `os`.
    pub durability: Option<String>,
    /// Threads that serve connections.
    pub workers: Option<usize>,
    /// Hours that a host may be away after its last token ended.
    pub recovery_window_hours: Option<u64>,
    /// Seconds that a host's connection token lives.
    pub token_life_s: Option<u64>,
    /// Hours that an unused install key is good.
    pub install_key_hours: Option<u64>,
    /// MiB of the disk that are kept free.
    pub disk_reserve_mib: Option<u64>,
    /// Whether readers are let in.
    pub allow_readers: Option<bool>,
    /// Whether load tests are let in.
    pub allow_bench: Option<bool>,
    /// Whether access tokens are taken over HTTPS.
    pub allow_access: Option<bool>,
    /// Ranges of addresses that a PROXY header comes from.
    pub proxy_protocol_from: Option<Vec<String>>,
    /// What to log.
    pub log: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// What the journal keeps.
    pub journal: Option<RawJournal>,
    /// Certificates that someone else issues.
    pub tls: Option<RawTls>,
    /// The embedded router's own settings: any of them, over our defaults.
    pub router: Option<toml::Table>,
}

/// What the broker runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of keys, store and journal.
    pub data_dir: PathBuf,
    /// The local API's socket.
    pub socket: PathBuf,
    /// Address and port to listen on; port 0 is any that is free.
    pub listen: SocketAddr,
    /// What hosts dial; port 0 is the one that is listened on.
    pub public_address: Authority,
    /// Whether somebody said so. A guess is good for this machine's own use, and no bundle is made with it.
    pub is_public_address_set: bool,
    /// Certificates that someone else issues.
    pub tls: TlsFiles,
    /// When a message counts as kept.
    pub durability: Durability,
    /// Threads that serve connections.
    pub workers: usize,
    /// How long a host may be away after its last token ended.
    pub recovery_window: Duration,
    /// How long a host's connection token lives.
    pub token_life: Duration,
    /// How long an unused install key is good.
    pub install_key_life: Duration,
    /// What is kept free on the disk, in bytes.
    pub disk_reserve_bytes: u64,
    /// What kinds of readers are let in.
    pub admitted: Admitted,
    /// Load balancers, from which a PROXY header comes first.
    pub proxy_protocol_from: Vec<Network>,
    /// What the journal keeps at the most.
    pub retention: Limits,
    /// What to log, in the notation of `tracing_subscriber`; the default if none.
    pub log: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The embedded router's settings.
    pub router: RouterConfig,
}

/// A name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The name, as a certificate can carry it.
    pub name: String,
    /// The port; 0 stands for the one that is listened on.
    pub port: u16,
}

/// The text is no name and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name and port: write broker.example:8443, 192.0.2.7:8443 or [2001:db8::7]:8443")]
pub struct BadAuthority;

impl Config {
    /// Reads the file that the flags name, if they name one, and lays the flags over it. (The environment is in the flags.)
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or a value is out of bounds.
    pub fn load(flags: ServeFlags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        RawConfig::from(flags).over(file).try_into()
    }
}

impl RawConfig {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Self> {
            if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
                bail!("longer than {FILE_BYTES_MAX} bytes");
            }
            Self::from_toml(&std::fs::read_to_string(path)?)
        };
        read().with_context(|| format!("read configuration {}", path.display()))
    }

    /// Reads TOML. An error names the key and what is allowed in its place.
    ///
    /// # Errors
    /// It is not TOML, or has a key that we do not know.
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// This, and where it says nothing, what is below.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            socket: self.socket.or(below.socket),
            listen: self.listen.or(below.listen),
            public_address: self.public_address.or(below.public_address),
            durability: self.durability.or(below.durability),
            workers: self.workers.or(below.workers),
            recovery_window_hours: self.recovery_window_hours.or(below.recovery_window_hours),
            token_life_s: self.token_life_s.or(below.token_life_s),
            install_key_hours: self.install_key_hours.or(below.install_key_hours),
            disk_reserve_mib: self.disk_reserve_mib.or(below.disk_reserve_mib),
            allow_readers: self.allow_readers.or(below.allow_readers),
            allow_bench: self.allow_bench.or(below.allow_bench),
            allow_access: self.allow_access.or(below.allow_access),
            proxy_protocol_from: self.proxy_protocol_from.or(below.proxy_protocol_from),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            journal: match (self.journal, below.journal) {
                (Some(journal), Some(below)) => Some(journal.over(below)),
                (journal, below) => journal.or(below),
            },
            tls: match (self.tls, below.tls) {
                (Some(tls), Some(below)) => Some(tls.over(below)),
                (tls, below) => tls.or(below),
            },
            router: self.router.or(below.router),
        }
    }
}

impl From<ServeFlags> for RawConfig {
    fn from(flags: ServeFlags) -> Self {
        Self {
            data_dir: flags.data_dir,
            socket: flags.socket,
            listen: flags.listen,
            public_address: flags.public_address,
            durability: flags.durability,
            workers: flags.workers,
            recovery_window_hours: flags.recovery_window_hours,
            token_life_s: flags.token_life_s,
            install_key_hours: flags.install_key_hours,
            disk_reserve_mib: flags.disk_reserve_mib,
            allow_readers: flags.allow_readers,
            allow_bench: flags.allow_bench,
            allow_access: flags.allow_access,
            proxy_protocol_from: flags.proxy_protocol_from,
            log: flags.log,
            log_format: flags.log_format,
            journal: Some(RawJournal {
                keep_days: flags.journal_keep_days,
                keep_mib: flags.journal_keep_mib,
                keep_host_mib: flags.journal_keep_host_mib,
            }),
            tls: Some(RawTls {
                certificate: flags.tls_certificate,
                key: flags.tls_key,
                authority: flags.tls_authority,
            }),
            router: None,
        }
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = anyhow::Error;

    fn try_from(raw: RawConfig) -> anyhow::Result<Self> {
        let data_dir = raw.data_dir.unwrap_or_else(default_data_dir);
        let listen = match raw.listen {
            Some(listen) => listen,
            None => LISTEN.parse().context("read the default of listen")?,
        };
        let is_public_address_set = raw.public_address.is_some();
        let public_address = match raw.public_address {
            Some(text) => text.parse().context("read public_address")?,
            None => default_address(listen),
        };
        Ok(Self {
            socket: raw.socket.unwrap_or_else(|| default_socket(&data_dir)),
            data_dir,
            listen,
            public_address,
            is_public_address_set,
            tls: raw.tls.unwrap_or_default().try_into()?,
            durability: parse_durability(raw.durability.as_deref().unwrap_or("fsync"))?,
            workers: workers(raw.workers.unwrap_or_else(default_workers))?,
            recovery_window: hours(
                "recovery_window_hours",
                raw.recovery_window_hours.unwrap_or(RECOVERY_WINDOW_HOURS),
                0..=RECOVERY_WINDOW_HOURS_MAX,
            )?,
            token_life: token_life(raw.token_life_s.unwrap_or(HOST_TOKEN_LIFE_S_MAX))?,
            install_key_life: hours(
                "install_key_hours",
                raw.install_key_hours.unwrap_or(INSTALL_KEY_HOURS),
                1..=INSTALL_KEY_HOURS_MAX,
            )?,
            disk_reserve_bytes: reserve_bytes(raw.disk_reserve_mib.unwrap_or(DISK_RESERVE_MIB))?,
            admitted: Admitted {
                readers: raw.allow_readers.unwrap_or(false),
                bench: raw.allow_bench.unwrap_or(false),
                access: raw.allow_access.unwrap_or(false),
            },
            proxy_protocol_from: parse_networks(&raw.proxy_protocol_from.unwrap_or_default())?,
            retention: raw.journal.unwrap_or_default().try_into()?,
            log: raw.log,
            log_format: parse_log_format(raw.log_format.as_deref().unwrap_or("text"))?,
            router: router_config(raw.router.unwrap_or_default())?,
        })
    }
}

impl FromStr for Authority {
    type Err = BadAuthority;

    /// A port that is left out is the one that is listened on.
    fn from_str(text: &str) -> Result<Self, BadAuthority> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']').ok_or(BadAuthority)?;
                let port = if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':').ok_or(BadAuthority)?)
                };
                (name, port)
            }
            None => text
                .split_once(':')
                .map_or((text, None), |(name, port)| (name, Some(port))),
        };
        let port = match port {
            None => 0,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(BadAuthority)?,
        };
        if ServerName::try_from(name).is_err() {
            return Err(BadAuthority);
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Where the broker keeps its data, unless told otherwise.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/outhaul".into();
    }
    let data_home = environment("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || {
        PathBuf::from(environment("HOME").unwrap_or_else(|| "/".to_owned())).join(".local/share")
    };
    data_home.unwrap_or_else(home).join("outhaul")
}

/// Where the local API is, for a data directory.
#[must_use]
pub fn default_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("outhaul.sock")
}

#[expect(
    clippy::disallowed_methods,
    reason = "configuration is read here; what has a flag, clap reads"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What others can reach us by: the address that is listened on if it is one, else this machine's name.
fn default_address(listen: SocketAddr) -> Authority {
    let name = match listen.ip() {
        ip if ip.is_loopback() => "localhost".to_owned(),
        ip if ip.is_unspecified() => host_name(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.to_string(),
    };
    Authority {
        name,
        port: listen.port(),
    }
}

fn hours(
    key: &str,
    hours: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> anyhow::Result<Duration> {
    if !allowed.contains(&hours) {
        bail!(
            "{key} is {hours}; allowed is {} to {}",
            allowed.start(),
            allowed.end()
        );
    }
    Ok(Duration::from_secs(hours * 3600))
}

fn token_life(seconds: u64) -> anyhow::Result<Duration> {
    if !(TOKEN_LIFE_S_MIN..=HOST_TOKEN_LIFE_S_MAX).contains(&seconds) {
        bail!(
            "token_life_s is {seconds}; allowed is {TOKEN_LIFE_S_MIN} to {HOST_TOKEN_LIFE_S_MAX}"
        );
    }
    Ok(Duration::from_secs(seconds))
}

fn reserve_bytes(mib: u64) -> anyhow::Result<u64> {
    if !(DISK_RESERVE_MIB_MIN..=DISK_RESERVE_MIB_MAX).contains(&mib) {
        bail!(
            "disk_reserve_mib is {mib}; allowed is {DISK_RESERVE_MIB_MIN} to {DISK_RESERVE_MIB_MAX}"
        );
    }
    Ok(mib * 1024 * 1024)
}

fn parse_networks(ranges: &[String]) -> anyhow::Result<Vec<Network>> {
    if ranges.len() > NETWORKS_MAX {
        bail!(
            "proxy_protocol_from has {} ranges; allowed are {NETWORKS_MAX}",
            ranges.len()
        );
    }
    let parse = |range: &String| {
        let read = || format!("read proxy_protocol_from {range:?}");
        range.parse().with_context(read)
    };
    ranges.iter().map(parse).collect()
}

/// The journal's thread has a processor of its own. Where threads share theirs, each message costs more of them: they wake each other,
/// and carry what they know of a connection from one to the other.
fn default_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    processors.saturating_sub(1).clamp(1, WORKERS_MAX)
}

fn workers(count: usize) -> anyhow::Result<usize> {
    if !(1..=WORKERS_MAX).contains(&count) {
        bail!("workers is {count}; allowed is 1 to {WORKERS_MAX}");
    }
    Ok(count)
}

fn parse_durability(text: &str) -> anyhow::Result<Durability> {
    match text {
        "fsync" => Ok(Durability::Fsync),
        "os" => Ok(Durability::Os),
        other => bail!("durability is {other:?}; allowed is \"fsync\" or \"os\""),
    }
}

fn parse_log_format(text: &str) -> anyhow::Result<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => bail!("log_format is {other:?}; allowed is \"text\" or \"json\""),
    }
}

/// rumqttd's own notation wants all of its keys; we fill in those that are not there, and refuse those it would ignore.
fn router_config(section: toml::Table) -> anyhow::Result<RouterConfig> {
    let mut table =
        toml::Table::try_from(router::default_config()).context("write the router's defaults")?;
    let optional = ["custom_segment", "initialized_filters"].map(str::to_owned);
    for (key, value) in section {
        if !table.contains_key(&key) && !optional.contains(&key) {
            let allowed: Vec<&str> = table.keys().chain(&optional).map(String::as_str).collect();
            bail!(
                "unknown key {key:?} in [router]; allowed are {}",
                allowed.join(", ")
            );
        }
        table.insert(key, value);
    }
    table.try_into().context("read [router]")
}

#[cfg(test)]
mod tests;
