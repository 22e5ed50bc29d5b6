//! What must never be written down: tokens, key seeds, proofs, install keys, and payloads that were refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aho_corasick::AhoCorasick;
use anyhow::Context as _;

/// A part of a secret that gives it away, in bytes: long enough to come by no accident.
const TELLING_BYTES: usize = 16;

/// Secrets to look for.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// One more.
    ///
    /// # Panics
    /// If it is too short to be told from what comes by accident.
    pub fn add(&mut self, secret: &[u8]) {
        assert!(secret.len() >= TELLING_BYTES, "too short to be told apart");
        self.0.push(secret.to_vec());
    }

    /// So many more.
    ///
    /// # Panics
    /// As [`Self::add`].
    pub fn extend(&mut self, secrets: &[Vec<u8>]) {
        secrets.iter().for_each(|secret| self.add(secret));
    }

    /// Every form in which a secret could stand in a text: its end, since that is a token's signature and a proof's.
    fn needles(&self) -> Vec<Vec<u8>> {
        let mut needles = Vec::new();
        for secret in &self.0 {
            let telling = telling(secret);
            let lower: String = telling.iter().map(|byte| format!("{byte:02x}")).collect();
            let listed: Vec<_> = telling.iter().map(u8::to_string).collect();
            needles.push(telling.to_vec());
            needles.push(lower.to_uppercase().into_bytes());
            needles.push(lower.into_bytes());
            // As `Debug` prints bytes.
            needles.push(listed.join(", ").into_bytes());
            for skipped in 0..3 {
                for alphabet in [STANDARD, URL] {
                    needles.push(base64(telling.get(skipped..).unwrap_or_default(), alphabet));
                }
            }
        }
        needles
    }

    /// Where a secret was found, in files below `directories`: each with its number of times, and its path.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn found_below(&self, directories: &[&Path]) -> anyhow::Result<Vec<String>> {
        let found = self.files_below(directories)?;
        let said = found
            .into_iter()
            .map(|(path, count)| format!("{count} in {}", path.display()));
        Ok(said.collect())
    }

    /// The same, as paths and numbers.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn files_below(&self, directories: &[&Path]) -> anyhow::Result<Vec<(PathBuf, usize)>> {
        let needles = AhoCorasick::new(self.needles()).context("make the search")?;
        let mut found = Vec::new();
        let mut pending: Vec<_> = directories.iter().map(|path| path.to_path_buf()).collect();
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                for one in
                    fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?
                {
                    pending.push(one?.path());
                }
            } else if let Ok(bytes) = fs::read(&path) {
                let count = needles.find_iter(&bytes).count();
                if count > 0 {
                    found.push((path, count));
                }
            }
        }
        Ok(found)
    }
}

fn telling(secret: &[u8]) -> &[u8] {
    secret
        .last_chunk::<TELLING_BYTES>()
        .map_or(secret, <[u8; TELLING_BYTES]>::as_slice)
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The whole groups of three, so that it is the same whatever stands behind.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = three
                .iter()
                .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
            [18, 12, 6, 0].map(|shift| alphabet.get(bits >> shift & 0x3F).copied().unwrap_or(b'='))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let place = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::default();
        secrets.add(b"\x01\x02 not to be told \xFE\xFF");
        let telling = telling(&secrets.0[0]);
        let forms = [
            telling.to_vec(),
            telling
                .iter()
                .map(|byte| format!("{byte:02X}"))
                .collect::<String>()
                .into_bytes(),
            format!("{telling:?}").into_bytes(),
            base64(&[b"x", telling, b"yz"].concat(), STANDARD),
            base64(&[b"xy", telling, b"z"].concat(), URL),
        ];
        for form in forms {
            fs::write(
                place.path().join("log"),
                [b"said ", form.as_slice(), b"."].concat(),
            )
            .unwrap();
            assert_eq!(
                secrets.found_below(&[place.path()]).unwrap().len(),
                1,
                "{form:?}"
            );
        }
        fs::write(place.path().join("log"), "nothing of the kind").unwrap();
        assert!(secrets.found_below(&[place.path()]).unwrap().is_empty());
    }
}
