//! HTTP/1.1 to the broker, over its unix socket or over HTTPS: one connection for each request, every answer bounded, streams read
//! piece by piece.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{reach::Reach, terminal::one_line};

/// The longest answer that is not a stream, in bytes: ten thousand sandboxes, or a year of a host's keys, with room.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the broker may take to begin an answer, and to finish one that is not a stream. It waits for its disk at most.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Media type of JSON.
const JSON: &str = "application/json";
/// Media type of a signed command.
const CBOR: &str = "application/cbor";

/// Nobody answered. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Nothing listens there.
    #[error(
        "no broker answers at {}: start it with `outhaul serve`, or name its socket with --socket",
        .0.display()
    )]
    Missing(PathBuf),
    /// Nobody takes a connection there.
    #[error("no broker answers at {place}: {reason}")]
    Away {
        /// Where.
        place: String,
        /// Why not.
        reason: String,
    },
    /// It broke off or did not answer in time.
    #[error("the broker at {place} broke off: {reason}")]
    Broken {
        /// Where.
        place: String,
        /// How.
        reason: String,
    },
}

/// The broker said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    /// Its word for it, stable.
    pub(crate) code: String,
    /// For a person.
    pub(crate) message: String,
}

/// Talks to one broker.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    reach: Arc<Reach>,
}

impl Client {
    /// Talks to the broker behind `socket`; connects when asked something.
    #[cfg(test)]
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self::through(Reach::Socket(socket))
    }

    /// Talks to the broker that is reached this way; connects when asked something.
    pub(crate) fn through(reach: Reach) -> Self {
        Self {
            reach: Arc::new(reach),
        }
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(Method::GET, path, None).await?;
        self.read(response).await
    }

    /// Sends a JSON value.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(body).context("encode request")?;
        let response = self.send(Method::POST, path, Some((JSON, body))).await?;
        self.read(response).await
    }

    /// Takes something away.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(Method::DELETE, path, None).await?;
        self.read(response).await
    }

    /// Sends a signed message.
    pub(crate) async fn post_cbor<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let response = self.send(Method::POST, path, Some((CBOR, body))).await?;
        self.read(response).await
    }

    /// Asks for a stream.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Stream> {
        let response = self.send(Method::GET, path, None).await?;
        Ok(Stream {
            body: response.into_body(),
            reach: Arc::clone(&self.reach),
        })
    }

    /// The error of a broker that stopped in the middle.
    pub(crate) fn broke_off(&self, reason: &str) -> anyhow::Error {
        Unreachable::Broken {
            place: self.reach.to_string(),
            reason: reason.to_owned(),
        }
        .into()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.reach.host());
        if let Some(token) = self.reach.token() {
            request = request.header(AUTHORIZATION, bearer(token)?);
        }
        let body = match body {
            Some((media_type, body)) => {
                request = request.header(CONTENT_TYPE, media_type);
                Bytes::from(body)
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).context("build request")?;
        let exchange = async {
            let stream = self.reach.connect().await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| self.broken(&error))?;
            // Ends when the answer is read or dropped; its errors show there too.
            tokio::spawn(connection);
            let answer = sender.send_request(request).await;
            answer.map_err(|error| self.broken(&error))
        };
        let response = self.in_time(exchange).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await?)
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Incoming>) -> anyhow::Result<T> {
        let bytes = self.body(response).await?;
        serde_json::from_slice(&bytes).map_err(|_| {
            anyhow::anyhow!("the broker's answer is not what this version understands")
        })
    }

    async fn body(&self, response: Response<Incoming>) -> anyhow::Result<Bytes> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let whole = async { body.await.map_err(|error| self.broken(error.as_ref())) };
        Ok(self.in_time(whole).await?.to_bytes())
    }

    async fn refusal(&self, response: Response<Incoming>) -> anyhow::Result<anyhow::Error> {
        let status = response.status();
        let bytes = self.body(response).await?;
        let refused = match serde_json::from_slice::<Envelope>(&bytes) {
            Ok(Envelope { error }) => Refused {
                code: error.code,
                message: one_line(&error.message),
            },
            Err(_) => Refused {
                code: "unknown".to_owned(),
                message: match self.reach.token() {
                    Some(_) if status == StatusCode::NOT_FOUND => {
                        "the broker takes no access tokens: its owner turns them on with `outhaul serve --allow-access`"
                            .to_owned()
                    }
                    _ => format!("the broker answered {status}"),
                },
            },
        };
        Ok(refused.into())
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::time::timeout(ANSWER_WAIT, answer)
            .await
            .unwrap_or_else(|_| {
                Err(Unreachable::Broken {
                    place: self.reach.to_string(),
                    reason: format!("no answer in {} s", ANSWER_WAIT.as_secs()),
                }
                .into())
            })
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
        broken(&self.reach, error)
    }
}

