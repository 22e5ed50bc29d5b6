//! The whole life of the certificates, with time as an argument and real handshakes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error as TlsError, RootCertStore,
    ServerConnection, pki_types::UnixTime, time_provider::TimeProvider,
};
use tempfile::TempDir;

use super::{
    authority::{AUTHORITY_LEFT_MIN, AUTHORITY_LIFE, PAST_MAX},
    *,
};
use crate::shell::keys::{read_secret, write_secret};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn later(days: u32) -> UnixMillis {
    NOW.plus(DAY * days)
}

/// A data directory of its own.
fn directory() -> (TempDir, DataDir) {
    let place = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&place.path().join("data")).unwrap();
    (place, directory)
}

fn open(directory: &DataDir, name: &str, now: UnixMillis) -> anyhow::Result<Certificates> {
    Certificates::open(directory, name, &TlsFiles::default(), now)
}

fn rotate(certificates: &Certificates, now: UnixMillis) {
    certificates.rotate(now, |_| Ok(())).unwrap();
}

fn server_crt(directory: &DataDir) -> String {
    fs::read_to_string(directory.key("server.crt")).unwrap()
}

fn first(certificates: &Certificates) -> Vec<u8> {
    certificates.facts().borrow().authorities[0].der.clone()
}

/// What a grant and a bundle would name now.
fn told(certificates: &Certificates) -> Vec<Vec<u8>> {
    let facts = certificates.facts();
    let facts = facts.borrow();
    facts
        .authorities
        .iter()
        .map(|one| one.der.clone())
        .collect()
}

#[derive(Debug)]
struct Stopped(UnixMillis);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.0)))
    }
}

