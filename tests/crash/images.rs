//! Crash images: the recording is played, the power is cut, and what may be left is chosen by a seed.

use std::{
    fs, ops::Range, os::unix::fs::DirBuilderExt as _, os::unix::fs::OpenOptionsExt as _, path::Path,
};

use anyhow::Context as _;

use crate::{
    disk::{Disk, Image, Syncing},
    fate::Fate,
    random::Random,
    recording::{Action, Operation},
    work::Recording,
};

/// What an image is told by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    /// Its number among `total`.
    pub(crate) number: usize,
    /// The moment of the power cut.
    pub(crate) cut_ns: u64,
    /// What became of all that was not durable; none: of each file and directory something else.
    pub(crate) fate: Option<Fate>,
}

/// A call begins, or a sync comes back: between two of these nothing changes that a power cut could show.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begins(usize),
    Ends(usize),
}

/// The recording as a film: it only goes forward.
struct Player<'a> {
    operations: &'a [Operation],
    disk: Disk,
    syncing: Vec<Option<Syncing>>,
}

impl<'a> Player<'a> {
    fn new(recording: &'a Recording) -> Self {
        let mut disk = Disk::new();
        for (path, content) in &recording.base {
            disk.settle(path, content.clone());
        }
        Self {
            operations: &recording.operations,
            disk,
            syncing: vec![None; recording.operations.len()],
        }
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Begins(at) => self.begin(at),
            Event::Ends(at) => {
                if let Some(syncing) = self.syncing[at].take() {
                    self.disk.end_sync(syncing);
                }
            }
        }
    }

    fn begin(&mut self, at: usize) {
        let Operation {
            start_ns,
            end_ns,
            action,
        } = &self.operations[at];
        let disk = &mut self.disk;
        match action {
            Action::Open { path, truncate } => disk.open(path, *truncate, *end_ns),
            Action::Write { path, at, bytes } => disk.write(path, *at, bytes.clone(), *end_ns),
            Action::Resize { path, len } => disk.resize(path, *len, *end_ns),
            Action::Sync { path } => self.syncing[at] = disk.begin_sync(path, *start_ns),
            Action::Rename { from, to } => disk.rename(from, to, *end_ns),
            Action::Remove { path } => {
                assert!(disk.remove(path, *end_ns), "{path} was never made");
            }
            Action::MakeDirectory { path } => disk.make_directory(path, *end_ns),
        }
    }
}

/// Every moment at which something changes, in order.
fn events(operations: &[Operation]) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.start_ns, Event::Begins(at)));
        if matches!(operation.action, Action::Sync { .. }) {
            events.push((operation.end_ns, Event::Ends(at)));
        }
    }
    events.sort_by_key(|(time, event)| (*time, matches!(event, Event::Begins(_))));
    events
}

/// How many moments there are at which a power cut could lose something.
pub(crate) fn cut_points(recording: &Recording) -> usize {
    dirty(recording, &events(&recording.operations)).len()
}

/// Before which events something is not durable.
fn dirty(recording: &Recording, events: &[(u64, Event)]) -> Vec<usize> {
    let mut player = Player::new(recording);
    let mut dirty = Vec::new();
    for (at, (_, event)) in events.iter().enumerate() {
        if player.disk.is_dirty() {
            dirty.push(at);
        }
        player.play(*event);
    }
    dirty
}

/// Gives the images of these numbers out of `total`: power cuts just before something happens, spread over the whole recording. Every
/// other image has one fate for everything, in turn; the rest have another for each file and directory.
pub(crate) fn for_each(
    recording: &Recording,
    seed: u64,
    total: usize,
    numbers: Range<usize>,
    mut look: impl FnMut(Shot, &Image),
) {
    let events = events(&recording.operations);
    let dirty = dirty(recording, &events);
    let mut player = Player::new(recording);
    let mut played = 0;
    for number in numbers {
        let cut = dirty[number * dirty.len() / total];
        while played < cut {
            player.play(events[played].1);
            played += 1;
        }
        let mut random = Random::new(seed ^ u64::try_from(number).unwrap().wrapping_mul(0x9e37));
        // The first number says little of its seed.
        random.next();
        let count = Fate::EVERY.len();
        let fate = (number % 2 == 0).then(|| Fate::EVERY[random.below(count)]);
        let image = player.disk.image(
            |random| fate.unwrap_or_else(|| Fate::EVERY[random.below(count)]),
            &mut random,
        );
        let shot = Shot {
            number,
            cut_ns: events[cut].0,
            fate,
        };
        look(shot, &image);
    }
}

/// Makes an image's files below `place`, which is empty.
pub(crate) fn make(image: &Image, place: &Path) -> anyhow::Result<()> {
    // A power cut is the end of a boot, and what counts in that boot only is of no use after it; here it goes on.
    let is_of_this_boot = |path: &str| path.split('/').any(|name| name == "places");
    for directory in &image.directories {
        let path = place.join(directory);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .context("make a directory of an image")?;
    }
    for (file, content) in &image.files {
        if is_of_this_boot(file) {
            continue;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(place.join(file))
            .context("make a file of an image")?;
        std::io::Write::write_all(&mut file, content)?;
    }
    Ok(())
}
