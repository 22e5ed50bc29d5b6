//! Operators, one broker, and a network that loses, delays and repeats between them. Time is a number.

use std::collections::BTreeMap;

use agent::core::host::{Down, Effect, Event, Failure};
use broker::core::hosts::HostState;
use broker::core::principal::Principal;
use broker::drive::No;
use protocol::exchange::Grant;
use protocol::id::HostId;
use protocol::install_key::InstallKey;
use protocol::possession::{Nonce, PROOF_BYTES, prove};
use protocol::time::UnixMillis;
use protocol::token;

use crate::broker::{Backup, Broker};
use crate::operator::{Disk, Epoch, Operator};
use crate::orders::{Cut, Desk, Shelf, Signer, launch};
use crate::random::Random;

/// MQTT 5: not authorized; taken over; ended by an administrator.
const NOT_AUTHORIZED: u8 = 0x87;
const TAKEN_OVER: u8 = 0x8e;
const ADMINISTRATIVE: u8 = 0x98;

/// A question or a link of one start of one operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    operator: usize,
    life: u64,
    attempt: u64,
}

enum Letter {
    AskNonce(Route),
    Nonce(Route, [u8; 32], UnixMillis),
    AskToken(Route, Vec<u8>),
    Answer(Route, Result<Grant, No>, UnixMillis),
    /// A token on a link, new or live.
    Token(Route, Vec<u8>),
    Prove(Route, Nonce),
    Proof(Route, Box<[u8; PROOF_BYTES]>),
    /// The broker took the token; the first one makes the link.
    Welcome(Route, bool),
    Down(Route, Down),
    Command(Route, Vec<u8>),
    Report(Route, u64, Vec<u8>),
    Acked(Route, u64),
    Start(usize),
}

/// The broker's side of a link.
struct Door {
    checking: Option<(Box<token::Grant>, Nonce)>,
    is_up: bool,
}

/// How bad things are.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) repeat: u64,
    pub(crate) delay_ms_max: u64,
    pub(crate) disk_failure: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        loss: 0,
        repeat: 0,
        delay_ms_max: 200,
        disk_failure: 0,
    };
    pub(crate) const FOUL: Self = Self {
        loss: 20,
        repeat: 10,
        delay_ms_max: 4_000,
        disk_failure: 3,
    };
}