/// An answer without end, or with one that is not known beforehand.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    reach: Arc<Reach>,
}

impl Stream {
    /// The next piece; none at the end. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) => return Err(broken(&self.reach, &error)),
            }
        }
    }
}

/// Whether trying again may help: the broker is away, or was.
pub(crate) fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Unreachable>().is_some()
}

#[derive(Deserialize)]
struct Envelope {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

fn broken(reach: &Reach, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    // The outermost says "connection error"; what helps is underneath.
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = format!("{reason}: {inner}");
        source = inner.source();
    }
    Unreachable::Broken {
        place: reach.to_string(),
        reason,
    }
    .into()
}

/// RFC 6750, §2.1; marked as a secret for whoever prints headers.
fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| anyhow::anyhow!("the access token is no text for a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{server::conn::http1 as server, service::service_fn};
    use tokio::net::UnixListener;

    /// A broker that answers every request with one status and body, and says what it was asked.
    fn broker(
        status: u16,
        body: Vec<u8>,
    ) -> (
        tempfile::TempDir,
        Client,
        tokio::task::JoinHandle<(String, Bytes)>,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("outhaul.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = tokio::spawn(async move {
            let (asked, mut heard) = tokio::sync::mpsc::channel(1);
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let (asked, body) = (asked.clone(), body.clone());
                async move {
                    let line = format!(
                        "{} {} {}",
                        request.method(),
                        request.uri(),
                        request
                            .headers()
                            .get(CONTENT_TYPE)
                            .map_or("-", |value| value.to_str().unwrap())
                    );
                    let sent = request.into_body().collect().await?.to_bytes();
                    asked.try_send((line, sent)).unwrap();
                    let response = Response::builder().status(status);
                    Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            let connection = server::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
            heard.recv().await.unwrap()
        });
        (directory, Client::new(socket), asked)
    }

    #[tokio::test]
    async fn a_question_and_its_answer() {
        let (_directory, client, asked) = broker(200, b"{\"offset\":7}".to_vec());
        let answer: serde_json::Value = client
            .post_cbor("/v1/commands", vec![1, 2, 3])
            .await
            .unwrap();
        assert_eq!(answer["offset"], 7);
        let (line, body) = asked.await.unwrap();
        assert_eq!(line, "POST /v1/commands application/cbor");
        assert_eq!(&body[..], [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_brokers_words_made_safe() {
        let body = br#"{"error":{"code":"host_exists","message":"edge-1 exists\u001b[2J"}}"#;
        let (_directory, client, _asked) = broker(409, body.to_vec());
        let error = client
            .get::<serde_json::Value>("/v1/hosts")
            .await
            .unwrap_err();
        let refused = error.downcast_ref::<Refused>().unwrap();
        assert_eq!(refused.code, "host_exists");
        assert_eq!(refused.message, "edge-1 exists^[[2J");
        assert!(!is_unreachable(&error));
    }

    #[tokio::test]
    async fn an_answer_without_bound_is_cut_off() {
        let (_directory, client, _asked) = broker(200, vec![b' '; ANSWER_BYTES_MAX + 1]);
        let error = client.get::<serde_json::Value>("/").await.unwrap_err();
        assert!(error.to_string().contains("length limit"), "{error}");
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end() {
        let (_directory, client, _asked) = broker(200, vec![7; 100_000]);
        let mut stream = client.stream("/v1/records").await.unwrap();
        let mut length = 0;
        while let Some(piece) = stream.next().await.unwrap() {
            length += piece.len();
        }
        assert_eq!(length, 100_000);
    }

    #[tokio::test]
    async fn a_missing_socket_says_how_to_get_one() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("outhaul.sock");
        let client = Client::new(socket.clone());
        let error = client.get::<serde_json::Value>("/").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no broker answers at {}: start it with `outhaul serve`, or name its socket with --socket",
                socket.display()
            )
        );
        assert!(is_unreachable(&error));
        drop(UnixListener::bind(&socket).unwrap());
        let error = client.get::<serde_json::Value>("/").await.unwrap_err();
        assert!(is_unreachable(&error), "a socket that nobody listens on");
    }
}
