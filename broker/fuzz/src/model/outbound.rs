//! Commands for the host: what is open, then what comes, each once, no more unacknowledged than the client takes.

use std::collections::VecDeque;

use protocol::{
    mqtt::{
        Delivery, PacketId, Publish, Qos, ReasonCode, Subscribe, Subscription, Unsubscribe, Version,
    },
    scope::Permission,
    token::Grant,
};

use crate::{
    core::gate::{FILTERS_MAX, OUTPUT_BYTES_MAX},
    world::{COMMANDS, Who},
};

#[derive(Debug, Default)]
pub(super) struct Outbound {
    state: State,
    /// Not sent yet: first what was open when it subscribed, then what has come since.
    queue: VecDeque<Vec<u8>>,
    /// How many of the queue were open when it subscribed.
    open: usize,
    unacknowledged: Vec<PacketId>,
    /// So many were too large to send, less those that were reported.
    skipped: i64,
    /// How many may be unacknowledged.
    pub(super) window: usize,
    /// The largest packet that the client takes, in bytes.
    pub(super) packet_bytes_max: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    /// A SUBSCRIBE is granted; attaching is to be asked for now.
    Asks(PacketId, Vec<ReasonCode>),
    Attaching(PacketId, Vec<ReasonCode>),
    On,
    /// An UNSUBSCRIBE names it; detaching is to be asked for now.
    Leaves,
}

impl Outbound {
    pub(super) fn unacknowledged(&self, which: usize) -> Option<u16> {
        let known = &self.unacknowledged;
        (!known.is_empty()).then(|| known[which % known.len()].get())
    }

    /// SUBSCRIBE comes; gives the codes of its answer.
    pub(super) fn subscribes(
        &mut self,
        subscribe: &Subscribe<'_>,
        who: Who,
        grant: &Grant,
    ) -> Vec<ReasonCode> {
        let subscriptions = subscribe.subscriptions.iter().enumerate();
        let codes: Vec<_> = subscriptions
            .map(|(at, one)| {
                if at < FILTERS_MAX {
                    code(&one, who, grant)
                } else {
                    ReasonCode::QUOTA_EXCEEDED
                }
            })
            .collect();
        if codes.contains(&ReasonCode::GRANTED_QOS_1) && matches!(self.state, State::Off) {
            self.state = State::Asks(subscribe.id, codes.clone());
        }
        codes
    }

    pub(super) fn forgets_subscribe(&mut self) {
        if let State::Asks(..) = self.state {
            self.state = State::Off;
        }
    }

    pub(super) const fn is_to_attach(&self) -> bool {
        matches!(self.state, State::Asks(..))
    }

    /// Attaching is asked for.
    pub(super) fn attaches(&mut self) {
        let State::Asks(id, codes) = std::mem::take(&mut self.state) else {
            panic!("attached without a SUBSCRIBE that is granted");
        };
        self.state = State::Attaching(id, codes);
    }

    /// It is attached, or not; gives what the SUBACK must say.
    pub(super) fn attached(&mut self, open: Option<&[Vec<u8>]>) -> (PacketId, Vec<ReasonCode>) {
        let State::Attaching(id, mut codes) = std::mem::take(&mut self.state) else {
            panic!("attached unasked");
        };
        if let Some(open) = open {
            self.queue = open.to_vec().into();
            self.open = open.len();
            self.state = State::On;
        } else {
            for code in &mut codes {
                if *code == ReasonCode::GRANTED_QOS_1 {
                    *code = ReasonCode::UNSPECIFIED_ERROR;
                }
            }
        }
        (id, codes)
    }

    /// UNSUBSCRIBE comes; gives the codes of its answer.
    pub(super) fn unsubscribes(&mut self, unsubscribe: &Unsubscribe<'_>) -> Vec<ReasonCode> {
        let filters = unsubscribe.filters.iter().enumerate();
        filters
            .map(|(at, filter)| {
                if filter == COMMANDS && matches!(self.state, State::On) {
                    self.state = State::Leaves;
                    ReasonCode::SUCCESS
                } else if at < FILTERS_MAX {
                    ReasonCode::NO_SUBSCRIPTION_EXISTED
                } else {
                    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
                }
            })
            .collect()
    }

