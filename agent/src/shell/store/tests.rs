//! Tests of `store`.

use std::os::unix::fs::PermissionsExt as _;

use protocol::command::Content;
use protocol::time::UnixMillis;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;

pub(super) fn open() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

pub(super) fn reopen(store: Store) -> Store {
    let dir = store.dir.clone();
    drop(store);
    Store::open(&dir).unwrap()
}

fn identity() -> Identity {
    let mut identity = Identity::new(HostId::new("edge-1").unwrap());
    identity.prepare(&Zeroizing::new([7; 32]), UnixMillis(1));
    identity
}

fn command(byte: u8) -> CommandRecord {
    CommandRecord {
        id: CommandId([byte; 16]),
        sandbox: SandboxId::new("a").unwrap(),
        expires: UnixMillis(9),
        accepted: UnixMillis(3),
        signed: vec![byte; 70],
        used: false,
        outcome: None,
    }
}

fn sandbox() -> SandboxRecord {
    SandboxRecord {
        sandbox: SandboxId::new("a").unwrap(),
        command: CommandId([1; 16]),
        isolation: None,
        content: Content::Full,
        life_s: 60,
        image: None,
        running: None,
        stopped: false,
        ending: None,
    }
}

#[test]
fn what_is_saved_is_found_again() {
    let (_dir, store) = open();
    assert!(store.load_identity().unwrap().is_none());
    store.save_identity(&identity()).unwrap();
    store.save_command(&command(1)).unwrap();
    store.save_command(&command(2)).unwrap();
    store.save_sandbox(&sandbox()).unwrap();
    let store = reopen(store);
    let found = store.load_identity().unwrap().unwrap();
    assert_eq!(found.to_bytes(), identity().to_bytes());
    assert_eq!(store.load_commands().unwrap(), [command(1), command(2)]);
    assert_eq!(store.load_command(CommandId([2; 16])).unwrap(), command(2));
    assert_eq!(store.load_sandboxes().unwrap(), [sandbox()]);
    store.remove_command(CommandId([1; 16])).unwrap();
    store.remove_sandbox(&sandbox().sandbox).unwrap();
    store.remove_sandbox(&sandbox().sandbox).unwrap();
    store.remove_identity().unwrap();
    let store = reopen(store);
    assert_eq!(store.load_commands().unwrap(), [command(2)]);
    assert!(store.load_sandboxes().unwrap().is_empty());
    assert!(store.load_identity().unwrap().is_none());
}

#[test]
fn two_operators_cannot_share_a_state_directory() {
    let (_dir, store) = open();
    let error = Store::open(&store.dir).unwrap_err();
    assert!(
        error.to_string().contains("another operator uses"),
        "{error:#}"
    );
    reopen(store);
}

#[test]
fn nobody_else_can_read_what_is_stored() {
    let (_dir, store) = open();
    store.save_identity(&identity()).unwrap();
    store.save_command(&command(1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.dir), 0o700);
    assert_eq!(mode(&store.dir.join(COMMANDS)), 0o700);
    assert_eq!(mode(&store.dir.join(IDENTITY)), 0o600);
    assert_eq!(mode(&store.command_path(CommandId([1; 16]))), 0o600);
    let dir = store.dir.clone();
    drop(store);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Store::open(&dir).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error:#}");
}

#[test]
fn every_flipped_or_missing_byte_is_an_error_that_names_the_file() {
    let (_dir, store) = open();
    store.save_sandbox(&sandbox()).unwrap();
    let path = store.sandbox_path(&sandbox().sandbox);
    let good = fs::read(&path).unwrap();
    let mut damages: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    damages.extend((0..good.len()).map(|index| {
        let mut flipped = good.clone();
        flipped[index] ^= 1;
        flipped
    }));
    for damage in damages {
        fs::write(&path, damage).unwrap();
        let error = store.load_sandboxes().unwrap_err().to_string();
        assert!(error.contains("sandboxes/a is damaged"), "{error}");
        assert!(path.exists(), "and nothing is reset");
    }
}

#[test]
fn a_damaged_identity_is_not_taken_for_a_new_host() {
    let (_dir, store) = open();
    fs::write(store.dir.join(IDENTITY), b"").unwrap();
    let error = store.load_identity().unwrap_err().to_string();
    assert!(error.contains("identity is damaged"), "{error}");
}

#[test]
fn an_unfinished_write_is_as_if_it_had_not_begun() {
    let (_dir, store) = open();
    store.save_command(&command(1)).unwrap();
    let mut unfinished = store.command_path(CommandId([1; 16])).into_os_string();
    unfinished.push(".new");
    fs::write(&unfinished, b"torn").unwrap();
    let store = reopen(store);
    assert_eq!(store.load_commands().unwrap(), [command(1)]);
    assert!(!Path::new(&unfinished).exists());
}

#[test]
fn a_report_number_is_never_given_twice() {
    let (_dir, store) = open();
    assert_eq!(store.load_outbox().unwrap(), (vec![], 0));
    for number in 0..3 {
        store.save_report(number, Class::Outcome, &[1]).unwrap();
    }
    for number in [1, 2, 0] {
        store.remove_report(number).unwrap();
    }
    let store = reopen(store);
    assert_eq!(
        store.load_outbox().unwrap(),
        (vec![], 3),
        "although none is owed"
    );
    store.save_report(3, Class::Status, &[4]).unwrap();
    let store = reopen(store);
    assert_eq!(store.load_outbox().unwrap(), (vec![(3, Class::Status)], 4));
    assert_eq!(store.load_report(3).unwrap(), [4]);
    assert_eq!(
        fs::read_dir(store.dir.join(OUTBOX)).unwrap().count(),
        1,
        "and no marker piles up"
    );
}

#[test]
fn a_report_sent_again_does_not_disturb_the_numbers() {
    let (_dir, store) = open();
    for number in 0..3 {
        store.save_report(number, Class::Outcome, &[1]).unwrap();
        store.remove_report(number).unwrap();
    }
    store.save_report(1, Class::Outcome, &[1]).unwrap();
    store.remove_report(1).unwrap();
    assert_eq!(reopen(store).load_outbox().unwrap(), (vec![], 3));
}

#[test]
fn the_authorities_that_the_broker_named_outlive_a_restart() {
    let (_dir, store) = open();
    assert_eq!(store.load_learned().unwrap(), None);
    let told = [serde_bytes::ByteBuf::from(vec![0x30, 0])];
    let learned = Learned::under(&[1; 32], None).after(&told).unwrap();
    store.save_learned(&learned).unwrap();
    let store = reopen(store);
    assert_eq!(store.load_learned().unwrap(), Some(learned));
    fs::write(store.dir.join(AUTHORITIES), b"half").unwrap();
    let error = format!("{:#}", store.load_learned().unwrap_err());
    assert!(error.contains("authorities"), "{error}");
}
