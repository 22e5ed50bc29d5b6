//! Sealed batches that are not acknowledged yet: kept in the run directory, so that the operator can pass on what is left when
//! this process is gone, and in memory as far as they are about to be sent.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use super::recorder::Sealed;

/// Batches kept in memory, in bytes. What is beyond is read back from its file when its turn comes.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// Room that is kept for the closing batch when the spool is full, in bytes.
const RESERVE_BYTES: usize = 64 * 1024;

/// One unacknowledged batch.
#[derive(Debug)]
struct Entry {
    number: u64,
    bytes: usize,
    /// `None`: in its file only.
    payload: Option<Vec<u8>>,
    on_disk: bool,
    sent: bool,
}

/// The spool, in the order of its batches.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    bytes_max: usize,
    bytes: usize,
    memory_bytes: usize,
    entries: VecDeque<Entry>,
}

impl Spool {
    /// A spool of at most `bytes_max` in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(dir: PathBuf, bytes_max: usize) -> io::Result<Self> {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Self {
            dir,
            bytes_max,
            bytes: 0,
            memory_bytes: 0,
            entries: VecDeque::new(),
        })
    }

    /// Keeps a batch. A file that cannot be written is no reason to lose it: it stays in memory.
    pub fn push(&mut self, batch: Sealed) {
        let bytes = batch.payload.len();
        let on_disk = self.write(batch.number, &batch.payload).is_ok();
        let keep = !on_disk || self.memory_bytes + bytes <= MEMORY_BYTES_MAX;
        if keep {
            self.memory_bytes += bytes;
        }
        self.bytes += bytes;
        self.entries.push_back(Entry {
            number: batch.number,
            bytes,
            payload: keep.then_some(batch.payload),
            on_disk,
            sent: false,
        });
    }

    /// Whether there is no room for more, on disk or in memory.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let lost_files = self.entries.back().is_some_and(|entry| !entry.on_disk);
        self.bytes + RESERVE_BYTES > self.bytes_max
            || (lost_files && self.memory_bytes > MEMORY_BYTES_MAX)
    }

    /// Whether everything is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many batches have not been sent on this link.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.entries
            .iter()
            .rev()
            .take_while(|entry| !entry.sent)
            .count()
    }

    /// The next batch to send, oldest first: its number and payload. It counts as sent until [`Spool::unsend`].
    ///
    /// # Errors
    /// If its file cannot be read back, or is not what was written; the batch is given up, and the chain shows it.
    pub fn take_next(&mut self) -> Option<io::Result<(u64, Vec<u8>)>> {
        let index = self.entries.partition_point(|entry| entry.sent);
        let entry = self.entries.get_mut(index)?;
        entry.sent = true;
        let number = entry.number;
        if let Some(payload) = &entry.payload {
            return Some(Ok((number, payload.clone())));
        }
        let expected = entry.bytes;
        let read = fs::read(self.path(number)).and_then(|payload| {
            if payload.len() == expected {
                Ok(payload)
            } else {
                Err(io::ErrorKind::InvalidData.into())
            }
        });
        Some(match read {
            Ok(payload) => Ok((number, payload)),
            Err(error) => {
                self.acknowledge(number);
                Err(error)
            }
        })
    }

    /// Forgets a batch that the broker has on disk.
    pub fn acknowledge(&mut self, number: u64) {
        let Some(index) = self.entries.iter().position(|entry| entry.number == number) else {
            return;
        };
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        self.bytes -= entry.bytes;
        if entry.payload.is_some() {
            self.memory_bytes -= entry.bytes;
        }
        if entry.on_disk {
            let _ = fs::remove_file(self.path(number));
        }
    }

    /// The link is gone: all that is not acknowledged is to be sent again.
    pub fn unsend(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.sent = false);
    }

    fn write(&self, number: u64, payload: &[u8]) -> io::Result<()> {
        let path = self.path(number);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(payload));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64, bytes: usize) -> Sealed {
        Sealed {
            number,
            payload: vec![u8::try_from(number).unwrap_or(0); bytes],
        }
    }

    fn files(spool: &Spool) -> usize {
        fs::read_dir(&spool.dir).unwrap().count()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_order_and_then_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("spool"), 1 << 20).unwrap();
        (0..3).for_each(|number| spool.push(batch(number, 10)));
        let numbers = |spool: &mut Spool| {
            std::iter::from_fn(|| spool.take_next())
                .map(|next| next.unwrap().0)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (numbers(&mut spool), spool.unsent(), files(&spool)),
            (vec![0, 1, 2], 0, 3)
        );
        spool.acknowledge(1);
        spool.acknowledge(1);
        spool.unsend();
        assert_eq!((spool.unsent(), numbers(&mut spool)), (2, vec![0, 2]));
        spool.acknowledge(0);
        spool.acknowledge(2);
        assert!(spool.is_empty());
        assert_eq!((files(&spool), spool.bytes, spool.memory_bytes), (0, 0, 0));
    }

    #[test]
    fn what_does_not_fit_in_memory_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("spool"), usize::MAX / 2).unwrap();
        let big = MEMORY_BYTES_MAX / 2 + 1;
        (0..4).for_each(|number| spool.push(batch(number, big)));
        assert!(spool.memory_bytes <= MEMORY_BYTES_MAX);
        for number in 0..4 {
            assert_eq!(
                spool.take_next().unwrap().unwrap(),
                (number, batch(number, big).payload)
            );
        }
    }

    #[test]
    fn a_file_that_was_tampered_with_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("spool"), usize::MAX / 2).unwrap();
        (0..2).for_each(|number| spool.push(batch(number, MEMORY_BYTES_MAX)));
        fs::write(spool.path(1), b"short").unwrap();
        assert!(spool.take_next().unwrap().is_ok());
        assert!(spool.take_next().unwrap().is_err());
        assert!(spool.take_next().is_none());
    }

    #[test]
    fn a_full_spool_says_so_and_an_unwritable_one_stays_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("spool"), RESERVE_BYTES + 10).unwrap();
        assert!(!spool.is_full());
        spool.push(batch(0, 11));
        assert!(spool.is_full());
        let mut gone = Spool::open(dir.path().join("gone"), usize::MAX / 2).unwrap();
        fs::remove_dir(&gone.dir).unwrap();
        gone.push(batch(0, MEMORY_BYTES_MAX + 1));
        assert!(gone.is_full());
        assert_eq!(gone.take_next().unwrap().unwrap().0, 0);
    }
}