/// A handshake by a host that trusts `roots` alone, at a time: the server's certificate.
fn dial(
    certificates: &Certificates,
    roots: &[Vec<u8>],
    now: UnixMillis,
) -> Result<Vec<u8>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.clone())).unwrap();
    }
    let config = ClientConfig::builder_with_details(Arc::new(provider()), Arc::new(Stopped(now)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from("broker.example").unwrap();
    let mut client: Connection = ClientConnection::new(Arc::new(config), name)
        .unwrap()
        .into();
    let current = Arc::clone(&certificates.current().borrow());
    let mut server: Connection = ServerConnection::new(current).unwrap().into();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn the_authority_stays_and_the_server_certificate_follows_names_and_time() {
    let (_place, directory) = directory();
    let first = open(&directory, "broker.example", NOW).unwrap();
    let issued = server_crt(&directory);
    let again = open(&directory, "broker.example", later(1)).unwrap();
    assert_eq!(told(&first), told(&again));
    assert_eq!(server_crt(&directory), issued, "it is good for long");
    let other = open(&directory, "192.0.2.7", later(1)).unwrap();
    assert_eq!(told(&first), told(&other));
    assert_ne!(server_crt(&directory), issued, "another name");
    for certificates in [&again, &other] {
        assert!(certificates.facts().borrow().covers_public_name);
    }
    let leaf = Certificate::from_pem(&server_crt(&directory)).unwrap();
    assert!(file::covers(&leaf, "192.0.2.7") && !file::covers(&leaf, "broker.example"));
    let issued = server_crt(&directory);
    assert!(!other.refresh(later(60)).unwrap());
    let mut current = other.current();
    assert!(!current.has_changed().unwrap());
    assert!(
        other.refresh(later(62)).unwrap(),
        "less than 30 of its 90 days are left"
    );
    assert!(current.has_changed().unwrap());
    current.mark_unchanged();
    assert_ne!(server_crt(&directory), issued);
    assert_eq!(other.expiry().server.seconds(), later(62 + 90).seconds());
}

#[test]
fn a_key_and_a_certificate_that_do_not_fit_are_made_anew() {
    let (_place, directory) = directory();
    open(&directory, "broker.example", NOW).unwrap();
    let stale = fs::read(directory.key("server.key")).unwrap();
    fs::remove_file(directory.key("server.crt")).unwrap();
    open(&directory, "broker.example", NOW).unwrap();
    write_secret(&directory.key("server.key"), &stale).unwrap();
    open(&directory, "broker.example", NOW).unwrap();
    assert_ne!(fs::read(directory.key("server.key")).unwrap(), stale);
}

#[test]
fn an_authority_lost_from_a_used_directory_is_not_replaced() {
    let (_place, directory) = directory();
    open(&directory, "broker.example", NOW).unwrap();
    fs::write(directory.store(), b"").unwrap();
    fs::remove_file(directory.key("ca.crt")).unwrap();
    let error = format!("{:#}", open(&directory, "broker.example", NOW).unwrap_err());
    assert!(
        error.contains("ca.crt") && error.contains("backup"),
        "{error}"
    );
}

#[test]
fn an_authority_whose_halves_come_from_two_backups_is_refused() {
    let (_place, one) = directory();
    let (_other_place, other) = directory();
    open(&one, "broker.example", NOW).unwrap();
    open(&other, "broker.example", NOW).unwrap();
    fs::copy(other.key("ca.key"), one.key("ca.key")).unwrap();
    let error = format!("{:#}", open(&one, "broker.example", NOW).unwrap_err());
    assert!(error.contains("do not belong together"), "{error}");
}

#[test]
fn an_authority_is_followed_in_time_and_each_host_connects_until_what_it_knows_ends() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let old = told(&certificates);
    assert_eq!(old.len(), 1);
    let end = certificates.expiry().authority;
    assert_eq!(end, NOW.plus(AUTHORITY_LIFE));
    let due = UnixMillis(end.0 - u64::try_from(AUTHORITY_LEFT_MIN.as_millis()).unwrap());
    assert!(!certificates.is_rotation_due(UnixMillis(due.0 - 1)));
    let year_18 = due.plus(DAY);
    assert!(certificates.is_rotation_due(year_18));
    certificates.refresh(year_18).unwrap();
    rotate(&certificates, year_18);
    assert!(!certificates.is_rotation_due(year_18));

    let both = told(&certificates);
    assert_eq!(both.len(), 2);
    assert_eq!(both[1], old[0], "bundles and grants name both");
    let new = vec![both[0].clone()];
    for (who, roots) in [("old", &old), ("new", &new), ("both", &both)] {
        let server = dial(&certificates, roots, year_18).unwrap_or_else(|e| panic!("{who}: {e}"));
        assert_eq!(server, certificates.facts().borrow().server, "{who}");
    }
    // A start later on changes nothing of it; nor does the year before the end.
    let certificates = open(&directory, "broker.example", year_18).unwrap();
    assert_eq!(told(&certificates), both);
    let last = UnixMillis(end.0 - 1000);
    certificates.refresh(last).unwrap();
    assert!(dial(&certificates, &old, last).is_ok());
    assert!(dial(&certificates, &new, last).is_ok());

    let over = end.plus(DAY);
    certificates.refresh(over).unwrap();
    assert_eq!(told(&certificates), new, "what has ended is named no more");
    assert_eq!(
        dial(&certificates, &old, over).unwrap_err(),
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    assert!(dial(&certificates, &new, over).is_ok());
    assert!(dial(&certificates, &both, over).is_ok());
}

#[test]
fn a_host_whose_clock_stands_where_it_last_heard_of_us_connects_after_all_that_it_missed() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let old = told(&certificates);
    let left = later(1000);
    certificates.refresh(left).unwrap();
    let back = left.plus(DAY * 90);
    rotate(&certificates, back);
    certificates.refresh(back).unwrap();
    assert!(dial(&certificates, &old, left).is_ok());
}

#[test]
fn a_host_that_missed_several_rotations_still_connects_and_the_oldest_are_let_go() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let mut roots = vec![first(&certificates)];
    for day in 1..=PAST_MAX {
        rotate(&certificates, later(u32::try_from(day).unwrap()));
        roots.push(first(&certificates));
    }
    let now = later(10);
    for root in &roots {
        assert!(dial(&certificates, std::slice::from_ref(root), now).is_ok());
    }
    assert_eq!(told(&certificates).len(), PAST_MAX + 1);
    rotate(&certificates, now);
    assert!(dial(&certificates, &roots[..1], now).is_err());
    assert!(dial(&certificates, &roots[1..2], now).is_ok());
    assert_eq!(told(&certificates).len(), PAST_MAX + 1);
}

