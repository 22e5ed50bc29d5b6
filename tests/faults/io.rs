//! System calls of the broker that fail: it stops acknowledging, ends, and loses nothing. strace makes them fail, file by file, while the
//! broker runs.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use protocol::mqtt::ReasonCode;
use tests::{client::Said, world::BrokerTerms};

use crate::{publisher::batch, site::Site};

/// A broker whose system calls fail; until this is dropped, or the broker ends.
struct Tamper(Child);

impl Tamper {
    /// From when this returns, what `inject` says happens to calls of the process about this file.
    fn new(pid: u32, file: &Path, inject: &str) -> Self {
        let call = inject.split(':').next().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-p", &pid.to_string(), "-P"])
            .arg(file)
            .args([
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={inject}"),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("strace: {error}; `tests/run.sh` installs it"));
        let mut said = String::new();
        let mut lines = BufReader::new(strace.stderr.as_mut().unwrap());
        while !said.contains(" attached") {
            let read = lines.read_line(&mut said).unwrap();
            assert!(read > 0, "strace cannot attach (this needs root): {said}");
        }
        Self(strace)
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn segment(site: &Site) -> PathBuf {
    site.world
        .path("broker/journal")
        .join(format!("{:020}.seg", 0))
}

/// The first batch is taken; then this happens to the journal's calls: the second is not acknowledged, the broker ends and says why,
/// starts again, and has both once when the second is sent again.
fn the_journal_fails(inject: &str, why: &str) {
    let mut site = Site::new(None, BrokerTerms::default());
    let mut writer = site.publisher.writer();
    let (first, second) = (batch(&mut writer), batch(&mut writer));
    assert_eq!(
        site.publisher.publish(&first).unwrap(),
        Said::PubAck(ReasonCode::SUCCESS)
    );
    let tamper = Tamper::new(site.world.broker_pid().unwrap(), &segment(&site), inject);
    let said = site.publisher.publish(&second);
    assert!(
        !matches!(said, Ok(Said::PubAck(ReasonCode::SUCCESS))),
        "acknowledged, and {inject}"
    );
    assert_eq!(site.world.wait_broker_end().unwrap(), Some(1));
    drop(tamper);
    let log = site.world.log("broker");
    assert!(
        log.contains("the journal cannot write and stops for good"),
        "{log}"
    );
    assert!(log.contains(why), "{log}");
    assert!(
        log.contains("start the broker again once the disk is well"),
        "{log}"
    );
    site.world.start_broker().unwrap();
    site.wait_green();
    for batch in [&second, &first, &second] {
        assert_eq!(
            site.publisher.publish(batch).unwrap(),
            Said::PubAck(ReasonCode::SUCCESS)
        );
    }
    site.check_kept(&[first, second]);
}

#[test]
fn after_an_fsync_that_failed_nothing_is_acknowledged_and_the_next_start_has_each_batch_once() {
    // Once: it would succeed if it were tried again, and must not be believed.
    the_journal_fails(
        "fdatasync:error=EIO:when=1",
        "sync journal: Input/output error",
    );
}

#[test]
fn a_write_that_failed_ends_the_journal_and_is_not_acknowledged() {
    the_journal_fails(
        "pwrite64:error=EIO:when=1",
        "write journal: Input/output error",
    );
}

#[test]
fn a_write_that_found_no_room_after_all_ends_the_journal_and_is_not_acknowledged() {
    the_journal_fails(
        "pwrite64:error=ENOSPC:when=1",
        "write journal: No space left on device",
    );
}

/// What happens to the store's log when a host is revoked: it is not said to be revoked, the broker ends and says why, and after the
/// next start it is.
fn the_store_fails(inject: &str) {
    let mut site = Site::new(None, BrokerTerms::default());
    site.add("old-1");
    let log = site.world.path("broker/state.db-wal");
    let tamper = Tamper::new(site.world.broker_pid().unwrap(), &log, inject);
    let output = site
        .world
        .outhaul_output(&["host", "revoke", "old-1"])
        .unwrap();
    assert!(!output.status.success(), "revoked, and {inject}");
    assert_eq!(site.world.wait_broker_end().unwrap(), Some(1));
    drop(tamper);
    let log = site.world.log("broker");
    assert!(
        log.contains("the store could not write or sync: see the kernel's log"),
        "{log}"
    );
    site.world.start_broker().unwrap();
    site.revoke("old-1");
}

#[test]
fn a_store_that_could_not_write_grants_nothing_and_ends_the_broker() {
    the_store_fails("pwrite64:error=EIO");
}

#[test]
fn a_store_that_could_not_sync_grants_nothing_and_ends_the_broker() {
    the_store_fails("fsync,fdatasync:error=EIO");
}

#[test]
fn a_file_that_may_grow_no_further_ends_the_broker_with_a_word_and_loses_nothing() {
    let mut site = Site::new(
        None,
        BrokerTerms {
            // Half a megabyte: the journal gets there first.
            file_blocks_max: Some(1024),
            ..BrokerTerms::default()
        },
    );
    let publishing = site.publish();
    assert_eq!(site.world.wait_broker_end().unwrap(), Some(1));
    let log = site.world.log("broker");
    assert!(log.contains("File too large"), "{log}");
    site.world.start_broker().unwrap();
    publishing.wait_acknowledged(50);
    site.check_kept(&publishing.finish());
}
