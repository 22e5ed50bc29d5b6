//! The shim's side of an MQTT 5 connection: publish only. Pure: bytes and time in, bytes and outcomes out.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use protocol::{
    key::{Sandbox, Secret},
    limits::{PACKET_BYTES_MAX, RECEIVE_MAXIMUM},
    mqtt::{
        Auth, Connect, Delivery, Disconnect, PINGREQ, Publish, ReasonCode, ServerPacket, Version,
        decode_server, frame,
    },
    possession::{self, Nonce},
    time::UnixMillis,
};

/// The authentication method (RFC 9431).
const METHOD: &str = "ace";
/// What we ask for; the broker may say less.
const KEEP_ALIVE_S: u16 = 30;
/// The largest packet taken from the broker, in bytes: it has nothing to say but acknowledgements.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// How much may wait to be written before another batch is taken, in bytes.
const OUT_BYTES_MAX: usize = PACKET_BYTES_MAX;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connected and authenticated.
    Up,
    /// The broker has this batch on disk.
    Acknowledged(u64),
    /// The broker will never take this batch.
    Rejected(u64, ReasonCode),
    /// The connection is over, by what the broker said or by what it should not have said.
    Down(ReasonCode),
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Online,
    Renewing,
    Over,
}

/// One connection, from CONNECT to its end.
#[derive(Debug)]
pub struct Session {
    state: State,
    topic: String,
    received: Vec<u8>,
    out: Vec<u8>,
    window: u16,
    next_id: NonZeroU16,
    in_flight: BTreeMap<u16, u64>,
    keep_alive: Duration,
    sent_at: UnixMillis,
    heard_at: UnixMillis,
}

impl Session {
    /// Starts with a CONNECT that presents `token`.
    #[must_use]
    pub fn new(client_id: &str, topic: String, token: &[u8], now: UnixMillis) -> Self {
        let mut session = Self {
            state: State::Connecting,
            topic,
            received: Vec::new(),
            out: Vec::new(),
            window: RECEIVE_MAXIMUM,
            next_id: NonZeroU16::MIN,
            in_flight: BTreeMap::new(),
            keep_alive: Duration::from_secs(KEEP_ALIVE_S.into()),
            sent_at: now,
            heard_at: now,
        };
        let data = token_data(token);
        let mut connect = Connect::new(client_id, KEEP_ALIVE_S);
        connect.auth_method = Some(METHOD);
        connect.auth_data = Some(&data);
        if connect.encode(&mut session.out).is_err() {
            session.state = State::Over;
        }
        session
    }

    /// What is to be written. What was written is taken off with [`Session::written`].
    #[must_use]
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// `count` bytes of [`Session::out`] were written.
    pub fn written(&mut self, count: usize, now: UnixMillis) {
        self.out.drain(..count.min(self.out.len()));
        self.sent_at = now;
    }

