//! How far each reader got, in a small file for each session that is kept, overwritten in place at every step.
//!
//! What a process has written the kernel keeps when that process is killed, so a broker that is killed repeats nothing that it saw
//! acknowledged, and no step costs a sync. A power cut may leave anything older: a file counts only in the boot of the machine
//! that wrote it, and after another one the place in the store does, which is a little behind.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::id::{ReaderName, hex};
use sha2::{Digest as _, Sha256};

use crate::core::gate::Place;

/// Where the kernel says which boot this is: a random UUID.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// The length of a boot's id, in bytes.
const BOOT_BYTES: usize = 36;
/// A boot's id, and two offsets.
const FILE_BYTES: usize = BOOT_BYTES + 16;

/// A directory of places.
#[derive(Clone, Debug)]
pub struct Places {
    directory: PathBuf,
    boot: [u8; BOOT_BYTES],
}

/// The file of one session. Whoever has it is the only one.
#[derive(Debug)]
pub struct PlaceFile {
    file: File,
    boot: [u8; BOOT_BYTES],
    written: Option<Place>,
}

impl Places {
    /// Opens the directory, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// The disk refuses, or the system does not say which boot this is.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let boot = std::fs::read_to_string(BOOT_ID_FILE)?;
        let boot = boot.trim().as_bytes().try_into();
        let boot = boot.map_err(|_| io::Error::other("the boot's id is not a UUID"))?;
        Self::open_in_boot(directory, boot)
    }

    fn open_in_boot(directory: &Path, boot: [u8; BOOT_BYTES]) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Self {
            directory: directory.to_owned(),
            boot,
        })
    }

    /// How far a session got, if that was written in this boot.
    #[must_use]
    pub fn read(&self, reader: &ReaderName, client_id: &str) -> Option<Place> {
        let mut bytes = [0; FILE_BYTES];
        let file = File::open(self.path(reader, client_id)).ok()?;
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (boot, offsets) = bytes.split_first_chunk::<BOOT_BYTES>()?;
        let (next, sent) = offsets.split_first_chunk::<8>()?;
        (*boot == self.boot).then_some(Place {
            next: u64::from_le_bytes(*next),
            sent: u64::from_le_bytes(sent.try_into().ok()?),
        })
    }

    /// The file of a session, empty unless it goes on.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn take(
        &self,
        reader: &ReaderName,
        client_id: &str,
        goes_on: bool,
    ) -> io::Result<PlaceFile> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(!goes_on)
            .mode(0o600)
            .open(self.path(reader, client_id))?;
        Ok(PlaceFile {
            file,
            boot: self.boot,
            written: None,
        })
    }

    /// Removes the file of a session that is over. One that stays does no harm: a place counts beside a session in the store only, and
    /// is written before that.
    pub fn forget(&self, reader: &ReaderName, client_id: &str) {
        let _ = std::fs::remove_file(self.path(reader, client_id));
    }

    /// Removes the files of all sessions but these, of a reader and its client id each.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn keep_only(&self, sessions: &[(ReaderName, String)]) -> io::Result<()> {
        let kept: BTreeSet<_> = sessions
            .iter()
            .map(|(reader, client_id)| self.path(reader, client_id))
            .collect();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !kept.contains(&path) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// A client's id is its own choice: no name for a file.
    fn path(&self, reader: &ReaderName, client_id: &str) -> PathBuf {
        let digest = Sha256::new()
            .chain_update(reader.as_str())
            .chain_update([0])
            .chain_update(client_id)
            .finalize();
        self.directory.join(hex(&digest))
    }
}

impl PlaceFile {
    /// Writes down how far the session got, if that is news. It survives the end of this process, however that comes.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, place: Place) -> io::Result<()> {
        if self.written == Some(place) {
            return Ok(());
        }
        // One write of less than a page: a kill comes before it or after it.
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&self.boot);
        bytes.extend_from_slice(&place.next.to_le_bytes());
        bytes.extend_from_slice(&place.sent.to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        self.written = Some(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { next: 7, sent: 9 };

    fn siem() -> ReaderName {
        ReaderName::new("siem").unwrap()
    }

    fn places(directory: &Path, boot: u8) -> Places {
        Places::open_in_boot(&directory.join("places"), [boot; BOOT_BYTES]).unwrap()
    }

    #[test]
    fn a_place_is_found_again_in_the_boot_that_wrote_it_and_in_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let before = places(dir.path(), 1);
        assert_eq!(before.read(&siem(), "siem"), None);
        let mut file = before.take(&siem(), "siem", false).unwrap();
        assert_eq!(before.read(&siem(), "siem"), None, "nothing is written");
        for place in [Place { next: 1, sent: 2 }, PLACE] {
            file.write(place).unwrap();
            assert_eq!(places(dir.path(), 1).read(&siem(), "siem"), Some(place));
        }
        assert_eq!(before.read(&siem(), "siem/2"), None);
        assert_eq!(places(dir.path(), 2).read(&siem(), "siem"), None);
    }

    #[test]
    fn a_session_that_begins_anew_has_no_place_and_one_that_goes_on_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), 1);
        let mut file = places.take(&siem(), "siem", false).unwrap();
        file.write(PLACE).unwrap();
        drop(places.take(&siem(), "siem", true).unwrap());
        assert_eq!(places.read(&siem(), "siem"), Some(PLACE));
        drop(places.take(&siem(), "siem", false).unwrap());
        assert_eq!(places.read(&siem(), "siem"), None);
    }

    #[test]
    fn files_of_sessions_that_are_over_go() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), 1);
        for id in ["a", "../b", "c"] {
            places
                .take(&siem(), id, false)
                .unwrap()
                .write(PLACE)
                .unwrap();
        }
        places.forget(&siem(), "a");
        places.keep_only(&[(siem(), "../b".to_owned())]).unwrap();
        let left = ["a", "../b", "c"].map(|id| places.read(&siem(), id));
        assert_eq!(left, [None, Some(PLACE), None]);
    }

    #[test]
    fn the_running_system_says_which_boot_this_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Places::open(&dir.path().join("places")).is_ok());
    }
}
