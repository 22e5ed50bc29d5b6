//! Readers, served from the journal.

use super::*;
use crate::core::reader::{Rights, tests::everything};
use protocol::id::ReaderName;

const EVENTS: &str = "v1/edge-1/build-7/events";

impl World {
    async fn reader_token(&self, name: &str, rights: Rights) -> String {
        let name = ReaderName::new(name).unwrap();
        let life = Duration::from_secs(3600);
        let add = move |plane: &Plane| plane.add_reader(&name, rights, life, &PEER);
        let made = self.gate.plane.blocking(add).await.unwrap().unwrap();
        made.token.to_text().to_string()
    }

    async fn reader(
        &self,
        token: &str,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> Client<DuplexStream> {
        let mut client = self.dial();
        let mut connect = Connect::new("siem", 30);
        connect.user_name = Some("siem");
        connect.password = Some(token.as_bytes());
        connect.clean_start = true;
        change(&mut connect);
        client.send(ClientPacket::Connect(connect)).await;
        assert_eq!(client.next().await, Some(Said::ConnAck(0)));
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn follow(&mut self, filter: &str) {
        let filters = [Subscription::new(filter, Qos::AtLeastOnce)];
        let subscribe = Subscribe::new(PacketId::MIN, List::from(&filters));
        self.send(ClientPacket::Subscribe(subscribe)).await;
        assert_eq!(self.next().await, Some(Said::SubAck(1, vec![1])));
    }

    async fn acknowledge(&mut self, id: u16) {
        let ack = Ack::puback(PacketId::new(id).unwrap(), ReasonCode::SUCCESS);
        self.send(ClientPacket::Ack(ack)).await;
    }

    /// Identifier and payload of the next message.
    async fn message(&mut self) -> (u16, Vec<u8>) {
        match self.next().await {
            Some(Said::Publish(id, payload)) => (id, payload),
            other => panic!("{other:?}"),
        }
    }
}

async fn publish_all(sandbox: &mut Client<DuplexStream>, batches: &[Vec<u8>]) {
    for (number, batch) in batches.iter().enumerate() {
        let quality = Quality::at_least_once(numbered(number + 1));
        let publish = Publish::new(EVENTS, quality, batch);
        sandbox.send(ClientPacket::Publish(publish)).await;
    }
    for number in 1..=batches.len() {
        let number = u16::try_from(number).unwrap();
        assert_eq!(sandbox.next().await, Some(Said::PubAck(number, 0)));
    }
}

#[tokio::test]
async fn a_reader_gets_every_batch_in_order_within_its_window() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    let mut reader = world
        .reader(&token, |connect| {
            connect.receive_maximum = std::num::NonZeroU16::new(3).unwrap();
        })
        .await;
    reader.follow("v1/+/+/events").await;
    let batches = batches("build-7", 40);
    let mut sandbox = world.sandbox("build-7").await;
    publish_all(&mut sandbox, &batches).await;
    let mut waiting = std::collections::VecDeque::new();
    for batch in &batches {
        if waiting.len() == 3 {
            // Nothing more comes: what comes next is the answer to our ping.
            reader.send(ClientPacket::PingReq).await;
            assert_eq!(reader.next().await, Some(Said::Pong));
            reader.acknowledge(waiting.pop_front().unwrap()).await;
        }
        let (id, payload) = reader.message().await;
        assert_eq!(&payload, batch);
        waiting.push_back(id);
    }
}

#[tokio::test]
async fn a_session_goes_on_behind_what_was_acknowledged_and_leaves_nothing_out() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    let keep = |connect: &mut Connect<'_>| {
        connect.clean_start = false;
        connect.session_expiry_secs = 600;
    };
    let mut reader = world.reader(&token, keep).await;
    reader.follow("v1/edge-1/build-7/events").await;
    let batches = batches("build-7", 9);
    let mut sandbox = world.sandbox("build-7").await;
    publish_all(&mut sandbox, &batches[..3]).await;
    let (first, payload) = reader.message().await;
    assert_eq!(payload, batches[0]);
    reader.message().await;
    reader.acknowledge(first).await;
    reader.send(ClientPacket::PingReq).await;
    while reader.next().await != Some(Said::Pong) {}
    drop(reader);
    // While it is away.
    publish_all(&mut sandbox, &batches[3..]).await;
    let mut again = world.reader(&token, keep).await;
    for batch in &batches[1..] {
        let (id, payload) = again.message().await;
        assert_eq!(&payload, batch);
        again.acknowledge(id).await;
    }
    // Another client id is another session, and one that begins anew has none.
    drop(again);
    let mut other = world
        .reader(&token, |connect| {
            keep(connect);
            connect.client_id = "siem/2";
        })
        .await;
    other.follow(EVENTS).await;
    other.send(ClientPacket::PingReq).await;
    assert_eq!(other.next().await, Some(Said::Pong));
}

#[tokio::test]
async fn a_reader_that_is_removed_is_sent_away_and_cannot_come_back() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    let mut reader = world.reader(&token, |_| {}).await;
    let name = ReaderName::new("siem").unwrap();
    let remove = move |plane: &Plane| plane.remove_reader(&name, &PEER);
    assert!(world.gate.plane.blocking(remove).await.unwrap());
    assert_eq!(reader.next().await, Some(Said::Disconnect(0x98)));
    let mut again = world.dial();
    let mut connect = Connect::new("siem", 30);
    connect.user_name = Some("siem");
    connect.password = Some(token.as_bytes());
    again.send(ClientPacket::Connect(connect)).await;
    assert_eq!(again.next().await, Some(Said::ConnAck(0x87)));
}

