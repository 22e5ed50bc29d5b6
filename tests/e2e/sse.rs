//! Readers over HTTPS: the journal as server-sent events, read with the real curl and a parser that forgives nothing.

use std::path::PathBuf;

use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::{Dispatcher, Host, Sandbox, Secret},
    mqtt::{
        ClientPacket, Connect, Delivery, List, PacketId, Publish, Qos, ReasonCode, Subscribe,
        Subscription,
    },
    stream::{Writer, stream_id},
    token,
    topic::Topic,
};
use tests::{
    client::{Client, Said},
    enroll, local,
    sse::{Curl, curl},
    wait,
    world::World,
};
use zeroize::Zeroizing;

/// A broker that lets readers in, and a host of two sandboxes.
struct Open {
    world: World,
    host: HostId,
    host_key: Secret<Host>,
    host_token: Vec<u8>,
}

/// A sandbox that says something.
struct Speaker {
    client: Client,
    writer: Writer,
    topic: String,
    batches: Vec<Vec<u8>>,
}

impl Open {
    fn new() -> Self {
        let world = World::with_broker_flags(&["--allow-readers"]).unwrap();
        let host = HostId::new("edge-1").unwrap();
        let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
        let host_key = Secret::<Host>::from_seed(&Zeroizing::new([102; 32]));
        enroll::add_dispatcher(&world, &dispatcher).unwrap();
        let host_token =
            enroll::enroll(&world, &host, &dispatcher, &host_key, &mut Vec::new()).unwrap();
        Self {
            world,
            host,
            host_key,
            host_token,
        }
    }

    /// A file with a reader's token as a header, as the README makes it.
    fn reader(&self, name: &str, more: &[&str]) -> PathBuf {
        let token = self.world.path(&format!("{name}.token"));
        let file = token.to_string_lossy();
        let arguments = [&["reader", "add", name, "--output", &file], more].concat();
        self.world.outhaul_ok(&arguments).unwrap();
        let token = std::fs::read_to_string(&token).unwrap();
        let header = self.world.path(&format!("{name}.header"));
        std::fs::write(&header, format!("Authorization: Bearer {}", token.trim())).unwrap();
        header
    }

    fn speaker(&self, number: u8) -> Speaker {
        let sandbox = SandboxId::new(&format!("build-{number}")).unwrap();
        let key = || Secret::<Sandbox>::from_seed(&Zeroizing::new([number; 32]));
        let token = token::mint_sandbox(
            &self.host_key,
            &self.host_token,
            &sandbox,
            &key().public(),
            [number; 8],
            wait::now(),
        );
        let mut client =
            Client::dial(self.world.port, &self.world.path("broker/keys/ca.crt")).unwrap();
        let id = format!("{}/{sandbox}", self.host);
        let said = client.connect(&id, &token.unwrap(), &key()).unwrap();
        assert_eq!(said, Said::ConnAck(ReasonCode::SUCCESS));
        Speaker {
            client,
            writer: Writer::new(key(), stream_id(&self.host, &sandbox), [1; 8]),
            topic: Topic::Events(self.host.clone(), sandbox).to_string(),
            batches: Vec::new(),
        }
    }

    fn stream(&self, header: &std::path::Path, query: &str) -> Curl {
        Curl::begin(&self.world, header, query, None).unwrap()
    }

    /// The status of a refusal, its `WWW-Authenticate`, and what it says.
    fn refusal(
        &self,
        header: &std::path::Path,
        query: &str,
        more: &[&str],
    ) -> (u16, String, String) {
        let form = "\n%{http_code} %header{www-authenticate}";
        let more = [&["-w", form, "-m", "20"], more].concat();
        let output = curl(&self.world, header, query, &more).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (body, last) = said.rsplit_once('\n').unwrap();
        let (status, challenge) = last.split_once(' ').unwrap();
        let status = status.parse().unwrap();
        (status, challenge.to_owned(), body.trim_end().to_owned())
    }

    fn metric(&self, series: &str) -> u64 {
        let text = local::get(&self.world.socket(), "/v1/metrics").unwrap();
        let text = String::from_utf8(text).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(series));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }
}

