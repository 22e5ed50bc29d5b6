//! One vector: a line of JSON.

use protocol::id::hex;
use serde_json::{Value, json};

use crate::world::{
    AUDIENCE, DISPATCHER, HOST, HOST_KEY, ISSUER, NOW_S, SANDBOX, SANDBOX_KEY, key_text,
};

/// A vector under way. It is accepted unless it says that it is refused.
pub(crate) struct Vector {
    name: String,
    kind: &'static str,
    verdict: Vec<(&'static str, Value)>,
    context: Vec<(&'static str, Value)>,
    body: Vec<(&'static str, Value)>,
}

impl Vector {
    fn new(kind: &'static str, name: &str, body: (&'static str, Value)) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            verdict: vec![("verdict", "ok".into())],
            context: Vec::new(),
            body: vec![body],
        }
    }

    fn of_bytes(kind: &'static str, name: &str, bytes: &[u8]) -> Self {
        Self::new(kind, name, ("hex", hex(bytes).into()))
    }

    pub(crate) fn token(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("token", name, bytes)
            .with("issuer_key", key_text("ohi1", ISSUER))
            .with("audience", AUDIENCE)
            .with("now_s", NOW_S)
    }

    pub(crate) fn command(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("command", name, bytes)
            .with("dispatcher_key", key_text("ohd1", DISPATCHER))
            .with("host", HOST)
            .with("now_s", NOW_S)
    }

    pub(crate) fn report(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("report", name, bytes)
            .with("host_key", key_text("ohh1", HOST_KEY))
            .with("host", HOST)
    }

    pub(crate) fn batch(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("batch", name, bytes)
            .with("sandbox_key", key_text("ohs1", SANDBOX_KEY))
            .with("host", HOST)
            .with("sandbox", SANDBOX)
    }

    /// A batch that is judged after these, which are good.
    pub(crate) fn batch_after(name: &str, before: &[&[u8]], bytes: &[u8]) -> Self {
        let before: Vec<_> = before.iter().map(|bytes| hex(bytes)).collect();
        Self::batch(name, bytes).with("before", before)
    }

    /// A succession that the host's first key should have signed.
    pub(crate) fn succession(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("succession", name, bytes)
            .with("host_key", key_text("ohh1", HOST_KEY))
            .with("host", HOST)
            .with("generation", 1)
    }

    /// A dispatcher's word about keys.
    pub(crate) fn statement(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("statement", name, bytes)
            .with("dispatcher_key", key_text("ohd1", DISPATCHER))
            .with("now_s", NOW_S)
    }

    /// Of the exchange: `request`, `challenge`, `grant` or `refused`.
    pub(crate) fn exchange(kind: &'static str, name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes(kind, name, bytes)
    }

    pub(crate) fn stream(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("stream", name, bytes).with("host_key", key_text("ohh1", HOST_KEY))
    }

    pub(crate) fn install_key(name: &str, text: &str) -> Self {
        Self::new("install-key", name, ("text", text.into()))
    }

    pub(crate) fn reader_token(name: &str, text: &str) -> Self {
        Self::new("reader-token", name, ("text", text.into()))
    }

    pub(crate) fn audit_row(name: &str, bytes: &[u8]) -> Self {
        Self::of_bytes("audit-row", name, bytes)
    }

    pub(crate) fn checkpoint(name: &str, text: &str, vkey: &str) -> Self {
        Self::new("checkpoint", name, ("text", text.into())).with("vkey", vkey)
    }

    pub(crate) fn cosignature(name: &str, text: &str, vkey: &str) -> Self {
        Self::new("cosignature", name, ("text", text.into())).with("vkey", vkey)
    }

    pub(crate) fn tlog_proof(name: &str, text: &str, vkey: &str) -> Self {
        Self::new("tlog-proof", name, ("text", text.into())).with("vkey", vkey)
    }

    pub(crate) fn public_key(name: &str, role: &str, text: &str) -> Self {
        Self::new("public-key", name, ("text", text.into())).with("role", role)
    }

    pub(crate) fn possession(name: &str, key: &[u8], challenge: &[u8], proof: &[u8]) -> Self {
        Self::new("possession", name, ("proof", hex(proof).into()))
            .with("key", hex(key))
            .with("challenge", hex(challenge))
    }

    pub(crate) fn covers(name: &str, rule: &str, filter: &str) -> Self {
        Self::new("covers", name, ("filter", filter.into())).with("rule", rule)
    }

    /// With this in the context, in the place of what is there.
    pub(crate) fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.context.retain(|(other, _)| *other != field);
        self.context.push((field, value.into()));
        self
    }

    /// What a reader finds in it.
    pub(crate) fn says(mut self, value: Value) -> Self {
        self.verdict.push(("value", value));
        self
    }

    /// Refused for `reason`; `why` is the rule, its chapter of `SPEC.md` first.
    pub(crate) fn refused(mut self, reason: &str, why: &str) -> Self {
        self.verdict = vec![
            ("verdict", "refused".into()),
            ("reason", reason.into()),
            ("why", why.into()),
        ];
        self
    }

    /// Its line. Fields come in an order for people, the bytes last.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{{\"name\":{},\"kind\":{}",
            json!(self.name),
            json!(self.kind)
        );
        for (field, value) in self.verdict.iter().chain(&self.context).chain(&self.body) {
            line.push_str(&format!(",\"{field}\":{value}"));
        }
        line.push('}');
        line
    }
}