#[test]
fn who_trusts_a_retired_authority_alone_is_led_nowhere() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let old = told(&certificates);
    rotate(&certificates, NOW);
    assert!(dial(&certificates, &old, NOW).is_ok());
    assert_eq!(certificates.retire(NOW).unwrap(), 1);
    assert!(dial(&certificates, &old, NOW).is_err());
    assert!(dial(&certificates, &told(&certificates), NOW).is_ok());
    let again = open(&directory, "broker.example", NOW).unwrap();
    assert_eq!(told(&again).len(), 1);
    assert_eq!(again.retire(NOW).unwrap(), 0);
}

#[test]
fn a_rotation_that_is_not_on_record_does_not_happen() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let old = told(&certificates);
    let refused = certificates.rotate(NOW, |_| anyhow::bail!("the disk is full"));
    assert!(refused.is_err());
    assert_eq!(told(&certificates), old);
    assert_eq!(told(&open(&directory, "broker.example", NOW).unwrap()), old);
}

#[test]
fn a_power_cut_at_any_step_of_a_rotation_leaves_the_old_authority_or_the_new_one() {
    let (_place, directory) = directory();
    let certificates = open(&directory, "broker.example", NOW).unwrap();
    let old = told(&certificates);
    let files = ["ca.past", "ca.key", "ca.crt"];
    let before: Vec<_> = files
        .map(|name| read_secret(&directory.key(name)).unwrap())
        .into();
    rotate(&certificates, NOW);
    let both = told(&certificates);
    let text = |name| (*read_secret(&directory.key(name)).unwrap().unwrap()).clone();
    // As `rotate` wrote it first.
    let next = text("ca.key") + &text("ca.crt") + &text("ca.past");
    let after: Vec<_> = files
        .map(|name| read_secret(&directory.key(name)).unwrap())
        .into();
    for steps in 0..=files.len() {
        for (at, name) in files.iter().enumerate() {
            let content = if at < steps { &after[at] } else { &before[at] };
            match content {
                Some(content) => write_secret(&directory.key(name), content.as_bytes()).unwrap(),
                None => drop(fs::remove_file(directory.key(name))),
            }
        }
        write_secret(&directory.key("ca.next"), next.as_bytes()).unwrap();
        let opened = open(&directory, "broker.example", NOW).unwrap();
        assert_eq!(told(&opened), both, "{steps} steps done");
        assert!(dial(&opened, &old, NOW).is_ok() && dial(&opened, &both[..1], NOW).is_ok());
        assert!(!directory.key("ca.next").exists());
    }
}

#[test]
fn the_loopback_is_covered_and_no_name_stands_twice() {
    assert_eq!(
        names("localhost", "box"),
        ["localhost", "box", "127.0.0.1", "::1"]
    );
    assert_eq!(
        names("b.example", "not a name"),
        ["b.example", "localhost", "127.0.0.1", "::1"]
    );
}

/// Somebody's own authority, and files that it issued.
struct Pki {
    place: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Example Corp Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = before(NOW, DAY).into();
        params.not_after = after(NOW, DAY * 3650).into();
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let pki = Self { place, root };
        fs::write(pki.path("root.pem"), pki.root.pem()).unwrap();
        pki.issue("broker.example", NOW, 365);
        pki
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    fn issue(&self, name: &str, from: UnixMillis, days: u32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = before(from, Duration::ZERO).into();
        params.not_after = after(from, DAY * days).into();
        let leaf = params.signed_by(&key, &self.root).unwrap();
        fs::write(self.path("server.pem"), leaf.pem()).unwrap();
        self.write_key(&key);
    }

