//! The operator's session: how a host gets a token, keeps it fresh, and holds one connection under it.
//!
//! Two small machines side by side. The *exchange* fetches a token over HTTPS: prepare a key, ask for a challenge, answer it, adopt
//! the grant. The *link* is the MQTT connection under the token. They wait for each other where they must: nobody connects while
//! an exchange is being answered (the broker may already have moved on to the next key), and a link that is up goes on under its
//! token until the fresh one is presented on it.
//!
//! Every state but rest has a deadline, every attempt a number, and an answer to an earlier attempt is dropped. Losing the broker
//! ends nothing but the link: recovery rests on possession of the host's key, never on a token that is still valid.
//!
//! Long because its states and what moves between them are read together or not at all.

mod event;
pub mod identity;
mod token;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::exchange::Refusal;
use protocol::time::{Now, UnixMillis};

use super::chain::Show;
use super::pace::{Lane, Pace};
pub use event::{Down, Effect, Event, Failure, is_refusal};
pub use token::Token;

use event::TAKEN_OVER;

/// Making and persisting a key: a disk that takes longer is stuck.
const PREPARE_WAIT_MAX: Duration = Duration::from_secs(15);

/// One HTTPS question, from dialling to the last byte. The shell's own deadline is shorter and says why.
const ASK_WAIT_MAX: Duration = Duration::from_secs(30);

/// From opening a link to CONNACK and SUBACK. The shell's own deadline is shorter and says why.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(30);

/// From presenting a token on a live link to its acceptance.
const PRESENT_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long a link must have been up for its end to be news, and not one more failure in a row.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// Parts of its chain that a host shows in a row, without a pause: more than all that is kept.
const SHOWN_MAX: u32 = 200;

/// The longest sleep while a date is waited for: waits stand still during suspension, dates do not.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    Idle,
    Preparing { until: Instant },
    Challenging { until: Instant },
    Exchanging { until: Instant },
    Adopting { until: Instant, granted: Token },
    Waiting { until: Instant },
}

/// The link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        until: Instant,
    },
    Connecting {
        until: Instant,
        serial: u64,
    },
    Online {
        since: Instant,
        /// Which token the broker knows it under.
        serial: u64,
        token_until: UnixMillis,
        /// A token was presented, and must be answered by then.
        presenting: Option<Instant>,
    },
}

/// The session of a host. See the module.
#[derive(Clone, Debug)]
pub struct Host {
    enrolled: bool,
    token: Option<Token>,
    /// A request was sent whose answer never came: the broker may already know the pending key.
    in_doubt: bool,
    /// How the next exchange shows the right to a token.
    show: Show,
    /// Parts of the chain that were shown in a row.
    shown: u32,
    exchange: Exchange,
    exchange_attempt: u64,
    exchange_pace: Pace,
    link: Link,
    link_attempt: u64,
    link_pace: Pace,
    serial: u64,
    stopping: bool,
    now: Now,
    effects: VecDeque<Effect>,
}

impl Host {
    /// A session that starts now. `persisted` is the life of the token found on disk, if there is one and the broker's time is
    /// known well enough to judge it; it is used again unless its life is nearly over.
    #[must_use]
    pub fn new(
        enrolled: bool,
        persisted: Option<(UnixMillis, UnixMillis)>,
        now: Now,
        random: u64,
    ) -> Self {
        let token = persisted
            .map(|(issued, expires)| Token::new(0, issued, expires, random).found())
            .filter(|token| !token.is_due(now.unix) && token.is_presentable(now.unix));
        let mut host = Self {
            enrolled,
            token,
            in_doubt: false,
            show: Show::Last,
            shown: 0,
            exchange: Exchange::Idle,
            exchange_attempt: 0,
            exchange_pace: Pace::default(),
            link: Link::Down { until: now.mono },
            link_attempt: 0,
            link_pace: Pace::default(),
            serial: 0,
            stopping: false,
            now,
            effects: VecDeque::new(),
        };
        host.advance(random);
        host
    }