impl Speaker {
    /// Publishes so many batches, each acknowledged.
    fn say(&mut self, count: usize) {
        for _ in 0..count {
            let event = Event {
                time: wait::now(),
                kind: Kind::Stdout,
                flags: 0,
                size: 6,
                value: 0,
                data: b"a line",
            };
            assert!(self.writer.push(&event));
            let batch = self.writer.seal(wait::now(), false);
            let delivery = Delivery::at_least_once(PacketId::MIN);
            let publish = Publish::new(&self.topic, delivery, &batch);
            self.client.send(&ClientPacket::Publish(publish)).unwrap();
            let said = self.client.receive().unwrap();
            assert_eq!(said, Said::PubAck(ReasonCode::SUCCESS));
            self.batches.push(batch);
        }
    }
}

/// Everything from the oldest record up to the offset `last`, over MQTT: the offset of each message, and the gap it tells of.
fn subscribe_to_all(open: &Open, token: &str, last: u64) -> Vec<(u64, Option<String>)> {
    let ca = open.world.path("broker/keys/ca.crt");
    let mut client = Client::dial(open.world.port, &ca).unwrap();
    let mut connect = Connect::new("siem", 30);
    connect.user_name = Some("siem");
    connect.password = Some(token.as_bytes());
    client.send(&ClientPacket::Connect(connect)).unwrap();
    let said = client.receive().unwrap();
    assert_eq!(said, Said::ConnAck(ReasonCode::SUCCESS));
    let filters = [Subscription::new("v1/+/+/events", Qos::AtMostOnce)];
    let mut subscribe = Subscribe::new(PacketId::MIN, List::from(&filters));
    let from = [("from", "oldest")];
    subscribe.user_properties = List::from(&from);
    client.send(&ClientPacket::Subscribe(subscribe)).unwrap();
    let mut messages = Vec::new();
    while messages.last().is_none_or(|(offset, _)| *offset < last) {
        let message = client.receive_message().unwrap();
        messages.push((message.offset, message.gap));
    }
    messages
}

/// What `payload` says, as it was published.
fn payload(event: &tests::sse::Event) -> Vec<u8> {
    let text = event.data["payload"].as_str().unwrap();
    let digit = |byte| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        alphabet.iter().position(|other| *other == byte)
    };
    let mut bits = text.bytes().filter_map(digit);
    let mut bytes = Vec::new();
    while let Some(first) = bits.next() {
        let mut word = first << 18;
        let mut count = 0;
        for (at, more) in bits.by_ref().take(3).enumerate() {
            word |= more << (12 - 6 * at);
            count = at + 1;
        }
        let three = u32::try_from(word).unwrap().to_be_bytes();
        bytes.extend_from_slice(&three[1..=count]);
    }
    bytes
}

#[test]
fn a_reader_gets_every_record_once_in_order_and_then_what_comes() {
    let open = Open::new();
    let siem = open.reader("siem", &[]);
    let (mut one, mut two) = (open.speaker(1), open.speaker(2));
    one.say(3);
    two.say(2);
    let mut all = open.stream(&siem, "?from=oldest");
    let mut of_one = open.stream(&siem, "?from=oldest&host=edge-1&sandbox=build-1&kind=event");
    let mut late = open.stream(&siem, "?from=2");
    let first = all.take(5).unwrap();
    assert_eq!(all.parser.retry_ms, Some(2000));
    one.say(1);
    let events = [first, all.take(1).unwrap()].concat();
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
    let sent = [&one.batches[..3], &two.batches, &one.batches[3..]].concat();
    for (event, batch) in events.iter().zip(&sent) {
        assert_eq!(event.kind, "event");
        assert_eq!(event.data["kind"], "event");
        assert_eq!(event.data["offset"], event.id);
        assert_eq!(event.data["host"], "edge-1");
        assert!(event.data["time_ms"].as_u64().unwrap() > 1_700_000_000_000);
        assert_eq!(payload(event), *batch);
    }
    let sandboxes: Vec<_> = events.iter().map(|event| &event.data["sandbox"]).collect();
    assert_eq!(sandboxes[2..5], ["build-1", "build-2", "build-2"]);
    let ids = |curl: &mut Curl, count| {
        let events = curl.take(count).unwrap();
        events.iter().map(|event| event.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut of_one, 4), [0, 1, 2, 5]);
    assert_eq!(ids(&mut late, 4), [2, 3, 4, 5]);
    // Or at a time: the first record that came then or later.
    let time = events[3].data["time_ms"].as_u64().unwrap();
    let came_then = events.iter().find(|event| event.data["time_ms"] == time);
    let first = came_then.unwrap().id;
    let since = format!("?since={}", wait::rfc_3339(time));
    let mut since = open.stream(&siem, &since);
    assert_eq!(ids(&mut since, 1), [first]);
    let mut hour = open.stream(&siem, "?since=1h");
    assert_eq!(ids(&mut hour, 1), [0]);
    // And from now on, if nothing else is said.
    let mut newest = open.stream(&siem, "");
    assert!(newest.next_piece().unwrap());
    two.say(1);
    assert_eq!(ids(&mut newest, 1), [6]);
}

