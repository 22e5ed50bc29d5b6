//! What a host's owner asks beside the operator: who this host is, how it does, and to go on after a restore. These are processes of
//! their own, which read the state directory; the operator listens to nothing.

use std::time::Duration;

use anyhow::{Context as _, bail};
use protocol::audit::Vkey;
use protocol::bundle::fingerprint;
use protocol::key::Host;
use serde_json::{Value, json};
use smol::Timer;

use crate::config::Config;
use crate::core::dispatcher::Dispatchers;
use crate::core::host::identity::Identity;
use crate::core::policy::Policy;
use crate::core::status::{self, Verdict, Witnessed};
use crate::shell::bundle::Bundle;
use crate::shell::server_time::ServerTime;
use crate::shell::{store, tls};

/// How long a running operator is given to take up what was accepted; it looks once a second.
const TAKE_UP_WAIT_MAX: Duration = Duration::from_secs(15);

/// Between two looks at what it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to print, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// 0, or what the command's help says.
    pub code: u8,
}

impl Answer {
    fn good(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// How the operator does.
///
/// # Errors
/// If the state directory cannot be read.
pub fn status(config: &Config, as_json: bool) -> anyhow::Result<Answer> {
    let dir = &config.state_dir;
    let is_running = store::is_running(dir)?;
    let said = store::read_status(dir)?;
    let verdict = Verdict::of(said.as_ref(), is_running);
    let text = if as_json {
        let value = json!({ "state": verdict.word(), "running": is_running, "said": said });
        format!("{value}\n")
    } else {
        status::text(said.as_ref(), is_running)
    };
    Ok(Answer {
        text,
        code: verdict.exit_code(),
    })
}

/// Who this host is, and whom it trusts.
///
/// # Errors
/// If it is not enrolled, or a file cannot be read.
pub fn identity(config: &Config, as_json: bool) -> anyhow::Result<Answer> {
    let dir = &config.state_dir;
    let identity = store::read_identity(dir)?.with_context(|| {
        format!(
            "this host is not enrolled: {} holds no identity",
            dir.display()
        )
    })?;
    let bundle = config.bundle.as_deref().map(Bundle::read).transpose()?;
    let key = identity.public();
    let cosigns_as = key.and_then(|key| Vkey::<Host>::new(identity.host.as_str(), key).ok());
    let witness = store::read_witness(dir)?;
    let audit = witness.kept.map(|kept| kept.vkey.to_string());
    let rows = [
        ("host", "host", Some(Value::from(identity.host.as_str()))),
        (
            "generation",
            "generation",
            Some(identity.generation().into()),
        ),
        ("key", "key", key.map(|key| key.to_string().into())),
        (
            "first key",
            "first_key",
            identity.first.map(|key| key.to_string().into()),
        ),
        (
            "cosigns as",
            "cosigns_as",
            cosigns_as.map(|vkey| vkey.to_string().into()),
        ),
        ("audit key", "audit_vkey", audit.map(Into::into)),
        (
            "obeys",
            "dispatchers",
            Some(dispatchers(config, bundle.as_ref(), &identity)?.into()),
        ),
        (
            "authority",
            "authorities",
            Some(authorities(bundle.as_ref())?.into()),
        ),
    ];
    let text = if as_json {
        let members = rows
            .into_iter()
            .map(|(_, name, value)| (name.to_owned(), value.unwrap_or_default()));
        format!("{}\n", Value::Object(members.collect()))
    } else {
        let lines = rows
            .iter()
            .map(|(title, _, value)| format!("{title:<11} {}\n", shown(value.as_ref())));
        lines.collect()
    };
    Ok(Answer::good(text))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) if list.is_empty() => {
            "not known: name the bundle with --bundle".to_owned()
        }
        Some(Value::Array(list)) => {
            let texts: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            texts.join("\n            ")
        }
        Some(other) => other.to_string(),
        None => "none yet".to_owned(),
    }
}

/// The bundle's and the policy's, and what became of those keys since; or what the operator said last.
fn dispatchers(
    config: &Config,
    bundle: Option<&Bundle>,
    identity: &Identity,
) -> anyhow::Result<Vec<String>> {
    let Some(bundle) = bundle else {
        let said = store::read_status(&config.state_dir)?;
        return Ok(said.map(|said| said.dispatchers).unwrap_or_default());
    };
    let mut listed = bundle.dispatchers.clone();
    if let Some(path) = &config.policy {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read policy {}", path.display()))?;
        let policy = Policy::parse(&text, &path.display().to_string())?;
        listed.extend(policy.dispatchers());
    }
    let now = ServerTime::new(bundle.issued, identity.fix.clone())
        .now()
        .unix;
    let earlier = store::read_dispatchers(&config.state_dir)?;
    let obeyed = Dispatchers::open(listed, earlier, bundle.issued, now).obeyed(now);
    Ok(obeyed.iter().map(ToString::to_string).collect())
}