#[tokio::test]
async fn a_reader_that_is_removed_leaves_no_session_to_the_next_of_its_name() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    // It takes nothing, so that it is on its way out for a while.
    let (near, far) = tokio::io::duplex(1024);
    let until_proven = clock::mono() + STRANGER_WAIT;
    tokio::spawn(world.gate.clone().serve(far, until_proven, ()));
    let mut reader = Client::new(near);
    let mut connect = Connect::new("siem", 30);
    connect.user_name = Some("siem");
    connect.password = Some(token.as_bytes());
    connect.session_expiry_secs = 600;
    reader.send(ClientPacket::Connect(connect)).await;
    assert_eq!(reader.next().await, Some(Said::ConnAck(0)));
    reader.follow(EVENTS).await;
    let mut sandbox = world.sandbox("build-7").await;
    publish_all(&mut sandbox, &batches("build-7", 40)).await;
    let name = ReaderName::new("siem").unwrap();
    let removed = name.clone();
    let remove = move |plane: &Plane| plane.remove_reader(&removed, &PEER);
    assert!(world.gate.plane.blocking(remove).await.unwrap());
    world.reader_token("siem", everything()).await;
    assert_eq!(world.gate.registry.count(), 2, "it is still on its way");
    until("it to be gone", || world.gate.registry.count() == 1).await;
    let kept = world.gate.plane.take_up_session(&name, "siem", true).await;
    assert_eq!(kept.unwrap(), None);
}

#[tokio::test]
async fn a_load_test_hears_what_it_publishes_and_the_journal_of_hosts_knows_nothing_of_it() {
    let world = World::new().await;
    let token = world.reader_token("siem", Rights::Bench).await;
    let before = world.gate.plane.journal().next_offset();
    let mut client = world.reader(&token, |_| {}).await;
    client.follow("bench/+/a").await;
    for (number, topic) in [(1, "bench/x/a"), (2, "bench/x/b"), (3, "bench/y/a")] {
        let quality = Quality::at_least_once(numbered(number));
        let publish = Publish::new(topic, quality, topic.as_bytes());
        client.send(ClientPacket::Publish(publish)).await;
    }
    let (mut acknowledged, mut heard) = (Vec::new(), Vec::new());
    while acknowledged.len() < 3 || heard.len() < 2 {
        match client.next().await.unwrap() {
            Said::PubAck(id, 0) => acknowledged.push(id),
            Said::Publish(_, payload) => heard.push(String::from_utf8(payload).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acknowledged, [1, 2, 3]);
    assert_eq!(heard, ["bench/x/a", "bench/y/a"]);
    assert_eq!(world.gate.plane.journal().next_offset(), before);
}

#[tokio::test]
async fn what_is_acknowledged_late_is_written_down_without_anything_new() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    let keep = |connect: &mut Connect<'_>| {
        connect.clean_start = false;
        connect.session_expiry_secs = 600;
    };
    let mut reader = world.reader(&token, keep).await;
    reader.follow("v1/+/+/events").await;
    let mut sandbox = world.sandbox("build-7").await;
    publish_all(&mut sandbox, &batches("build-7", 2)).await;
    let (first, _) = reader.message().await;
    let (second, _) = reader.message().await;
    let store = world.gate.plane.store().clone();
    let name = ReaderName::new("siem").unwrap();
    let next = || {
        let kept = store.kept_session(&name, "siem", 0).unwrap();
        kept.and_then(|kept| kept.next)
    };
    until("its place to be written down", || next().is_some()).await;
    let before = next().unwrap();
    reader.acknowledge(second).await;
    reader.acknowledge(first).await;
    until("its place to have moved", || next() == Some(before + 2)).await;
}

#[tokio::test]
async fn what_its_reader_is_told_was_written_down_before() {
    let world = World::new().await;
    let token = world.reader_token("siem", everything()).await;
    let keep = |connect: &mut Connect<'_>| {
        connect.clean_start = false;
        connect.session_expiry_secs = 600;
    };
    let plane = world.gate.plane.clone();
    let name = ReaderName::new("siem").unwrap();
    let kept = async || {
        let kept = plane.take_up_session(&name, "siem", true).await.unwrap();
        kept.unwrap_or_default()
    };
    let mut reader = world.reader(&token, keep).await;
    reader.follow(EVENTS).await;
    let subscribed = kept().await;
    assert!(subscribed.filters.contains_key(EVENTS) && subscribed.next.is_some());

    let mut sandbox = world.sandbox("build-7").await;
    publish_all(&mut sandbox, &batches("build-7", 2)).await;
    let (first, _) = reader.message().await;
    reader.message().await;
    assert_eq!(kept().await.sent, subscribed.sent + 2);
    reader.acknowledge(first).await;
    reader.send(ClientPacket::PingReq).await;
    assert_eq!(reader.next().await, Some(Said::Pong));
    assert_eq!(kept().await.next, subscribed.next.map(|next| next + 1));

    let unsubscribe = protocol::mqtt::Unsubscribe {
        id: PacketId::MIN,
        filters: List::from([EVENTS].as_slice()),
        user_properties: List::default(),
    };
    reader.send(ClientPacket::Unsubscribe(unsubscribe)).await;
    assert_eq!(reader.next().await, Some(Said::UnsubAck(1, vec![0])));
    assert_eq!((kept().await.filters.len(), kept().await.next), (0, None));
}
