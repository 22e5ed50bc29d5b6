//! Our side: the codec alone, for a CONNECT, and behind it the gate, for a host or a bench principal that is online.

use std::time::{Duration, Instant};

use broker::core::{
    gate::{Effect, Ending, Offer, Outcome, Session, Start},
    reader::{Account, Accounts, Admitted, Reader, Rights, check},
};
use protocol::{
    id::ReaderName,
    key::{Host, Secret},
    limits::PACKET_BYTES_MAX,
    mqtt::{
        Auth, ClientPacket, Connect, DecodeError, Frame, Kind, PINGREQ, ReasonCode, Version,
        decode_client, frame,
    },
    possession::prove,
    reader_token::ReaderToken,
    scope::{Permission, Scope},
    time::{Now, UnixMillis},
    token::{Grant, Subject},
};
use zeroize::Zeroizing;

const NONCE: [u8; 8] = [5; 8];
const OFFER: Offer = Offer {
    durability: "fsync",
    readers: true,
};
const UNIX: UnixMillis = UnixMillis(1_800_000_000_000);

/// What came of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on.
    Taken,
    /// It ends the connection, for this reason; the code is what the client is told, if it is told one.
    Refused(String, Option<u8>),
    /// It is not whole, or a DISCONNECT: nothing follows, and nobody is to blame.
    Ends,
}

/// Who sends the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// `edge-1`, with a token and its proof.
    Host,
    /// A load test, with a password.
    Bench,
}

/// What the codec makes of a CONNECT. One of MQTT 3.1.1 that is malformed is told nothing, as by the gate.
pub(crate) fn decode_connect(bytes: &[u8]) -> Answer {
    const OLD_LEVEL: u8 = 4;
    let refused = |error: DecodeError, level: Option<u8>| {
        let code = (level != Some(OLD_LEVEL)).then(|| error.reason().value());
        Answer::Refused(error.to_string(), code)
    };
    match frame(bytes, usize::MAX) {
        Ok(Some(found)) => match decode_client(&found, Version::V5) {
            Ok(_) => Answer::Taken,
            Err(error) => refused(error, found.body().get(6).copied()),
        },
        Ok(None) => Answer::Ends,
        Err(error) => refused(error, None),
    }
}

/// What the gate makes of a packet from `peer`, who is online, with a ping behind it.
pub(crate) fn ask(peer: Peer, version: Version, packet: &[u8]) -> Answer {
    let mut client = Online::new(peer, version);
    let told = |reason: ReasonCode| (version == Version::V5).then(|| reason.value());
    each_packet(packet, told, |found| {
        client.session.receive(found, client.now);
        client.oblige();
        match client.ending {
            None => Ok(()),
            Some(Ending { reason: None, .. }) => Err(Answer::Ends),
            Some(Ending {
                reason: Some(reason),
                why,
            }) => {
                // The codec knows it better.
                let words = match decode_client(found, version) {
                    Err(error) if why == "not a packet" => error.to_string(),
                    _ => why.to_owned(),
                };
                Err(Answer::Refused(words, told(reason)))
            }
        }
    })
}

/// Gives `take` every packet, and the ping behind them, until it says no.
fn each_packet(
    packet: &[u8],
    told: impl Fn(ReasonCode) -> Option<u8>,
    mut take: impl FnMut(&Frame<'_>) -> Result<(), Answer>,
) -> Answer {
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
            Err(error) => return Answer::Refused(error.to_string(), told(error.reason())),
        }
    }
    // The packet may have wanted more bytes, and taken the ping for them.
    if is_answered {
        Answer::Taken
    } else {
        Answer::Ends
    }
}

/// One of them, online.
struct Online {
    session: Session,
    now: Now,
    /// How it ended.
    ending: Option<Ending>,
}

impl Online {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(peer: Peer, version: Version) -> Self {
        let mono = Instant::now();
        let mut online = Self {
            session: Session::new(OFFER, mono + Duration::from_secs(5)),
            now: Now { mono, unix: UNIX },
            ending: None,
        };
        match peer {
            Peer::Host => {
                let mut connect = Connect::new("edge-1", 30);
                connect.auth_method = Some("ace");
                connect.auth_data = Some(b"\0\x01t");
                online.send(&ClientPacket::Connect(connect));
                let proof = prove(&key(), &NONCE, &[7; 8]);
                let reason = ReasonCode::CONTINUE_AUTHENTICATION;
                online.send(&ClientPacket::Auth(Auth::new(reason, "ace", Some(&proof))));
            }
            Peer::Bench => {
                let mut connect = Connect::new("reader", 30);
                connect.version = version;
                connect.user_name = Some(BENCH);
                connect.password = Some(b"token");
                online.send(&ClientPacket::Connect(connect));
            }
        }
        assert!(online.session.is_online());
        online
    }

    fn send(&mut self, packet: &ClientPacket<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        let found = frame(&bytes, bytes.len()).unwrap().unwrap();
        self.session.receive(&found, self.now);
        self.oblige();
    }

    /// Does what the session asks for.
    fn oblige(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::CheckToken(_) => self.session.checked(Ok(grant()), NONCE),
                Effect::CheckReader(_) => self.session.checked_reader(Ok(bench()), NONCE),
                Effect::Admit { .. } => self.session.admitted(None, self.now),
                Effect::Store { ticket, .. } => {
                    self.session.stored(ticket, Outcome::Stored, self.now.mono);
                }
                Effect::Subscribe(_) => self.session.subscribed(Some(Vec::new())),
                Effect::Follow { from, .. } => self.session.following(match from {
                    Start::Offset(offset) => offset,
                    Start::Now | Start::Oldest => 0,
                }),
                Effect::Refused(_) | Effect::Unsubscribe | Effect::Keep | Effect::Skip(_) => {}
                Effect::Close(ending) => self.ending = Some(ending),
            }
        }
    }
}

const BENCH: &str = "bench";

fn bench() -> Reader {
    let token = ReaderToken::new([1; 8], Zeroizing::new([1; 32]));
    let account = Account {
        name: ReaderName::new(BENCH).unwrap(),
        secret_sha256: token.hash(),
        rights: Rights::Bench,
        expires_ms: UNIX.0 + 600_000,
    };
    let all = Admitted {
        readers: true,
        bench: true,
        access: false,
    };
    let accounts = Accounts::from([(token.kid, account)]);
    check(token.to_text().as_bytes(), &accounts, all, UNIX).unwrap()
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