/// The fingerprints of the bundle's authorities, as `openssl x509 -fingerprint -sha256` prints them.
fn authorities(bundle: Option<&Bundle>) -> anyhow::Result<Vec<String>> {
    let Some(bundle) = bundle else {
        return Ok(Vec::new());
    };
    let certificates = tls::certificates(&bundle.ca)?;
    Ok(certificates.iter().map(|one| fingerprint(one)).collect())
}

/// Goes on from the audit trail that the broker shows, after the owner has seen what went backwards.
///
/// # Errors
/// If there is nothing to accept, or it is not on disk, or the operator does not take it up.
pub fn accept_restore(config: &Config, yes: bool) -> anyhow::Result<Answer> {
    let dir = &config.state_dir;
    let witness = store::read_witness(dir)?;
    let Some(stop) = &witness.stop else {
        bail!("this host's witness has not stopped it: there is nothing to accept");
    };
    let mut text: String = status::witness_rows(&Witnessed::of(&witness, &[]))
        .iter()
        .map(|(name, value)| format!("{name:<11} {value}\n"))
        .collect();
    if !yes {
        text.push_str(
            "\nNothing was changed. If the broker was restored, and its owner says so, go on with\n  \
             outhaul-agent accept-restore --yes\nIf nobody restored it, somebody rewrote its history: keep the notes in the state \
             directory's evidence folder.\n",
        );
        return Ok(Answer { text, code: 1 });
    }
    let digest = stop.digest();
    store::write_accepted(dir, &digest)?;
    if !store::is_running(dir)? {
        text.push_str("\nAccepted. No operator runs; the next one goes on from there.\n");
        return Ok(Answer::good(text));
    }
    let looks = TAKE_UP_WAIT_MAX.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        let now = store::read_witness(dir)?;
        if now.stop.is_none_or(|stop| stop.digest() != digest) {
            text.push_str("\nAccepted. The operator obeys commands again.\n");
            return Ok(Answer::good(text));
        }
        smol::block_on(Timer::after(LOOK_EVERY));
    }
    bail!(
        "the operator has not taken it up within {} s: its log says why",
        TAKE_UP_WAIT_MAX.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use protocol::audit::SignedCheckpoint;
    use protocol::audit::checkpoint::Checkpoint;
    use protocol::key::Secret;
    use protocol::time::UnixMillis;
    use tempfile::TempDir;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::RawConfig;
    use crate::core::witness::{Kept, Stop, Why, Witness};
    use crate::shell::store::Store;

    fn kept(size: u64) -> Kept {
        let key = Secret::from_seed(&Zeroizing::new([1; 32]));
        let checkpoint = Checkpoint::new("b/audit", size, [7; 32]).unwrap();
        Kept {
            at: UnixMillis(1),
            vkey: Vkey::new("b/audit", key.public()).unwrap(),
            note: SignedCheckpoint::sign(checkpoint, &[&key]),
        }
    }

    fn place() -> (TempDir, Config) {
        let dir = TempDir::new().unwrap();
        let raw = RawConfig {
            state_dir: Some(dir.path().join("state")),
            ..RawConfig::default()
        };
        (dir, Config::try_from(raw).unwrap())
    }

    #[test]
    fn without_an_operator_the_status_says_so_and_the_lock_is_what_tells() {
        let (_dir, config) = place();
        let answer = status(&config, true).unwrap();
        assert_eq!(answer.code, 4);
        assert!(answer.text.contains("\"not_running\""), "{}", answer.text);
        let store = Store::open(&config.state_dir).unwrap();
        assert_eq!(
            status(&config, false).unwrap().code,
            3,
            "it holds the lock, and has not said anything"
        );
        drop(store);
        assert_eq!(status(&config, false).unwrap().code, 4);
    }

    #[test]
    fn what_went_backwards_is_shown_first_and_accepted_with_yes_alone() {
        let (_dir, config) = place();
        let store = Store::open(&config.state_dir).unwrap();
        assert!(accept_restore(&config, true).is_err(), "nothing to accept");
        let stop = Stop {
            why: Why::Behind,
            since: UnixMillis(5),
            offered: kept(3),
            other: None,
        };
        let witness = Witness {
            kept: Some(kept(7)),
            stop: Some(stop.clone()),
        };
        store.save_witness(&witness).unwrap();
        let dir = store.save_evidence(&witness, &stop).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.join("5-shown.note")).unwrap(),
            stop.offered.note.to_string()
        );
        let answer = accept_restore(&config, false).unwrap();
        assert_eq!(answer.code, 1);
        assert!(
            answer.text.contains("7 rows") && answer.text.contains("3 rows"),
            "{}",
            answer.text
        );
        assert_eq!(store.load_accepted().unwrap(), None);
        drop(store);
        assert_eq!(accept_restore(&config, true).unwrap().code, 0);
        let store = Store::open(&config.state_dir).unwrap();
        assert_eq!(store.load_accepted().unwrap(), Some(stop.digest()));
        store.remove_accepted().unwrap();
        assert_eq!(store.load_accepted().unwrap(), None);
    }
}
