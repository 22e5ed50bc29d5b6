//! Case 108: a reader over HTTPS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use protocol::event::{Event, Kind};
use socket2::{Domain, Socket, Type};
use tests::{client::tls_config, sse::Parser, wait};

use crate::{
    bearer::{add, run_open},
    bytes::{Post, puback},
    wire::{Came, Wire},
};

/// The body of a chunked answer, chunk by chunk (RFC 9112 §7.1).
#[derive(Default)]
struct Chunks {
    bytes: Vec<u8>,
    has_head: bool,
}

impl Chunks {
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(bytes);
        let mut body = Vec::new();
        loop {
            let end: &[u8] = if self.has_head { b"\r\n" } else { b"\r\n\r\n" };
            let mut windows = self.bytes.windows(end.len());
            let Some(at) = windows.position(|window| window == end) else {
                return body;
            };
            if !self.has_head {
                let head = String::from_utf8_lossy(&self.bytes[..at]);
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                self.has_head = true;
                self.bytes.drain(..at + end.len());
                continue;
            }
            let size = std::str::from_utf8(&self.bytes[..at]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let start = at + end.len();
            if self.bytes.len() < start + size + 2 {
                return body;
            }
            body.extend_from_slice(&self.bytes[start..start + size]);
            self.bytes.drain(..start + size + 2);
        }
    }
}

#[test]
fn case_108_a_stream_that_is_not_read_costs_nothing_and_misses_nothing() {
    const BATCHES: u16 = 600;
    const EVENTS: usize = 7;
    /// What fills at once, so that the broker has to hold back.
    const SOCKET_BYTES: usize = 4 << 10;
    run_open(|site| {
        let siem = add(site, "siem", &["--may", "events"]);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, site.world.port));
        socket.connect(&broker.into()).unwrap();
        let config = tls_config(&site.ca(), &[b"http/1.1"]).unwrap();
        let mut deaf = Wire::over(socket.into(), config.into()).unwrap();
        let request = format!(
            "GET /v1/events?kind=event HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            siem.token
        );
        deaf.send(request.as_bytes());
        let (mut chunks, mut parser) = (Chunks::default(), Parser::default());
        while parser.retry_ms.is_none() {
            assert_eq!(deaf.look(Duration::from_secs(20)), Came::Bytes);
            let body = chunks.push(deaf.unread());
            deaf.forget();
            parser.push(&body).unwrap();
        }
        let who = site.sandbox();
        let sandbox = who.subject.split_once('/').unwrap().1.to_owned();
        let mut source = site.online(&who);
        let mut writer = who.writer();
        let memory = site.memory();
        for number in 1..=BATCHES {
            for _ in 0..EVENTS {
                let data = [7; 8 << 10];
                let event = Event {
                    time: wait::now(),
                    kind: Kind::Stdout,
                    flags: 0,
                    size: data.len() as u64,
                    value: 0,
                    data: &data,
                };
                assert!(writer.push(&event));
            }
            let batch = writer.seal(wait::now(), false);
            let post = Post::new(who.topic(), number, &batch);
            source.says(&post.bytes(), &puback(number, 0));
        }
        site.is_well();
        let growth = site.memory().saturating_sub(memory);
        assert!(growth < 8 << 20, "{growth} bytes more for one that is deaf");
        let mut last = None;
        let mut came = 0;
        while came < BATCHES {
            assert_eq!(deaf.look(Duration::from_secs(20)), Came::Bytes);
            let body = chunks.push(deaf.unread());
            deaf.forget();
            for event in parser.push(&body).unwrap() {
                assert_eq!(event.kind, "event");
                assert!(last.is_none_or(|last| last < event.id));
                last = Some(event.id);
                // The bystander says something now and then.
                came += u16::from(event.data["sandbox"] == sandbox.as_str());
            }
        }
    });
}
