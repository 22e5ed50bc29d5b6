//! A passphrase: from a file of its owner's alone, or typed at the terminal without being shown. Never an argument or a variable.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::shell::keys::read_secret;

/// Whether it is new: then it is typed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is being chosen.
    New,
    /// It was chosen before.
    Known,
}

/// Reads it from `file`, or else from the terminal.
pub(crate) fn read(file: Option<&Path>, purpose: Use) -> anyhow::Result<Zeroizing<String>> {
    if let Some(path) = file {
        let text = read_secret(path)?;
        let text = text.with_context(|| {
            format!("read passphrase {}: there is no such file", path.display())
        })?;
        return Ok(first_line(&text));
    }
    let typed = ask("Passphrase for the private keys: ")?;
    if purpose == Use::New {
        ensure!(
            *ask("The same again: ")? == *typed,
            "the two passphrases differ"
        );
    }
    Ok(typed)
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}

/// Asks at the terminal, without showing what is typed.
pub(crate) fn ask(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        bail!(
            "there is no terminal to ask for a secret: name a file that holds it (--passphrase-file, --token-file)"
        );
    };
    let asked = || -> anyhow::Result<Zeroizing<String>> {
        let silence = Silence::new(&terminal)?;
        (&terminal).write_all(prompt.as_bytes())?;
        let mut line = Zeroizing::new(String::new());
        BufReader::new(&terminal).read_line(&mut line)?;
        drop(silence);
        (&terminal).write_all(b"\n")?;
        Ok(first_line(&line))
    };
    asked().context("read from the terminal")
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // If this fails, `stty sane` helps; nothing here does.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_no_passphrase_and_its_line_end_is_not_part_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "six random words of yours\n").unwrap();
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(read(Some(&path), Use::New).is_err());
        mode(0o600);
        assert_eq!(
            *read(Some(&path), Use::New).unwrap(),
            "six random words of yours"
        );
    }
}
