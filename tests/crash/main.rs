//! What the broker keeps when the power is cut: acknowledged means durable, not merely written.
//!
//! A kill keeps the page cache, so the kill loop (`tests/faults`) says nothing about this. Here every write and sync of a real broker at
//! work is recorded ([`work`], [`recording`]), played on a model of a disk that forgets ([`disk`], which states its rules), and cut off at
//! thousands of moments ([`images`]); each image is opened by the broker's own code ([`recover`]), some by the real process, and held to
//! what the clients had been told by then ([`check`]). The same against a recording without `fdatasync` must fail.
//!
//! `OUTHAUL_IMAGES` (`tests/run.sh --images N`) says how many images. To see one again, as its failure says: `OUTHAUL_CRASH_SEED`,
//! `OUTHAUL_CRASH_RECORDING`, `OUTHAUL_CRASH_IMAGE`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in a test a failed step is a failed test"
)]

mod check;
mod disk;
mod fate;
mod images;
mod notes;
mod process;
mod publisher;
mod random;
mod reader;
mod recording;
mod recover;
mod work;

use std::{
    fs,
    path::{Path, PathBuf},
};

use images::Shot;
use recover::Recovery;
use work::Recording;

/// Images in all, unless `OUTHAUL_IMAGES` says otherwise.
const IMAGES: usize = 400;
/// Of so many images one is of the roll of a segment: each of those is 64 MiB.
const ROLLS_ONE_IN: usize = 20;
/// Of so many images one is opened by the real process too.
const PROCESS_ONE_IN: usize = 50;
/// Images that are enough to see that without syncs something is lost.
const UNSYNCED_IMAGES: usize = 60;
/// Failures that are shown.
const SHOWN_MAX: usize = 5;

#[expect(
    clippy::disallowed_methods,
    reason = "how long this test runs, and what it repeats, is its caller's to say"
)]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    asked(name).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

fn images() -> usize {
    number("OUTHAUL_IMAGES").map_or(IMAGES, |count| usize::try_from(count).unwrap())
}

/// A recording, its images, and what was wrong with them.
struct Run {
    place: PathBuf,
    /// It is somebody's, and stays.
    is_given: bool,
    seed: u64,
    total: usize,
    cut_points: usize,
    opened_by_process: usize,
    failures: Vec<(Shot, String)>,
}

impl Run {
    /// Records, or takes the recording that was asked for, and looks at every image.
    fn new(name: &str, total: usize, record: impl Fn(&Path) -> anyhow::Result<()>) -> Self {
        let given = asked("OUTHAUL_CRASH_RECORDING").map(PathBuf::from);
        let is_given = given.is_some();
        let place = given.unwrap_or_else(|| {
            let place = fresh(name);
            record(&place).unwrap();
            place
        });
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let seed = number("OUTHAUL_CRASH_SEED").unwrap_or_else(|| u64::from_le_bytes(random));
        let recording = Recording::load(&place).unwrap();
        for stream in &recording.notes.streams {
            check::verify_chain(stream).unwrap();
        }
        let mut run = Self {
            place,
            is_given,
            seed,
            total,
            cut_points: images::cut_points(&recording),
            opened_by_process: 0,
            failures: Vec::new(),
        };
        run.look_at_all(&recording);
        run
    }

    fn look_at_all(&mut self, recording: &Recording) {
        let recovery = Recovery::new().unwrap();
        let only = number("OUTHAUL_CRASH_IMAGE").map(|number| usize::try_from(number).unwrap());
        let numbers = only.map_or(0..self.total, |number| number..number + 1);
        images::for_each(recording, self.seed, self.total, numbers, |shot, image| {
            let is_process = shot.number % PROCESS_ONE_IN == PROCESS_ONE_IN / 2;
            let place = scratch();
            images::make(image, place.path()).unwrap();
            let mut said = look_at(&recovery, recording, shot, place.path());
            if let (Ok(found), true) = (&said, is_process) {
                self.opened_by_process += 1;
                if let Err(error) = process::check(image, found) {
                    said = Err(error.context("opened by the process"));
                }
            }
            if let Err(error) = said {
                self.failures.push((shot, format!("{error:#}")));
            }
        });
    }

    /// What it saw, for people.
    fn summary(&self) -> String {
        let Self {
            seed,
            total,
            cut_points,
            opened_by_process,
            failures,
            ..
        } = self;
        format!(
            "{total} images of {cut_points} cut points, seed {seed}, {opened_by_process} opened by the process too: {} failed",
            failures.len()
        )
    }

    /// Removes the recording: it has served.
    fn forget(&self) {
        if !self.is_given {
            fs::remove_dir_all(&self.place).unwrap();
        }
    }

    fn assert_none_failed(self) {
        println!("{}", self.summary());
        if self.failures.is_empty() {
            self.forget();
            return;
        }
        for (shot, error) in self.failures.iter().take(SHOWN_MAX) {
            let Shot { number, fate, .. } = shot;
            println!("image {number} ({fate:?}): {error}");
        }
        panic!(
            "{}; again: OUTHAUL_CRASH_RECORDING={} OUTHAUL_CRASH_SEED={} OUTHAUL_IMAGES={} OUTHAUL_CRASH_IMAGE=…",
            self.summary(),
            self.place.display(),
            self.seed,
            images()
        );
    }
}

fn look_at(
    recovery: &Recovery,
    recording: &Recording,
    shot: Shot,
    place: &Path,
) -> anyhow::Result<recover::Found> {
    use anyhow::{Context as _, ensure};
    let notes = &recording.notes;
    let found = recovery.open(place, reader::NAME).context("open")?;
    check::check(&found, notes, shot.cut_ns)?;
    let again = recovery.open(place, reader::NAME).context("open again")?;
    ensure!(found == again, "opened again it is another");
    let done = notes.steps.iter().filter(|step| step.done_ns < shot.cut_ns);
    let install_keys: Vec<_> = done
        .filter_map(|step| match &step.deed {
            notes::Deed::Enrol {
                host, install_key, ..
            } => Some((host.as_str(), install_key.as_str())),
            _ => None,
        })
        .collect();
    let unused = recovery.unused(place, &install_keys)?;
    ensure!(unused.is_none(), "an install key is good again: {unused:?}");
    Ok(found)
}

/// A place for a recording, kept where it failed.
fn fresh(name: &str) -> PathBuf {
    let all = tests::programs::root().join("target/crash");
    fs::create_dir_all(&all).unwrap();
    let place = tempfile::Builder::new().prefix(name).tempdir_in(all);
    place.unwrap().keep()
}

/// A directory in memory, where there is one: an image is made, opened and forgotten.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("outhaul-crash-");
        builder
    };
    builder()
        .tempdir_in(memory)
        .or_else(|_| builder().tempdir())
        .unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_every_power_cut() {
    let total = images();
    let run = Run::new("fsync", total - total / ROLLS_ONE_IN, |place| {
        work::record(place, "fsync")
    });
    run.assert_none_failed();
}

#[test]
fn a_power_cut_at_the_roll_of_a_segment_loses_nothing() {
    let run = Run::new("roll", images() / ROLLS_ONE_IN, |place| {
        work::record_roll(place, "fsync")
    });
    run.assert_none_failed();
}

#[test]
fn without_fsync_the_same_check_finds_what_is_lost() {
    let run = Run::new("os", UNSYNCED_IMAGES, |place| work::record(place, "os"));
    println!("{}", run.summary());
    let lost = run
        .failures
        .iter()
        .filter(|(_, error)| error.contains("were acknowledged"));
    assert!(lost.count() > 0, "{:?}", run.failures);
    run.forget();
}
