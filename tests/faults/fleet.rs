//! Two hundred hosts whose broker comes back after every token of theirs has ended: all are up again, and none was in a hurry.
//!
//! Each is the operator's real core with its real identity, over real TLS to a real broker; what is left out is the engine and the disk.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent::core::host::{
    Down, Effect, Event, Failure, Host as Session,
    identity::{Identity, life_of},
};
use agent::core::witness::Witness;
use protocol::{
    cbor,
    exchange::{CHALLENGE_PATH, Challenge, EXCHANGE_PATH, Grant, Refused},
    id::HostId,
    install_key::InstallKey,
    key::{Dispatcher, Secret},
    limits::EXCHANGE_BYTES_MAX,
    mqtt::ReasonCode,
    time::{Now, UnixMillis},
};
use tests::{
    client::{Client, Said},
    enroll, wait,
    world::World,
};
use zeroize::Zeroizing;

const HOSTS: usize = 200;
/// As short as a broker allows, in seconds.
const TOKEN_LIFE_S: u64 = 20;
/// What one host needs to come back: a challenge, an answer to it, and a link.
const CONNECTIONS_EACH: u64 = 3;
/// The operator's longest wait is a minute, and two hundred threads share two processors with the broker.
const BACK_WAIT: Duration = Duration::from_secs(150);

/// What all of them share.
struct Field {
    port: u16,
    ca: PathBuf,
    is_over: AtomicBool,
    online: AtomicUsize,
    /// Connections that somebody began who was not online, by the second of the broker's return in which that was; before it, in second 0.
    dialled: Mutex<BTreeMap<u64, u64>>,
    /// When the broker came back, in milliseconds since 1970; 0 before that.
    back_ms: AtomicU64,
}

impl Field {
    fn dials(&self) {
        let back_ms = self.back_ms.load(Ordering::Relaxed);
        let second = match back_ms {
            0 => 0,
            back_ms => 1 + wait::now().since(UnixMillis(back_ms)).as_secs(),
        };
        *self.dialled.lock().unwrap().entry(second).or_default() += 1;
    }
}

/// One host.
struct Member {
    field: Arc<Field>,
    host: HostId,
    install_key: InstallKey,
    identity: Identity,
    session: Session,
    link: Option<(u64, Client)>,
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn now() -> Now {
    Now {
        mono: wait::mono(),
        unix: wait::now(),
    }
}

impl Member {
    fn run(mut self) {
        let mut was_online = false;
        while !self.field.is_over.load(Ordering::Relaxed) {
            while let Some(effect) = self.session.poll_effect() {
                if let Some(event) = self.carry_out(effect) {
                    self.session.handle(event, now(), random());
                }
            }
            let is_online = self.session.is_online();
            match (was_online, is_online) {
                (false, true) => drop(self.field.online.fetch_add(1, Ordering::Relaxed)),
                (true, false) => drop(self.field.online.fetch_sub(1, Ordering::Relaxed)),
                (true, true) | (false, false) => {}
            }
            was_online = is_online;
            if let Some(event) = self.look_at_link() {
                self.session.handle(event, now(), random());
            } else if wait::mono() >= self.session.poll_timeout() {
                self.session.handle_timeout(now(), random());
            } else {
                wait::pause();
            }
        }
    }

