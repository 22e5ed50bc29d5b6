//! The only file that names the MQTT library, rumqttc-v5-next. It turns [`LinkOptions`] into the library's options,
//! moves its events into [`LinkEvent`]s, and ends at the first error: the library would dial again by itself, and
//! `poll` is never called after it has failed.
//!
//! Settings that differ from the library's defaults, and why:
//! - `outgoing_inflight_upper_limit`: the default, 65 535, is allocated up front.
//! - `max_request_batch`: by default each publish is flushed, and so encrypted and written, alone.
//! - `read_batch_size` 1: when a batch of packets ends in an error the library drops the events of the packets before
//!   it, acknowledgements included. One packet at a time nothing is dropped; they are read from a buffer anyhow.
//! - manual acknowledgements: a command is acknowledged when it is on disk.
//! - clean start: what must survive is in our outbox and the broker's journal, not in an MQTT session.

use std::io;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::future;
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AckMode, AsyncClient, AuthAction, AuthContext, AuthError, AuthEvent, AuthExchangeKind,
    AuthProperties, Authenticator, Broker, ClientError, ConnAck, ConnectReturnCode,
    ConnectionError, Event, EventLoop, Incoming, ManualAck, MqttOptions, Outgoing, Packet, PubAck,
    PubAckReason, Publish, PublishOptions, QoS, StateError, SubAck, SubscribeReasonCode,
};
use smol::Timer;
use smol::channel::{Receiver, Sender};

use super::{
    AckHandle, CLOSE_WAIT_MAX, COMMANDS_UNACKED_MAX, DownReason, INFLIGHT_MAX, Ledger, LinkEvent,
    LinkOptions, NotSent, PACKET_BYTES_MAX, Prover, RENEW_WAIT_MAX, Session, TOKEN_BYTES_MAX, lock,
};
use crate::shell::tokio::guest_stream;
use crate::shell::transport::{DIAL_WAIT_MAX, DialError, dial, is_tls, within};

/// The authentication method of RFC 9431.
const METHOD: &str = "ace";

/// How many requests the library takes from its channel before it flushes them in one write.
const REQUEST_BATCH_MAX: usize = 64;

/// Room in the library's request channels: all that can be outstanding, and a little for SUBSCRIBE and AUTH.
const REQUESTS_MAX: usize = INFLIGHT_MAX as usize + COMMANDS_UNACKED_MAX as usize + 4;

/// Gives requests to the library's event loop.
#[derive(Clone)]
pub(super) struct Client(AsyncClient);

impl Client {
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), NotSent> {
        self.0
            .try_publish(topic, payload, PublishOptions::at_least_once())
            .map_err(|error| match error {
                ClientError::InvalidRequest(_) => NotSent::Topic,
                _ => NotSent::Full,
            })
    }

    /// Failure means that the link is going down; the broker sends the command again.
    pub(super) fn ack(&self, packet_id: NonZeroU16) {
        let ack = PubAck::new(packet_id.get(), None);
        let _ = self.0.try_manual_ack(ManualAck::PubAck(ack));
    }

    pub(super) fn present(&self, token: &[u8]) -> Result<(), NotSent> {
        let data = token_data(token).ok_or(NotSent::TooLarge)?;
        self.0
            .try_reauth(Some(auth_properties(data)))
            .map_err(|_| NotSent::Full)
    }

    /// Failure means that the link is down already.
    pub(super) fn disconnect(&self) {
        let _ = self.0.try_disconnect_now();
    }
}

