//! The one port: TCP, TLS, and then MQTT or HTTP, by ALPN or else by the first byte.
//!
//! Accepting waits for nobody. Every connection has a task, and until its client has proven who it is it counts as a stranger:
//! there is room for so many, in all and for each address. An address that has more waits at the door, since thousands of
//! sandboxes may share one; whoever is silent is sent away without ever taking room.

mod door;
mod stay;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{clock, connection::Gate};
use crate::core::{
    gate::STRANGER_WAIT,
    network::Network,
    proxy_protocol::{HEAD_BYTES, HEADER_BYTES_MAX, Parsed, parse},
};
use door::{Door, Unnamed, Visitor};

pub use door::{
    DELAY_MAX, STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX, VISITORS_MAX, VISITORS_PER_ADDRESS_MAX,
};
pub use stay::Stay;

/// Connections that the kernel has made and we have not accepted yet: a fleet comes back within one turn of ours, and past this each
/// of them would try again a second later, or three, or seven. The kernel has a limit of its own, `net.core.somaxconn`.
pub const BACKLOG: u32 = 4096;
/// The pause after accepting failed: most likely we are out of descriptors, and asking again at once would only spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP connections at once. Hosts come once an hour for a token.
pub const HTTP_MAX: usize = 256;
/// The longest an HTTP connection may last, but for a reader's stream.
pub const HTTP_WAIT: Duration = Duration::from_secs(60);
/// The first byte of a CONNECT.
const MQTT_FIRST_BYTE: u8 = 0x10;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Mqtt,
    Http,
    Unknown,
}

/// Listens on an address, with room for [`BACKLOG`].
///
/// # Errors
/// The address is taken, or is not of this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A broker that starts again need not wait for the connections of the last one to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `listener` until the future is dropped. `tls` is read anew for every connection, so that certificates can change; who
/// makes the configuration sets TLS 1.3 only, and ALPN `mqtt` and `http/1.1`. HTTP connections go to `serve_http`. From `proxies` a
/// PROXY header comes first, and says whose the connection is; from others none is taken.
pub async fn serve<F, H>(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    gate: Gate,
    proxies: Vec<Network>,
    serve_http: F,
) where
    F: Fn(TlsStream<TcpStream>, SocketAddr, Arc<Stay>) -> H + Clone + Send + Sync + 'static,
    H: Future<Output = ()> + Send + 'static,
{
    let door = Door::default();
    let http = Arc::new(Semaphore::new(HTTP_MAX));
    let mut is_failing = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_client(&error) => {
                gate.metrics.accept_failed.add();
                continue;
            }
            Err(error) => {
                gate.metrics.accept_failed.add();
                if !is_failing {
                    tracing::warn!(%error, "accepting connections failed: trying again");
                }
                is_failing = true;
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_failing = false;
        gate.metrics.accepted.add();
        let is_proxy = proxies.iter().any(|range| range.contains(peer.ip()));
        let caller = if is_proxy {
            door.knock().map(Caller::Behind)
        } else {
            door.enter(peer.ip()).map(Caller::Known)
        };
        let Some(caller) = caller else {
            gate.metrics.crowded.add();
            continue;
        };
        let arrival = Arrival {
            stream,
            peer,
            caller,
            since: clock::mono(),
            acceptor: TlsAcceptor::from(Arc::clone(&tls.borrow())),
            gate: gate.clone(),
            http: Arc::clone(&http),
        };
        tokio::spawn(arrival.serve(serve_http.clone()));
    }
}

/// Whether accepting failed for the client that was next, and not for us: the next one need not wait.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Whose a connection is.
enum Caller {
    /// The address that it comes from.
    Known(Visitor),
    /// A load balancer's, which is about to say.
    Behind(Unnamed),
}

/// A connection that was accepted, and nothing more.
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    caller: Caller,
    since: Instant,
    acceptor: TlsAcceptor,
    gate: Gate,
    http: Arc<Semaphore>,
}

