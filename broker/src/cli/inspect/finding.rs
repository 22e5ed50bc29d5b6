//! What was found, for people and for programs.

use protocol::time::UnixMillis;
use serde_json::{Map, Value, json};

use crate::cli::{terminal::one_line, units};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds.
    Good,
    /// It does not.
    Bad,
    /// It cannot be said with what was given.
    Open,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Bad => "BAD",
            Self::Open => "open",
        }
    }
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// What: `signature`, `dates`, …
    pub(super) what: String,
    /// How it came out.
    pub(super) outcome: Outcome,
    /// Why, or with what.
    pub(super) why: String,
}

/// A value to show.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Number(u64),
    Flag(bool),
    Fields(Fields),
    List(Vec<Self>),
}

/// Values with their names, in their order on the wire.
pub(super) type Fields = Vec<(&'static str, Node)>;

/// A message, taken apart and judged.
#[derive(Clone, Debug)]
pub(super) struct Inspection {
    /// What it is.
    pub(super) kind: &'static str,
    /// Its length.
    pub(super) bytes: usize,
    /// What was checked.
    pub(super) checks: Vec<Check>,
    /// What it says; unproven where a check is not good.
    pub(super) fields: Fields,
}

impl Inspection {
    pub(super) fn new(kind: &'static str, bytes: usize) -> Self {
        Self {
            kind,
            bytes,
            checks: Vec::new(),
            fields: Fields::new(),
        }
    }

    pub(super) fn check(&mut self, what: &str, outcome: Outcome, why: impl Into<String>) {
        self.checks.push(Check {
            what: what.to_owned(),
            outcome,
            why: why.into(),
        });
    }

    /// Takes in what is inside: its checks under its own name, its fields as one.
    pub(super) fn nest(&mut self, name: &'static str, inside: Self) {
        self.checks
            .extend(inside.checks.into_iter().map(|check| Check {
                what: format!("{name}: {}", check.what),
                ..check
            }));
        self.fields.push((name, Node::Fields(inside.fields)));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.checks
            .iter()
            .any(|check| check.outcome == Outcome::Bad)
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}, {} bytes\n", self.kind, self.bytes);
        for check in &self.checks {
            let (word, why) = (check.outcome.word(), one_line(&check.why));
            text.push_str(&format!("  {word:<5}{:<20} {why}\n", check.what));
        }
        text.push('\n');
        put_fields(&mut text, &self.fields, 1);
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let outcome = check.outcome.word().to_lowercase();
                json!({ "what": check.what, "outcome": outcome, "why": check.why })
            })
            .collect();
        json!({
            "kind": self.kind, "bytes": self.bytes, "verifies": !self.has_failed(),
            "checks": checks, "fields": fields_json(&self.fields),
        })
    }
}

fn put_fields(text: &mut String, fields: &Fields, depth: usize) {
    for (name, node) in fields {
        let indent = "  ".repeat(depth);
        let width = 22_usize.saturating_sub(indent.len());
        match leaf(node) {
            Some(value) => text.push_str(&format!("{indent}{name:<width$} {value}\n")),
            None => {
                text.push_str(&format!("{indent}{name}\n"));
                put_inside(text, node, depth + 1);
            }
        }
    }
}

fn put_inside(text: &mut String, node: &Node, depth: usize) {
    match node {
        Node::Fields(fields) => put_fields(text, fields, depth),
        Node::List(items) => {
            for item in items {
                match leaf(item) {
                    Some(value) => text.push_str(&format!("{}{value}\n", "  ".repeat(depth))),
                    None => {
                        text.push_str(&format!("{}-\n", "  ".repeat(depth)));
                        put_inside(text, item, depth + 1);
                    }
                }
            }
        }
        Node::Text(_) | Node::Number(_) | Node::Flag(_) => {}
    }
}

fn leaf(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(one_line(text)),
        Node::Number(number) => Some(number.to_string()),
        Node::Flag(flag) => Some(flag.to_string()),
        Node::Fields(fields) if fields.is_empty() => Some("none".to_owned()),
        Node::List(items) if items.is_empty() => Some("none".to_owned()),
        Node::Fields(_) | Node::List(_) => None,
    }
}

fn fields_json(fields: &Fields) -> Value {
    let pairs = fields
        .iter()
        .map(|(name, node)| (name.replace(' ', "_"), node_json(node)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn node_json(node: &Node) -> Value {
    match node {
        Node::Text(text) => json!(text),
        Node::Number(number) => json!(number),
        Node::Flag(flag) => json!(flag),
        Node::Fields(fields) => fields_json(fields),
        Node::List(items) => items.iter().map(node_json).collect(),
    }
}

/// A value's text, for a field.
pub(super) fn text(value: &(impl ToString + ?Sized)) -> Node {
    Node::Text(value.to_string())
}

/// Bytes, as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> Node {
    Node::Text(protocol::id::hex(bytes))
}

/// A date.
pub(super) fn date(time: UnixMillis) -> Node {
    Node::Text(units::date(time))
}

/// A date in seconds.
pub(super) fn date_s(seconds: u64) -> Node {
    date(UnixMillis(seconds.saturating_mul(1000)))
}
