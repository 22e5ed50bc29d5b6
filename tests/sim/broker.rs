//! The broker's pure rules over a table in memory: what `broker::drive` does with its store, without the store.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::core::catch_up::Link;
use broker::core::challenge::Challenges;
use broker::core::dedup::{Sighting, StreamTable};
use broker::core::exchange::{
    Decision, HostKey, Known, Since, Terms, decide, refusal_of_redemption, refusal_of_renewal,
};
use broker::core::hosts::{
    HostState, Identity, InstallKeyFacts, InstallKeyState, Redemption, RenewRefusal, Renewal, Seen,
    judge_redemption, judge_renewal, secret_matches,
};
use broker::core::incarnation::{History, Incarnation, Restored};
use broker::drive::No;
use protocol::exchange::{Grant, Refusal, Request, verify_request};
use protocol::id::{CommandId, HostId};
use protocol::install_key::InstallKey;
use protocol::key::{Host, Issuer, Public, Secret};
use protocol::limits::HOST_TOKEN_LIFE_S_MAX;
use protocol::report;
use protocol::signed;
use protocol::time::UnixMillis;
use protocol::token::{self, HostTerms, mint_host};
use serde_bytes::ByteBuf;

use crate::random::Random;

const AUDIENCE: &str = "broker.example:8883";
/// A token's hour, and the owner's three days.
const AWAY_MAX: Duration = Duration::from_secs(73 * 3600);

pub(crate) struct Broker {
    host: HostId,
    issuer: Secret<Issuer>,
    challenges: Challenges,
    pub(crate) state: HostState,
    pub(crate) keys: Vec<HostKey>,
    kid: [u8; 8],
    secret_sha256: [u8; 32],
    used: Option<([u8; 32], u64)>,
    /// How often an install key was redeemed for a new key.
    pub(crate) enrolments: u64,
    /// How often a lost answer was given again.
    pub(crate) repeats: u64,
    /// How often a request came so late that the host had its next key.
    pub(crate) late: u64,
    /// Commands as they were signed, and whether a report settled them.
    pub(crate) commands: BTreeMap<CommandId, (Vec<u8>, bool)>,
    streams: StreamTable,
    history: History,
    /// Keys that were recorded since their host showed them.
    pub(crate) caught_up: u64,
    /// Reports on its disk, by number.
    pub(crate) reports: BTreeMap<u64, Vec<u8>>,
}

/// What a backup holds of a broker, as far as its host is concerned.
pub(crate) struct Backup {
    state: HostState,
    keys: Vec<HostKey>,
    made: UnixMillis,
}

fn first_life() -> Incarnation {
    Incarnation {
        number: 1,
        id: [0; 16],
        first: 0,
        began: UnixMillis(0),
        restored: None,
    }
}

const fn behind(generation: u64) -> No {
    No {
        reason: Refusal::Proof,
        known: Some(generation),
    }
}

impl Broker {
    pub(crate) fn new(host: HostId, install_key: &InstallKey, random: &mut Random) -> Self {
        Self {
            host,
            issuer: Secret::from_seed(&random.seed()),
            challenges: Challenges::new(random.seed()),
            state: HostState::New,
            keys: Vec::new(),
            kid: install_key.kid,
            secret_sha256: install_key.secret().hash(),
            used: None,
            enrolments: 0,
            repeats: 0,
            late: 0,
            commands: BTreeMap::new(),
            streams: StreamTable::new(),
            history: History::new(vec![first_life()]).unwrap(),
            caught_up: 0,
            reports: BTreeMap::new(),
        }
    }

    /// A new start forgets the key of its nonces, and nothing else.
    pub(crate) fn restart(&mut self, random: &mut Random) {
        self.challenges = Challenges::new(random.seed());
    }

    pub(crate) fn challenge(&self, now: UnixMillis, random: &mut Random) -> [u8; 32] {
        self.challenges.issue(now, random.bytes())
    }

