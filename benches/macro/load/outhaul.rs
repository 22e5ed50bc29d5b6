//! Our broker as it ships: a host that is enrolled as hosts are, and whose key mints its sandboxes' tokens.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use protocol::{
    bundle::{CA_FILE, INSTALL_KEY_FILE},
    id::{HostId, SandboxId},
    install_key::InstallKey,
    key::{Host, Sandbox, Secret},
    record::{self, Kind},
    token,
};
use zeroize::Zeroizing;

use super::{
    broker::{Access, Broker, HOST, free_port, host},
    clock,
    credential::Credential,
    enrol::enrol,
    process::Process,
};

/// How long the local socket may take to be there.
const READY_WAIT: Duration = Duration::from_secs(30);

/// What is particular to our broker.
pub(crate) struct Outhaul {
    socket: PathBuf,
    host_key: Secret<Host>,
    token: Vec<u8>,
}

/// Starts `program` as a broker of that durability, in a directory of its own.
pub(crate) fn start(program: &Path, dir: &Path, durability: &str) -> anyhow::Result<Broker> {
    let name = format!("outhaul-{durability}");
    let data = dir.join(&name);
    let port = free_port()?;
    let mut serve = Command::new(program);
    serve
        .args(["serve", "--durability", durability, "--data-dir"])
        .arg(&data)
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--public-address", &format!("localhost:{port}")]);
    let mut process = Process::start(dir, &name, &mut serve)?;
    let socket = data.join("outhaul.sock");
    let mut has_ended = false;
    let is_ready = clock::until(READY_WAIT, || {
        has_ended = !process.is_running();
        has_ended || status(&socket).is_ok()
    });
    anyhow::ensure!(
        is_ready && !has_ended,
        "{name} does not start: {}",
        process.last_words()
    );
    let bundle = data.join("bundle");
    let outhaul = |arguments: &[&str]| -> anyhow::Result<()> {
        let output = Command::new(program)
            .args(arguments)
            .env("XDG_CONFIG_HOME", data.join("config"))
            .env("OUTHAUL_SOCKET", &socket)
            .stdin(Stdio::null())
            .output()
            .context("run outhaul")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(())
    };
    outhaul(&["dispatcher", "init"])?;
    let out = bundle.to_string_lossy();
    outhaul(&["host", "add", HOST, "--kind", "docker", "--out", &out])?;
    let install = Zeroizing::new(fs::read_to_string(bundle.join(INSTALL_KEY_FILE))?);
    let install = InstallKey::from_text(&install).context("read the install key")?;
    let host_key = Secret::from_seed(&seed(0)?);
    let ca = bundle.join(CA_FILE);
    let token = enrol(port, &ca, &host()?, &host_key, &install).context("enrol the host")?;
    Ok(Broker {
        name,
        port,
        ca,
        process,
        access: Access::Tokens(Box::new(Outhaul {
            socket,
            host_key,
            token,
        })),
    })
}

impl Outhaul {
    /// A token for a sandbox, minted as its operator would.
    pub(crate) fn credential(
        &self,
        sandbox: &SandboxId,
        seed: &Zeroizing<[u8; 32]>,
    ) -> anyhow::Result<Credential> {
        let key = Secret::<Sandbox>::from_seed(seed).public();
        let now = clock::unix();
        let token = token::mint_sandbox(&self.host_key, &self.token, sandbox, &key, [1; 8], now)?;
        Credential::ace(&token, seed.clone())
    }

    /// Adds a host; the install key in its bundle.
    pub(crate) fn add(&self, host: &HostId) -> anyhow::Result<InstallKey> {
        let known = ask(&self.socket, "GET", "/v1/dispatchers", "")?;
        let dispatcher = known
            .pointer("/dispatchers/0/key")
            .context("no dispatcher")?;
        let body =
            serde_json::json!({ "name": host, "kind": "docker", "dispatchers": [dispatcher] });
        let added = ask(&self.socket, "POST", "/v1/hosts", &body.to_string())?;
        let install = added
            .pointer("/bundle/install.key")
            .and_then(serde_json::Value::as_str);
        InstallKey::from_text(install.context("no install key")?).context("read the install key")
    }

    /// Follows the events from here on, on a thread of its own that ends with the broker.
    pub(crate) fn follow(&self) -> anyhow::Result<Follower> {
        let next = status(&self.socket)?
            .get("next_offset")
            .and_then(serde_json::Value::as_u64)
            .context("read the next offset")?;
        let path = format!("/v1/records?from={next}&kind=event&follow=true");
        let mut stream = get(&self.socket, &path)?;
        let received = Arc::new(AtomicUsize::new(0));
        let follower = Follower {
            received: Arc::clone(&received),
            stream: stream.try_clone()?,
        };
        std::thread::spawn(move || {
            // It breaks off when the follower is dropped, and then nobody wants to know.
            let _ = count(&mut stream, &received);
        });
        Ok(follower)
    }
}

/// Counts the events that come. Stops when dropped.
pub(crate) struct Follower {
    received: Arc<AtomicUsize>,
    stream: UnixStream,
}

impl Follower {
    /// How many have come.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn count(stream: &mut UnixStream, received: &AtomicUsize) -> anyhow::Result<()> {
    let mut reader = record::Reader::default();
    let mut space = vec![0; 256 * 1024];
    let mut head = Vec::new();
    let mut is_head = true;
    loop {
        let bytes = stream.read(&mut space)?;
        anyhow::ensure!(bytes > 0, "the broker ended");
        let mut piece = space.get(..bytes).unwrap_or_default();
        if is_head {
            head.extend_from_slice(piece);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            is_head = false;
            head.drain(..end + 4);
            piece = &head;
        }
        reader.push(piece);
        while let Some(record) = reader.take()? {
            received.fetch_add(usize::from(record.kind == Kind::Batch), Ordering::Relaxed);
        }
    }
}

/// What the broker says of itself.
fn status(socket: &Path) -> anyhow::Result<serde_json::Value> {
    ask(socket, "GET", "/v1/status", "")
}

/// One question put to the local socket; HTTP/1.0, so that the answer ends where the connection does.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> anyhow::Result<serde_json::Value> {
    let mut stream = UnixStream::connect(socket).context("reach the broker")?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: local\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let body = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .and_then(|end| answer.get(end + 4..))
        .context("no HTTP answer")?;
    serde_json::from_slice(body).context("read the broker's answer")
}

/// Asks the local socket; HTTP/1.0, so that the answer is not cut into chunks.
fn get(socket: &Path, path: &str) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).context("reach the broker")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: local\r\n\r\n")?;
    Ok(stream)
}

/// Seeds for keys: of this run alone, one for each number.
pub(crate) fn seed(number: u64) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    static RUN: std::sync::OnceLock<Zeroizing<[u8; 32]>> = std::sync::OnceLock::new();
    let mut run = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *run).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut seed = RUN.get_or_init(|| run).clone();
    seed.iter_mut()
        .zip(number.to_be_bytes())
        .for_each(|(byte, other)| *byte ^= other);
    Ok(seed)
}