/// The library's two halves for one link.
///
/// # Errors
///
/// [`DownReason::Local`] when the options cannot be used.
pub(super) fn build(options: &LinkOptions) -> Result<(Client, EventLoop), DownReason> {
    let token = token_data(&options.token)
        .ok_or_else(|| DownReason::Local("the connection token is too long".to_owned()))?;
    let prover = Arc::new(Mutex::new(Ace {
        token,
        prove: options.prove.clone(),
    }));
    // The address is for the library alone; the connector below dials `options.authority`.
    let mut mqtt = MqttOptions::new(options.client_id.clone(), Broker::tcp("broker", 0));
    mqtt.set_keep_alive(whole_seconds(options.keep_alive))
        .set_connect_timeout(options.up_wait)
        .set_clean_start(true)
        .set_ack_mode(AckMode::Manual)
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_max_request_batch(REQUEST_BATCH_MAX)
        .set_read_batch_size(1)
        .set_receive_maximum(Some(COMMANDS_UNACKED_MAX))
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_authentication_method(Some(METHOD.to_owned()))
        .set_authenticator(prover);
    let (authority, proxy, tls) = (
        options.authority.clone(),
        options.proxy.clone(),
        options.tls.clone(),
    );
    let wait = options.up_wait.min(DIAL_WAIT_MAX);
    let dialled = AtomicBool::new(false);
    mqtt.set_socket_connector(move |_, _| {
        let (authority, proxy, tls) = (authority.clone(), proxy.clone(), tls.clone());
        let again = dialled.swap(true, Ordering::Relaxed);
        async move {
            if again {
                return Err(io::Error::other("one link is one attempt"));
            }
            let stream = dial(&authority, proxy.as_ref(), &tls, wait).await;
            stream.map(guest_stream).map_err(io::Error::other)
        }
    });
    AsyncClient::builder(mqtt)
        .capacity(REQUESTS_MAX)
        .try_build()
        .map(|(client, events)| (Client(client), events))
        .map_err(|error| DownReason::Local(error.to_string()))
}

/// The link's one task.
pub(super) struct Pump {
    pub(super) number: u64,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) events: Sender<LinkEvent>,
    /// Yields when the link is to close.
    pub(super) stopped: Receiver<()>,
    /// The number of each renewal begun.
    pub(super) renewals: Receiver<u64>,
    pub(super) subscribe: Option<String>,
    pub(super) up_wait: Duration,
}

impl Pump {
    /// Runs the link to its end and says why it ended, when the socket is closed and not before.
    pub(super) async fn run(self, parts: Result<(Client, EventLoop), DownReason>) {
        let reason = match parts {
            Err(reason) => reason,
            Ok((client, mut events)) => {
                future::or(
                    future::or(self.pump(&client, &mut events), self.watch_up()),
                    future::or(self.watch_renewals(), self.watch_close()),
                )
                .await
            }
        };
        lock(&self.ledger).up = false;
        // Room may have to be made by the reader; if there is no reader any more nobody need know.
        let _ = self.events.send(LinkEvent::Down(reason)).await;
    }

    /// Polls the library until it fails. The future of `poll` is dropped only when the link ends with it.
    async fn pump(&self, client: &Client, events: &mut EventLoop) -> DownReason {
        // While it dials, `watch_up` has the deadline.
        let mut silence_max = Duration::MAX;
        loop {
            let polled = match silence_max {
                Duration::MAX => Some(events.poll().await),
                wait => within(wait, events.poll()).await,
            };
            let event = match polled {
                Some(Ok(event)) => event,
                Some(Err(error)) => return down_reason(error, silence_max != Duration::MAX),
                // A ping is due every keep-alive, so `poll` is stuck in a write that nobody reads.
                None => return DownReason::Timeout("the broker stopped reading"),
            };
            if let Event::Incoming(Packet::ConnAck(connack)) = &event {
                silence_max = events.options.keep_alive() * 2;
                if let Err(reason) = self.come_up(connack, events.options.keep_alive(), client) {
                    return reason;
                }
            } else if let Err(reason) = self.take(event) {
                return reason;
            }
        }
    }

