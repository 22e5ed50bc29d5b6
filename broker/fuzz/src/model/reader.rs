//! How a reader comes in, and what its session takes otherwise than a host's.

use std::time::Duration;

use protocol::{
    mqtt::{AckKind, ClientPacket, ConnAck, Kind, ReasonCode, SubAckKind, Version},
    time::Now,
};

use super::{Cause, Due, Model, Must, reading::Reading};
use crate::core::{
    gate::{
        CLIENT_ID_BYTES_MAX, CLIENT_PACKET_BYTES_MIN, Effect, Kept, SESSION_EXPIRY_S_MAX,
        TOKEN_WAIT_MAX,
    },
    principal,
    reader::{Reader, Rights},
};

/// What a reader's CONNECT says.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) user: String,
    pub(super) client_id: String,
    pub(super) is_clean: bool,
    pub(super) expiry_s: u32,
}

impl Model {
    /// The verdict on a reader's token.
    pub(super) fn before_verdict(&mut self, reader: Option<&Reader>) -> Must {
        let claim = self.claim.clone().expect("a reader asked");
        let Some(reader) = reader.filter(|reader| reader.name().as_str() == claim.user) else {
            return Must::End;
        };
        let (asked, name) = (&claim.client_id, reader.name().as_str());
        let is_own =
            asked == name || asked.len() > name.len() + 1 && asked.starts_with(&format!("{name}/"));
        let id = if asked.is_empty() {
            format!("{name}/0505050505050505")
        } else {
            asked.clone()
        };
        if !asked.is_empty() && !is_own && *reader.rights() != Rights::Bench {
            return Must::End;
        }
        let window = self.outbound.window;
        let limits = (self.version, window, self.outbound.packet_bytes_max);
        let past = std::mem::take(&mut self.past);
        let rights = reader.rights().clone();
        let reading = Reading::new(rights, limits, claim.expiry_s, past);
        self.reader = Some((reader.clone(), id, reading));
        Must::Live
    }

    /// The older connection is gone.
    pub(super) fn before_admission(&mut self, kept: Option<&Kept>, now: Now) -> Must {
        let Some((reader, _, reading)) = &mut self.reader else {
            return Must::Either;
        };
        if now.unix.0 >= reader.expires_ms() {
            return Must::End;
        }
        if reading.resumes(kept) {
            Must::Live
        } else {
            Must::End
        }
    }

    /// A packet that a reader's session takes otherwise than others.
    pub(super) fn before_readers_packet(&mut self, packet: &ClientPacket<'_>) -> Option<Must> {
        let (_, _, reading) = self.reader.as_mut()?;
        let must = match packet {
            ClientPacket::Ack(ack) if ack.kind == AckKind::PubAck => {
                reading.acknowledged(ack.id);
                Must::Live
            }
            ClientPacket::Subscribe(subscribe) if subscribe.subscription_id.is_none() => {
                let codes = reading.subscribes(subscribe);
                let is_refused = codes.contains(&ReasonCode::NOT_AUTHORIZED);
                if is_refused && self.counts_refusal(false) == Must::End {
                    return Some(Must::End);
                }
                let codes = codes.into_iter();
                let codes = codes.map(|code| match self.version {
                    Version::V311 if code.is_error() => ReasonCode::UNSPECIFIED_ERROR,
                    _ => code,
                });
                let suback = Due::SubAck(SubAckKind::Subscribe, subscribe.id, codes.collect());
                self.due.push_back(suback);
                Must::Live
            }
            ClientPacket::Unsubscribe(unsubscribe) => {
                let mut codes = reading.unsubscribes(unsubscribe);
                if self.version == Version::V311 {
                    codes.clear();
                }
                let unsuback = Due::SubAck(SubAckKind::Unsubscribe, unsubscribe.id, codes);
                self.due.push_back(unsuback);
                Must::Live
            }
            ClientPacket::Auth(_) => Must::End,
            ClientPacket::Disconnect(disconnect) => {
                if let Some(seconds) = disconnect.session_expiry_secs
                    && (seconds == 0 || reading.expiry_s > 0)
                {
                    reading.expiry_s = seconds.min(SESSION_EXPIRY_S_MAX);
                }
                Must::End
            }
            _ => return None,
        };
        Some(must)
    }

    /// Something is to be done for a reader.
    pub(super) fn readers_effect(&mut self, effect: &Effect, cause: &Cause<'_>) {
        let is_online = self.was_online();
        match (effect, cause) {
            (Effect::CheckReader(shown), Cause::Packet(_, Ok(ClientPacket::Connect(connect)))) => {
                assert!(self.readers && !is_online, "readers are turned on");
                assert_eq!(connect.password, Some(shown.as_slice()));
                assert!(connect.user_name.is_some() && connect.auth_method.is_none());
                assert!(connect.will.is_none());
                assert!(connect.clean_start || !connect.client_id.is_empty());
                assert!(connect.client_id.len() <= CLIENT_ID_BYTES_MAX);
                assert!(!connect.client_id.contains(['+', '#', '$']));
                assert!(self.outbound.packet_bytes_max >= CLIENT_PACKET_BYTES_MIN as usize);
            }
            (Effect::Admit { who, resume }, Cause::VerdictReader(_)) => {
                let (reader, id, _) = self.reader.as_ref().expect("its token was good");
                let (name, id) = (reader.name().clone(), id.clone());
                assert_eq!(*who, principal::Who::Reader { name, id });
                let claim = self.claim.as_ref().expect("it connected");
                assert_eq!(*resume, !claim.is_clean);
                self.is_admitting = true;
            }
            (Effect::Follow { from, reads }, Cause::Packet(..) | Cause::Admitted(Some(_))) => {
                assert!(is_online || matches!(cause, Cause::Admitted(_)));
                let (_, _, reading) = self.reader.as_mut().expect("readers read");
                reading.follow_is_asked(*from, reads);
            }
            (Effect::Keep, Cause::Packet(Kind::Subscribe | Kind::Unsubscribe, Ok(_))) => {
                let (_, _, reading) = self.reader.as_ref().expect("readers read");
                assert!(is_online && reading.expiry_s > 0, "nothing is kept of it");
            }
            (Effect::Skip(count), Cause::Record(..)) => {
                let (_, _, reading) = self.reader.as_mut().expect("readers read");
                reading.skips(*count);
            }
            (effect, cause) => panic!("{effect:?} by {cause:?}"),
        }
    }

    /// A reader is welcome.
    pub(super) fn said_readers_connack(
        &mut self,
        connack: &ConnAck<'_>,
        is_resumed: bool,
        now: Now,
    ) {
        let (reader, id, reading) = self.reader.as_ref().expect("its token was good");
        let end_ms = reader.expires_ms() / 1000 * 1000;
        let left = Duration::from_millis(end_ms - now.unix.0).min(TOKEN_WAIT_MAX);
        assert_eq!(connack.session_present, is_resumed);
        let claim = self.claim.as_ref().expect("it connected");
        let assigned = claim.client_id.is_empty().then_some(id.as_str());
        if self.version == Version::V5 {
            assert_eq!(connack.session_expiry_secs, Some(reading.expiry_s));
            assert_eq!(connack.assigned_client_id, assigned);
            assert_eq!(
                (connack.wildcard_available, connack.auth_method),
                (Some(true), None)
            );
            let keep_alive = connack.server_keep_alive_secs.map(u64::from);
            assert_eq!(keep_alive, Some(self.keep_alive.as_secs()));
        }
        self.reads_until = Some(now.mono + left);
    }
}
