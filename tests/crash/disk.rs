//! A small model of a file system at a power cut: what is durable, and what may or may not be.
//!
//! The rules, on the side of caution where file systems differ:
//! - What was written to a file before an `fsync` or `fdatasync` of it began is durable once that call has returned. Nothing else is:
//!   no order between writes, no time after which they are on disk.
//! - Of what came later, each sector of 512 bytes has on disk what it had at the last sync, or what any later write left in it,
//!   each sector by itself: so writes are lost, kept, kept out of order, or torn.
//! - The size of a file is on disk as it was at the last sync or as any later write left it, apart from the data: bytes below it that
//!   were not written read as zeros, bytes past it are gone.
//! - A name (made, renamed, removed) is durable once an `fsync` of its directory has returned: that of the file is not enough, though
//!   ext4 makes it so. Before, each change is there or not, whatever became of the others. A rename is there whole or not at all.

use std::{collections::BTreeMap, sync::Arc};

use crate::{fate::Fate, random::Random};

/// What a disk writes as a whole, in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;

/// One change of a file's content.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Arc<[u8]> },
    Resize(usize),
}

/// One change of a directory.
#[derive(Clone, Debug)]
enum NameChange {
    Put(String, usize),
    Remove(String),
    Move(String, String, usize),
}

/// Something that has not ended yet never counts as synced.
#[derive(Clone, Debug)]
struct Pending<T> {
    what: T,
    end_ns: u64,
}

#[derive(Clone, Debug)]
enum Node {
    File {
        durable: Arc<Vec<u8>>,
        pending: Vec<Pending<Change>>,
        /// Changes that became durable, ever.
        synced: usize,
    },
    Directory {
        durable: BTreeMap<String, usize>,
        /// As running programs see it.
        current: BTreeMap<String, usize>,
        pending: Vec<Pending<NameChange>>,
        synced: usize,
    },
}

/// A sync under way: what it will have made durable when it returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syncing {
    node: usize,
    until: usize,
}

/// What a power cut left.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// In an order in which they can be made.
    pub(crate) directories: Vec<String>,
    pub(crate) files: BTreeMap<String, Arc<Vec<u8>>>,
}