    /// CONNACK with success: the only kind the library passes on.
    fn come_up(
        &self,
        connack: &ConnAck,
        keep_alive: Duration,
        client: &Client,
    ) -> Result<(), DownReason> {
        let properties = connack.properties.as_ref();
        let session = Session {
            inflight_max: properties
                .and_then(|properties| properties.receive_max)
                .unwrap_or(INFLIGHT_MAX)
                .clamp(1, INFLIGHT_MAX),
            packet_bytes_max: properties
                .and_then(|properties| properties.max_packet_size)
                .unwrap_or(PACKET_BYTES_MAX)
                .min(PACKET_BYTES_MAX),
            keep_alive,
            user_properties: properties
                .map(|properties| properties.user_properties.clone())
                .unwrap_or_default(),
        };
        {
            let mut ledger = lock(&self.ledger);
            ledger.up = true;
            ledger.settled = self.subscribe.is_none();
            ledger.inflight_max = session.inflight_max;
            ledger.packet_bytes_max = session.packet_bytes_max;
        }
        self.tell(LinkEvent::Up(session))?;
        if let Some(topic) = &self.subscribe {
            client
                .0
                .try_subscribe(topic.as_str(), QoS::AtLeastOnce)
                .map_err(|_| DownReason::Local("the topic cannot be subscribed to".to_owned()))?;
        }
        Ok(())
    }

    /// One event of a link that is up.
    fn take(&self, event: Event) -> Result<(), DownReason> {
        match event {
            Event::Incoming(Incoming::Publish(publish)) => self.take_publish(&publish),
            Event::Incoming(Incoming::PubAck(ack)) => self.take_ack(&ack),
            Event::Incoming(Incoming::SubAck(ack)) => self.take_suback(&ack),
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                // The library takes publishes in order: the oldest queued number is the one that left.
                let mut ledger = lock(&self.ledger);
                if let Some(seq) = ledger.queued.pop_front() {
                    ledger.sent.insert(packet_id, seq);
                }
                Ok(())
            }
            Event::Auth(AuthEvent::Succeeded {
                kind: AuthExchangeKind::Reauthentication,
                ..
            }) => {
                {
                    let mut ledger = lock(&self.ledger);
                    ledger.renewals_done = ledger.renewals_begun;
                }
                self.tell(LinkEvent::Renewed)
            }
            Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_) => Ok(()),
        }
    }

    fn take_publish(&self, publish: &Publish) -> Result<(), DownReason> {
        if publish.qos == QoS::ExactlyOnce {
            return Err(DownReason::Protocol("QoS 2 was never asked for"));
        }
        let topic = str::from_utf8(&publish.topic)
            .map_err(|_| DownReason::Protocol("a topic is not UTF-8"))?;
        self.tell(LinkEvent::Message {
            topic: topic.to_owned(),
            // Copied: the library's bytes keep its whole read buffer alive.
            payload: publish.payload.to_vec(),
            ack: AckHandle {
                link: self.number,
                packet_id: NonZeroU16::new(publish.pkid),
            },
        })
    }

    fn take_ack(&self, ack: &PubAck) -> Result<(), DownReason> {
        let seq = {
            let mut ledger = lock(&self.ledger);
            let seq = ledger.sent.remove(&ack.pkid);
            ledger.unread += usize::from(seq.is_some());
            seq
        };
        let Some(seq) = seq else { return Ok(()) };
        match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                self.tell(LinkEvent::Acked { seq })
            }
            reason => self.tell(LinkEvent::PublishRefused {
                seq,
                code: reason as u8,
            }),
        }
    }

    fn take_suback(&self, ack: &SubAck) -> Result<(), DownReason> {
        match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(QoS::AtLeastOnce)) => {
                lock(&self.ledger).settled = true;
                self.tell(LinkEvent::Subscribed)
            }
            Some(code) => Err(DownReason::Refused {
                code: suback_code(*code),
            }),
            None => Err(DownReason::Protocol("a SUBACK without a code")),
        }
    }

    /// Never waits: the channel holds all that an honest broker can cause.
    fn tell(&self, event: LinkEvent) -> Result<(), DownReason> {
        self.events
            .try_send(event)
            .map_err(|_| DownReason::Protocol("more messages than our Receive Maximum"))
    }

    async fn watch_up(&self) -> DownReason {
        Timer::after(self.up_wait).await;
        let (up, settled) = {
            let ledger = lock(&self.ledger);
            (ledger.up, ledger.settled)
        };
        match (up, settled) {
            (_, true) => future::pending().await,
            (true, false) => DownReason::Timeout("subscribe"),
            (false, false) => DownReason::Timeout("connect"),
        }
    }

    async fn watch_renewals(&self) -> DownReason {
        while let Ok(renewal) = self.renewals.recv().await {
            Timer::after(RENEW_WAIT_MAX).await;
            if lock(&self.ledger).renewals_done < renewal {
                return DownReason::Timeout("renew the token");
            }
        }
        future::pending().await
    }

    async fn watch_close(&self) -> DownReason {
        // Nothing is ever sent on this channel; it is closed.
        let _ = self.stopped.recv().await;
        if lock(&self.ledger).up {
            Timer::after(CLOSE_WAIT_MAX).await;
        }
        DownReason::Closed
    }
}