    fn write_key(&self, key: &KeyPair) {
        fs::write(self.path("server.key"), key.serialize_pem()).unwrap();
        chmod(&self.path("server.key"), 0o600);
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            server: Some(ServerFiles {
                certificate: self.path("server.pem"),
                key: self.path("server.key"),
            }),
            authority: Some(self.path("root.pem")),
        }
    }

    fn open(&self, now: UnixMillis) -> anyhow::Result<Certificates> {
        let directory = DataDir::open(&self.path("data")).unwrap();
        Certificates::open(&directory, "broker.example", &self.files(), now)
    }

    /// What is wrong with the files.
    fn complaint(&self) -> String {
        format!("{:#}", self.open(later(1)).unwrap_err())
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_of_ones_own_are_served_and_hosts_are_told_of_their_authority_alone() {
    let pki = Pki::new();
    let certificates = pki.open(later(1)).unwrap();
    assert_eq!(told(&certificates), [pki.root.der().to_vec()]);
    assert!(dial(&certificates, &told(&certificates), later(1)).is_ok());
    assert_eq!(certificates.expiry().server, later(365));
    assert_eq!(certificates.expiry().authority, later(3650));
    assert!(
        !pki.path("data/keys/ca.key").exists(),
        "none is made that is not used"
    );
    assert!(!certificates.is_rotation_due(later(3649)));
    let error = certificates
        .rotate(later(1), |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("from files"), "{error}");
}

#[test]
fn an_intermediate_authority_is_followed_from_the_certificates_file() {
    let pki = Pki::new();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_before = before(NOW, DAY).into();
    params.not_after = after(NOW, DAY * 1000).into();
    let key = KeyPair::generate().unwrap();
    let middle = CertifiedIssuer::signed_by(params, key, &pki.root).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
    params.not_before = before(NOW, DAY).into();
    params.not_after = after(NOW, DAY * 90).into();
    let leaf = params.signed_by(&key, &middle).unwrap();
    pki.write_key(&key);
    fs::write(pki.path("server.pem"), leaf.pem()).unwrap();
    let error = pki.complaint();
    assert!(error.contains("does not lead to an authority"), "{error}");
    fs::write(pki.path("server.pem"), leaf.pem() + &middle.pem()).unwrap();
    let certificates = pki.open(NOW).unwrap();
    assert!(dial(&certificates, &told(&certificates), NOW).is_ok());
}

#[test]
fn each_thing_that_is_wrong_with_files_is_said_in_one_sentence() {
    type Spoil = fn(&Pki);
    let cases: [(&str, Spoil, &[&str]); 12] = [
        (
            "another key",
            |pki| pki.write_key(&KeyPair::generate().unwrap()),
            &[
                "does not belong to the certificate",
                "server.key",
                "server.pem",
            ],
        ),
        (
            "expired",
            |pki| pki.issue("broker.example", NOW, 0),
            &["ended on", "issued anew"],
        ),
        (
            "not yet valid",
            |pki| pki.issue("broker.example", later(2), 9),
            &["counts from", "clock right"],
        ),
        (
            "another name",
            |pki| pki.issue("other.example", NOW, 365),
            &[
                "does not cover public_address, broker.example",
                "other.example",
            ],
        ),
        (
            "another authority",
            |pki| fs::write(pki.path("root.pem"), Pki::new().root.pem()).unwrap(),
            &["does not lead to an authority", "Example Corp Root"],
        ),
        (
            "an open key",
            |pki| chmod(&pki.path("server.key"), 0o644),
            &["others may read", "chmod 600", "644"],
        ),
        (
            "no certificate",
            |pki| fs::write(pki.path("server.pem"), "nothing").unwrap(),
            &["holds no certificate", "server.pem"],
        ),
        (
            "half a certificate",
            |pki| {
                let whole = fs::read(pki.path("server.pem")).unwrap();
                fs::write(pki.path("server.pem"), &whole[..200]).unwrap();
            },
            &["server.pem", "cut off"],
        ),
        (
            "no key",
            |pki| {
                fs::write(
                    pki.path("server.key"),
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
                )
                .unwrap();
            },
            &["no private key without a password"],
        ),
        (
            "no file",
            |pki| fs::remove_file(pki.path("server.pem")).unwrap(),
            &["read tls.certificate", "server.pem", "No such file"],
        ),
        (
            "a leaf for an authority's",
            |pki| {
                fs::copy(pki.path("server.pem"), pki.path("root.pem")).unwrap();
            },
            &["does not lead to an authority"],
        ),
        (
            "a trust store",
            |pki| fs::write(pki.path("root.pem"), pki.root.pem().repeat(9)).unwrap(),
            &["9 certificates", "not a whole trust store"],
        ),
    ];
    for (what, spoil, says) in cases {
        let pki = Pki::new();
        assert!(pki.open(later(1)).is_ok(), "{what}");
        spoil(&pki);
        let error = pki.complaint();
        for part in says {
            assert!(error.contains(part), "{what}: {part}: {error}");
        }
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn files_that_change_are_taken_up_and_bad_ones_leave_everything_as_it_is() {
    let pki = Pki::new();
    let certificates = pki.open(later(1)).unwrap();
    let roots = told(&certificates);
    let served = dial(&certificates, &roots, later(1)).unwrap();
    assert!(!certificates.refresh(later(1)).unwrap());
    pki.issue("other.example", NOW, 300);
    assert!(certificates.refresh(later(1)).is_err());
    assert_eq!(dial(&certificates, &roots, later(1)).unwrap(), served);
    pki.issue("broker.example", NOW, 300);
    assert!(certificates.refresh(later(1)).unwrap());
    assert_ne!(dial(&certificates, &roots, later(1)).unwrap(), served);
    assert_eq!(certificates.expiry().server, later(300));
    // The next authority is announced beside the one in use, before anything is issued under it.
    let next = Pki::new();
    fs::write(pki.path("root.pem"), pki.root.pem() + &next.root.pem()).unwrap();
    assert!(certificates.refresh(later(1)).unwrap());
    assert_eq!(told(&certificates).len(), 2);
    fs::write(pki.path("root.pem"), "nothing").unwrap();
    assert!(certificates.refresh(later(1)).is_err());
    assert_eq!(told(&certificates).len(), 2);
}

#[test]
fn an_authority_is_announced_beside_our_own_before_files_take_over() {
    let pki = Pki::new();
    let directory = DataDir::open(&pki.path("data")).unwrap();
    let own = open(&directory, "broker.example", NOW).unwrap();
    let announced = TlsFiles {
        server: None,
        ..pki.files()
    };
    let during = Certificates::open(&directory, "broker.example", &announced, NOW).unwrap();
    let learned = told(&during);
    assert_eq!(learned, [first(&own), pki.root.der().to_vec()]);
    assert!(
        dial(&during, &told(&own), NOW).is_ok(),
        "nothing changes for anyone yet"
    );
    let after = pki.open(later(1)).unwrap();
    assert!(dial(&after, &learned, later(1)).is_ok());
    assert!(dial(&after, &told(&own), later(1)).is_err());
}

#[test]
fn what_hosts_are_told_always_fits_a_grant() {
    let pki = Pki::new();
    fs::write(pki.path("root.pem"), pki.root.pem().repeat(4)).unwrap();
    let directory = DataDir::open(&pki.path("data")).unwrap();
    let announced = TlsFiles {
        server: None,
        ..pki.files()
    };
    let certificates = Certificates::open(&directory, "broker.example", &announced, NOW).unwrap();
    for _ in 0..PAST_MAX {
        rotate(&certificates, NOW);
    }
    let told = told(&certificates);
    assert_eq!(told.len(), AUTHORITIES_MAX, "the oldest is left out");
    assert!(told.iter().map(Vec::len).sum::<usize>() <= AUTHORITIES_BYTES_MAX);
}