/// The disk: a root directory, which is durable, and what was done below it. Paths have no slash at either end; the root is empty.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Self::directory()],
        }
    }

    fn directory() -> Node {
        Node::Directory {
            durable: BTreeMap::new(),
            current: BTreeMap::new(),
            pending: Vec::new(),
            synced: 0,
        }
    }

    /// Something that has been there for long.
    pub(crate) fn settle(&mut self, path: &str, content: Option<Vec<u8>>) {
        match content {
            Some(content) => {
                self.open(path, false, 0);
                let node = self.find(path);
                if let Node::File { durable, .. } = &mut self.nodes[node] {
                    *durable = Arc::new(content);
                }
            }
            None => self.make_directory(path, 0),
        }
        let syncing = self.begin_sync(split(path).0, 1).unwrap();
        self.end_sync(syncing);
    }

    /// A file is opened to be made if it is not there.
    pub(crate) fn open(&mut self, path: &str, truncate: bool, end_ns: u64) {
        if let Some(node) = self.lookup(path) {
            if truncate && self.current_len(node) > 0 {
                self.change(node, Change::Resize(0), end_ns);
            }
            return;
        }
        self.nodes.push(Node::File {
            durable: Arc::default(),
            pending: Vec::new(),
            synced: 0,
        });
        self.put(path, self.nodes.len() - 1, end_ns);
    }

    pub(crate) fn make_directory(&mut self, path: &str, end_ns: u64) {
        self.nodes.push(Self::directory());
        self.put(path, self.nodes.len() - 1, end_ns);
    }

    pub(crate) fn write(&mut self, path: &str, at: usize, bytes: Arc<[u8]>, end_ns: u64) {
        let node = self.find(path);
        self.change(node, Change::Write { at, bytes }, end_ns);
    }

    pub(crate) fn resize(&mut self, path: &str, len: usize, end_ns: u64) {
        let node = self.find(path);
        self.change(node, Change::Resize(len), end_ns);
    }

    /// Whether there was such a name.
    pub(crate) fn remove(&mut self, path: &str, end_ns: u64) -> bool {
        let (directory, name) = split(path);
        let is_there = self.lookup(path).is_some();
        if is_there {
            self.rename_in(directory, NameChange::Remove(name.to_owned()), end_ns);
        }
        is_there
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, end_ns: u64) {
        let ((directory, from_name), (to_directory, to_name)) = (split(from), split(to));
        assert_eq!(directory, to_directory, "a rename stays in its directory");
        let node = self.find(from);
        let change = NameChange::Move(from_name.to_owned(), to_name.to_owned(), node);
        self.rename_in(directory, change, end_ns);
    }

    /// A sync begins at this time. None: there is no such name any more.
    pub(crate) fn begin_sync(&self, path: &str, start_ns: u64) -> Option<Syncing> {
        let node = self.lookup(path)?;
        let ended = |end_ns: u64| end_ns <= start_ns;
        let (before, synced) = match &self.nodes[node] {
            Node::File {
                pending, synced, ..
            } => (
                pending
                    .iter()
                    .take_while(|change| ended(change.end_ns))
                    .count(),
                synced,
            ),
            Node::Directory {
                pending, synced, ..
            } => (
                pending
                    .iter()
                    .take_while(|change| ended(change.end_ns))
                    .count(),
                synced,
            ),
        };
        let until = synced + before;
        Some(Syncing { node, until })
    }

    /// The sync has returned.
    pub(crate) fn end_sync(&mut self, syncing: Syncing) {
        match &mut self.nodes[syncing.node] {
            Node::File {
                durable,
                pending,
                synced,
            } => {
                let count = syncing.until.saturating_sub(*synced);
                for change in pending.drain(..count) {
                    apply(Arc::make_mut(durable), &change.what);
                }
                *synced += count;
            }
            Node::Directory {
                durable,
                pending,
                synced,
                ..
            } => {
                let count = syncing.until.saturating_sub(*synced);
                for change in pending.drain(..count) {
                    apply_name(durable, &change.what);
                }
                *synced += count;
            }
        }
    }

    /// A power cut now.
    pub(crate) fn image(&self, fate: impl Fn(&mut Random) -> Fate, random: &mut Random) -> Image {
        let mut image = Image::default();
        let mut open = vec![(String::new(), 0)];
        while let Some((path, node)) = open.pop() {
            match &self.nodes[node] {
                Node::Directory {
                    durable, pending, ..
                } => {
                    let kept = fate(random).whole(pending.len(), random);
                    let mut names = durable.clone();
                    for (change, _) in pending.iter().zip(kept).filter(|(_, kept)| *kept) {
                        apply_name(&mut names, &change.what);
                    }
                    for (name, node) in names {
                        open.push((join(&path, &name), node));
                    }
                    if !path.is_empty() {
                        image.directories.push(path);
                    }
                }
                Node::File {
                    durable, pending, ..
                } => {
                    let content = if pending.is_empty() {
                        Arc::clone(durable)
                    } else {
                        Arc::new(left_of(durable, pending, fate(random), random))
                    };
                    image.files.insert(path, content);
                }
            }
        }
        image
    }

    /// Whether anything is not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.nodes.iter().any(|node| match node {
            Node::File { pending, .. } => !pending.is_empty(),
            Node::Directory { pending, .. } => !pending.is_empty(),
        })
    }

    fn change(&mut self, node: usize, what: Change, end_ns: u64) {
        match &mut self.nodes[node] {
            Node::File { pending, .. } => pending.push(Pending { what, end_ns }),
            Node::Directory { .. } => panic!("a directory has no bytes"),
        }
    }

    fn put(&mut self, path: &str, node: usize, end_ns: u64) {
        let (directory, name) = split(path);
        self.rename_in(directory, NameChange::Put(name.to_owned(), node), end_ns);
    }

    fn rename_in(&mut self, directory: &str, what: NameChange, end_ns: u64) {
        let node = self.find(directory);
        match &mut self.nodes[node] {
            Node::Directory {
                current, pending, ..
            } => {
                apply_name(current, &what);
                pending.push(Pending { what, end_ns });
            }
            Node::File { .. } => panic!("{directory} is no directory"),
        }
    }

    fn find(&self, path: &str) -> usize {
        self.lookup(path)
            .unwrap_or_else(|| panic!("{path} was never made"))
    }

    fn lookup(&self, path: &str) -> Option<usize> {
        let mut node = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match &self.nodes[node] {
                Node::Directory { current, .. } => node = *current.get(name)?,
                Node::File { .. } => return None,
            }
        }
        Some(node)
    }

    fn current_len(&self, node: usize) -> usize {
        match &self.nodes[node] {
            Node::File {
                durable, pending, ..
            } => {
                let changes = pending.iter().map(|change| &change.what);
                changes.fold(durable.len(), size_after)
            }
            Node::Directory { .. } => 0,
        }
    }
}

