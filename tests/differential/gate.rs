//! Our side: the codec alone, for a CONNECT and for MQTT 3.1.1, and behind it the gate, for a host that is online.

use std::time::{Duration, Instant};

use broker::core::gate::{Effect, Offer, Outcome, Session};
use protocol::{
    key::{Host, Secret},
    limits::PACKET_BYTES_MAX,
    mqtt::{
        Auth, ClientPacket, Connect, Frame, Kind, PINGREQ, ReasonCode, Version, decode_client,
        frame,
    },
    possession::prove,
    scope::{Permission, Scope},
    time::{Now, UnixMillis},
    token::{Grant, Subject},
};
use zeroize::Zeroizing;

const NONCE: [u8; 8] = [5; 8];
const OFFER: Offer = Offer {
    durability: "fsync",
    readers: false,
};
const UNIX: UnixMillis = UnixMillis(1_800_000_000_000);

/// What came of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on.
    Taken,
    /// It ends the connection, for this reason.
    Refused(String),
    /// It is not whole, or a DISCONNECT: nothing follows, and nobody is to blame.
    Ends,
}

/// What the codec makes of a CONNECT.
pub(crate) fn decode_connect(bytes: &[u8]) -> Answer {
    match frame(bytes, usize::MAX) {
        Ok(Some(found)) => decode_client(&found, Version::V5).map_or_else(
            |error| Answer::Refused(error.to_string()),
            |_| Answer::Taken,
        ),
        Ok(None) => Answer::Ends,
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// What the codec makes of a packet of MQTT 3.1.1, with a ping behind it, as mosquitto is asked.
pub(crate) fn decode_old(packet: &[u8]) -> Answer {
    each_packet(packet, |found| match decode_client(found, Version::V311) {
        Ok(ClientPacket::Disconnect(_)) => Err(Answer::Ends),
        Ok(ClientPacket::Connect(_)) => Err(Answer::Refused("a second CONNECT".to_owned())),
        Ok(_) => Ok(()),
        Err(error) => Err(Answer::Refused(error.to_string())),
    })
}

/// What the gate makes of a packet from a host that is online, with a ping behind it.
pub(crate) fn ask(packet: &[u8]) -> Answer {
    let mut host = Online::new();
    each_packet(packet, |found| {
        host.session.receive(found, host.now);
        host.oblige();
        match host.why {
            None => Ok(()),
            Some("the client disconnected") => Err(Answer::Ends),
            // The codec knows it better.
            Some("not a packet") => Err(decode_client(found, Version::V5).map_or_else(
                |error| Answer::Refused(error.to_string()),
                |_| Answer::Taken,
            )),
            Some(why) => Err(Answer::Refused(why.to_owned())),
        }
    })
}

/// Gives `take` every packet, and the ping behind them, until it says no.
fn each_packet(packet: &[u8], mut take: impl FnMut(&Frame<'_>) -> Result<(), Answer>) -> Answer {
    let bytes = [packet, PINGREQ.as_slice()].concat();
    let mut rest = bytes.as_slice();
    let mut is_answered = false;
    while !rest.is_empty() {
        match frame(rest, PACKET_BYTES_MAX) {
            Ok(Some(found)) => {
                if let Err(answer) = take(&found) {
                    return answer;
                }
                is_answered = found.kind() == Kind::PingReq;
                rest = &rest[found.total_bytes()..];
            }
            Ok(None) => return Answer::Ends,
            Err(error) => return Answer::Refused(error.to_string()),
        }
    }
    // The packet may have wanted more bytes, and taken the ping for them.
    if is_answered {
        Answer::Taken
    } else {
        Answer::Ends
    }
}

/// `edge-1`, online.
struct Online {
    session: Session,
    now: Now,
    /// Why it ended.
    why: Option<&'static str>,
}

impl Online {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new() -> Self {
        let mono = Instant::now();
        let mut online = Self {
            session: Session::new(OFFER, mono + Duration::from_secs(5)),
            now: Now { mono, unix: UNIX },
            why: None,
        };
        let mut connect = Connect::new("edge-1", 30);
        connect.auth_method = Some("ace");
        connect.auth_data = Some(b"\0\x01t");
        online.send(&ClientPacket::Connect(connect));
        online.oblige();
        let proof = prove(&key(), &NONCE, &[7; 8]);
        let reason = ReasonCode::CONTINUE_AUTHENTICATION;
        online.send(&ClientPacket::Auth(Auth::new(reason, "ace", Some(&proof))));
        online.oblige();
        assert!(online.session.is_online());
        online
    }

    fn send(&mut self, packet: &ClientPacket<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        let found = frame(&bytes, bytes.len()).unwrap().unwrap();
        self.session.receive(&found, self.now);
    }

    /// Does what the session asks for.
    fn oblige(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::CheckToken(_) => self.session.checked(Ok(grant()), NONCE),
                Effect::Admit { .. } => self.session.admitted(None, self.now),
                Effect::Store { ticket, .. } => {
                    self.session.stored(ticket, Outcome::Stored, self.now.mono);
                }
                Effect::Subscribe(_) => self.session.subscribed(Some(Vec::new())),
                Effect::Refused(_)
                | Effect::Unsubscribe
                | Effect::Skip(_)
                | Effect::CheckReader(_)
                | Effect::Follow { .. } => {}
                Effect::Close(ending) => self.why = Some(ending.why),
            }
        }
    }
}

fn key() -> Secret<Host> {
    Secret::from_seed(&Zeroizing::new([1; 32]))
}

fn grant() -> Grant {
    Grant {
        subject: Subject::parse("edge-1").unwrap(),
        holder: key().public().as_holder(),
        expires_s: UNIX.seconds() + 600,
        scope: Scope::new(vec![
            ("v1/edge-1/commands".to_owned(), vec![Permission::Sub]),
            ("v1/edge-1/reports".to_owned(), vec![Permission::Pub]),
        ]),
        id: [1; 8],
        generation: 1,
    }
}
