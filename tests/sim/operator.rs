//! An operator: its real core, a disk, its clocks, and the little that `agent::drive` does between them.

use agent::core::chain::{self, Link, Show};
use agent::core::host::identity::{Identity, life_of};
use agent::core::host::{Effect, Event, Failure, Host};
use agent::core::time::{Reading, ServerClock};
use agent::core::witness::Witness;
use protocol::exchange::{Refusal, Request};
use protocol::id::HostId;
use protocol::install_key::InstallKey;
use protocol::signed;
use protocol::time::{Now, UnixMillis};
use std::time::{Duration, Instant};

use crate::orders::{Desk, Shelf};
use crate::random::Random;

/// What outlives the process. Nothing else does.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) identity: Option<Vec<u8>>,
    pub(crate) chain: Vec<Link>,
    pub(crate) shelf: Shelf,
}

/// The machine's clocks at an instant of the simulation.
#[derive(Clone)]
pub(crate) struct Machine {
    boot_id: String,
    booted_ms: u64,
    /// The wall clock is off by this much, and may be off by something else at any time.
    pub(crate) wall_ahead_ms: i64,
}

impl Machine {
    pub(crate) fn boot(at_ms: u64, random: &mut Random) -> Self {
        Self {
            boot_id: random.boot_id(),
            booted_ms: at_ms,
            wall_ahead_ms: 0,
        }
    }

    fn reading(&self, at_ms: u64, epoch: UnixMillis) -> Reading {
        let wall = (epoch.0 + at_ms).saturating_add_signed(self.wall_ahead_ms);
        Reading {
            wall: UnixMillis(wall),
            boot: Duration::from_millis(at_ms - self.booted_ms),
        }
    }
}

/// What is the same for everybody: when the simulation began, by each kind of clock.
#[derive(Clone, Copy)]
pub(crate) struct Epoch {
    pub(crate) mono: Instant,
    pub(crate) unix: UnixMillis,
}

/// The process; a restart makes another of the same disk.
pub(crate) struct Process {
    pub(crate) host: Host,
    pub(crate) identity: Identity,
    clock: ServerClock,
    pub(crate) desk: Desk,
    /// The link it holds or opens.
    pub(crate) link: Option<u64>,
}

pub(crate) struct Operator {
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    /// None while it is down.
    pub(crate) process: Option<Process>,
    /// Counts its starts: news for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) gave_up: Option<Refusal>,
    epoch: Epoch,
}

impl Operator {
    pub(crate) fn new(disk: Disk, epoch: Epoch, at_ms: u64, random: &mut Random) -> Self {
        Self {
            disk,
            machine: Machine::boot(at_ms, random),
            process: None,
            life: 0,
            gave_up: None,
            epoch,
        }
    }

    /// Starts the process from its disk, as `agent::drive` does.
    pub(crate) fn start(&mut self, host: &HostId, at_ms: u64, random: &mut Random) {
        self.life += 1;
        let identity = match &self.disk.identity {
            Some(bytes) => Identity::from_bytes(bytes).unwrap(),
            None => Identity::new(host.clone()),
        };
        let reading = self.machine.reading(at_ms, self.epoch.unix);
        let boot_id = self.machine.boot_id.clone();
        let floor = self.epoch.unix;
        let clock = ServerClock::new(floor, boot_id, identity.fix.clone(), reading);
        let token = identity.token_life().filter(|_| clock.is_fixed());
        let now = Now {
            mono: self.epoch.mono + Duration::from_millis(at_ms),
            unix: clock.now(reading),
        };
        self.process = Some(Process {
            host: Host::new(identity.current.is_some(), token, now, random.draw()),
            identity,
            clock,
            desk: Desk::open(&mut self.disk.shelf),
            link: None,
        });
    }