    /// The link is over if anything comes: nobody sends these hosts a command.
    fn look_at_link(&mut self) -> Option<Event> {
        let (attempt, client) = self.link.as_mut()?;
        if !client.has_news().unwrap_or(true) {
            return None;
        }
        let why = match client.receive() {
            Ok(Said::Disconnect(reason)) => Down::Code(reason.value()),
            Ok(_) | Err(_) => Down::Lost,
        };
        let attempt = *attempt;
        self.link = None;
        Some(Event::LinkDown { attempt, why })
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        let unreachable = |attempt| Event::ExchangeFailed {
            attempt,
            failure: Failure::Unreachable,
        };
        Some(match effect {
            Effect::Prepare { attempt } => {
                let mut seed = Zeroizing::new([0; 32]);
                getrandom::fill(&mut *seed).unwrap();
                self.identity.prepare(&seed, wait::now());
                Event::Prepared { attempt }
            }
            Effect::Challenge { attempt } => match self.ask(CHALLENGE_PATH, &[]) {
                Some((200, body)) => {
                    let said: Challenge = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).unwrap();
                    let nonce = said.nonce.into_array();
                    Event::Challenged { attempt, nonce }
                }
                _ => unreachable(attempt),
            },
            Effect::Exchange { attempt, nonce } => {
                let request = self
                    .identity
                    .request(
                        nonce,
                        Some(&self.install_key),
                        &Witness::default(),
                        wait::now(),
                    )
                    .unwrap();
                match self.ask(EXCHANGE_PATH, &request) {
                    Some((200, body)) => {
                        let grant: Grant = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).unwrap();
                        let token = grant.token.into_vec();
                        Event::Granted {
                            attempt,
                            generation: grant.generation,
                            life: life_of(&token).unwrap(),
                            token,
                        }
                    }
                    Some((_, body)) => match cbor::from_slice::<Refused>(&body, EXCHANGE_BYTES_MAX)
                    {
                        Ok(refused) => Event::ExchangeFailed {
                            attempt,
                            failure: Failure::Refused(refused.reason),
                        },
                        Err(_) => unreachable(attempt),
                    },
                    None => unreachable(attempt),
                }
            }
            Effect::Adopt {
                attempt,
                token,
                generation,
            } => {
                self.identity.adopt(token, generation).unwrap();
                Event::Adopted { attempt }
            }
            Effect::Connect { attempt } => match self.connect() {
                Ok((Said::ConnAck(ReasonCode::SUCCESS), client)) => {
                    self.link = Some((attempt, client));
                    Event::LinkUp { attempt }
                }
                Ok((Said::ConnAck(reason), _)) => Event::LinkDown {
                    attempt,
                    why: Down::Code(reason.value()),
                },
                Ok(_) | Err(_) => Event::LinkDown {
                    attempt,
                    why: Down::Lost,
                },
            },
            Effect::Present { attempt } => {
                let current = self.identity.current.as_ref().unwrap();
                let (_, client) = self.link.as_mut()?;
                match client.present(&current.token, &current.key) {
                    Ok(Said::Auth(_)) => Event::Renewed { attempt },
                    Ok(_) | Err(_) => {
                        self.link = None;
                        Event::LinkDown {
                            attempt,
                            why: Down::Lost,
                        }
                    }
                }
            }
            Effect::Close { attempt } => {
                self.link = None;
                Event::LinkDown {
                    attempt,
                    why: Down::Closed,
                }
            }
            Effect::Remint => return None,
            Effect::GiveUp(refusal) => panic!("{} gave up: {refusal}", self.host),
        })
    }

    /// Counts a connection of one that is not online; who is, renews.
    fn count(&self) {
        if !self.session.is_online() {
            self.field.dials();
        }
    }

    fn ask(&self, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.count();
        enroll::answer(self.field.port, &self.field.ca, path, body).ok()
    }

    fn connect(&self) -> anyhow::Result<(Said, Client)> {
        self.count();
        let current = self.identity.current.as_ref().unwrap();
        let mut client = Client::dial(self.field.port, &self.field.ca)?;
        let said = client.connect(self.host.as_str(), &current.token, &current.key)?;
        Ok((said, client))
    }
}

/// Waits until so many are online.
fn wait_online(field: &Field, wanted: usize, what: &str) {
    let all = wait::until_ok(BACK_WAIT, || {
        let online = field.online.load(Ordering::Relaxed);
        if online == wanted {
            Ok(())
        } else {
            Err(online)
        }
    });
    all.unwrap_or_else(|online| panic!("{what}: {online} online of {wanted}"));
}

#[test]
fn two_hundred_hosts_that_come_back_after_an_outage_longer_than_their_tokens_are_all_up_without_a_stampede()
 {
    let life = TOKEN_LIFE_S.to_string();
    let mut world = World::with_broker_flags(&["--token-life-s", &life]).unwrap();
    let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
    enroll::add_dispatcher(&world, &dispatcher).unwrap();
    let field = Arc::new(Field {
        port: world.port,
        ca: world.path("broker/keys/ca.crt"),
        is_over: AtomicBool::new(false),
        online: AtomicUsize::new(0),
        dialled: Mutex::default(),
        back_ms: AtomicU64::new(0),
    });
    let members: Vec<_> = (0..HOSTS)
        .map(|number| {
            let host = HostId::new(&format!("edge-{number}")).unwrap();
            let install_key = enroll::add(&world, &host, &dispatcher).unwrap();
            let member = Member {
                field: Arc::clone(&field),
                identity: Identity::new(host.clone()),
                host,
                install_key,
                session: Session::new(false, None, now(), random()),
                link: None,
            };
            std::thread::spawn(move || member.run())
        })
        .collect();
    wait_online(&field, HOSTS, "they enrol");

    world.kill_broker();
    let cut = wait::now();
    wait_online(&field, 0, "all notice");
    field.dialled.lock().unwrap().clear();
    // Three lifetimes: every token has ended, and everybody has tried for long.
    let lives = cut.plus(Duration::from_secs(3 * TOKEN_LIFE_S));
    let over = wait::until_ok(BACK_WAIT, || {
        if wait::now() > lives { Ok(()) } else { Err(()) }
    });
    over.unwrap();
    let in_vain = std::mem::take(&mut *field.dialled.lock().unwrap());
    field.back_ms.store(wait::now().0, Ordering::Relaxed);
    world.start_broker().unwrap();
    let ((), took) = wait::timed(|| wait_online(&field, HOSTS, "they come back"));

    let dialled = field.dialled.lock().unwrap().clone();
    field.is_over.store(true, Ordering::Relaxed);
    for member in members {
        member.join().unwrap();
    }
    let needed = HOSTS as u64 * CONNECTIONS_EACH;
    let begun: u64 = dialled.values().sum();
    let most = dialled.values().copied().max().unwrap();
    let in_vain: u64 = in_vain.values().sum();
    println!(
        "{HOSTS} hosts, all up {:.1} s after the broker: {begun} connections where {needed} do, {most} in the busiest second; {in_vain} in vain over {} s of outage",
        took.as_secs_f64(),
        3 * TOKEN_LIFE_S,
    );
    assert!(begun <= needed + needed / 4, "{begun} where {needed} do");
    assert!(most <= needed / 4, "a stampede: {dialled:?}");
}
