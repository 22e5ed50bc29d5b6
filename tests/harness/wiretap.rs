//! What travels inside TLS: a listener in the broker's place, with the broker's own certificate, that passes everything on to the broker
//! and keeps a copy. The programs on either side notice nothing.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::client::tls_config;

/// How long one side is listened to before the other has its turn.
const TURN: Duration = Duration::from_millis(5);
/// What both sides may agree to speak.
const SPEECH: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

/// One connection, both ways.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// What went to the broker.
    pub up: Vec<u8>,
    /// What came from it.
    pub down: Vec<u8>,
}

impl Heard {
    /// Whether it was HTTP; else it was MQTT, whose first packet is a CONNECT.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.up.first().is_some_and(u8::is_ascii_alphabetic)
    }
}

/// The listener. Stops when dropped.
#[derive(Debug)]
pub struct Wiretap {
    heard: Arc<Mutex<Vec<Heard>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What every connection needs.
#[derive(Clone)]
struct Line {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    broker: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    stopping: Arc<AtomicBool>,
}

impl Wiretap {
    /// Listens on `port` for a broker that listens on `broker` and keeps its keys in `keys`.
    ///
    /// # Errors
    /// If the port is taken, or the keys cannot be read.
    pub fn start(port: u16, broker: u16, keys: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).context("take the port")?;
        listener.set_nonblocking(true)?;
        let (heard, stopping) = (Arc::default(), Arc::default());
        let line = Line {
            server: Arc::new(server_config(keys)?),
            client: Arc::new(tls_config(&keys.join("ca.crt"), &SPEECH)?),
            broker,
            heard: Arc::clone(&heard),
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::spawn(move || {
            while !line.stopping.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let line = line.clone();
                        // Whoever breaks off sees that at the other end, too.
                        std::thread::spawn(move || line.carry(stream));
                    }
                    Err(_) => std::thread::park_timeout(TURN),
                }
            }
        });
        Ok(Self {
            heard,
            stopping,
            thread: Some(thread),
        })
    }

    /// Everything so far, connection by connection.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Line {
    fn carry(&self, near: TcpStream) -> anyhow::Result<()> {
        near.set_nonblocking(false)?;
        near.set_nodelay(true)?;
        let mut near = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server))?, near);
        while near.conn.is_handshaking() {
            near.conn.complete_io(&mut near.sock)?;
        }
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = near
            .conn
            .alpn_protocol()
            .map(<[u8]>::to_vec)
            .into_iter()
            .collect();
        let far = TcpStream::connect(("127.0.0.1", self.broker)).context("dial the broker")?;
        far.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let mut far = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, far);
        far.conn.complete_io(&mut far.sock)?;
        for stream in [&near.sock, &far.sock] {
            stream.set_read_timeout(Some(TURN))?;
        }
        let number = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(Heard::default());
            heard.len() - 1
        };
        while !self.stopping.load(Ordering::Relaxed) {
            if !self.pass(&mut near, &mut far, |heard| &mut heard.up, number)?
                || !self.pass(&mut far, &mut near, |heard| &mut heard.down, number)?
            {
                break;
            }
        }
        near.conn.send_close_notify();
        far.conn.send_close_notify();
        let _ = (near.flush(), far.flush());
        Ok(())
    }

    /// Passes on what one side says now. `false`: it has ended.
    fn pass(
        &self,
        from: &mut impl Read,
        to: &mut impl Write,
        kept: impl Fn(&mut Heard) -> &mut Vec<u8>,
        number: usize,
    ) -> anyhow::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let count = match from.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                return Ok(true);
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error.into()),
        };
        let said = bytes.get(..count).unwrap_or_default();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = heard.get_mut(number) {
            // Kept before it is passed on: whoever saw its effect finds it here.
            kept(heard).extend_from_slice(said);
        }
        drop(heard);
        to.write_all(said)?;
        to.flush()?;
        Ok(count > 0)
    }
}

fn server_config(keys: &Path) -> anyhow::Result<ServerConfig> {
    let certificate = std::fs::read(keys.join("server.crt")).context("read the certificate")?;
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(keys.join("server.key")).context("read its key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = SPEECH.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}