/// Method `ace`: presents the token at CONNECT and answers challenges at CONNECT and at renewals.
struct Ace {
    /// Length-prefixed, as it goes on the wire.
    token: Vec<u8>,
    prove: Prover,
}

impl std::fmt::Debug for Ace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ace(_)")
    }
}

impl Authenticator for Ace {
    /// For a renewal the library ignores this: the fresh token is in the request.
    fn start(&mut self, _: AuthContext<'_>) -> Result<Option<AuthProperties>, AuthError> {
        Ok(Some(auth_properties(self.token.clone())))
    }

    fn continue_auth(
        &mut self,
        _: AuthContext<'_>,
        incoming: Option<AuthProperties>,
    ) -> Result<AuthAction, AuthError> {
        let nonce = incoming
            .and_then(|properties| properties.data)
            .and_then(|data| <[u8; 8]>::try_from(&data[..]).ok())
            .ok_or_else(|| AuthError::Failed("the challenge is not 8 bytes".to_owned()))?;
        let proof = (self.prove.0)(&nonce);
        Ok(AuthAction::Send(auth_properties(proof.to_vec())))
    }

    fn success(&mut self, _: AuthContext<'_>, _: Option<AuthProperties>) -> Result<(), AuthError> {
        Ok(())
    }

    fn failure(&mut self, _: AuthContext<'_>, _: AuthError) {}
}

fn auth_properties(data: Vec<u8>) -> AuthProperties {
    AuthProperties {
        method: Some(METHOD.to_owned()),
        data: Some(data.into()),
        ..AuthProperties::default()
    }
}

/// RFC 9431 §2.2.4.1: token length in two bytes, big-endian, then the token.
fn token_data(token: &[u8]) -> Option<Vec<u8>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let length = u16::try_from(token.len()).ok()?;
    Some([&length.to_be_bytes(), token].concat())
}

/// MQTT counts keep-alive in whole seconds, and zero would switch it off.
fn whole_seconds(keep_alive: Duration) -> u16 {
    u16::try_from(keep_alive.as_secs())
        .unwrap_or(u16::MAX)
        .max(1)
}

/// What an error of the library means. None of the peer's bytes go into it.
fn down_reason(error: ConnectionError, up: bool) -> DownReason {
    match error {
        ConnectionError::Timeout(_) => DownReason::Timeout("connect"),
        ConnectionError::ConnectionRefused(code) => DownReason::Refused {
            code: connack_code(code),
        },
        ConnectionError::NotConnAck(packet) => match *packet {
            Packet::Disconnect(disconnect) => DownReason::Refused {
                code: disconnect.reason_code as u8,
            },
            _ => DownReason::Protocol("a packet before CONNACK"),
        },
        ConnectionError::Io(error) => io_reason(error),
        ConnectionError::MqttState(error) => state_reason(error, up),
        ConnectionError::RequestsDone | ConnectionError::DisconnectTimeout => DownReason::Closed,
        ConnectionError::SessionStateMismatch { .. } => {
            DownReason::Protocol("a session after a clean start")
        }
        // Not reachable with our settings; the enum is open.
        _ => DownReason::Protocol("the library gave up"),
    }
}

