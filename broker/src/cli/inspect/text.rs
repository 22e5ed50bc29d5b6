//! What people copy: install keys, reader tokens, public keys, key files. A secret is never shown.

use protocol::{
    access_token::AccessToken,
    install_key::InstallKey,
    key::{Audit, Dispatcher, Holder, Host, Issuer, Public, Role, Sandbox, Secret},
    reader_token::ReaderToken,
};

use super::finding::{Inspection, Outcome, hex, text};

/// The longest of them, in bytes, with room for white space.
const TEXT_BYTES_MAX: usize = 256;

pub(super) fn inspect(bytes: &[u8]) -> Option<Inspection> {
    let words = std::str::from_utf8(bytes).ok()?;
    if bytes.len() > TEXT_BYTES_MAX {
        return None;
    }
    match words.trim().split('_').next()? {
        "ohk1" => Some(install_key(words)),
        "ort1" => Some(reader_token(words)),
        "oat1" => Some(access_token(words)),
        Dispatcher::PREFIX => Some(key::<Dispatcher>(words, "dispatcher")),
        Issuer::PREFIX => Some(key::<Issuer>(words, "issuer")),
        Audit::PREFIX => Some(key::<Audit>(words, "audit")),
        Host::PREFIX => Some(key::<Host>(words, "host")),
        Sandbox::PREFIX => Some(key::<Sandbox>(words, "sandbox")),
        Holder::PREFIX => Some(key::<Holder>(words, "holder")),
        _ => None,
    }
}

fn install_key(words: &str) -> Inspection {
    let mut found = Inspection::new("install key", words.len());
    match InstallKey::from_text(words) {
        Ok(key) => {
            found.check("check", Outcome::Good, "copied whole");
            found.fields = vec![
                ("kid", hex(&key.kid)),
                (
                    "secret",
                    text(&"not shown: whoever has it can enrol a host"),
                ),
            ];
        }
        Err(error) => found.check("check", Outcome::Bad, error.to_string()),
    }
    found
}

fn reader_token(words: &str) -> Inspection {
    let mut found = Inspection::new("reader token", words.len());
    match ReaderToken::from_text(words) {
        Ok(token) => {
            found.check("check", Outcome::Good, "copied whole");
            found.fields = vec![
                ("kid", hex(&token.kid)),
                (
                    "secret",
                    text(&"not shown: whoever has it reads what it opens"),
                ),
            ];
        }
        Err(error) => found.check("check", Outcome::Bad, error.to_string()),
    }
    found
}

fn access_token(words: &str) -> Inspection {
    let mut found = Inspection::new("access token", words.len());
    match AccessToken::from_text(words) {
        Ok(token) => {
            found.check("check", Outcome::Good, "copied whole");
            found.fields = vec![
                ("kid", hex(&token.kid)),
                (
                    "secret",
                    text(&"not shown: whoever has it uses the broker in its role"),
                ),
            ];
        }
        Err(error) => found.check("check", Outcome::Bad, error.to_string()),
    }
    found
}

fn key<R: Role>(words: &str, role: &'static str) -> Inspection {
    if let Ok(secret) = Secret::<R>::from_file_text(words) {
        let mut found = public(&secret.public(), role, words.len());
        found.kind = "secret key";
        found.check("secret", Outcome::Good, "read, and not shown");
        return found;
    }
    match words.parse::<Public<R>>() {
        Ok(key) => public(&key, role, words.len()),
        Err(error) => {
            let mut found = Inspection::new("public key", words.len());
            found.check("form", Outcome::Bad, error.to_string());
            found
        }
    }
}

fn public<R: Role>(key: &Public<R>, role: &'static str, bytes: usize) -> Inspection {
    let mut found = Inspection::new("public key", bytes);
    found.check("form", Outcome::Good, "a point of the curve, and not weak");
    found.fields = vec![
        ("role", text(&role)),
        ("key", text(&key)),
        ("kid", hex(&key.id())),
        ("thumbprint", hex(&key.thumbprint())),
    ];
    found
}
