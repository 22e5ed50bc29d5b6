//! What a sandbox's shim holds: its tokens, and its key.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use protocol::key::{Public, Sandbox, Secret};
use zeroize::Zeroizing;

/// Every token that a sandbox was given: the operator puts a fresh one in the place of the last.
pub(super) struct Tokens {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl Tokens {
    pub(super) fn watch(path: PathBuf) -> Self {
        let stopping = Arc::<AtomicBool>::default();
        let until = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !until.load(Ordering::Relaxed) {
                // The first two follow each other at once: so without a pause.
                if let Ok(token) = fs::read(&path) {
                    seen.insert(token);
                }
                std::thread::yield_now();
            }
            seen
        });
        Self { stopping, thread }
    }

    pub(super) fn end(self) -> Vec<Vec<u8>> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().into_iter().collect()
    }
}

/// The seed of a sandbox's key, which its shim holds in its memory and nowhere else: close to its public half. (Who may read another's
/// memory is root: so these tests are run as root.)
pub(super) fn seed_in_memory(pid: &str, key: &Public<Sandbox>) -> Option<Vec<u8>> {
    /// What lies between the two, at most.
    const NEAR: usize = 256;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    for map in maps.lines().filter(|map| map.contains(" rw-p ")) {
        let (range, _) = map.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let found = bytes.windows(32).enumerate();
        for (at, _) in found.filter(|(_, window)| window == key.as_bytes()) {
            let near = at.saturating_sub(NEAR)..(at + NEAR).min(bytes.len());
            for seed in bytes[near].windows(32) {
                let seed: [u8; 32] = seed.try_into().unwrap();
                if Secret::<Sandbox>::from_seed(&Zeroizing::new(seed)).public() == *key {
                    return Some(seed.to_vec());
                }
            }
        }
    }
    None
}
