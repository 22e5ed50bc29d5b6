//! For tests: a broker's socket with answers of our own behind it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use super::client::Client;

/// A socket in a directory of its own, and the paths it was asked for.
pub(crate) struct FakeBroker {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeBroker {
    /// Answers each path and body from `answer`, with status 200.
    pub(crate) fn new(
        answer: impl Fn(&str, &[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(directory.path())).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                    async move {
                        let path = request.uri().to_string();
                        let sent = request.into_body().collect().await?.to_bytes();
                        let body = Full::new(Bytes::from(answer(&path, &sent)));
                        seen.lock().unwrap().push(path);
                        Ok::<_, hyper::Error>(Response::new(body))
                    }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self {
            directory,
            asked,
            task,
        }
    }

    /// Its directory, which goes with it.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.path())
    }

    /// Who talks to it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// What it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("outhaul.sock")
}
