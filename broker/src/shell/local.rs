//! The API of the control plane: HTTP/1.1 on a unix socket, for the command line. Whoever may open the socket governs the broker, so it
//! is its owner's alone, and every change names the user id that the kernel gave. The same routes serve holders of access tokens on the
//! TLS port (`shell/http/access.rs`), each for what its role allows.

mod access;
mod answer;
mod audit;
mod backup;
mod certificate;
mod host;
mod journal;
mod key;
mod reader;
mod records;
mod right;
mod route;
mod witness;

use std::{
    io::ErrorKind,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::Extension;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{certificate::Certificates, http::serve_connection, metrics::Metrics};
use crate::drive::{Peer, Plane};

/// Connections at once. Past that the next waits to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Streams of records at once: each holds an open file and up to a megabyte.
const STREAMS_MAX: usize = 48;
/// How long to wait after an accept that failed: the machine is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers under way may take when the broker stops.
const GOODBYE_WAIT: Duration = Duration::from_secs(3);

/// What every handler needs.
#[derive(Clone, Debug)]
struct Api {
    plane: Plane,
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
    streams: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Streams of records at once for all access tokens: whoever is at the socket has their own.
const REMOTE_STREAMS_MAX: usize = 96;

/// The routes for holders of access tokens. Whoever serves them says who asks, by an [`Extension`] of [`Peer`].
pub fn remote(
    plane: Plane,
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
    stopping: watch::Receiver<bool>,
) -> axum::Router {
    route::served(Api {
        plane,
        metrics,
        certificates,
        streams: Arc::new(Semaphore::new(REMOTE_STREAMS_MAX)),
        stopping,
    })
}

/// The socket, open and not yet served.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Opens the socket, mode 0600. One that a dead broker left behind is removed; one that answers is not.
    ///
    /// # Errors
    /// Another broker answers there, something else is in the way, or the directory refuses.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<Self> {
            clear(path)?;
            let directory = path.parent().context("it has no directory")?;
            // Under another name until it is closed to others: there is no moment at which they may connect.
            let draft = directory.join(format!(".new-{}", std::process::id()));
            let listener = UnixListener::bind(&draft)?;
            let placed = std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))
                .and_then(|()| std::fs::rename(&draft, path));
            if let Err(error) = placed {
                let _ = std::fs::remove_file(&draft);
                return Err(error.into());
            }
            Ok(Self {
                listener,
                path: path.to_owned(),
            })
        };
        open().with_context(|| format!("open local socket {}", path.display()))
    }

    /// Serves until `stopping` turns true; then ends streams, lets other answers finish, and removes the socket.
    pub async fn serve(
        self,
        plane: Plane,
        metrics: Arc<Metrics>,
        certificates: Arc<Certificates>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let api = Api {
            plane,
            metrics,
            certificates,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stopping: stopping.clone(),
        };
        let routes = route::routes(api);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
                Some(_) = connections.join_next() => continue,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let served = accepted.and_then(|(stream, _)| Ok((peer_of(&stream)?, stream)));
            match served {
                Ok((peer, stream)) => {
                    let routes = routes.clone().layer(Extension(peer));
                    let mut stopping = stopping.clone();
                    connections.spawn(async move {
                        let stop = async move {
                            // A sender that is gone is a broker that is gone.
                            let _ = stopping.wait_for(|stopping| *stopping).await;
                        };
                        if let Err(error) = serve_connection(stream, routes, stop).await {
                            tracing::debug!(%error, "a local connection broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the local socket could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // What does not finish in time is cut off.
        let finish = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_WAIT, finish).await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the local socket could not be removed");
        }
    }
}

/// Makes way for a socket: what a dead broker left there goes, and nothing else.
fn clear(path: &Path) -> anyhow::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        bail!("something that is not a socket is in its place");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another broker answers there"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).context("remove the one that a dead broker left")
        }
        Err(error) => Err(error).context("ask whether a broker answers there"),
    }
}

fn peer_of(stream: &UnixStream) -> std::io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer::Local {
        uid: credentials.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone_and_a_dead_one_makes_way() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("outhaul.sock");
        let first = LocalSocket::open(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let error = format!("{:#}", LocalSocket::open(&path).unwrap_err());
        assert!(error.contains("another broker"), "{error}");
        drop(first);
        assert!(path.exists());
        assert!(LocalSocket::open(&path).is_ok());
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_never_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("outhaul.sock");
        std::fs::write(&path, b"precious").unwrap();
        assert!(LocalSocket::open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
