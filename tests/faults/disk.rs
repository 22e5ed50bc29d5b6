//! A disk that others fill: what can wait does, what must always work does, and all is well again once there is room.

use std::sync::atomic::Ordering;

use tests::world::BrokerTerms;

use crate::{
    mount::{Kind, Mount},
    site::Site,
};

const MIB: u32 = 64;
/// More revocations than find room in what the store has open already.
const REVOCATIONS: usize = 24;

fn site(kind: Kind) -> Site {
    let site = Site::new(Some(Mount::new(kind, MIB)), BrokerTerms::default());
    site.wait_green();
    site
}

#[test]
fn below_the_reserve_events_wait_and_above_it_they_are_taken_again() {
    let site = site(Kind::Tmpfs);
    let publishing = site.publish();
    publishing.wait_acknowledged(50);
    let free_mib = usize::try_from(site.mount().free_bytes() >> 20).unwrap();
    // An eighth is the reserve: eight of 64.
    site.mount().take(free_mib - 6);
    publishing.wait_refused(1);
    site.wait_red("nearly full: free some space");
    // What was on its way has come through by the second refusal: each batch is sent after the one before.
    publishing.wait_refused(1);
    let taken = publishing.shared.acknowledged.load(Ordering::Relaxed);
    site.add_and_revoke("old-1");
    publishing.wait_refused(5);
    assert_eq!(
        publishing.shared.acknowledged.load(Ordering::Relaxed),
        taken,
        "nothing is taken meanwhile"
    );
    assert!(site.metric("outhaul_disk_refused_total{kind=\"event\"}") >= 7);
    assert_eq!(site.metric("outhaul_ready"), 0);
    assert!(site.metric("outhaul_disk_free_bytes") < site.metric("outhaul_disk_reserve_bytes"));
    site.mount().free();
    publishing.wait_acknowledged(50);
    site.wait_green();
    site.check_kept(&publishing.finish());
}

fn a_full_disk(kind: Kind) {
    let mut site = site(kind);
    let names: Vec<_> = (0..REVOCATIONS)
        .map(|number| format!("old-{number}"))
        .collect();
    names.iter().for_each(|name| site.add(name));
    let (before, after) = names.split_at(REVOCATIONS / 2);
    let ballast = site.metric("outhaul_disk_ballast_bytes");
    let pid = site.world.broker_pid().unwrap();
    let publishing = site.publish();
    publishing.wait_acknowledged(50);
    // In the middle of it, faster than anybody looks.
    site.mount().fill();
    publishing.wait_refused(2);
    site.wait_red("nearly full");
    before.iter().for_each(|name| site.revoke(name));
    assert!(
        site.metric("outhaul_disk_ballast_bytes") < ballast,
        "the ballast gave way"
    );
    assert!(
        !site.world.broker_has_ended(),
        "{}",
        site.world.log("broker")
    );
    assert_eq!(site.world.broker_pid().unwrap(), pid);
    // It starts on a full disk too, and what was revoked still is.
    site.world.kill_broker();
    site.mount().fill();
    site.world.start_broker().unwrap();
    after.iter().for_each(|name| site.revoke(name));
    site.wait_red("nearly full");
    site.mount().free();
    publishing.wait_acknowledged(50);
    site.wait_green();
    assert_eq!(
        site.metric("outhaul_disk_ballast_bytes"),
        ballast,
        "and is held again"
    );
    site.check_kept(&publishing.finish());
    let listed = site.world.outhaul_ok(&["host", "list"]).unwrap();
    assert_eq!(listed.matches("revoked").count(), REVOCATIONS, "{listed}");
}

#[test]
fn on_a_full_disk_hosts_are_revoked_on_record_and_nothing_that_was_acknowledged_is_lost() {
    a_full_disk(Kind::Tmpfs);
}

#[test]
fn the_same_where_blocks_are_free_only_once_that_is_on_the_disk() {
    a_full_disk(Kind::Ext4);
}

#[test]
fn a_disk_that_turns_read_only_ends_the_broker_and_mounted_again_loses_nothing() {
    let mut site = site(Kind::Ext4);
    let publishing = site.publish();
    publishing.wait_acknowledged(50);
    site.mount().abort();
    assert_eq!(site.world.wait_broker_end().unwrap(), Some(1));
    let log = site.world.log("broker");
    assert!(
        log.contains("start the broker again once the disk is well"),
        "{log}"
    );
    // Read-only, it does not start, and says what to do.
    site.mount().mount_again("");
    site.mount().mount_again(",ro");
    let error = format!("{:#}", site.world.start_broker().unwrap_err());
    assert!(
        error.contains("read-only: see the kernel's log, and mount it for writing"),
        "{error}"
    );
    site.mount().mount_again("");
    site.world.start_broker().unwrap();
    publishing.wait_acknowledged(50);
    site.check_kept(&publishing.finish());
}

#[test]
fn a_broker_that_is_idle_finds_out_by_itself_that_its_disk_turned_read_only() {
    let mut site = site(Kind::Ext4);
    site.mount().abort();
    assert_eq!(site.world.wait_broker_end().unwrap(), Some(1));
    site.mount().mount_again("");
    site.world.start_broker().unwrap();
    site.wait_green();
}
