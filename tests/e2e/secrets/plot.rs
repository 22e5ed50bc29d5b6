//! What is looked for, where it may be found, and where it must.

use std::{collections::BTreeMap, fs, path::Path};

use tests::secrets::Secrets;

/// A secret, in the forms it has, and where it may be heard or found: names of places below the evidence.
struct Planted {
    secret: Secrets,
    /// Prefixes of paths. Everything else is forbidden.
    allowed: &'static [&'static str],
    /// The search is no search if it does not find what must be there.
    expected: &'static [&'static str],
}

/// What is heard: to the broker or from it, over MQTT or HTTPS.
pub(super) const MQTT_UP: &str = "heard/mqtt-up";
pub(super) const MQTT_DOWN: &str = "heard/mqtt-down";
pub(super) const HTTP_UP: &str = "heard/http-up";
pub(super) const HTTP_DOWN: &str = "heard/http-down";
/// Where events are kept.
pub(super) const JOURNAL: &str = "store/journal";
pub(super) const BACKUP: &str = "backup/journal";

/// What is looked for, by name.
#[derive(Default)]
pub(super) struct Plot(BTreeMap<String, Planted>);

impl Plot {
    /// One that may be nowhere.
    pub(super) fn never(&mut self, name: &str, forms: &[Vec<u8>]) {
        self.add(name, forms, &[], &[]);
    }

    /// One that its owner presents.
    pub(super) fn presented(&mut self, name: &str, forms: &[Vec<u8>], at: &'static [&'static str]) {
        self.add(name, forms, at, at);
    }

    fn add(
        &mut self,
        name: &str,
        forms: &[Vec<u8>],
        allowed: &'static [&'static str],
        expected: &'static [&'static str],
    ) {
        let mut secret = Secrets::default();
        secret.extend(forms);
        let planted = Planted {
            secret,
            allowed,
            expected,
        };
        let before = self.0.insert(name.to_owned(), planted);
        assert!(before.is_none(), "two secrets called {name}");
    }

    /// A key file of ours: its text, and the seed in it.
    pub(super) fn key_file(&mut self, name: &str, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        self.key_text(name, &text);
    }

    pub(super) fn key_text(&mut self, name: &str, text: &str) {
        let digits = text.trim().rsplit('_').next().unwrap();
        let seed: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert_eq!(seed.len(), 32, "{name}");
        self.never(name, &[seed, digits.as_bytes().to_vec()]);
    }

    /// A key as PEM: every whole line of it.
    pub(super) fn pem_file(&mut self, name: &str, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('-')).collect();
        // What comes first says which kind of key it is, and is no secret.
        let forms: Vec<_> = lines[1..]
            .iter()
            .filter(|line| line.len() >= 32)
            .map(|line| line.as_bytes().to_vec())
            .collect();
        assert!(!forms.is_empty(), "{name}");
        self.never(name, &forms);
    }

    /// Judges the evidence below `root`.
    pub(super) fn judge(&self, root: &Path) {
        let mut wrong = Vec::new();
        for (name, planted) in &self.0 {
            let found = planted.secret.files_below(&[root]).unwrap();
            let places: Vec<String> = found
                .iter()
                .map(|(path, _)| {
                    path.strip_prefix(root)
                        .unwrap()
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            let is_allowed = |place: &String| {
                planted
                    .allowed
                    .iter()
                    .any(|prefix| place.starts_with(prefix))
            };
            for place in places.iter().filter(|place| !is_allowed(place)) {
                wrong.push(format!("{name} is in {place}"));
            }
            for prefix in planted.expected {
                if !places.iter().any(|place| place.starts_with(prefix)) {
                    wrong.push(format!("{name} is not in {prefix}, where it was presented"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    pub(super) fn count(&self, name: &str, root: &Path) -> usize {
        let found = self.0[name].secret.files_below(&[root]).unwrap();
        found.iter().map(|(_, count)| count).sum()
    }
}