    /// Whether batches may be published.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Online | State::Renewing)
    }

    /// Whether another batch fits the broker's window and our buffer.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.is_up()
            && self.in_flight.len() < usize::from(self.window)
            && self.out.len() < OUT_BYTES_MAX
    }

    /// Publishes a batch with QoS 1. Call only while [`Session::has_room`].
    pub fn publish(&mut self, number: u64, payload: &[u8]) {
        while self.in_flight.contains_key(&self.next_id.get()) {
            self.next_id = self.next_id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        }
        let id = self.next_id;
        let publish = Publish::new(&self.topic, Delivery::at_least_once(id), payload);
        if publish.encode(Version::V5, &mut self.out).is_ok() {
            self.in_flight.insert(id.get(), number);
        }
        self.next_id = id.checked_add(1).unwrap_or(NonZeroU16::MIN);
    }

    /// Presents a fresh token on the live connection (AUTH 0x19).
    pub fn renew(&mut self, token: &[u8]) {
        if self.state == State::Online {
            let data = token_data(token);
            self.auth(ReasonCode::RE_AUTHENTICATE, &data);
            self.state = State::Renewing;
        }
    }

    /// Ends the connection in order.
    pub fn close(&mut self) {
        if self.is_up() {
            let _ = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)
                .encode(Version::V5, &mut self.out);
        }
        self.state = State::Over;
    }

    /// Bytes came. `own` is fresh randomness, in case a challenge is among them.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        key: &Secret<Sandbox>,
        own: &Nonce,
        now: UnixMillis,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.heard_at = now;
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(bytes);
        let mut rest: &[u8] = &received;
        while self.state != State::Over {
            let used = match frame(rest, ANSWER_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    match decode_server(&frame, Version::V5) {
                        Ok(packet) => self.take(&packet, key, own, &mut outcomes),
                        Err(error) => self.end(error.reason(), &mut outcomes),
                    }
                    frame.total_bytes()
                }
                Err(error) => {
                    self.end(error.reason(), &mut outcomes);
                    break;
                }
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        self.received = rest.to_vec();
        outcomes
    }

    /// Sends a PINGREQ where the line has been quiet; `false` if the broker has been for too long.
    pub fn tick(&mut self, now: UnixMillis) -> bool {
        if now.since(self.heard_at) >= self.keep_alive * 3 / 2 {
            return false;
        }
        if self.is_up() && self.out.is_empty() && now.since(self.sent_at) >= self.ping_after() {
            self.out.extend_from_slice(&PINGREQ);
            self.sent_at = now;
        }
        true
    }

    /// When [`Session::tick`] has something to do.
    #[must_use]
    pub fn timeout(&self) -> UnixMillis {
        let ping = self.sent_at.plus(self.ping_after());
        ping.min(self.heard_at.plus(self.keep_alive * 3 / 2))
    }

    fn ping_after(&self) -> Duration {
        self.keep_alive * 3 / 4
    }

    fn take(
        &mut self,
        packet: &ServerPacket<'_>,
        key: &Secret<Sandbox>,
        own: &Nonce,
        outcomes: &mut Vec<Outcome>,
    ) {
        match packet {
            ServerPacket::Auth(auth) if auth.reason == ReasonCode::CONTINUE_AUTHENTICATION => {
                match auth.data.and_then(|data| Nonce::try_from(data).ok()) {
                    Some(challenge) => {
                        let proof = possession::prove(key, &challenge, own);
                        self.auth(ReasonCode::CONTINUE_AUTHENTICATION, &proof);
                    }
                    None => self.end(ReasonCode::PROTOCOL_ERROR, outcomes),
                }
            }
            ServerPacket::Auth(_) if self.state == State::Renewing => self.state = State::Online,
            ServerPacket::ConnAck(connack) if self.state == State::Connecting => {
                if connack.reason.is_error() {
                    return self.end(connack.reason, outcomes);
                }
                self.state = State::Online;
                self.window = connack
                    .receive_maximum
                    .map_or(u16::MAX, NonZeroU16::get)
                    .min(RECEIVE_MAXIMUM);
                let keep_alive = connack
                    .server_keep_alive_secs
                    .filter(|seconds| *seconds > 0);
                self.keep_alive = Duration::from_secs(keep_alive.unwrap_or(KEEP_ALIVE_S).into());
                outcomes.push(Outcome::Up);
            }
            ServerPacket::Ack(ack) => self.acknowledged(ack.id.get(), ack.reason, outcomes),
            ServerPacket::PingResp => {}
            ServerPacket::Disconnect(disconnect) => self.end(disconnect.reason, outcomes),
            ServerPacket::Auth(_)
            | ServerPacket::ConnAck(_)
            | ServerPacket::Publish(_)
            | ServerPacket::SubAck(_) => {
                self.end(ReasonCode::PROTOCOL_ERROR, outcomes);
            }
        }
    }

    fn acknowledged(&mut self, id: u16, reason: ReasonCode, outcomes: &mut Vec<Outcome>) {
        let Some(number) = self.in_flight.remove(&id) else {
            return;
        };
        match reason {
            reason if !reason.is_error() => outcomes.push(Outcome::Acknowledged(number)),
            ReasonCode::PAYLOAD_FORMAT_INVALID => outcomes.push(Outcome::Rejected(number, reason)),
            // Anything else may pass: begin again after a while, and send it again.
            reason => self.end(reason, outcomes),
        }
    }

    fn auth(&mut self, reason: ReasonCode, data: &[u8]) {
        let _ = Auth::new(reason, METHOD, Some(data)).encode(&mut self.out);
    }

    fn end(&mut self, reason: ReasonCode, outcomes: &mut Vec<Outcome>) {
        self.state = State::Over;
        outcomes.push(Outcome::Down(reason));
    }
}

/// Authentication Data of RFC 9431 §2.2.4: the token behind its length.
fn token_data(token: &[u8]) -> Vec<u8> {
    let length = u16::try_from(token.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), token].concat()
}

#[cfg(test)]
mod tests {
    use protocol::mqtt::{Ack, ClientPacket, ConnAck, PINGRESP, decode_client};
    use zeroize::Zeroizing;

    use super::*;

    const T0: UnixMillis = UnixMillis(1_800_000_000_000);

    fn key() -> Secret<Sandbox> {
        Secret::from_seed(&Zeroizing::new([7; 32]))
    }

    fn session() -> Session {
        Session::new(
            "edge-1/build-7",
            "v1/edge-1/build-7/events".into(),
            b"token",
            T0,
        )
    }

    /// Takes what the session wants to write and shows each packet.
    fn written(session: &mut Session, mut look: impl FnMut(ClientPacket<'_>)) {
        let out = session.out().to_vec();
        session.written(out.len(), T0);
        let mut rest = &out[..];
        while let Some(frame) = frame(rest, PACKET_BYTES_MAX).unwrap() {
            look(decode_client(&frame, Version::V5).unwrap());
            rest = &rest[frame.total_bytes()..];
        }
        assert!(rest.is_empty());
    }

    fn feed(session: &mut Session, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<Outcome> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        // A byte at a time: packets may be cut anywhere.
        bytes
            .iter()
            .flat_map(|byte| session.feed(&[*byte], &key(), &[9; 8], T0))
            .collect()
    }

    fn challenge(session: &mut Session) -> Vec<Outcome> {
        feed(session, |out| {
            Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, METHOD, Some(&[5; 8]))
                .encode(out)
                .unwrap();
        })
    }

