//! Everything that is measured, on one page: for the owner over the local socket, and over HTTPS for a reader that may.

use super::{
    Metrics,
    page::{Page, decimal},
};
use crate::{
    core::{
        journal::removed::{CAUSES, Count},
        reader::Rights,
    },
    drive::{Health, Plane},
    shell::journal::Journal,
};

/// A journal counts its waits in microseconds.
const MICROSECONDS: u32 = 1_000_000;
/// Dates are in milliseconds.
const MILLISECONDS: u32 = 1_000;

/// The page, as of now. It sends a probe through the router, at most once a second.
pub async fn exposition(plane: &Plane, metrics: &Metrics) -> String {
    let health = plane.health().await;
    let mut page = Page::default();
    describe(&mut page, plane, &health);
    metrics.write(&mut page);
    write_hosts(&mut page, plane);
    write_journal(&mut page, "outhaul_journal", plane.journal());
    if let Some(bench) = plane.bench() {
        write_journal(&mut page, "outhaul_bench_journal", bench);
    }
    write_disk(&mut page, plane);
    write_kept(&mut page, plane);
    write_dates(&mut page, plane);
    page.into_text()
}

fn describe(page: &mut Page, plane: &Plane, health: &Health) {
    let name = "outhaul_build_info";
    page.gauge(name, "What runs, and when it acknowledges.");
    let version = env!("CARGO_PKG_VERSION");
    let labels = [("version", version), ("durability", plane.durability())];
    page.sample(name, &labels, 1);
    let name = "outhaul_incarnation";
    let help = "The incarnation of the journal's offsets: one more at each restore.";
    page.gauge(name, help);
    page.sample(name, &[], plane.history().current().number);
    let name = "outhaul_ready";
    page.gauge(name, "Whether the broker can keep its promises now.");
    page.sample(name, &[], u8::from(health.reasons.is_empty()));
    if let Some(took) = health.router_probe {
        let name = "outhaul_router_probe_seconds";
        page.gauge(name, "How long the last message took through the router.");
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        page.sample(name, &[], decimal(took, MICROSECONDS));
    }
}

fn write_hosts(page: &mut Page, plane: &Plane) {
    let name = "outhaul_host_connected";
    page.gauge(name, "Whether the operator of a host is connected.");
    for (host, is_connected) in plane.hosts_and_presence() {
        page.sample(name, &[("host", host.as_str())], u8::from(is_connected));
    }
}

fn write_journal(page: &mut Page, prefix: &str, journal: &Journal) {
    let stats = journal.commit_stats();
    let name = |rest: &str| format!("{prefix}_{rest}");
    page.count(
        &name("records_total"),
        "Records committed since the broker started.",
        stats.records,
    );
    page.count(
        &name("bytes_total"),
        "Bytes committed since the broker started.",
        stats.bytes,
    );
    page.histogram(
        &name("commit_records"),
        "Records in one group commit.",
        &stats.commit_records,
        1,
    );
    page.histogram(
        &name("fsync_seconds"),
        "How long fdatasync took.",
        &stats.fsync_us,
        MICROSECONDS,
    );
    for (rest, help, offset) in [
        (
            "next_offset",
            "The next offset to be committed.",
            journal.next_offset(),
        ),
        (
            "oldest_offset",
            "The first offset that is kept.",
            journal.oldest(),
        ),
    ] {
        page.gauge(&name(rest), help);
        page.sample(&name(rest), &[], offset);
    }
}

fn write_disk(page: &mut Page, plane: &Plane) {
    let figures = plane.room().figures();
    let free_bytes = figures.disk.map(|disk| disk.free_bytes);
    for (name, help, bytes) in [
        (
            "outhaul_disk_free_bytes",
            "Free space on the disk of the data directory.",
            free_bytes,
        ),
        (
            "outhaul_disk_reserve_bytes",
            "Free space below which what can wait has to.",
            Some(figures.reserve_bytes),
        ),
        (
            "outhaul_disk_ballast_bytes",
            "Space held for what must always work.",
            Some(figures.ballast_bytes),
        ),
    ] {
        if let Some(bytes) = bytes {
            page.gauge(name, help);
            page.sample(name, &[], bytes);
        }
    }
    let name = "outhaul_disk_refused_total";
    page.counter(name, "What was told to wait for want of room, by its kind.");
    for (kind, count) in figures.refused {
        page.sample(name, &[("kind", kind)], count);
    }
}

fn write_kept(page: &mut Page, plane: &Plane) {
    let (segments, bytes) = plane.journal().size();
    let name = "outhaul_journal_kept_bytes";
    page.gauge(name, "Bytes of the journal on disk.");
    page.sample(name, &[], bytes);
    let name = "outhaul_journal_segments";
    page.gauge(name, "Files that the journal is in.");
    page.sample(name, &[], segments);
    if let Some(oldest) = plane.journal().oldest_ms() {
        let name = "outhaul_journal_oldest_seconds";
        page.gauge(
            name,
            "When the oldest record that is kept was accepted, in seconds since 1970.",
        );
        page.sample(name, &[], decimal(oldest, MILLISECONDS));
    }
    let dropped = plane.dropped();
    for (name, help, of) in [
        (
            "outhaul_journal_dropped_records_total",
            "Records that the journal dropped since the broker started, by reason; of a purge, those whose bodies went among them.",
            (|count| count.records) as fn(&Count) -> u64,
        ),
        (
            "outhaul_journal_dropped_bytes_total",
            "Bytes that the journal dropped since the broker started, by reason.",
            |count| count.bytes,
        ),
    ] {
        page.counter(name, help);
        for cause in CAUSES {
            let value = dropped.get(&cause).map_or(0, of);
            page.sample(name, &[("reason", cause.word())], value);
        }
    }
}

fn write_dates(page: &mut Page, plane: &Plane) {
    let name = "outhaul_clock_behind_seconds";
    page.gauge(
        name,
        "How far this machine's clock is behind the time the broker shows.",
    );
    let behind = u64::try_from(plane.clock_behind().as_millis()).unwrap_or(u64::MAX);
    page.sample(name, &[], decimal(behind, MILLISECONDS));
    let name = "outhaul_certificate_not_after_seconds";
    page.gauge(name, "When a certificate ends, in seconds since 1970.");
    let expiry = plane.certificates().expiry;
    for (certificate, end) in [("server", expiry.server), ("authority", expiry.authority)] {
        let labels = [("certificate", certificate)];
        page.sample(name, &labels, decimal(end.0, MILLISECONDS));
    }
    let name = "outhaul_reader_token_not_after_seconds";
    page.gauge(name, "When a reader's token ends, in seconds since 1970.");
    for account in plane.reader_accounts() {
        let kind = match account.rights {
            Rights::Bench => "bench",
            Rights::Read { .. } => "reader",
        };
        let labels = [("reader", account.name.as_str()), ("kind", kind)];
        page.sample(name, &labels, decimal(account.expires_ms, MILLISECONDS));
    }
}