/// What is left of a file.
fn left_of(
    durable: &[u8],
    pending: &[Pending<Change>],
    fate: Fate,
    random: &mut Random,
) -> Vec<u8> {
    let kept = fate.whole(pending.len(), random);
    let sized = fate.size(&kept, random);
    let (mut current, mut left) = (durable.to_vec(), durable.to_vec());
    let mut len = durable.len();
    for (at, (change, is_kept)) in pending.iter().zip(kept).enumerate() {
        apply(&mut current, &change.what);
        if at < sized {
            len = size_after(len, &change.what);
        }
        let (from, to) = match &change.what {
            Change::Write { at, bytes } => (*at, at + bytes.len()),
            Change::Resize(_) => continue,
        };
        let (first, end) = (from / SECTOR_BYTES, to.div_ceil(SECTOR_BYTES));
        left.resize(left.len().max(current.len()), 0);
        let sectors = fate.sectors(is_kept, end - first, random);
        for (sector, _) in (first..end).zip(sectors).filter(|(_, kept)| *kept) {
            // The whole sector, as all writes so far left it in memory: that is what reaches the disk.
            let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(current.len());
            left[range.clone()].copy_from_slice(&current[range]);
        }
    }
    left.resize(len, 0);
    left
}

fn size_after(len: usize, change: &Change) -> usize {
    match change {
        Change::Write { at, bytes } => len.max(at + bytes.len()),
        Change::Resize(len) => *len,
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    content.resize(size_after(content.len(), change), 0);
    if let Change::Write { at, bytes } = change {
        content[*at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Put(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
        NameChange::Move(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, len: usize) -> Arc<[u8]> {
        vec![byte; len].into()
    }

    /// A durable file `f` of three sectors of `a`.
    fn disk() -> Disk {
        let mut disk = Disk::new();
        disk.settle("f", Some(vec![b'a'; 3 * SECTOR_BYTES]));
        disk
    }

    fn image(disk: &Disk, fate: Fate, seed: u64) -> Image {
        disk.image(|_| fate, &mut Random::new(seed))
    }

    /// What `f` is under every fate and many seeds.
    fn all_of(disk: &Disk) -> Vec<Vec<u8>> {
        let seeds = (0..200).flat_map(|seed| Fate::EVERY.map(|fate| (fate, seed)));
        let files = seeds.map(|(fate, seed)| image(disk, fate, seed).files["f"].to_vec());
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn sync(disk: &mut Disk, path: &str, start_ns: u64) {
        let syncing = disk.begin_sync(path, start_ns).unwrap();
        disk.end_sync(syncing);
    }

    #[test]
    fn what_was_synced_is_there_whatever_happens() {
        let mut disk = disk();
        disk.write("f", 100, bytes(b'b', 1000), 5);
        sync(&mut disk, "f", 5);
        assert!(!disk.is_dirty());
        let files = all_of(&disk);
        assert_eq!(files.len(), 1);
        assert_eq!(files[0][99..=100], *b"ab");
    }

    #[test]
    fn a_sync_that_has_not_returned_or_began_before_the_write_ended_proves_nothing() {
        let mut disk = disk();
        disk.write("f", 0, bytes(b'b', 512), 5);
        let early = disk.begin_sync("f", 4).unwrap();
        let open = disk.begin_sync("f", 6).unwrap();
        disk.end_sync(early);
        assert!(all_of(&disk).len() > 1);
        // One that came after the sync began is not part of it.
        disk.write("f", 512, bytes(b'c', 512), 9);
        disk.end_sync(open);
        let files = all_of(&disk);
        assert!(files.len() > 1);
        assert!(files.iter().all(|file| file[0] == b'b'));
    }

    #[test]
    fn every_sector_stands_for_itself_and_never_goes_back_in_time() {
        let mut disk = disk();
        disk.write("f", 0, bytes(b'b', 3 * 512), 1);
        disk.write("f", 256, bytes(b'c', 512), 2);
        let files = all_of(&disk);
        let first: std::collections::BTreeSet<_> = files.iter().map(|f| [f[0], f[256]]).collect();
        // The later write without the earlier one is in no memory, so on no disk.
        assert_eq!(first, [*b"aa", *b"bb", *b"bc"].into());
        let third: std::collections::BTreeSet<_> = files.iter().map(|f| [f[0], f[1024]]).collect();
        assert_eq!(third.len(), 4, "torn either way");
        assert!(files.iter().all(|file| file.len() == 3 * 512));
    }

    #[test]
    fn growth_and_data_are_lost_apart_from_each_other() {
        let mut disk = disk();
        disk.write("f", 3 * 512, bytes(b'b', 700), 1);
        assert_eq!(image(&disk, Fate::Nothing, 0).files["f"].len(), 1536);
        assert_eq!(image(&disk, Fate::NoGrowth, 0).files["f"].len(), 1536);
        let grown = &image(&disk, Fate::GrowthOnly, 0).files["f"];
        assert_eq!((grown.len(), grown[1536]), (2236, 0));
        let all = &image(&disk, Fate::All, 0).files["f"];
        assert_eq!((all.len(), all[2235]), (2236, b'b'));
        assert!(
            all_of(&disk)
                .iter()
                .any(|file| file.len() == 2236 && file[1536] == 0 && file[2235] == b'b')
        );
    }

    #[test]
    fn a_name_is_durable_with_its_directory_and_not_with_its_file() {
        let mut disk = Disk::new();
        disk.make_directory("d", 1);
        disk.open("d/f", false, 2);
        disk.write("d/f", 0, bytes(b'b', 10), 3);
        sync(&mut disk, "d/f", 4);
        assert!(image(&disk, Fate::Nothing, 0).directories.is_empty());
        sync(&mut disk, "", 5);
        let image_now = image(&disk, Fate::Nothing, 0);
        assert_eq!(image_now.directories, ["d"]);
        assert!(image_now.files.is_empty());
        sync(&mut disk, "d", 6);
        assert_eq!(image(&disk, Fate::Nothing, 0).files["d/f"].len(), 10);
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all_and_a_removal_comes_back() {
        let mut disk = disk();
        disk.open("new", false, 1);
        disk.write("new", 0, bytes(b'n', 5), 2);
        sync(&mut disk, "new", 3);
        sync(&mut disk, "", 3);
        disk.rename("new", "f", 4);
        for fate in Fate::EVERY {
            for seed in 0..20 {
                let files = image(&disk, fate, seed).files;
                let old = files.len() == 2 && files["f"].len() == 1536;
                let new = files.len() == 1 && files["f"].len() == 5;
                assert!(old || new);
            }
        }
        sync(&mut disk, "", 5);
        assert!(disk.remove("f", 6));
        assert!(!disk.remove("f", 6));
        assert!(image(&disk, Fate::Nothing, 0).files.contains_key("f"));
        assert!(image(&disk, Fate::All, 0).files.is_empty());
    }

    #[test]
    fn the_same_seed_gives_the_same_image() {
        let mut disk = disk();
        for at in 0..20 {
            disk.write("f", at * 300, bytes(b'b', 900), 1);
        }
        for seed in 0..20 {
            let twice = [0; 2].map(|_| image(&disk, Fate::Sectors, seed).files["f"].to_vec());
            assert_eq!(twice[0], twice[1]);
        }
    }
}