    fn online(window: u16) -> Session {
        let mut session = session();
        written(&mut session, |_| ());
        challenge(&mut session);
        written(&mut session, |_| ());
        let outcomes = feed(&mut session, |out| {
            let mut connack = ConnAck::new(ReasonCode::SUCCESS);
            connack.receive_maximum = NonZeroU16::new(window);
            connack.encode(Version::V5, out).unwrap();
        });
        assert_eq!(outcomes, [Outcome::Up]);
        session
    }

    fn puback(session: &mut Session, id: u16, reason: ReasonCode) -> Vec<Outcome> {
        feed(session, |out| {
            Ack::puback(NonZeroU16::new(id).unwrap(), reason)
                .encode(Version::V5, out)
                .unwrap();
        })
    }

    #[test]
    fn a_challenge_is_answered_with_a_proof_of_the_key() {
        let mut session = session();
        written(&mut session, |packet| {
            let ClientPacket::Connect(connect) = packet else {
                panic!()
            };
            assert_eq!(
                (connect.client_id, connect.auth_method),
                ("edge-1/build-7", Some("ace"))
            );
            assert_eq!(connect.auth_data, Some(&b"\0\x05token"[..]));
        });
        assert!(!session.has_room() && challenge(&mut session).is_empty());
        written(&mut session, |packet| {
            let ClientPacket::Auth(auth) = packet else {
                panic!()
            };
            assert!(possession::is_proven(
                &key().public().as_holder(),
                &[5; 8],
                auth.data.unwrap()
            ));
        });
    }

    #[test]
    fn a_batch_is_done_when_it_is_acknowledged_and_the_window_is_kept() {
        let mut session = online(2);
        session.publish(10, b"a");
        assert!(session.has_room());
        session.publish(11, b"b");
        assert!(!session.has_room());
        let mut payloads = Vec::new();
        written(&mut session, |packet| {
            let ClientPacket::Publish(publish) = packet else {
                panic!()
            };
            payloads.push((
                publish.delivery.packet_id().unwrap().get(),
                publish.payload.to_vec(),
            ));
        });
        assert_eq!(payloads, [(1, b"a".to_vec()), (2, b"b".to_vec())]);
        assert_eq!(
            puback(&mut session, 2, ReasonCode::SUCCESS),
            [Outcome::Acknowledged(11)]
        );
        assert_eq!(puback(&mut session, 2, ReasonCode::SUCCESS), [], "once");
        assert!(session.has_room());
        let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
        assert_eq!(puback(&mut session, 1, code), [Outcome::Rejected(10, code)]);
        session.publish(12, b"c");
        let code = ReasonCode::QUOTA_EXCEEDED;
        assert_eq!(puback(&mut session, 3, code), [Outcome::Down(code)]);
        assert!(!session.has_room());
    }

    #[test]
    fn a_fresh_token_is_presented_without_stopping_the_stream() {
        let mut session = online(128);
        session.renew(b"fresh");
        session.renew(b"again");
        let mut count = 0;
        written(&mut session, |packet| {
            let ClientPacket::Auth(auth) = packet else {
                panic!()
            };
            assert_eq!(auth.reason, ReasonCode::RE_AUTHENTICATE);
            count += 1;
        });
        assert!(count == 1 && session.has_room());
        assert_eq!(challenge(&mut session), []);
        let outcomes = feed(&mut session, |out| {
            Auth::new(ReasonCode::SUCCESS, METHOD, None)
                .encode(out)
                .unwrap()
        });
        assert!(outcomes.is_empty() && session.state == State::Online);
    }

    #[test]
    fn a_quiet_line_is_pinged_and_a_dead_one_given_up() {
        let mut session = online(128);
        let after = |seconds: u64| UnixMillis(T0.0 + seconds * 1000);
        assert!(session.tick(after(22)) && session.out().is_empty());
        assert!(session.tick(after(23)));
        assert_eq!(session.out(), PINGREQ);
        session.written(2, after(23));
        session.feed(&PINGRESP, &key(), &[9; 8], after(24));
        assert!(session.tick(after(60)));
        assert!(!session.tick(after(24 + 45)));
    }

    #[test]
    fn a_broker_that_refuses_or_talks_nonsense_ends_the_session() {
        let refused = feed(&mut session(), |out| {
            ConnAck::new(ReasonCode::NOT_AUTHORIZED)
                .encode(Version::V5, out)
                .unwrap();
        });
        assert_eq!(refused, [Outcome::Down(ReasonCode::NOT_AUTHORIZED)]);
        for nonsense in [
            &[0x20, 0xff, 0xff, 0xff, 0xff, 0x01][..],
            &[0xf1, 0x00],
            &[0x00, 0x00],
            &[0x10, 0x00],
            &[0x30, 0x80, 0x80, 0x01],
        ] {
            let outcomes = session().feed(nonsense, &key(), &[9; 8], T0);
            assert!(matches!(outcomes[..], [Outcome::Down(_)]), "{nonsense:?}");
        }
    }
}