impl Arrival {
    async fn serve<F, H>(self, serve_http: F)
    where
        F: Fn(TlsStream<TcpStream>, SocketAddr, Arc<Stay>) -> H,
        H: Future<Output = ()>,
    {
        let Self {
            mut stream,
            mut peer,
            caller,
            since,
            acceptor,
            gate,
            http,
        } = self;
        let mut visitor = match caller {
            Caller::Known(visitor) => visitor,
            Caller::Behind(unnamed) => {
                let until = since + STRANGER_WAIT;
                let Ok(Some(client)) = timeout_at(until.into(), read_header(&mut stream)).await
                else {
                    return gate.metrics.proxy_failed.add();
                };
                if let Some(client) = client {
                    peer.set_ip(client);
                }
                let Some(visitor) = unnamed.named(peer.ip()) else {
                    return gate.metrics.crowded.add();
                };
                visitor
            }
        };
        // A client speaks first. Whoever says nothing takes no room that others wait for. Not `readable`: it may return with nothing
        // to read, and on a fresh socket it does.
        let until = since + STRANGER_WAIT;
        let mut first = [0];
        let first = visitor.wait_for(stream.peek(&mut first));
        match timeout_at(until.into(), first).await {
            Ok(Some(Ok(1..))) => {}
            Ok(None) => return gate.metrics.crowded.add(),
            Ok(Some(_)) | Err(_) => return gate.metrics.silent.add(),
        }
        let asked = clock::mono();
        let Some(stranger) = visitor.come_in().await else {
            return gate.metrics.crowded.add();
        };
        // The wait at the door was our doing.
        let until = since + STRANGER_WAIT + clock::mono().saturating_duration_since(asked);
        let _ = stream.set_nodelay(true);
        // The task of an idle connection is as large as the largest thing that it ever waits for, and every hand that the stream
        // goes through would have room for it: so the stream and each stage lie in boxes of their own, gone when they are over.
        let greeting = Box::pin(acceptor.accept(stream));
        let Ok(Ok(stream)) = timeout_at(until.into(), greeting).await else {
            return gate.metrics.tls_failed.add();
        };
        let mut stream = Box::new(stream);
        match timeout_at(until.into(), speech_of(&mut stream)).await {
            Ok(Speech::Mqtt) => Box::pin(gate.serve(stream, until, stranger)).await,
            Ok(Speech::Http) => {
                gate.metrics.http.add();
                // Who proves nothing stays a stranger to the end, and no address has more than its share of the room.
                if let Ok(Ok(room)) = timeout_at(until.into(), http.acquire_owned()).await {
                    let (stay, limit) = Stay::new((room, stranger), HTTP_WAIT);
                    Box::pin(limit.hold(serve_http(*stream, peer, stay))).await;
                }
            }
            Ok(Speech::Unknown) | Err(_) => gate.metrics.unknown.add(),
        }
    }
}

/// Reads the header that a load balancer puts first, and not a byte more. Who the client is, if it says; nothing, if there is none.
async fn read_header(stream: &mut TcpStream) -> Option<Option<IpAddr>> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let (mut have, mut need) = (0, HEAD_BYTES);
    loop {
        let missing = bytes.get_mut(have..need)?;
        stream.read_exact(missing).await.ok()?;
        have = need;
        match parse(bytes.get(..have)?) {
            Ok(Parsed::Whole { client, .. }) => return Some(client),
            Ok(Parsed::More(total)) => need = total,
            Err(error) => {
                tracing::debug!(%error, "a load balancer did not say whose a connection is");
                return None;
            }
        }
    }
}

/// What a client speaks: what it agreed to by ALPN, or what it begins with.
async fn speech_of(stream: &mut TlsStream<TcpStream>) -> Speech {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"mqtt") => Speech::Mqtt,
        Some(b"http/1.1") => Speech::Http,
        Some(_) => Speech::Unknown,
        None => match stream.fill_buf().await {
            Ok([MQTT_FIRST_BYTE, ..]) => Speech::Mqtt,
            Ok([first, ..]) if first.is_ascii_alphabetic() => Speech::Http,
            Ok(_) | Err(_) => Speech::Unknown,
        },
    }
}
