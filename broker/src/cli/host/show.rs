//! `outhaul host show`: one host, as the broker has it on record.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use protocol::{id::HostId, time::UnixMillis};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::{Context, terminal::one_line, units},
    shell::clock,
};

/// Below this many milliseconds two clocks that were never compared at one moment agree, for a person.
const SKEW_MS_MIN: u64 = 2_000;

#[derive(Deserialize)]
struct Shown {
    name: String,
    label: Option<String>,
    kind: String,
    state: String,
    connected: bool,
    created_ms: u64,
    added_by: Option<String>,
    last_seen_ms: Option<u64>,
    clock_ahead_ms: Option<i64>,
    clock_said_ms: Option<u64>,
    generation: u64,
    keys: Vec<Key>,
    install_keys: Vec<InstallKey>,
    sandboxes: Vec<Sandbox>,
    revoked_sandboxes: Vec<String>,
}

#[derive(Deserialize)]
struct Key {
    generation: u64,
    thumbprint: Option<String>,
    since_ms: u64,
    by: String,
    revoked: bool,
}

#[derive(Deserialize)]
struct InstallKey {
    fingerprint: String,
    state: String,
    expires_ms: u64,
    used_ms: Option<u64>,
    misused_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Sandbox {
    sandbox: String,
    state: String,
}

pub(super) async fn show(context: &Context, name: &HostId) -> anyhow::Result<u8> {
    let answer: Value = context
        .client
        .get(&format!("/v1/hosts/{name}"))
        .await
        .with_context(|| format!("show host {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
        return Ok(0);
    }
    let shown = Shown::deserialize(&answer).context("read what the broker says of the host")?;
    context.output.text(&page(&shown, clock::unix()))?;
    Ok(0)
}

fn page(host: &Shown, now: UnixMillis) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(page, "{name:<13} {}", one_line(value));
    };
    line("host", &host.name);
    if let Some(label) = &host.label {
        line("label", label);
    }
    line("kind", &host.kind);
    line("state", &state(host));
    line("connected", &presence(host, now));
    let by = host.added_by.as_deref().unwrap_or("unknown");
    let added = units::ago(host.created_ms, now);
    line("added", &format!("{added}, by {by}"));
    line("clock", &skew(host, now));
    line("generation", &host.generation.to_string());
    for key in &host.keys {
        line("key", &key_line(key, now));
    }
    for key in &host.install_keys {
        line("install key", &install_key_line(key, now));
    }
    for Sandbox { sandbox, state } in &host.sandboxes {
        line("sandbox", &format!("{sandbox} {state}"));
    }
    for sandbox in &host.revoked_sandboxes {
        line("sandbox", &format!("{sandbox} revoked"));
    }
    page
}

fn state(host: &Shown) -> String {
    let name = &host.name;
    match host.state.as_str() {
        "locked" => format!(
            "locked: two machines used its identity. Find the other one, then: outhaul host unlock {name}"
        ),
        "new" => "new: nobody has used its bundle yet".to_owned(),
        other => other.to_owned(),
    }
}

fn presence(host: &Shown, now: UnixMillis) -> String {
    match host.last_seen_ms {
        _ if host.connected => "yes".to_owned(),
        Some(seen) => format!("no, last seen {}", units::ago(seen, now)),
        None => "no, and never seen".to_owned(),
    }
}

fn skew(host: &Shown, now: UnixMillis) -> String {
    let (Some(ahead_ms), Some(said_ms)) = (host.clock_ahead_ms, host.clock_said_ms) else {
        return "it said nothing of it since the broker started".to_owned();
    };
    let off_ms = ahead_ms.unsigned_abs();
    let said = units::ago(said_ms, now);
    if off_ms < SKEW_MS_MIN {
        return format!("as the broker's, it said {said}");
    }
    let off = units::duration(Duration::from_millis(off_ms));
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{off} {side} the broker's, it said {said}; nothing there goes by it")
}

fn key_line(key: &Key, now: UnixMillis) -> String {
    let thumbprint = key.thumbprint.as_deref().unwrap_or("unreadable");
    let revoked = if key.revoked { ", revoked" } else { "" };
    let since = units::ago(key.since_ms, now);
    format!(
        "{} {thumbprint}, {since}, by {}{revoked}",
        key.generation, key.by
    )
}

fn install_key_line(key: &InstallKey, now: UnixMillis) -> String {
    let mut text = format!("{} {}", key.fingerprint, key.state);
    if let Some(used_ms) = key.used_ms {
        text = format!("{text} {}", units::ago(used_ms, now));
    } else if key.state == "unused" {
        let left = UnixMillis(key.expires_ms).since(now);
        text = match left.is_zero() {
            true => format!("{text}, expired"),
            false => format!("{text}, good for {}", units::duration(left)),
        };
    }
    if let Some(misused_ms) = key.misused_ms {
        let ago = units::ago(misused_ms, now);
        text = format!("{text}; somebody else presented it {ago}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(10 * 3_600_000);

    fn shown(change: impl FnOnce(&mut Value)) -> String {
        let mut answer = serde_json::json!({
            "name": "edge-1", "label": "Rack 4", "kind": "docker", "state": "enrolled", "connected": true,
            "created_ms": 0, "added_by": "uid:7", "last_seen_ms": 1, "clock_ahead_ms": 7_200_000,
            "clock_said_ms": NOW.0 - 5_000, "generation": 2, "keys": [
                {"generation": 2, "thumbprint": "ab12", "since_ms": NOW.0 - 60_000, "by": "renewal", "revoked": false},
                {"generation": 1, "thumbprint": "cd34", "since_ms": 0, "by": "install key", "revoked": true},
            ],
            "install_keys": [
                {"fingerprint": "ff00", "state": "used", "expires_ms": 5, "used_ms": 0, "misused_ms": NOW.0 - 1_000},
                {"fingerprint": "ee11", "state": "unused", "expires_ms": NOW.0 + 60_000, "used_ms": null, "misused_ms": null},
            ],
            "sandboxes": [{"sandbox": "build-7", "state": "running"}], "revoked_sandboxes": ["build-6"],
            "added_later": 1,
        });
        change(&mut answer);
        page(&Shown::deserialize(&answer).unwrap(), NOW)
    }

    #[test]
    fn a_host_is_shown_with_its_keys_its_clock_and_who_added_it() {
        let page = shown(|_| {});
        for part in [
            "edge-1",
            "Rack 4",
            "10h ago, by uid:7",
            "2h ahead of the broker's",
            "2 ab12, 1m ago, by renewal",
            "1 cd34, 10h ago, by install key, revoked",
            "ff00 used 10h ago; somebody else presented it 1s ago",
            "ee11 unused, good for 1m",
            "build-7 running",
            "build-6 revoked",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        let behind = shown(|host| host["clock_ahead_ms"] = (-31_536_000_000_i64).into());
        assert!(behind.contains("365d behind the broker's"), "{behind}");
    }

    #[test]
    fn a_locked_host_says_how_it_is_unlocked() {
        let page = shown(|host| host["state"] = "locked".into());
        assert!(page.contains("outhaul host unlock edge-1"), "{page}");
    }

    #[test]
    fn what_somebody_wrote_is_one_safe_line() {
        let page = shown(|host| host["label"] = "a\nb\u{1b}[2J".into());
        assert!(!page.contains('\u{1b}') && !page.contains("\nb"), "{page}");
    }
}
