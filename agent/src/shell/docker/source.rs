//! Whether a sandbox could read a source. Asked before the launch: an agent that finds an unreadable checkout wastes a run.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use protocol::{id::SourceName, report::Reason};

use super::EngineError;
use crate::core::{launch::USER_ID, rundir::may_read};

/// Entries of a source that are looked at. A sample: it is there to find a wrong mode, not to prove anything.
const ENTRIES_MAX: usize = 256;

/// Checks that the sandbox's user can read a source, and says where it is without links, which is what is mounted. Links inside
/// it are not followed, and access lists are not looked at. `secrets` must lie outside.
///
/// # Errors
/// `source_unreadable`, with the remedy. Paths of the host are for its log, not for the report.
pub fn check(
    name: &SourceName,
    path: &Path,
    user: Option<(u32, u32)>,
    secrets: &[PathBuf],
) -> Result<PathBuf, EngineError> {
    let refuse = |why: &str| {
        tracing::warn!(source = %name, path = %path.display(), "a source cannot be used: {why}");
        EngineError::new(Reason::SourceUnreadable, format!("source {name}: {why}"))
    };
    let real = fs::canonicalize(path)
        .map_err(|_| refuse("it is not there, or the operator may not look"))?;
    let shows = |secret: &PathBuf| {
        let secret = fs::canonicalize(secret).unwrap_or_else(|_| secret.clone());
        secret.starts_with(&real) || real.starts_with(&secret)
    };
    if real == Path::new("/") || secrets.iter().any(shows) {
        return Err(refuse(
            "it would show the operator's or the engine's own files",
        ));
    }
    let facts = fs::metadata(&real).map_err(|_| refuse("the operator may not look at it"))?;
    if !facts.is_dir() {
        return Err(refuse("it is not a directory"));
    }
    let is_open = |facts: &fs::Metadata| {
        let owner = (facts.uid(), facts.gid());
        may_read(user, owner, facts.permissions().mode(), facts.is_dir())
    };
    let remedy = |what: &str| {
        refuse(&format!(
            "{what} not readable by the sandbox's user {USER_ID}; on the host, run chmod -R o+rX on its directory"
        ))
    };
    if !is_open(&facts) {
        return Err(remedy("it is"));
    }
    let entries = fs::read_dir(&real).map_err(|_| refuse("the operator may not list it"))?;
    let closed = entries
        .take(ENTRIES_MAX)
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|facts| (facts.is_dir() || facts.is_file()) && !is_open(facts))
        .count();
    if closed > 0 {
        return Err(remedy(&format!("{closed} of its entries are")));
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user who owns nothing here.
    const STRANGER: Option<(u32, u32)> = Some((4_000_001, 4_000_001));

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn name() -> SourceName {
        SourceName::new("project").unwrap()
    }

    #[test]
    fn a_source_is_readable_only_if_what_is_in_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("src");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("main.rs");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.join("link")).unwrap();
        for (dir_mode, file_mode, readable) in [
            (0o755, 0o644, true),
            (0o750, 0o644, false),
            (0o754, 0o644, false),
            (0o755, 0o640, false),
        ] {
            set(&file, file_mode);
            set(&dir, dir_mode);
            let checked = check(&name(), &dir, STRANGER, &[]);
            assert_eq!(
                checked.is_ok(),
                readable,
                "{dir_mode:o} {file_mode:o} {checked:?}"
            );
            if let Err(error) = checked {
                assert_eq!(error.reason, Reason::SourceUnreadable);
                assert!(error.detail.contains("chmod -R o+rX"), "{error}");
                assert!(
                    !error.detail.contains("main.rs") && !error.detail.contains("src"),
                    "{error}"
                );
            }
        }
        set(&dir, 0o755);
    }

    #[test]
    fn a_link_to_a_secret_place_is_seen_through() {
        let tmp = tempfile::tempdir().unwrap();
        let state = tmp.path().join("state");
        fs::create_dir_all(state.join("keys")).unwrap();
        for (target, fine) in [
            ("state", false),
            ("state/keys", false),
            ("", false),
            ("open", true),
        ] {
            fs::create_dir_all(tmp.path().join("open")).unwrap();
            let link = tmp.path().join("link");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(tmp.path().join(target), &link).unwrap();
            set(tmp.path(), 0o755);
            let checked = check(&name(), &link, STRANGER, std::slice::from_ref(&state));
            assert_eq!(checked.is_ok(), fine, "{target} {checked:?}");
        }
    }

    #[test]
    fn what_is_not_a_directory_is_refused() {
        for path in ["/nowhere-at-all", "/proc/self/status", "/"] {
            assert!(
                check(&name(), Path::new(path), STRANGER, &[]).is_err(),
                "{path}"
            );
        }
    }
}
