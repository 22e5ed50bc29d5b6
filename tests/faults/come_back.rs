//! Fifty hosts whose keys went on after the backup that their broker is restored from: the operator's own core, on real TLS.

use std::{fs, os::unix::fs::PermissionsExt as _};

use agent::core::{
    chain::{Link, Show, shown},
    host::{
        Effect, Event, Failure, Host,
        identity::{Identity, life_of},
    },
    witness::Witness,
};
use anyhow::{Context as _, bail};
use protocol::{
    exchange::Refusal,
    id::HostId,
    install_key::InstallKey,
    key::{Dispatcher, Secret},
    time::Now,
};
use tests::{enroll, local, wait, world::World};
use zeroize::Zeroizing;

const HOSTS: usize = 50;
/// Renewals of one host after the backup that no single request shows.
const MANY: usize = 30;

/// A host: its identity, and the chain that it keeps.
#[derive(Debug)]
struct Machine {
    identity: Identity,
    chain: Vec<Link>,
}

impl Machine {
    fn new(host: &HostId) -> Self {
        Self {
            identity: Identity::new(host.clone()),
            chain: Vec::new(),
        }
    }

    /// The same machine once more.
    fn copy(&self) -> Self {
        Self {
            identity: Identity::from_bytes(&self.identity.to_bytes()).unwrap(),
            chain: self.chain.clone(),
        }
    }

    /// Has the operator's core get a token, and gives how many exchanges that took.
    fn get_token(&mut self, world: &World, install: Option<&InstallKey>) -> anyhow::Result<usize> {
        let now = now();
        let mut host = Host::new(self.identity.current.is_some(), None, now, 0);
        let (mut exchanges, mut refusal) = (0, None);
        loop {
            let effect = host.poll_effect().with_context(|| format!("{refusal:?}"))?;
            let event = match effect {
                Effect::Prepare { attempt } => {
                    let mut seed = Zeroizing::new([0; 32]);
                    getrandom::fill(&mut *seed).map_err(|error| anyhow::anyhow!("{error}"))?;
                    self.identity.prepare(&seed, now.unix);
                    Event::Prepared { attempt }
                }
                Effect::Challenge { attempt } => {
                    let nonce = enroll::challenge(world)?.nonce.into_array();
                    Event::Challenged { attempt, nonce }
                }
                Effect::Exchange {
                    attempt,
                    nonce,
                    show,
                } => {
                    exchanges += 1;
                    let chain = match show {
                        Show::Last => None,
                        Show::Chain { after } => Some(shown(self.chain.iter().cloned(), after)),
                    };
                    let request =
                        self.identity
                            .request(nonce, install, chain, &Witness::default(), now.unix);
                    match enroll::exchange(world, &request.context("no request")?)? {
                        Ok(grant) => {
                            let token = grant.token.into_vec();
                            Event::Granted {
                                attempt,
                                life: life_of(&token).context("no token")?,
                                token,
                                generation: grant.generation,
                            }
                        }
                        Err(refused) => {
                            refusal = Some(refused.reason);
                            let failure = Failure::Refused {
                                refusal: refused.reason,
                                known: refused.generation,
                            };
                            Event::ExchangeFailed { attempt, failure }
                        }
                    }
                }
                Effect::Adopt {
                    attempt,
                    token,
                    generation,
                } => {
                    self.chain.extend(self.identity.link());
                    self.identity.adopt(token, generation)?;
                    Event::Adopted { attempt }
                }
                Effect::Connect { .. } => return Ok(exchanges),
                Effect::Remint => continue,
                Effect::Present { .. } | Effect::Close { .. } | Effect::GiveUp(_) => {
                    bail!("{effect:?}")
                }
            };
            host.handle(event, now, 0);
        }
    }
}

fn now() -> Now {
    Now {
        mono: wait::mono(),
        unix: wait::now(),
    }
}

fn words(world: &World) -> Vec<String> {
    let audit = local::get_json(&world.socket(), "/v1/audit").unwrap();
    let rows = audit["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            format!(
                "{} {}",
                row["name"].as_str().unwrap(),
                row["subject"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn fifty_hosts_come_back_by_their_chains_after_a_declared_restore() {
    let mut world = World::with_broker().unwrap();
    let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
    enroll::add_dispatcher(&world, &dispatcher).unwrap();
    let mut machines: Vec<Machine> = (0..HOSTS)
        .map(|n| {
            let host = HostId::new(&format!("edge-{n}")).unwrap();
            let install = enroll::add_host(&world, &host, &dispatcher).unwrap();
            let mut machine = Machine::new(&host);
            machine.get_token(&world, Some(&install)).unwrap();
            machine
        })
        .collect();
    let dir = world.path("");
    let text = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (backup, keys, passphrase) = (text("backup"), text("keys.sealed"), text("passphrase"));
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let with = ["--passphrase-file", passphrase.as_str()];
    let order = ["backup", "--to", &backup, "--keys-to", &keys];
    world.outhaul_ok(&[&order[..], &with].concat()).unwrap();

    // Several rotations of every host's key after it, of the issuer's too, and a host that is new.
    let twin = machines[7].copy();
    world.outhaul_ok(&["key", "rotate", "issuer"]).unwrap();
    for (n, machine) in machines.iter_mut().enumerate() {
        let renewals = if n == 0 { MANY } else { 1 + n % 4 };
        for _ in 0..renewals {
            assert_eq!(machine.get_token(&world, None).unwrap(), 1);
        }
    }
    let late = HostId::new("edge-late").unwrap();
    let install = enroll::add_host(&world, &late, &dispatcher).unwrap();
    let mut late = Machine::new(&late);
    late.get_token(&world, Some(&install)).unwrap();

    world.kill_broker();
    fs::rename(world.path("broker"), world.path("broker.lost")).unwrap();
    let data = text("broker");
    let order = [
        "restore",
        "--from",
        &backup,
        "--data-dir",
        &data,
        "--keys-from",
        &keys,
    ];
    world.outhaul_ok(&[&order[..], &with].concat()).unwrap();
    world.start_broker().unwrap();

    // All at once, each through the operator's own core; nobody has to wait for a slow lane.
    let begun = now().mono;
    let world = &world;
    let exchanges: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = machines
            .iter_mut()
            .map(|machine| scope.spawn(|| machine.get_token(world, None).unwrap()))
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    println!("fifty hosts were back after {:?}", begun.elapsed());
    assert!(
        exchanges[1..].iter().all(|count| *count == 2),
        "{exchanges:?}"
    );
    assert_eq!(exchanges[0], 3, "a chain longer than a request");
    for (n, machine) in machines.iter().enumerate() {
        let renewals = if n == 0 { MANY } else { 1 + n % 4 };
        let expected = u64::try_from(renewals + 2).unwrap();
        assert_eq!(machine.identity.generation(), expected, "edge-{n}");
    }
    let audit = words(world);
    for n in 0..HOSTS {
        assert!(audit.contains(&format!("host.caught_up edge-{n}")), "{n}");
    }
    // From here on as ever.
    for machine in &mut machines {
        assert_eq!(machine.get_token(world, None).unwrap(), 1);
    }
    // One that enrolled after the backup cannot be known; a machine that was left behind is found out.
    let refused = late.get_token(world, None).unwrap_err();
    assert!(
        format!("{refused:#}").contains(&format!("{:?}", Refusal::Proof)),
        "{refused:#}"
    );
    let mut twin = twin;
    assert!(twin.get_token(world, None).is_err());
    assert!(words(world).contains(&"host.locked edge-7".to_owned()));
}
