//! Streams over a pipe, with a real plane and journal behind them: what a test of the programs cannot wait for.

use std::time::Duration;

use protocol::id::ReaderName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::timeout,
};

use crate::{
    core::reader::Rights,
    drive::Peer,
    shell::{connection::tests::World, http::Web, listener::Stay},
};

/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(20);
/// So little that an answer does not fit.
const PIPE_BYTES: usize = 64;
/// How long the tokens here last.
const LIFE: Duration = Duration::from_millis(1500);

/// A reader whose token lasts for `life`, and what its request is answered with.
async fn stream(world: &World, name: &str, life: Duration) -> DuplexStream {
    let rights = Rights::from_words(&["events"], None, None).unwrap();
    let peer = Peer::Local { uid: 0 };
    let name = ReaderName::new(name).unwrap();
    let token = world.gate.plane.add_reader(&name, rights, life, &peer);
    let token = token.unwrap().unwrap().token.to_text();
    let (mut client, server) = tokio::io::duplex(PIPE_BYTES);
    let web = Web::new(&world.gate, None);
    tokio::spawn(async move {
        let (stay, limit) = Stay::alone(DEADLINE);
        tokio::select! {
            () = web.serve(server, stay) => {}
            () = limit => {}
        }
    });
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        *token
    );
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_token_does_whether_it_is_read_or_not() {
    let world = World::new().await;
    let mut read = stream(&world, "siem", LIFE).await;
    // Not even the head of the answer gets out.
    let _deaf = stream(&world, "deaf", LIFE).await;
    let mut said = String::new();
    timeout(DEADLINE, read.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.contains("retry: 2000\n\n"), "{said}");
    let last = ": this stream ends: its token has ended\n\n\r\n0\r\n\r\n";
    assert!(said.ends_with(last), "{said}");
    let free = async {
        while world.gate.registry.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.unwrap();
}