    /// Judges a request for a token, records, and only then grants.
    pub(crate) fn exchange(
        &mut self,
        bytes: &[u8],
        now: UnixMillis,
        random: &mut Random,
    ) -> Result<Grant, No> {
        let claimed: Request = signed::peek(bytes).map_err(|_| Refusal::Malformed)?;
        let nonce = self.challenges.check(&claimed.nonce, now);
        let request = verify_request(bytes).map_err(|_| Refusal::Malformed)?;
        let known = (self.state != HostState::New).then_some(Known {
            state: self.state,
            keys: &self.keys,
        });
        let asked = nonce.unwrap_or(UnixMillis(0));
        let terms = Terms {
            away_max: AWAY_MAX,
            incarnation: self.history.current(),
        };
        let decision = decide(&request, nonce.map(drop), known, terms, now);
        let (key, generation) = (request.value().key, request.value().generation);
        match decision {
            Decision::Redeem { kid, secret_sha256 } => {
                self.redeem(kid, &secret_sha256, key, now)?;
            }
            Decision::Renew { .. } => self.renew(generation, key, asked, now)?,
            Decision::CatchUp(links) => self.catch_up(&links, generation, key, now)?,
            Decision::Lock { .. } => {
                self.state = HostState::Locked;
                return Err(Refusal::Locked.into());
            }
            Decision::Behind { generation } => return Err(behind(generation)),
            Decision::Refuse(refuse) => return Err(refuse.refusal().into()),
        }
        // What is granted is recorded.
        let recorded = self.keys.last().unwrap();
        assert!(recorded.key == key, "a grant that is not on record");
        let terms = HostTerms {
            audience: AUDIENCE,
            host: &self.host,
            key,
            generation: recorded.generation,
            id: random.bytes(),
            issued: now,
            life_s: HOST_TOKEN_LIFE_S_MAX,
        };
        Ok(Grant {
            token: ByteBuf::from(mint_host(&self.issuer, &terms)),
            time: now,
            generation: recorded.generation,
            authorities: None,
            trail: None,
        })
    }

    fn redeem(
        &mut self,
        kid: [u8; 8],
        secret_sha256: &[u8; 32],
        key: Public<Host>,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        if kid != self.kid || !secret_matches(&self.secret_sha256, secret_sha256) {
            return Err(Refusal::InstallKey);
        }
        let facts = InstallKeyFacts {
            state: match self.used {
                None => InstallKeyState::New,
                Some(_) => InstallKeyState::Used,
            },
            expires_ms: u64::MAX,
            used: self.used,
            public_key_known: self.is_known(key),
            host: self.identity(),
        };
        match judge_redemption(&facts, key.as_bytes(), now.0) {
            Redemption::Enrol => {
                self.used = Some((*key.as_bytes(), now.plus(AWAY_MAX).0));
                self.enrolments += 1;
                self.set_key(key, now);
                Ok(())
            }
            Redemption::Repeat => {
                self.repeats += 1;
                Ok(())
            }
            Redemption::Refuse(refusal) => Err(refusal_of_redemption(refusal)),
        }
    }

    fn renew(
        &mut self,
        generation: u64,
        key: Public<Host>,
        asked: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let seen = self.seen(generation, key);
        let identity = self.identity();
        match judge_renewal(&identity, generation, key.as_bytes(), seen, asked.0) {
            Renewal::Advance => {
                self.set_key(key, now);
                Ok(())
            }
            Renewal::Repeat => {
                self.repeats += 1;
                Ok(())
            }
            Renewal::Clone(_) => {
                self.state = HostState::Locked;
                Err(Refusal::Locked)
            }
            Renewal::Refuse(refusal) => {
                self.late += u64::from(refusal == RenewRefusal::Late);
                Err(refusal_of_renewal(refusal))
            }
        }
    }

    /// Records what a host showed; no grant, if that did not reach the key that it asks for.
    fn catch_up(
        &mut self,
        links: &[Link],
        generation: u64,
        key: Public<Host>,
        now: UnixMillis,
    ) -> Result<(), No> {
        for link in links {
            assert_eq!(link.generation, self.generation() + 1);
            self.set_key(link.key, now);
            if (link.generation, link.key) != (generation, key) {
                let incarnation = self.history.current().number;
                self.keys.last_mut().unwrap().how = Since::CaughtUp { incarnation };
            }
            self.caught_up += 1;
        }
        match self.keys.last() {
            Some(last) if last.key == key => Ok(()),
            _ => Err(behind(self.generation())),
        }
    }

