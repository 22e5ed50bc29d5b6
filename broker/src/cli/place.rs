//! Where this user's files and the broker's socket are, and how files are made that others must not read.

use std::{
    ffi::OsString,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::config;

/// What of the environment says where things are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    home: Option<PathBuf>,
    config_home: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    /// What the user is called, for the name of a key.
    pub(crate) user: Option<String>,
}

impl Environment {
    /// Reads it, once.
    pub(crate) fn read() -> Self {
        // A relative path in these variables is void (XDG Base Directory Specification).
        let path = |value: Option<OsString>| value.map(PathBuf::from).filter(|p| p.is_absolute());
        Self {
            home: path(std::env::var_os("HOME")),
            config_home: path(std::env::var_os("XDG_CONFIG_HOME")),
            data_dir: std::env::var_os("OUTHAUL_DATA_DIR").map(PathBuf::from),
            user: std::env::var_os("USER").and_then(|user| user.into_string().ok()),
        }
    }

    /// For tests: everything below one directory.
    #[cfg(test)]
    pub(crate) fn in_dir(directory: &Path) -> Self {
        Self {
            home: Some(directory.to_owned()),
            ..Self::default()
        }
    }

    /// The broker's socket, unless a flag names another: where a broker of this user puts it.
    pub(crate) fn socket(&self) -> PathBuf {
        let data_dir = self.data_dir.clone();
        config::default_socket(&data_dir.unwrap_or_else(config::default_data_dir))
    }

    /// This user's configuration directory.
    pub(crate) fn config_dir(&self) -> anyhow::Result<PathBuf> {
        let home = || self.home.as_ref().map(|home| home.join(".config"));
        match self.config_home.clone().or_else(home) {
            Some(config) => Ok(config.join("outhaul")),
            None => bail!(
                "find the configuration directory: neither HOME nor XDG_CONFIG_HOME is an absolute path"
            ),
        }
    }
}

/// Makes a directory that only its owner enters, with its parents; one that is there stays as it is.
pub(crate) fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("make directory {}", parent.display()))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make directory {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether something is at `path`, be it a dangling link.
pub(crate) fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Writes a new file with `mode`, and waits until it is on the disk. Never overwrites.
pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("make {}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

/// Writes a token that was just made to a new file of its owner's alone.
pub(crate) fn write_token(path: &Path, token: &str) -> anyhow::Result<()> {
    let text = Zeroizing::new(format!("{token}\n"));
    write_new(path, 0o600, text.as_bytes())?;
    sync_dir(directory_of(path))
}

/// The directory that holds `path`: of a bare name, the one that this program was started in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::File::open(path)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_directory_that_the_program_was_started_in() {
        for (path, directory) in [("key", "."), ("a/key", "a"), ("/key", "/"), ("./key", ".")] {
            assert_eq!(directory_of(Path::new(path)), Path::new(directory));
        }
    }

    fn environment() -> Environment {
        Environment {
            home: Some("/home/ada".into()),
            ..Environment::default()
        }
    }

    #[test]
    fn the_socket_follows_the_brokers_data_directory() {
        let moved = Environment {
            data_dir: Some("/data".into()),
            ..environment()
        };
        assert_eq!(moved.socket(), Path::new("/data/outhaul.sock"));
        assert!(environment().socket().ends_with("outhaul/outhaul.sock"));
    }

    #[test]
    fn without_a_home_there_is_an_error_and_no_guess() {
        assert_eq!(
            environment().config_dir().unwrap(),
            Path::new("/home/ada/.config/outhaul")
        );
        let moved = Environment {
            config_home: Some("/c".into()),
            ..environment()
        };
        assert_eq!(moved.config_dir().unwrap(), Path::new("/c/outhaul"));
        assert!(Environment::default().config_dir().is_err());
    }

    #[test]
    fn a_new_file_has_its_mode_from_the_start_and_is_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_new(&path, 0o600, b"one").unwrap();
        assert!(write_new(&path, 0o600, b"two").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_is_written_closed_to_others_and_over_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("siem.token");
        write_token(&path, "ort1_x").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ort1_x\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_token(&path, "ort1_y").is_err());
    }
}