fn state_reason(error: StateError, up: bool) -> DownReason {
    match error {
        StateError::ServerDisconnect { reason_code, .. } => DownReason::Disconnected {
            code: reason_code as u8,
        },
        StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)) => {
            io_reason(error)
        }
        StateError::ConnectionAborted => {
            DownReason::Network("the broker closed the connection".to_owned())
        }
        StateError::AwaitPingResp => DownReason::Timeout("ping"),
        // A code that the library has no name for.
        StateError::Deserialization(PacketError::InvalidConnectReturnCode(code)) if up => {
            DownReason::Disconnected { code }
        }
        StateError::Deserialization(PacketError::InvalidConnectReturnCode(code)) => {
            DownReason::Refused { code }
        }
        StateError::Deserialization(_) => DownReason::Protocol("a malformed or oversized packet"),
        StateError::AuthError(_) => DownReason::Protocol("a malformed challenge"),
        StateError::Unsolicited(_) => DownReason::Protocol("an acknowledgement nobody asked for"),
        // The rest are violations of the protocol's order or, with our settings, unreachable.
        _ => DownReason::Protocol("an unexpected packet"),
    }
}

/// An error of our own dial, of TLS, or of the socket.
fn io_reason(error: io::Error) -> DownReason {
    if is_tls(&error) {
        return DownReason::Tls(error.to_string());
    }
    match error.downcast::<DialError>() {
        Ok(DialError::Timeout { .. }) => DownReason::Timeout("connect"),
        Ok(error @ DialError::Tls { .. }) => DownReason::Tls(error.to_string()),
        Ok(error @ (DialError::Authority(_) | DialError::Credentials { .. })) => {
            DownReason::Local(error.to_string())
        }
        Ok(
            error @ (DialError::Resolve { .. }
            | DialError::Connect { .. }
            | DialError::ProxyRefused { .. }
            | DialError::Proxy { .. }),
        ) => DownReason::Network(error.to_string()),
        Err(error) => DownReason::Network(error.to_string()),
    }
}

/// The library parses these codes but does not give them back.
const fn connack_code(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => 0,
        ConnectReturnCode::UnspecifiedError => 0x80,
        ConnectReturnCode::MalformedPacket => 0x81,
        ConnectReturnCode::ProtocolError => 0x82,
        ConnectReturnCode::ImplementationSpecificError => 0x83,
        ConnectReturnCode::UnsupportedProtocolVersion
        | ConnectReturnCode::RefusedProtocolVersion => 0x84,
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => 0x85,
        ConnectReturnCode::BadUserNamePassword => 0x86,
        ConnectReturnCode::NotAuthorized => 0x87,
        ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => 0x88,
        ConnectReturnCode::ServerBusy => 0x89,
        ConnectReturnCode::Banned => 0x8a,
        ConnectReturnCode::BadAuthenticationMethod => 0x8c,
        ConnectReturnCode::TopicNameInvalid => 0x90,
        ConnectReturnCode::PacketTooLarge => 0x95,
        ConnectReturnCode::QuotaExceeded => 0x97,
        ConnectReturnCode::PayloadFormatInvalid => 0x99,
        ConnectReturnCode::RetainNotSupported => 0x9a,
        ConnectReturnCode::QoSNotSupported => 0x9b,
        ConnectReturnCode::UseAnotherServer => 0x9c,
        ConnectReturnCode::ServerMoved => 0x9d,
        ConnectReturnCode::ConnectionRateExceeded => 0x9f,
    }
}

/// As above. A grant other than QoS 1 is refused too: commands would be lost.
const fn suback_code(code: SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(_)
        | SubscribeReasonCode::Failure
        | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8f,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9e,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xa1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xa2,
    }
}