    /// What a backup holds of it.
    pub(crate) fn back_up(&self, now: UnixMillis) -> Backup {
        let (state, keys) = (self.state, self.keys.clone());
        Backup {
            state,
            keys,
            made: now,
        }
    }

    /// Another life from a backup: declared, or somebody's copy that was started again.
    pub(crate) fn restore(&mut self, backup: &Backup, declared: bool, now: UnixMillis) {
        (self.state, self.keys) = (backup.state, backup.keys.clone());
        self.streams = StreamTable::new();
        if declared {
            let restored = Restored {
                backup: [1; 16],
                made: backup.made,
                end: 0,
            };
            let next = self.history.next([2; 16], now, restored).unwrap();
            self.history =
                History::new(self.history.all().cloned().chain([next]).collect()).unwrap();
        }
    }

    fn set_key(&mut self, key: Public<Host>, since: UnixMillis) {
        self.state = HostState::Enrolled;
        self.keys.push(HostKey {
            generation: self.generation() + 1,
            key,
            since,
            how: Since::Granted,
        });
    }

    /// What is on record of a key that is presented for a generation.
    fn seen(&self, generation: u64, key: Public<Host>) -> Seen {
        let since = |generation: u64| {
            let mut keys = self.keys.iter();
            keys.find(|known| known.generation == generation)
                .map(|known| known.since.0)
        };
        match self.keys.iter().find(|known| known.key == key) {
            None => Seen::Never,
            Some(known) if known.generation != generation => Seen::Elsewhere,
            Some(_) => Seen::Here {
                next_ms: since(generation + 1),
            },
        }
    }

    fn is_known(&self, key: Public<Host>) -> bool {
        self.keys.iter().any(|known| known.key == key)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.keys.last().map_or(0, |key| key.generation)
    }

    fn identity(&self) -> Identity {
        Identity {
            state: self.state,
            generation: self.generation(),
            public_key: self.keys.last().map(|key| *key.key.as_bytes()),
            void_generation: 0,
        }
    }

    /// A token of the generation before the current one is good too.
    pub(crate) fn check_token(&self, token: &[u8], now: UnixMillis) -> Option<token::Grant> {
        let grant = token::check(token, &[self.issuer.public()], AUDIENCE, now).ok()?;
        let current = self.generation();
        let is_current =
            grant.generation == current || Some(grant.generation) == current.checked_sub(1);
        (self.state == HostState::Enrolled && is_current).then_some(grant)
    }

    /// Stores a report once. True if it may be acknowledged.
    pub(crate) fn store_report(&mut self, bytes: &[u8]) -> bool {
        let keys: Vec<Public<Host>> = self.keys.iter().map(|key| key.key).collect();
        let Ok(verified) = report::verify(bytes, &keys, &self.host) else {
            return false;
        };
        let signer = verified.signer();
        let epoch = self.keys.iter().find(|key| key.key == signer).unwrap();
        let epoch = epoch.generation;
        let report = verified.into_value();
        // The end of its signature tells two reports of one number apart.
        let fingerprint = u64::from_be_bytes(*bytes.last_chunk().unwrap());
        let host = self.host.as_str();
        match self
            .streams
            .observe(host, "", epoch, report.number, fingerprint)
        {
            Sighting::New => {
                self.reports.insert(report.number, bytes.to_vec());
                if let Some(command) = report.news.settles()
                    && let Some((_, settled)) = self.commands.get_mut(&command)
                {
                    *settled = true;
                }
                true
            }
            Sighting::Redelivery => true,
            Sighting::Fork => false,
        }
    }

    /// Commands that no report settled.
    pub(crate) fn open(&self) -> Vec<Vec<u8>> {
        let open = self.commands.values().filter(|(_, settled)| !settled);
        open.map(|(bytes, _)| bytes.clone()).collect()
    }
}