    /// The process ends without a word.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn is_online(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.host.is_online())
    }

    pub(crate) fn now(&self, at_ms: u64) -> Now {
        let reading = self.machine.reading(at_ms, self.epoch.unix);
        let clock = &self.process.as_ref().unwrap().clock;
        Now {
            mono: self.epoch.mono + Duration::from_millis(at_ms),
            unix: clock.now(reading),
        }
    }

    /// When the core wants to be woken, in milliseconds of the simulation.
    pub(crate) fn wake_ms(&self) -> Option<u64> {
        let until = self.process.as_ref()?.host.poll_timeout();
        let after = until.saturating_duration_since(self.epoch.mono);
        Some(u64::try_from(after.as_millis()).unwrap() + 1)
    }

    pub(crate) fn tell(&mut self, event: Event, at_ms: u64, random: &mut Random) {
        let now = self.now(at_ms);
        let process = self.process.as_mut().unwrap();
        process.host.handle(event, now, random.draw());
    }

    pub(crate) fn wake(&mut self, at_ms: u64, random: &mut Random) {
        let now = self.now(at_ms);
        let process = self.process.as_mut().unwrap();
        process.host.handle_timeout(now, random.draw());
    }

    pub(crate) fn learn(&mut self, time: UnixMillis, at_ms: u64) {
        let reading = self.machine.reading(at_ms, self.epoch.unix);
        self.process.as_mut().unwrap().clock.learn(time, reading);
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.process.as_mut()?.host.poll_effect()
    }

    /// Carries out `Prepare`; `disk_ok` says whether the disk takes it.
    pub(crate) fn prepare(
        &mut self,
        attempt: u64,
        at_ms: u64,
        disk_ok: bool,
        random: &mut Random,
    ) -> Event {
        let now = self.now(at_ms).unix;
        let process = self.process.as_mut().unwrap();
        if process.identity.prepare(&random.seed(), now) {
            if !disk_ok {
                process.identity.pending = None;
                let failure = Failure::NotPersisted;
                return Event::ExchangeFailed { attempt, failure };
            }
            self.disk.identity = Some(process.identity.to_bytes().to_vec());
        }
        Event::Prepared { attempt }
    }

    /// Carries out `Adopt`.
    pub(crate) fn adopt(
        &mut self,
        attempt: u64,
        token: Vec<u8>,
        generation: u64,
        disk_ok: bool,
    ) -> Event {
        let process = self.process.as_mut().unwrap();
        if let Some(link) = process.identity.link() {
            if !disk_ok {
                let failure = Failure::NotPersisted;
                return Event::ExchangeFailed { attempt, failure };
            }
            self.disk.chain = chain::with(std::mem::take(&mut self.disk.chain), link);
        }
        let adopted = process.identity.adopt(token, generation);
        process.identity.fix = process.clock.fix().cloned();
        if adopted.is_err() || !disk_ok {
            let failure = Failure::NotPersisted;
            return Event::ExchangeFailed { attempt, failure };
        }
        self.disk.identity = Some(process.identity.to_bytes().to_vec());
        Event::Adopted { attempt }
    }

    /// The signed request. Its key is on disk before anybody hears of it.
    pub(crate) fn request(&self, nonce: [u8; 32], install_key: &InstallKey, show: Show) -> Vec<u8> {
        let identity = &self.process.as_ref().unwrap().identity;
        let chain = match show {
            Show::Last => None,
            Show::Chain { after } => Some(chain::shown(self.disk.chain.iter().cloned(), after)),
        };
        let request = identity
            .request(
                nonce,
                Some(install_key),
                chain,
                &Witness::default(),
                UnixMillis(0),
            )
            .unwrap();
        let on_disk = Identity::from_bytes(self.disk.identity.as_ref().unwrap()).unwrap();
        let sent: Request = signed::peek(&request).unwrap();
        let pending = on_disk.pending.expect("a key was sent that is not on disk");
        assert!(
            pending.key.public() == sent.key,
            "a key was sent that is not on disk"
        );
        request
    }

    /// The token to present: never one that is known to be expired.
    pub(crate) fn token(&self, at_ms: u64) -> Vec<u8> {
        let current = self.process.as_ref().unwrap().identity.current.as_ref();
        let token = current.unwrap().token.clone();
        let (_, expires) = life_of(&token).unwrap();
        let now = self.now(at_ms).unix;
        assert!(
            now < expires,
            "a token was presented that its holder knows to be expired"
        );
        token
    }
}
