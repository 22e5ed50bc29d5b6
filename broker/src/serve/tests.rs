//! A whole broker on a port of its own, asked over real TLS and its real socket.

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request as HttpRequest, StatusCode,
    body::Bytes,
    header::{HeaderMap, SERVER},
};
use hyper_util::rt::TokioIo;
use protocol::{
    cbor,
    command::{self, Command, Content, Launch, Limits, Order},
    exchange::{
        CHALLENGE_PATH, Challenge, EXCHANGE_PATH, Grant, Proof, Refusal, Refused, Request,
        sign_request,
    },
    id::{AccessName, CommandId, HostId, SandboxId},
    install_key::InstallKey,
    key::{self, Dispatcher, Host, Secret},
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use super::*;
use crate::{
    config::RawConfig,
    core::access::{Rights, Role},
    drive::Peer,
};

/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

struct Running {
    place: TempDir,
    listen: SocketAddr,
    plane: Plane,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<anyhow::Result<()>>,
}

fn config(place: &Path) -> Config {
    let raw = RawConfig {
        data_dir: Some(place.join("data")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        public_address: Some("localhost".to_owned()),
        durability: Some("os".to_owned()),
        ..RawConfig::default()
    };
    raw.try_into().unwrap()
}

async fn start_in(place: TempDir) -> Running {
    let config = config(place.path());
    start_with(place, config).await
}

async fn start_with(place: TempDir, config: Config) -> Running {
    let broker = Broker::start(config).await.unwrap();
    let (listen, plane) = (broker.listen(), broker.plane().clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(broker.run(async {
        let _ = stopped.await;
    }));
    Running {
        place,
        listen,
        plane,
        stop: Some(stop),
        ended,
    }
}

async fn ask<S>(
    stream: S,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> (StatusCode, HeaderMap, Bytes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = HttpRequest::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    let response = sender
        .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    (
        head.status,
        head.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}

impl Running {
    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    async fn local(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let (status, bytes) = self
            .local_bytes(method, path, serde_json::to_vec(body).unwrap())
            .await;
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn local_bytes(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        let stream = UnixStream::connect(self.data().join("outhaul.sock"))
            .await
            .unwrap();
        let (status, _, bytes) = ask(stream, method, path, body).await;
        (status, bytes)
    }

    async fn remote(
        &self,
        ca: &str,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        ask(self.dial(ca).await, method, path, body).await
    }

    async fn dial(&self, ca: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.listen).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await
            .unwrap()
    }

    async fn stop(mut self) -> TempDir {
        self.stop.take().unwrap().send(()).unwrap();
        let ended = timeout(DEADLINE, self.ended).await.unwrap().unwrap();
        ended.unwrap();
        self.place
    }
}

fn secret<R: key::Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

/// Registers a dispatcher and adds a host; its bundle's files.
async fn add_host(broker: &Running) -> Value {
    let key = secret::<Dispatcher>(2).public().to_string();
    let body = json!({ "key": key, "name": "ada" });
    assert_eq!(
        broker.local(Method::POST, "/v1/dispatchers", &body).await.0,
        StatusCode::CREATED
    );
    assert_eq!(
        broker.local(Method::POST, "/v1/dispatchers", &body).await.0,
        StatusCode::CONFLICT
    );
    let body = json!({ "name": "edge-1", "kind": "docker", "dispatchers": [key] });
    let (status, answer) = broker.local(Method::POST, "/v1/hosts", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(
        answer["broker"],
        format!("localhost:{}", broker.listen.port())
    );
    answer["bundle"].clone()
}

async fn enroll(broker: &Running, bundle: &Value, key: u8) -> (StatusCode, Bytes) {
    let ca = bundle["ca.crt"].as_str().unwrap();
    let (status, _, bytes) = broker
        .remote(ca, Method::POST, CHALLENGE_PATH, vec![])
        .await;
    assert_eq!(status, StatusCode::OK);
    let challenge: Challenge = cbor::from_slice(&bytes, 1024).unwrap();
    let install = InstallKey::from_text(bundle["install.key"].as_str().unwrap()).unwrap();
    let key = secret::<Host>(key);
    let request = Request {
        nonce: challenge.nonce,
        host: HostId::new("edge-1").unwrap(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey((&install).into()),
    };
    let (status, _, bytes) = broker
        .remote(
            ca,
            Method::POST,
            EXCHANGE_PATH,
            sign_request(&key, &request),
        )
        .await;
    (status, bytes)
}

fn launch(plane: &Plane) -> Vec<u8> {
    let launch = Launch {
        sandbox: SandboxId::new("build-7").unwrap(),
        image: "tool:1".into(),
        arguments: vec![],
        environment: vec![],
        sources: vec![],
        limits: Limits::default(),
        content: Content::Full,
        isolation: None,
    };
    let issued = plane.now();
    let command = Command {
        id: CommandId([1; 16]),
        host: HostId::new("edge-1").unwrap(),
        issued,
        expires: issued.plus(DEADLINE),
        order: Order::Launch(launch),
    };
    command::sign(&secret(2), &command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_enrols_over_tls_with_its_bundle_and_only_once() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    let bundle = add_host(&broker).await;
    let ca = bundle["ca.crt"].as_str().unwrap();
    let (status, headers, body) = broker.remote(ca, Method::GET, "/readyz", vec![]).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    assert!(headers.get(SERVER).is_none());
    let mut ready: Value = serde_json::from_slice(&body).unwrap();
    for end in ["certificate_not_after_ms", "authority_not_after_ms"] {
        let end = ready.as_object_mut().unwrap().remove(end).unwrap();
        assert!(end.as_u64().unwrap() > broker.plane.now().0);
    }
    assert_eq!(
        ready,
        json!({ "status": "ready", "durability": "os", "incarnation": 1, "reasons": [] })
    );
    let (status, bytes) = enroll(&broker, &bundle, 10).await;
    assert_eq!(status, StatusCode::OK);
    let grant: Grant = cbor::from_slice(&bytes, 4096).unwrap();
    assert!(broker.plane.check_token(&grant.token, grant.time).is_ok());
    assert_eq!(
        grant.authorities.unwrap().len(),
        ca.matches("BEGIN").count(),
        "what the bundle carries"
    );
    let (status, bytes) = enroll(&broker, &bundle, 11).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let refused: Refused = cbor::from_slice(&bytes, 1024).unwrap();
    assert_eq!(refused.reason, Refusal::InstallKey);
    let (_, hosts) = broker.local(Method::GET, "/v1/hosts", &json!(null)).await;
    assert_eq!(hosts["hosts"][0]["state"], "enrolled");
    let (_, keys) = broker
        .local(Method::GET, "/v1/hosts/edge-1/keys", &json!(null))
        .await;
    assert_eq!(
        keys["keys"][0]["key"],
        secret::<Host>(10).public().to_string()
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_three_routes_and_bounded_bodies() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    let bundle = add_host(&broker).await;
    let ca = bundle["ca.crt"].as_str().unwrap();
    for (method, path, body, expected) in [
        (Method::GET, "/livez", vec![], StatusCode::OK),
        (Method::GET, "/v1/hosts", vec![], StatusCode::NOT_FOUND),
        (
            Method::GET,
            EXCHANGE_PATH,
            vec![],
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Method::POST,
            EXCHANGE_PATH,
            vec![0; 9_000],
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (
            Method::POST,
            EXCHANGE_PATH,
            vec![0; 100],
            StatusCode::BAD_REQUEST,
        ),
        (Method::POST, CHALLENGE_PATH, vec![0; 10], StatusCode::OK),
    ] {
        let (status, _, _) = broker.remote(ca, method, path, body).await;
        assert_eq!(status, expected, "{path}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_command_comes_back_from_the_records() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    add_host(&broker).await;
    let command = launch(&broker.plane);
    let (status, body) = broker
        .local_bytes(Method::POST, "/v1/commands", command.clone())
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body:?}");
    let (status, body) = broker
        .local_bytes(
            Method::GET,
            "/v1/records?from=0&kind=command&host=edge-1",
            vec![],
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let payload = serde_bytes::Bytes::new(&command);
    // The array's head, and all but the time, which is the broker's own.
    assert_eq!(body.first(), Some(&0x86));
    assert!(body.ends_with(&cbor::to_vec(&(3_u8, "edge-1", "build-7", payload))[1..]));
    let (_, sandbox) = broker
        .local(Method::GET, "/v1/sandboxes/edge-1/build-7", &json!(null))
        .await;
    assert_eq!(
        (&sandbox["state"], &sandbox["first_offset"]),
        (&json!("creating"), &json!(0))
    );
    let (_, audit) = broker
        .local(Method::GET, "/v1/audit?from=0", &json!(null))
        .await;
    let names: Vec<_> = audit["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "broker.started",
            "dispatcher.added",
            "host.operator_bundle",
            "sandbox.launch_requested",
            // Once, for everything.
            "content.read"
        ]
    );
    for (method, path, expected, code) in [
        (
            Method::GET,
            "/v1/records?kind=wish",
            StatusCode::BAD_REQUEST,
            "bad_request",
        ),
        (
            Method::GET,
            "/v1/sandboxes?al=true",
            StatusCode::BAD_REQUEST,
            "bad_request",
        ),
        (
            Method::GET,
            "/v1/sandboxes/edge-1/nobody",
            StatusCode::NOT_FOUND,
            "sandbox_unknown",
        ),
        (
            Method::GET,
            "/v1/nothing",
            StatusCode::NOT_FOUND,
            "not_found",
        ),
        (
            Method::DELETE,
            "/v1/status",
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
        (
            Method::POST,
            "/v1/commands",
            StatusCode::BAD_REQUEST,
            "command_malformed",
        ),
    ] {
        let (status, body) = broker.local(method, path, &json!(null)).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (expected, &json!(code)),
            "{path}"
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_what_comes_and_is_let_go_when_the_broker_stops() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    add_host(&broker).await;
    let stream = UnixStream::connect(broker.data().join("outhaul.sock"))
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = HttpRequest::get("/v1/records?follow=true").header("host", "x");
    let response = sender
        .send_request(request.body(Full::new(Bytes::new())).unwrap())
        .await
        .unwrap();
    let mut body = response.into_body();
    let command = launch(&broker.plane);
    broker
        .local_bytes(Method::POST, "/v1/commands", command.clone())
        .await;
    let piece = timeout(DEADLINE, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert!(piece.ends_with(&command));
    let place = broker.stop().await;
    assert!(
        timeout(DEADLINE, body.frame()).await.unwrap().is_none(),
        "an end, not a break"
    );
    assert!(!place.path().join("data/outhaul.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_identity_and_a_second_broker_is_refused() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    let (_, before) = broker.local(Method::GET, "/v1/status", &json!(null)).await;
    let ca = std::fs::read(broker.data().join("keys/ca.crt")).unwrap();
    let second = Broker::start(config(broker.place.path()))
        .await
        .unwrap_err();
    assert!(
        format!("{second:#}").contains("another process is using it"),
        "{second:#}"
    );
    let mut taken = config(broker.place.path());
    taken.listen = broker.listen;
    let second = Broker::start(taken).await.unwrap_err();
    assert!(
        format!("{second:#}").contains(&format!("listen on {}", broker.listen)),
        "{second:#}"
    );
    let broker = start_in(broker.stop().await).await;
    let (_, after) = broker.local(Method::GET, "/v1/status", &json!(null)).await;
    assert_eq!(before["audience"], after["audience"]);
    assert_eq!(
        std::fs::read(broker.data().join("keys/ca.crt")).unwrap(),
        ca
    );
    broker.stop().await;
}

/// A hostile case of `tests/hostile`, here because nothing that a client may send ends the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_77_a_broker_whose_router_dies_ends_within_a_second() {
    const ENDED_WAIT: Duration = Duration::from_secs(1);
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    add_host(&broker).await;
    broker.plane.router().die().await;
    let ended = timeout(ENDED_WAIT, broker.ended).await.unwrap().unwrap();
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("the router has failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gate_counted_is_read_over_the_local_socket() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    let bundle = add_host(&broker).await;
    let ca = bundle["ca.crt"].as_str().unwrap();
    broker.remote(ca, Method::GET, "/livez", vec![]).await;
    let (status, text) = broker.local_bytes(Method::GET, "/v1/metrics", vec![]).await;
    assert_eq!(status, StatusCode::OK);
    let text = String::from_utf8(text.to_vec()).unwrap();
    // Ours, and the broker's own look whether it can be reached where the bundle says.
    for line in ["outhaul_gate_http_total 2", "outhaul_gate_mqtt_total 0"] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_sees_what_the_journal_keeps_and_purges_by_host() {
    let broker = start_in(tempfile::tempdir().unwrap()).await;
    add_host(&broker).await;
    let nothing = json!({ "host": "edge-1", "sandbox": null, "before_ms": null });
    let post = |body| (Method::POST, "/v1/journal/purge", body);
    let (method, path, body) = post(nothing);
    let (status, purged) = broker.local(method, path, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(purged, json!({ "records": 0, "bytes": 0, "damaged": [] }));
    let (method, path, body) = post(json!({ "host": "Edge 1" }));
    let (status, _) = broker.local(method, path, &body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, shown) = broker.local(Method::GET, "/v1/journal", &json!(null)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["limits"]["age_ms"], 30 * 86_400_000_u64);
    assert_eq!(shown["limits"]["host_bytes"], 4_u64 << 30);
    assert_eq!(
        (&shown["next_offset"], &shown["dropped"]),
        (&json!(0), &json!([]))
    );
    broker.stop().await;
}

/// A stream of records over HTTPS, and all that came of it.
async fn stream_of(broker: &Running, ca: &str, token: &str, query: &str) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = broker.dial(ca).await;
    let request = format!(
        "GET /v1/records{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    // Broken off, TLS may end without a word too.
    let _ = stream.read_to_end(&mut came).await;
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_records_ends_with_the_token_that_opened_it_and_never_as_if_it_were_whole() {
    const LIFE: Duration = Duration::from_millis(1500);
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    config.admitted.access = true;
    let broker = start_with(place, config).await;
    let bundle = add_host(&broker).await;
    let ca = bundle["ca.crt"].as_str().unwrap();
    let give = |name: &str, life| {
        let rights = Rights {
            role: Role::Viewer,
            host: None,
        };
        let name = AccessName::new(name).unwrap();
        let local = Peer::Local { uid: 0 };
        let made = broker.plane.add_access(&name, rights, life, &local);
        made.unwrap().unwrap().token.to_text()
    };
    let (short, long) = (give("short", LIFE), give("long", DEADLINE));
    let last = b"\r\n0\r\n\r\n";
    let whole = stream_of(&broker, ca, &long, "").await;
    assert!(whole.starts_with(b"HTTP/1.1 200") && whole.ends_with(last));
    let ended = timeout(DEADLINE, stream_of(&broker, ca, &short, "?follow=true"));
    let ended = ended.await.unwrap();
    assert!(ended.starts_with(b"HTTP/1.1 200") && !ended.ends_with(last));
    let after = stream_of(&broker, ca, &short, "").await;
    let after = String::from_utf8_lossy(&after).into_owned();
    assert!(
        after.starts_with("HTTP/1.1 401") && after.contains("token_expired"),
        "{after}"
    );
    broker.stop().await;
}