    /// Whether reports and commands can travel now.
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self.link, Link::Online { .. })
    }

    /// Takes news. `random` is uniform, and new each time.
    pub fn handle(&mut self, event: Event, now: Now, random: u64) {
        self.now = now;
        match event {
            Event::Prepared { attempt }
            | Event::Challenged { attempt, .. }
            | Event::Granted { attempt, .. }
            | Event::Adopted { attempt }
            | Event::ExchangeFailed { attempt, .. } => {
                if attempt == self.exchange_attempt {
                    self.on_exchange(event, random);
                }
            }
            Event::LinkUp { attempt }
            | Event::Renewed { attempt }
            | Event::LinkDown { attempt, .. } => {
                if attempt == self.link_attempt {
                    self.on_link(&event, random);
                }
            }
            Event::Stop => self.stop(),
        }
        self.advance(random);
    }

    /// Takes the passing of [`Host::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now, random: u64) {
        self.now = now;
        self.advance(random);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`Host::handle_timeout`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let exchange = match self.exchange {
            Exchange::Idle => None,
            Exchange::Preparing { until }
            | Exchange::Challenging { until }
            | Exchange::Exchanging { until }
            | Exchange::Adopting { until, .. }
            | Exchange::Waiting { until } => Some(until),
        };
        let link = match self.link {
            Link::Down { until } if until > self.now.mono => Some(until),
            Link::Connecting { until, .. } => Some(until),
            Link::Down { .. } => None,
            Link::Online { presenting, .. } => presenting,
        };
        let dates = [
            self.token.map(|token| token.renew_at),
            match self.link {
                Link::Online { token_until, .. } => Some(token_until),
                Link::Down { .. } | Link::Connecting { .. } => None,
            },
        ];
        let dates = dates
            .into_iter()
            .flatten()
            .filter(|date| *date > self.now.unix)
            .map(|date| self.now.mono + date.since(self.now.unix).min(LOOK_AGAIN));
        let sooner = self.now.mono + LOOK_AGAIN;
        [exchange, link]
            .into_iter()
            .flatten()
            .chain(dates)
            .fold(sooner, Instant::min)
    }

    fn on_exchange(&mut self, event: Event, random: u64) {
        let attempt = self.exchange_attempt;
        let until = self.now.mono + ASK_WAIT_MAX;
        match (self.exchange, event) {
            (Exchange::Preparing { .. }, Event::Prepared { .. }) => {
                self.exchange = Exchange::Challenging { until };
                self.effects.push_back(Effect::Challenge { attempt });
            }
            (Exchange::Challenging { .. }, Event::Challenged { nonce, .. }) => {
                self.exchange = Exchange::Exchanging { until };
                self.in_doubt = true;
                let show = self.show;
                let exchange = Effect::Exchange {
                    attempt,
                    nonce,
                    show,
                };
                self.effects.push_back(exchange);
            }
            (
                Exchange::Exchanging { .. },
                Event::Granted {
                    token,
                    generation,
                    life,
                    ..
                },
            ) => {
                self.serial = self.serial.saturating_add(1);
                self.exchange = Exchange::Adopting {
                    until: self.now.mono + PREPARE_WAIT_MAX,
                    granted: Token::new(self.serial, life.0, life.1, random),
                };
                self.effects.push_back(Effect::Adopt {
                    attempt,
                    token,
                    generation,
                });
            }
            (Exchange::Adopting { granted, .. }, Event::Adopted { .. }) => {
                self.adopt(granted, random);
            }
            (Exchange::Idle | Exchange::Waiting { .. }, _) => {}
            (_, Event::ExchangeFailed { failure, .. }) => self.exchange_failed(failure, random),
            // An answer to a question we did not ask: the attempt's deadline will end it.
            (_, _) => {}
        }
    }

    fn adopt(&mut self, granted: Token, random: u64) {
        self.enrolled = true;
        self.in_doubt = false;
        (self.show, self.shown) = (Show::Last, 0);
        self.token = Some(granted);
        self.effects.push_back(Effect::Remint);
        if granted.is_due(self.now.unix) {
            // A token that is old when it comes must not make us ask in a loop.
            self.exchange_failed(Failure::Unreachable, random);
            return;
        }
        self.exchange = Exchange::Idle;
        self.exchange_pace.reset();
        // A fresh token is reason enough to try again at once.
        if let Link::Down { .. } = self.link {
            self.link = Link::Down {
                until: self.now.mono,
            };
        }
    }

    fn exchange_failed(&mut self, failure: Failure, random: u64) {
        let lane = match failure {
            Failure::Refused { refusal, known } => {
                self.in_doubt = false;
                if self.shows_more(refusal, known) {
                    // An answer that asks for more is no refusal: go on at once.
                    let until = self.now.mono;
                    self.exchange = Exchange::Waiting { until };
                    return;
                }
                let had_shown = std::mem::take(&mut self.show);
                self.shown = 0;
                let is_final = match refusal {
                    Refusal::InstallKey | Refusal::Proof | Refusal::Revoked => !self.enrolled,
                    Refusal::Malformed
                    | Refusal::Locked
                    | Refusal::Unavailable
                    | Refusal::Other(_) => false,
                };
                if is_final {
                    self.effects.push_back(Effect::GiveUp(refusal));
                }
                match refusal {
                    // A broker that does not know of chains does not read one.
                    Refusal::Malformed if had_shown != Show::Last => Lane::Refused,
                    Refusal::Malformed | Refusal::Unavailable => Lane::Ordinary,
                    Refusal::InstallKey
                    | Refusal::Proof
                    | Refusal::Locked
                    | Refusal::Revoked
                    | Refusal::Other(_) => Lane::Refused,
                }
            }
            Failure::Unreachable | Failure::NotPersisted => Lane::Ordinary,
        };
        let until = self.now.mono + self.exchange_pace.after_failure(lane, random);
        self.exchange = Exchange::Waiting { until };
    }

    /// Whether a refused proof is answered by showing more of the chain: once from its beginning, and then for as long as the broker
    /// knows more of it each time, which is at most up to where this host is.
    fn shows_more(&mut self, refusal: Refusal, known: Option<u64>) -> bool {
        if refusal != Refusal::Proof || !self.enrolled {
            return false;
        }
        let next = match (self.show, known) {
            (Show::Last, _) | (Show::Chain { after: None }, Some(_)) => known,
            (Show::Chain { after: Some(last) }, Some(known)) if known > last => Some(known),
            (Show::Chain { .. }, _) => return false,
        };
        if self.shown >= SHOWN_MAX {
            return false;
        }
        self.shown = self.shown.saturating_add(1);
        self.show = Show::Chain { after: next };
        true
    }

    fn on_link(&mut self, event: &Event, random: u64) {
        match (self.link, event) {
            (Link::Connecting { serial, .. }, Event::LinkUp { .. }) => {
                self.link = Link::Online {
                    since: self.now.mono,
                    serial,
                    token_until: self.token_until(),
                    presenting: None,
                };
                self.accepted();
            }
            (
                Link::Online {
                    since,
                    presenting: Some(_),
                    ..
                },
                Event::Renewed { .. },
            ) => {
                self.link = Link::Online {
                    since,
                    serial: self.token.map_or(0, |token| token.serial),
                    token_until: self.token_until(),
                    presenting: None,
                };
                self.accepted();
            }
            (Link::Connecting { .. } | Link::Online { .. }, Event::LinkDown { why, .. }) => {
                self.link_failed(*why, random);
            }
            (_, _) => {}
        }
    }

    /// The broker took the token that the link rests on.
    fn accepted(&mut self) {
        if let (Some(token), Link::Online { serial, .. }) = (&mut self.token, self.link)
            && token.serial == serial
        {
            token.is_fresh = false;
        }
    }

    fn link_failed(&mut self, why: Down, random: u64) {
        if let Link::Online { since, .. } = self.link
            && self.now.mono >= since + STEADY_AFTER
        {
            self.link_pace.reset();
        }
        let refused = match why {
            Down::Code(code) => is_refusal(code),
            Down::Lost | Down::Closed => false,
        };
        // A token that was taken before, or is from before an answer that was lost, may be void through nobody's fault: the broker's key
        // was replaced, or the host's went on. A fresh one is fetched at once. The refusal of a fresh one is for people to settle, and so
        // is another machine that has taken our place.
        let was_fresh = self.token.is_some_and(|token| token.is_fresh) && !self.in_doubt;
        let was_online = matches!(self.link, Link::Online { .. });
        let is_taken_over = was_online && why == Down::Code(TAKEN_OVER);
        let lane = if refused && (was_fresh || is_taken_over) {
            Lane::Refused
        } else {
            Lane::Ordinary
        };
        let until = self.now.mono + self.link_pace.after_failure(lane, random);
        self.link = Link::Down { until };
        if refused {
            self.token = None;
            if self.exchange == Exchange::Idle {
                self.exchange = Exchange::Waiting { until };
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        match self.link {
            Link::Down { .. } => {}
            Link::Connecting { .. } | Link::Online { .. } => {
                let attempt = self.link_attempt;
                self.effects.push_back(Effect::Close { attempt });
            }
        }
    }

    /// Begins what is due, and ends what took too long.
    fn advance(&mut self, random: u64) {
        if self.stopping {
            return;
        }
        self.advance_link(random);
        self.advance_exchange(random);
        // Once more: an exchange that ended just now may have let a link begin.
        self.advance_link(random);
    }

    fn advance_exchange(&mut self, random: u64) {
        match self.exchange {
            Exchange::Preparing { until }
            | Exchange::Challenging { until }
            | Exchange::Exchanging { until }
            | Exchange::Adopting { until, .. } => {
                if self.now.mono >= until {
                    self.exchange_failed(Failure::Unreachable, random);
                }
                return;
            }
            Exchange::Waiting { until } if self.now.mono < until => return,
            Exchange::Waiting { .. } | Exchange::Idle => self.exchange = Exchange::Idle,
        }
        let is_connecting = matches!(self.link, Link::Connecting { .. });
        let is_wanted = self.token.is_none_or(|token| {
            token.is_due(self.now.unix) || !token.is_presentable(self.now.unix)
        });
        if is_wanted && !is_connecting {
            self.exchange_attempt = self.exchange_attempt.saturating_add(1);
            let attempt = self.exchange_attempt;
            self.exchange = Exchange::Preparing {
                until: self.now.mono + PREPARE_WAIT_MAX,
            };
            self.effects.push_back(Effect::Prepare { attempt });
        }
    }

    fn advance_link(&mut self, random: u64) {
        let attempt = self.link_attempt;
        match self.link {
            Link::Connecting { until, .. } if self.now.mono >= until => {
                self.effects.push_back(Effect::Close { attempt });
                self.link_failed(Down::Lost, random);
            }
            Link::Online {
                presenting: Some(until),
                ..
            } if self.now.mono >= until => {
                self.effects.push_back(Effect::Close { attempt });
                self.link_failed(Down::Lost, random);
            }
            Link::Online { token_until, .. } if self.now.unix >= token_until => {
                self.effects.push_back(Effect::Close { attempt });
                self.link_failed(Down::Lost, random);
            }
            Link::Online {
                since,
                serial,
                token_until,
                presenting: None,
            } => {
                let fresh = self
                    .token
                    .filter(|token| token.serial != serial && token.is_presentable(self.now.unix));
                if fresh.is_some() {
                    self.effects.push_back(Effect::Present { attempt });
                    self.link = Link::Online {
                        since,
                        serial,
                        token_until,
                        presenting: Some(self.now.mono + PRESENT_WAIT_MAX),
                    };
                }
            }
            Link::Down { until } if self.now.mono >= until => self.connect(),
            Link::Connecting { .. } | Link::Online { .. } | Link::Down { .. } => {}
        }
    }

    fn connect(&mut self) {
        let is_at_rest = match self.exchange {
            Exchange::Idle | Exchange::Waiting { .. } => true,
            Exchange::Preparing { .. }
            | Exchange::Challenging { .. }
            | Exchange::Exchanging { .. }
            | Exchange::Adopting { .. } => false,
        };
        let usable = self
            .token
            .filter(|token| token.is_presentable(self.now.unix));
        if let (Some(token), true) = (usable, is_at_rest) {
            self.link_attempt = self.link_attempt.saturating_add(1);
            let attempt = self.link_attempt;
            self.link = Link::Connecting {
                until: self.now.mono + CONNECT_WAIT_MAX,
                serial: token.serial,
            };
            self.effects.push_back(Effect::Connect { attempt });
        }
    }

    fn token_until(&self) -> UnixMillis {
        self.token.map_or(self.now.unix, |token| token.expires)
    }
}

#[cfg(test)]
mod tests;