#[test]
fn over_a_broker_that_is_killed_a_stream_misses_nothing_and_repeats_nothing() {
    let mut open = Open::new();
    let siem = open.reader("siem", &[]);
    open.speaker(1).say(5);
    let mut stream = open.stream(&siem, "?from=oldest");
    let mut ids: Vec<_> = stream
        .take(5)
        .unwrap()
        .iter()
        .map(|event| event.id)
        .collect();
    let last = stream.parser.last_id.clone();
    open.world.kill_broker();
    let (rest, code, _) = stream.end().unwrap();
    assert_eq!(rest, []);
    assert_ne!(code, Some(0), "curl says that the stream broke off");
    open.world.start_broker().unwrap();
    open.speaker(2).say(3);
    // As an EventSource does: the address that it began with, and the last id it has seen.
    let mut again = Curl::begin(&open.world, &siem, "?from=oldest", Some(&last)).unwrap();
    ids.extend(again.take(3).unwrap().iter().map(|event| event.id));
    assert_eq!(ids, (0..8).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_any_more_is_an_explicit_gap_to_every_reader() {
    let mut open = Open::new();
    let siem = open.reader("siem", &[]);
    open.speaker(1).say(6);
    open.world.kill_broker();
    // A bit of the third record flips on the disk.
    let segment = open.world.path("broker/journal/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // Behind the last record there are zeros, for what comes.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    open.world.start_broker().unwrap();
    open.speaker(2).say(1);
    let mut stream = open.stream(&siem, "?from=oldest");
    let mut next = 0;
    let mut gaps = 0;
    loop {
        let event = stream.take(1).unwrap().remove(0);
        if event.kind == "gap" {
            gaps += 1;
            assert_eq!(event.data["first"], next);
            assert_eq!(
                event.data["last"], event.id,
                "who comes back goes on behind it"
            );
        } else {
            assert_eq!(event.id, next);
        }
        next = event.id + 1;
        if event.data["sandbox"] == "build-2" {
            break;
        }
    }
    assert_eq!(gaps, 1);
    let last = next - 1;
    // The same over MQTT,
    let token = std::fs::read_to_string(open.world.path("siem.token")).unwrap();
    let messages = subscribe_to_all(&open, token.trim(), last);
    let told: Vec<_> = messages.iter().filter_map(|(_, gap)| gap.clone()).collect();
    assert_eq!(told.len(), 1, "{messages:?}");
    let (first, end) = told[0].split_once('-').unwrap();
    let gap = first.parse().unwrap()..=end.parse().unwrap();
    let seen = messages.iter().map(|(offset, _)| *offset);
    let mut whole: Vec<u64> = seen.chain(gap.clone()).collect();
    whole.sort_unstable();
    assert_eq!(whole, (0..=last).collect::<Vec<_>>());
    // and over the local socket.
    let listed = open.world.outhaul_output(&["events", "--json"]).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let missing: Vec<_> = listed
        .lines()
        .filter(|line| line.contains("\"missing\""))
        .collect();
    assert_eq!(missing.len(), 1, "{listed}");
    let offset = format!("\"offset\":{},", gap.start());
    assert!(missing[0].contains(&offset), "{listed}");
}

#[test]
fn who_may_not_read_is_told_what_is_wrong_and_strangers_are_told_nothing() {
    let open = Open::new();
    let siem = open.reader("siem", &[]);
    let grafana = open.reader("grafana", &["--may", "metrics"]);
    let narrow = open.reader("narrow", &["--may", "events", "--host", "edge-1"]);
    let nobody = open.world.path("nobody.header");
    std::fs::write(&nobody, "Authorization: Bearer ort1_x").unwrap();
    let none = open.world.path("none.header");
    std::fs::write(&none, "Authorization: Basic c2llbTp4").unwrap();
    let json = ["-H", "Accept: application/json"];
    let lost = ["-H", "Last-Event-ID: x"];
    for (header, query, more, status, challenge, says) in [
        (
            &none,
            "?from=x",
            &[][..],
            401,
            "Bearer",
            "show a reader's token",
        ),
        (
            &nobody,
            "?from=x",
            &[],
            401,
            "Bearer error=\"invalid_token\"",
            "show a reader's token",
        ),
        (
            &grafana,
            "",
            &[],
            403,
            "Bearer error=\"insufficient_scope\"",
            "does not open",
        ),
        (
            &narrow,
            "?host=edge-2",
            &[],
            403,
            "Bearer error=\"insufficient_scope\"",
            "does not open",
        ),
        (
            &narrow,
            "?kind=report",
            &[],
            403,
            "Bearer error=\"insufficient_scope\"",
            "does not open",
        ),
        (
            &siem,
            "?kind=command",
            &[],
            403,
            "Bearer error=\"insufficient_scope\"",
            "commands are",
        ),
        (
            &siem,
            "?from=soon",
            &[],
            400,
            "",
            "from is an offset, oldest or newest",
        ),
        (&siem, "?limit=5", &[], 400, "", "limit"),
        (&siem, "", &lost, 400, "", "Last-Event-ID"),
        (&siem, "", &json, 406, "", "text/event-stream"),
    ] {
        let said = open.refusal(header, query, more);
        assert_eq!(
            (said.0, said.1.as_str()),
            (status, challenge),
            "{query} {said:?}"
        );
        assert!(said.2.contains(says), "{query} {said:?}");
    }
    for (why, count) in [
        ("no_token", 1),
        ("token", 1),
        ("not_allowed", 4),
        ("bad_request", 3),
        ("not_acceptable", 1),
    ] {
        let series = format!("outhaul_gate_streams_refused_total{{why=\"{why}\"}}");
        assert_eq!(open.metric(&series), count, "{why}");
    }
    let unknown = "outhaul_gate_tokens_refused_total{why=\"unknown_reader\"}";
    assert_eq!(open.metric(unknown), 1);
    let post = open.refusal(&siem, "", &["-X", "POST"]);
    assert_eq!(post.0, 405);
    // Nobody was let in, so the audit trail has nobody that read.
    let audit = local::get(&open.world.socket(), "/v1/audit").unwrap();
    assert!(!String::from_utf8_lossy(&audit).contains("content.read"));
    assert_eq!(open.metric("outhaul_gate_streams_total"), 0);
}

#[test]
fn a_stream_ends_with_its_readers_rights_and_with_the_broker() {
    let mut open = Open::new();
    let (siem, other) = (open.reader("siem", &[]), open.reader("other", &[]));
    let mut streams = [open.stream(&siem, ""), open.stream(&other, "")];
    for stream in &mut streams {
        assert!(stream.next_piece().unwrap());
    }
    let [gone, stays] = streams;
    open.world
        .outhaul_ok(&["reader", "remove", "siem"])
        .unwrap();
    let ((rest, code, parser), took) = wait::timed(|| gone.end().unwrap());
    assert_eq!((rest, code), (Vec::new(), Some(0)));
    assert!(took.as_secs() < 5, "{took:?}");
    assert_eq!(
        parser.comments,
        ["this stream ends: its reader was removed"]
    );
    assert_eq!(open.refusal(&siem, "", &[]).0, 401);
    // An orderly end, whatever it was reading.
    open.world.stop_broker().unwrap();
    let (rest, code, parser) = stays.end().unwrap();
    assert_eq!((rest, code), (Vec::new(), Some(0)));
    assert_eq!(parser.comments, ["this stream ends: the broker stops"]);
}

#[test]
fn streams_count_with_a_readers_other_connections_and_take_no_room_of_strangers() {
    let open = Open::new();
    let (siem, other) = (open.reader("siem", &[]), open.reader("other", &[]));
    let mut streams: Vec<_> = (0..64).map(|_| open.stream(&siem, "")).collect();
    for stream in &mut streams {
        assert!(stream.next_piece().unwrap());
    }
    let (status, _, says) = open.refusal(&siem, "", &[]);
    assert_eq!(status, 429, "{says}");
    let full = "outhaul_gate_streams_refused_total{why=\"too_many\"}";
    assert_eq!(open.metric(full), 1);
    // 64 is also what strangers of one address may be: these are none any more.
    let mut others = open.stream(&other, "");
    assert!(others.next_piece().unwrap());
    streams.pop();
    wait::until("the seat to be free", || {
        (open.metric("outhaul_connections") == 64).then_some(())
    });
    let mut again = open.stream(&siem, "");
    assert!(again.next_piece().unwrap());
}