    /// Detaching is asked for.
    pub(super) fn detaches(&mut self) {
        assert!(matches!(self.state, State::Leaves));
        self.state = State::Off;
        self.queue.clear();
        self.open = 0;
    }

    /// A command comes; says whether there is room for it.
    pub(super) fn deliver(&mut self, command: &[u8]) -> bool {
        let is_open = self.queue.iter().take(self.open).any(|one| one == command);
        if !matches!(self.state, State::On) || is_open {
            return true;
        }
        if self.queue.len() - self.open >= self.window {
            return false;
        }
        self.queue.push_back(command.to_vec());
        true
    }

    pub(super) fn acknowledged(&mut self, id: PacketId) {
        self.unacknowledged.retain(|one| *one != id);
    }

    /// A command was sent.
    pub(super) fn sent(&mut self, publish: &Publish<'_>, bytes: usize) {
        assert!(matches!(self.state, State::On), "sent to a subscriber");
        assert_eq!((publish.topic, publish.retain), (COMMANDS, false));
        let Delivery::AtLeastOnce { id, dup: false } = publish.delivery else {
            panic!("a command goes out at QoS 1, for the first time");
        };
        self.drop_too_large();
        let next = self.pop().expect("nothing else is sent");
        assert!(next == publish.payload, "in their order, each once");
        assert!(bytes <= self.packet_bytes_max);
        assert!(!self.unacknowledged.contains(&id), "an identifier in use");
        self.unacknowledged.push(id);
        assert!(self.unacknowledged.len() <= self.window);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        self.open = self.open.saturating_sub(1);
        self.queue.pop_front()
    }

    fn drop_too_large(&mut self) {
        while let Some(next) = self.queue.front()
            && packet_bytes(next) > self.packet_bytes_max
        {
            self.pop();
            self.skipped += 1;
        }
    }

    /// So many are reported as too large. They come to light in order, behind this.
    pub(super) fn skips(&mut self, count: usize) {
        assert!(count > 0);
        self.skipped -= i64::try_from(count).expect("a few");
    }

    /// Whether what it is subscribed to is permitted.
    pub(super) fn is_permitted_by(&self, grant: &Grant) -> bool {
        match self.state {
            State::Off | State::Leaves => true,
            State::Asks(..) | State::Attaching(..) | State::On => {
                grant.scope.rule_for(COMMANDS, Permission::Sub).is_some()
            }
        }
    }

    /// After each call: everything that can be sent is.
    pub(super) fn check(&mut self, waiting: usize) {
        assert!(!matches!(self.state, State::Asks(..) | State::Leaves));
        if let State::On = self.state
            && self.unacknowledged.len() < self.window
            && waiting < OUTPUT_BYTES_MAX
        {
            self.drop_too_large();
            assert!(self.queue.is_empty(), "a command is late");
        }
        assert_eq!(self.skipped, 0, "what is too large is told, once");
    }
}

/// What a filter is answered with.
fn code(one: &Subscription<'_>, who: Who, grant: &Grant) -> ReasonCode {
    let is_host = who == Who::Host;
    let filter = one.filter;
    if filter.starts_with("$share/") {
        ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    } else if is_host && !filter.starts_with('$') && filter.contains(['+', '#']) {
        ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    } else if !is_host
        || filter != COMMANDS
        || grant.scope.rule_for(COMMANDS, Permission::Sub).is_none()
    {
        ReasonCode::NOT_AUTHORIZED
    } else if one.qos == Qos::AtMostOnce {
        ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
    } else {
        ReasonCode::GRANTED_QOS_1
    }
}

/// How long the packet of a command is.
fn packet_bytes(command: &[u8]) -> usize {
    let publish = Publish::new(COMMANDS, Delivery::at_least_once(PacketId::MIN), command);
    let mut out = Vec::new();
    publish
        .encode(Version::V5, &mut out)
        .expect("it is short enough");
    out.len()
}