pub(crate) struct World {
    pub(crate) at_ms: u64,
    pub(crate) random: Random,
    pub(crate) weather: Weather,
    pub(crate) broker: Broker,
    pub(crate) operators: Vec<Operator>,
    pub(crate) host: HostId,
    install_key: InstallKey,
    epoch: Epoch,
    letters: BTreeMap<(u64, u64), Letter>,
    posted: u64,
    doors: BTreeMap<Route, Door>,
    /// When the last letter of a link arrives: on a link nothing overtakes.
    last: BTreeMap<Route, u64>,
    /// Tokens presented: a claim about them must not hold for want of them.
    pub(crate) presented: u64,
    /// Power cuts in the middle of a command.
    pub(crate) cuts: u64,
    /// Whatever the broker answers to a request for a token is lost.
    pub(crate) answers_lost: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let host = HostId::new("edge-1").unwrap();
        let install_key = InstallKey::new(random.bytes(), random.seed());
        Self {
            at_ms: 0,
            weather: Weather::FOUL,
            broker: Broker::new(host.clone(), &install_key, &mut random),
            operators: Vec::new(),
            host,
            install_key,
            epoch: Epoch {
                mono: base(),
                unix: UnixMillis(1_800_000_000_000),
            },
            letters: BTreeMap::new(),
            posted: 0,
            doors: BTreeMap::new(),
            last: BTreeMap::new(),
            presented: 0,
            cuts: 0,
            answers_lost: false,
            random,
        }
    }

    pub(crate) fn unix(&self) -> UnixMillis {
        UnixMillis(self.epoch.unix.0 + self.at_ms)
    }

    /// The broker ends, and lives on from a backup.
    pub(crate) fn restore(&mut self, backup: &Backup, declared: bool) {
        let now = self.unix();
        self.broker.restore(backup, declared, now);
        self.broker.restart(&mut self.random);
        for route in self.doors.keys().copied().collect::<Vec<_>>() {
            self.cut(route);
        }
    }

    /// A machine with this disk, which starts now.
    pub(crate) fn add_operator(&mut self, disk: Disk) -> usize {
        let operator = Operator::new(disk, self.epoch, self.at_ms, &mut self.random);
        self.operators.push(operator);
        let index = self.operators.len() - 1;
        self.post(0, Letter::Start(index));
        index
    }

    /// Lives for `span_ms`.
    pub(crate) fn run(&mut self, span_ms: u64) {
        let end_ms = self.at_ms + span_ms;
        loop {
            let letter_ms = self.letters.keys().next().map(|(at_ms, _)| *at_ms);
            let wakes = self.operators.iter().filter_map(Operator::wake_ms);
            let next_ms = wakes.chain(letter_ms).min().unwrap_or(end_ms);
            if next_ms >= end_ms {
                self.at_ms = end_ms;
                return;
            }
            self.at_ms = self.at_ms.max(next_ms);
            while let Some(entry) = self.letters.first_entry()
                && entry.key().0 <= self.at_ms
            {
                let letter = entry.remove();
                self.deliver(letter);
            }
            for index in 0..self.operators.len() {
                if self.operators[index]
                    .wake_ms()
                    .is_some_and(|wake_ms| wake_ms <= self.at_ms)
                {
                    self.operators[index].wake(self.at_ms, &mut self.random);
                }
                self.run_effects(index);
            }
        }
    }

    /// Something goes wrong that is nobody's fault.
    pub(crate) fn mishap(&mut self) {
        let index = usize::try_from(self.random.below(self.operators.len() as u64)).unwrap();
        match self.random.below(6) {
            0 => self.restart(index, false),
            1 => self.restart(index, true),
            2 => {
                let span_ms = 10 * 365 * 24 * 3_600_000;
                let ahead_ms = i64::try_from(self.random.below(span_ms)).unwrap();
                let sign = if self.random.chance(50) { 1 } else { -1 };
                self.operators[index].machine.wall_ahead_ms = ahead_ms * sign;
            }
            3 => {
                self.broker.restart(&mut self.random);
                for route in self.doors.keys().copied().collect::<Vec<_>>() {
                    self.cut(route);
                }
            }
            _ => {
                let route = self.doors.keys().next().copied();
                route.into_iter().for_each(|route| self.cut(route));
            }
        }
    }

    /// The process, or the whole machine, ends at once and comes back a little later.
    pub(crate) fn restart(&mut self, index: usize, whole_machine: bool) {
        let operator = &mut self.operators[index];
        if operator.process.is_none() {
            return;
        }
        operator.kill();
        if whole_machine {
            let wall_ahead_ms = operator.machine.wall_ahead_ms;
            operator.machine = crate::operator::Machine::boot(self.at_ms, &mut self.random);
            operator.machine.wall_ahead_ms = wall_ahead_ms;
        }
        let after_ms = self.random.below(20_000);
        self.post(after_ms, Letter::Start(index));
    }

    fn post(&mut self, after_ms: u64, letter: Letter) {
        self.posted += 1;
        let due = (self.at_ms + after_ms, self.posted);
        self.letters.insert(due, letter);
    }

    /// Sends over HTTPS: each letter may be late or lost.
    fn send(&mut self, letter: impl Fn() -> Letter) {
        if self.random.chance(self.weather.loss) {
            return;
        }
        let after_ms = self.random.below(self.weather.delay_ms_max);
        self.post(after_ms, letter());
        if self.random.chance(self.weather.repeat) {
            let after_ms = self.random.below(self.weather.delay_ms_max);
            self.post(after_ms, letter());
        }
    }

    /// Sends on a link: in order, or the link is over.
    fn send_on(&mut self, route: Route, letter: Letter) {
        if self.random.chance(self.weather.loss / 4) {
            return self.cut(route);
        }
        let due_ms = self.at_ms + self.random.below(self.weather.delay_ms_max);
        let last_ms = self.last.entry(route).or_default();
        *last_ms = due_ms.max(*last_ms);
        let after_ms = *last_ms - self.at_ms;
        self.post(after_ms, letter);
    }

    fn cut(&mut self, route: Route) {
        self.doors.remove(&route);
        self.post(0, Letter::Down(route, Down::Lost));
    }

    /// The broker ends a link and says why.
    fn end(&mut self, route: Route, code: u8) {
        if self.doors.remove(&route).is_some() {
            self.post(10, Letter::Down(route, Down::Code(code)));
        }
    }

    fn operator_of(&mut self, route: Route) -> Option<&mut Operator> {
        let operator = self.operators.get_mut(route.operator)?;
        (operator.life == route.life && operator.process.is_some()).then_some(operator)
    }

    fn tell(&mut self, route: Route, event: Event, time: Option<UnixMillis>) {
        let at_ms = self.at_ms;
        let Some(operator) = self.operator_of(route) else {
            return;
        };
        if let Some(time) = time {
            operator.learn(time, at_ms);
        }
        let operator = &mut self.operators[route.operator];
        operator.tell(event, at_ms, &mut self.random);
        self.run_effects(route.operator);
    }

    fn deliver(&mut self, letter: Letter) {
        let (now, at_ms) = (self.unix(), self.at_ms);
        match letter {
            Letter::AskNonce(route) => {
                let nonce = self.broker.challenge(now, &mut self.random);
                self.send(|| Letter::Nonce(route, nonce, now));
            }
            Letter::Nonce(route, nonce, time) => {
                let attempt = route.attempt;
                self.tell(route, Event::Challenged { attempt, nonce }, Some(time));
            }
            Letter::AskToken(route, bytes) => {
                let answer = self.broker.exchange(&bytes, now, &mut self.random);
                if self.broker.state != HostState::Enrolled {
                    for route in self.doors.keys().copied().collect::<Vec<_>>() {
                        self.end(route, ADMINISTRATIVE);
                    }
                }
                if !self.answers_lost {
                    self.send(|| Letter::Answer(route, answer.clone(), now));
                }
            }
            Letter::Answer(route, answer, time) => {
                self.tell(route, answered(route.attempt, answer), Some(time));
            }
            Letter::Token(route, bytes) => self.take_token(route, &bytes),
            Letter::Prove(route, nonce) => {
                let own = self.random.bytes();
                if let Some(operator) = self.operator_of(route) {
                    let identity = &operator.process.as_ref().unwrap().identity;
                    let proof = prove(&identity.current.as_ref().unwrap().key, &nonce, &own);
                    self.send_on(route, Letter::Proof(route, Box::new(proof)));
                }
            }
            Letter::Proof(route, proof) => self.take_proof(route, &proof),
            Letter::Welcome(route, is_first) => {
                let attempt = route.attempt;
                let event = if is_first {
                    Event::LinkUp { attempt }
                } else {
                    Event::Renewed { attempt }
                };
                if self.is_its_link(route) {
                    self.tell(route, event, is_first.then_some(now));
                    if is_first {
                        self.attach(route);
                    }
                }
            }
            Letter::Down(route, why) => {
                let attempt = route.attempt;
                if let Some(operator) = self.operator_of(route) {
                    let process = operator.process.as_mut().unwrap();
                    if process.link == Some(attempt) {
                        process.link = None;
                        self.tell(route, Event::LinkDown { attempt, why }, None);
                    }
                }
            }
            Letter::Command(route, bytes) => {
                if self.is_its_link(route) {
                    self.at_desk(route.operator, |desk, shelf, signer| {
                        desk.take(shelf, &bytes, signer).map(drop)
                    });
                    self.send_reports(route);
                }
            }
            Letter::Report(route, number, bytes) => {
                if self.doors.contains_key(&route) {
                    assert!(self.broker.store_report(&bytes), "a report is refused");
                    self.send_on(route, Letter::Acked(route, number));
                }
            }
            Letter::Acked(route, number) => {
                if self.is_its_link(route) {
                    let stored = self.broker.reports.contains_key(&number);
                    assert!(stored, "acknowledged before it was written down");
                    let operator = &mut self.operators[route.operator];
                    let desk = &mut operator.process.as_mut().unwrap().desk;
                    desk.acked(&mut operator.disk.shelf, number);
                }
            }
            Letter::Start(index) => {
                let operator = &mut self.operators[index];
                if operator.process.is_none() && operator.gave_up.is_none() {
                    operator.start(&self.host, at_ms, &mut self.random);
                    self.run_effects(index);
                }
            }
        }
    }

    fn is_its_link(&mut self, route: Route) -> bool {
        self.operator_of(route)
            .is_some_and(|operator| operator.process.as_ref().unwrap().link == Some(route.attempt))
    }

    /// The link is up: what an earlier start left is taken up, open commands come, and what is owed goes.
    fn attach(&mut self, route: Route) {
        self.at_desk(route.operator, |desk, shelf, signer| {
            desk.outbox.link_lost();
            desk.take_up(shelf, signer)
        });
        for bytes in self.broker.open() {
            self.send_on(route, Letter::Command(route, bytes));
        }
        self.send_reports(route);
    }

    /// A dispatcher submits a command; it goes out at once, and twice if the network likes.
    pub(crate) fn submit(&mut self, number: u8) {
        let (id, bytes) = launch(number, &self.host, self.unix());
        self.broker.commands.insert(id, (bytes.clone(), false));
        let up = self.doors.iter().find(|(_, door)| door.is_up);
        if let Some(route) = up.map(|(route, _)| *route) {
            self.send_on(route, Letter::Command(route, bytes.clone()));
            if self.random.chance(self.weather.repeat * 3) {
                self.send_on(route, Letter::Command(route, bytes));
            }
        }
    }

    /// Does something at an operator's desk; a power cut in the middle restarts it.
    fn at_desk(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Desk, &mut Shelf, &Signer<'_>) -> Result<(), Cut>,
    ) {
        let now = self.operators[index].now(self.at_ms).unix;
        let is_cut = self.random.chance(self.weather.loss);
        let fuse = is_cut.then(|| self.random.below(5));
        let operator = &mut self.operators[index];
        let process = operator.process.as_mut().unwrap();
        let signer = Signer {
            host: &self.host,
            key: &process.identity.current.as_ref().unwrap().key,
            now,
        };
        process.desk.fuse = fuse;
        let done = work(&mut process.desk, &mut operator.disk.shelf, &signer);
        process.desk.fuse = None;
        if let Err(Cut) = done {
            self.cuts += 1;
            self.restart(index, true);
        }
    }

    fn send_reports(&mut self, route: Route) {
        loop {
            let at_ms = self.at_ms;
            let Some(operator) = self.operator_of(route) else {
                return;
            };
            let mono = operator.now(at_ms).mono;
            let desk = &mut operator.process.as_mut().unwrap().desk;
            let Some((number, bytes)) = desk.next_report(&operator.disk.shelf, mono) else {
                return;
            };
            self.send_on(route, Letter::Report(route, number, bytes));
        }
    }

    fn take_token(&mut self, route: Route, bytes: &[u8]) {
        let grant = self.broker.check_token(bytes, self.unix());
        let nonce = self.random.bytes();
        let Some(door) = self.doors.get_mut(&route) else {
            return;
        };
        match grant {
            Some(grant) => {
                door.checking = Some((Box::new(grant), nonce));
                self.send_on(route, Letter::Prove(route, nonce));
            }
            None => self.end(route, NOT_AUTHORIZED),
        }
    }

    fn take_proof(&mut self, route: Route, proof: &[u8; PROOF_BYTES]) {
        let checking = self
            .doors
            .get_mut(&route)
            .and_then(|door| door.checking.take());
        let Some((grant, nonce)) = checking else {
            return;
        };
        if Principal::prove(*grant, &nonce, proof).is_none() {
            return self.end(route, NOT_AUTHORIZED);
        }
        // One link for each host: the older one is told.
        let older: Vec<Route> = self
            .doors
            .iter()
            .filter(|(_, door)| door.is_up)
            .map(|(route, _)| *route)
            .collect();
        for older in older.into_iter().filter(|older| *older != route) {
            self.end(older, TAKEN_OVER);
        }
        let Some(door) = self.doors.get_mut(&route) else {
            return;
        };
        let is_first = !std::mem::replace(&mut door.is_up, true);
        self.send_on(route, Letter::Welcome(route, is_first));
    }

    fn run_effects(&mut self, index: usize) {
        while let Some(effect) = self.operators[index].poll_effect() {
            self.run_effect(index, effect);
        }
    }

    fn run_effect(&mut self, index: usize, effect: Effect) {
        let at_ms = self.at_ms;
        let disk_ok = !self.random.chance(self.weather.disk_failure);
        let operator = &mut self.operators[index];
        let life = operator.life;
        let route = |attempt| Route {
            operator: index,
            life,
            attempt,
        };
        match effect {
            Effect::Prepare { attempt } => {
                let event = operator.prepare(attempt, at_ms, disk_ok, &mut self.random);
                operator.tell(event, at_ms, &mut self.random);
            }
            Effect::Challenge { attempt } => self.send(|| Letter::AskNonce(route(attempt))),
            Effect::Exchange {
                attempt,
                nonce,
                show,
            } => {
                let request = operator.request(nonce, &self.install_key, show);
                self.send(|| Letter::AskToken(route(attempt), request.clone()));
            }
            Effect::Adopt {
                attempt,
                token,
                generation,
            } => {
                let event = operator.adopt(attempt, token, generation, disk_ok);
                operator.tell(event, at_ms, &mut self.random);
            }
            Effect::Remint => {}
            Effect::Connect { attempt } => {
                self.presented += 1;
                let token = operator.token(at_ms);
                operator.process.as_mut().unwrap().link = Some(attempt);
                let door = Door {
                    checking: None,
                    is_up: false,
                };
                self.doors.insert(route(attempt), door);
                self.send_on(route(attempt), Letter::Token(route(attempt), token));
            }
            Effect::Present { attempt } => {
                self.presented += 1;
                let token = operator.token(at_ms);
                self.send_on(route(attempt), Letter::Token(route(attempt), token));
            }
            Effect::Close { attempt } => {
                self.doors.remove(&route(attempt));
                self.post(0, Letter::Down(route(attempt), Down::Closed));
            }
            Effect::GiveUp(refusal) => {
                operator.gave_up = Some(refusal);
                operator.disk.identity = None;
                operator.kill();
            }
        }
    }
}

fn answered(attempt: u64, answer: Result<Grant, No>) -> Event {
    match answer {
        Ok(grant) => {
            let token = grant.token.into_vec();
            let life = agent::core::host::identity::life_of(&token).unwrap();
            Event::Granted {
                attempt,
                token,
                generation: grant.generation,
                life,
            }
        }
        Err(No { reason, known }) => Event::ExchangeFailed {
            attempt,
            failure: Failure::Refused {
                refusal: reason,
                known,
            },
        },
    }
}

/// Where the waits of a world begin. Which instant it is makes no difference.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can be had in no other way; it is read once and only added to"
)]
fn base() -> std::time::Instant {
    std::time::Instant::now()
}
