//! A clock that lies to the broker: no token that ended comes to life again, no time in the journal goes back, and nobody's link
//! breaks. faketime changes the wall clock while the broker runs, and leaves the clock for waits alone.

use std::path::{Path, PathBuf};

use tests::{
    docker, local, wait,
    world::{BrokerTerms, World},
};

use crate::site::Site;

/// The library that `faketime` puts before the system's.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("faketime; `tests/run.sh` installs it")
}

/// A clock that can be set.
struct Clock {
    file: tempfile::NamedTempFile,
    library: String,
}

impl Clock {
    fn new() -> Self {
        let clock = Self {
            file: tempfile::NamedTempFile::new().unwrap(),
            library: faketime().to_string_lossy().into_owned(),
        };
        clock.set("+0");
        clock
    }

    /// So far from the true time.
    fn set(&self, offset: &str) {
        std::fs::write(self.path(), offset).unwrap();
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn with<T>(&self, work: impl FnOnce(BrokerTerms<'_>) -> T) -> T {
        let file = self.path().to_string_lossy();
        work(BrokerTerms {
            environment: &self.environment(&file),
            ..BrokerTerms::default()
        })
    }

    fn environment<'a>(&'a self, file: &'a str) -> [(&'static str, &'a str); 4] {
        [
            ("LD_PRELOAD", self.library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Runs the command line by this clock; what it prints, and how it ends.
    fn outhaul(&self, world: &World, arguments: &[&str]) -> (String, Option<i32>) {
        let file = self.path().to_string_lossy();
        let mut command = world.outhaul(arguments);
        command.envs(self.environment(&file));
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (printed, output.status.code())
    }
}

/// The times of the journal's records, in their order.
fn times(site: &Site) -> Vec<u64> {
    let records = local::records(&site.world.socket(), site.publisher.host.as_str()).unwrap();
    records.iter().map(|record| record.time_ms).collect()
}

const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_token_that_ended_when_the_clock_went_ahead_stays_ended_when_it_comes_back_and_over_a_restart()
{
    let clock = Clock::new();
    let mut site = clock.with(|terms| Site::new(None, terms));
    let publishing = site.publish();
    publishing.wait_acknowledged(20);
    clock.set("+7200");
    // Who is connected stays connected: its token's time was counted from when it came.
    wait::until("a record of two hours ahead", || {
        let last = *times(&site).last()?;
        (last > wait::now().0 + HOUR_MS).then_some(())
    });
    publishing.wait_acknowledged(20);
    assert!(site.publisher.connect().is_err(), "its token has ended");
    clock.set("+0");
    publishing.wait_acknowledged(20);
    assert!(site.publisher.connect().is_err(), "and has still ended");
    assert!(site.metric("outhaul_clock_behind_seconds") > 7_100);
    assert_eq!(site.readiness().unwrap(), (true, vec![]));
    let sent = publishing.finish();
    // As a crash: nothing is written down at the end.
    site.world.kill_broker();
    clock
        .with(|terms| site.world.start_broker_with(terms))
        .unwrap();
    assert!(site.publisher.connect().is_err(), "over a restart too");
    let log = site.world.log("broker");
    assert!(
        log.contains(
            "this machine's clock is behind the time that the broker showed before: set it"
        ),
        "{log}"
    );
    site.check_kept(&sent);
    assert!(times(&site).is_sorted(), "no time goes back");
}

#[test]
fn a_clock_that_goes_back_by_an_hour_breaks_no_link_and_no_time_goes_back() {
    let clock = Clock::new();
    let mut site = clock.with(|terms| Site::new(None, terms));
    let publishing = site.publish();
    publishing.wait_acknowledged(20);
    clock.set("-3600");
    wait::until("the broker to see it", || {
        (site.metric("outhaul_clock_behind_seconds") > 3_500).then_some(())
    });
    publishing.wait_acknowledged(20);
    assert!(site.publisher.connect().is_ok(), "its token has not ended");
    site.world.kill_broker();
    clock
        .with(|terms| site.world.start_broker_with(terms))
        .unwrap();
    publishing.wait_acknowledged(20);
    assert_eq!(site.readiness().unwrap(), (true, vec![]));
    assert!(
        site.world
            .log("broker")
            .contains("clock is behind the time that the broker showed")
    );
    site.check_kept(&publishing.finish());
    let times = times(&site);
    assert!(times.is_sorted(), "no time goes back");
    assert!(
        times.last().unwrap() + HOUR_MS / 2 > wait::now().0,
        "nor an hour behind"
    );
}

/// A host whose clock is true, of a platform whose clock is off by so much: what the broker shows of it.
fn skew_of_a_host_that_works(platform: &str) -> i64 {
    docker::ensure_image().unwrap();
    let clock = Clock::new();
    clock.set(platform);
    let mut world = World::empty().unwrap();
    clock.with(|terms| world.start_broker_with(terms)).unwrap();
    assert_eq!(clock.outhaul(&world, &["dispatcher", "init"]).1, Some(0));
    let bundle = world.path("bundle");
    let add = ["host", "add", &world.host, "--kind", "docker", "--out"];
    let place = bundle.to_string_lossy();
    let add = [&add[..], &[&place]].concat();
    assert_eq!(clock.outhaul(&world, &add).1, Some(0));
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    let run = ["run", "--content", "full", docker::IMAGE, "--", "sh", "-c"];
    let run = [&run[..], &["echo hello; exit 3"]].concat();
    assert_eq!(clock.outhaul(&world, &run), ("hello\n".to_owned(), Some(3)));
    let shown = local::get_json(&world.socket(), &format!("/v1/hosts/{}", world.host)).unwrap();
    let page = clock.outhaul(&world, &["host", "show", &world.host]).0;
    let side = if platform.starts_with('-') {
        "ahead of"
    } else {
        "behind"
    };
    assert!(page.contains(side), "{page}");
    shown["clock_ahead_ms"].as_i64().unwrap()
}

#[test]
fn a_host_whose_clock_is_two_hours_ahead_enrols_and_works_and_that_is_shown() {
    let ahead_ms = skew_of_a_host_that_works("-7200");
    assert!((7_140_000..7_260_000).contains(&ahead_ms), "{ahead_ms}");
}

#[test]
fn a_host_whose_clock_is_a_year_behind_enrols_and_works_and_that_is_shown() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let ahead_ms = skew_of_a_host_that_works("+31536000");
    assert!(
        (-YEAR_MS - 60_000..60_000 - YEAR_MS).contains(&ahead_ms),
        "{ahead_ms}"
    );
}
