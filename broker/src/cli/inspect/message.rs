//! Signed messages, and the exchange's answers: what they say, and whether it holds.

use protocol::{
    cbor,
    command::{self, Command, CommandError, Order},
    event::{Event, FLAG_CONTINUED},
    exchange::{self, Challenge, Grant, Proof, Refused, Request, Succession},
    key::{Dispatcher, Host, KeyId, Role, Sandbox},
    key_change::{Change, Statement, StatementError},
    limits::{EXCHANGE_BYTES_MAX, LEEWAY_S},
    record::Reader,
    report::{self, Ended, News, Report, Status},
    signed::{self, Envelope, Message, VerifyError},
    stream::{self, Batch},
    time::UnixMillis,
};

use super::{
    finding::{Fields, Inspection, Node, Outcome, date, hex, text},
    given::{Keys, wanted},
    token,
};
use crate::cli::units;

pub(super) fn inspect(bytes: &[u8], keys: &Keys, now: UnixMillis) -> Option<Inspection> {
    let claims_to_be = |typ| Envelope::is_at_front(bytes, typ);
    if claims_to_be(Command::TYP) {
        Some(inspect_command(bytes, keys, now))
    } else if claims_to_be(Report::TYP) {
        Some(inspect_report(bytes, keys))
    } else if claims_to_be(stream::TYP) {
        Some(inspect_batch(bytes, keys))
    } else if claims_to_be(Request::TYP) {
        Some(inspect_request(bytes, keys))
    } else if claims_to_be(Succession::TYP) {
        Some(inspect_succession(bytes, keys))
    } else if claims_to_be(Statement::TYP) {
        Some(inspect_statement(bytes, keys, now))
    } else {
        inspect_unsigned(bytes, keys, now)
    }
}

fn inspect_command(bytes: &[u8], keys: &Keys, now: UnixMillis) -> Inspection {
    let mut found = Inspection::new("command", bytes.len());
    let Some(command) = open::<Command>(&mut found, bytes) else {
        return found;
    };
    let judged = command::verify_undated(bytes, &keys.dispatchers, &command.host);
    let kid = kid_of::<Command>(bytes);
    match judged {
        Ok(verified) => {
            let signer = format!("by the dispatcher {}", verified.signer());
            found.check("signature", Outcome::Good, signer);
        }
        Err(CommandError::Unverified(error)) => {
            unverified::<Dispatcher>(&mut found, error, kid);
        }
        Err(error) => found.check("rules", Outcome::Bad, error.to_string()),
    }
    let (outcome, why) = if now.0 >= command.expires.0.saturating_add(LEEWAY_S * 1000) {
        let ago = units::duration(now.since(command.expires));
        (Outcome::Bad, format!("expired {ago} ago"))
    } else if now.0.saturating_add(LEEWAY_S * 1000) < command.issued.0 {
        (Outcome::Bad, "not valid yet".to_owned())
    } else {
        let left = units::duration(command.expires.since(now));
        (Outcome::Good, format!("expires in {left}"))
    };
    found.check("dates", outcome, why);
    found.fields = vec![
        ("id", text(&command.id)),
        ("host", text(&command.host)),
        ("issued", date(command.issued)),
        ("expires", date(command.expires)),
        ("order", text(&command.order.word())),
        (command.order.word(), Node::Fields(order(&command.order))),
    ];
    found
}

fn order(order: &Order) -> Fields {
    match order {
        Order::Stop(stop) => vec![
            ("sandbox", text(&stop.sandbox)),
            ("grace s", Node::Number(stop.grace_s)),
        ],
        Order::Launch(launch) => {
            let limits = &launch.limits;
            let mut fields = vec![
                ("sandbox", text(&launch.sandbox)),
                ("image", text(&launch.image)),
                ("arguments", list(&launch.arguments)),
                (
                    "environment",
                    Node::List(
                        launch
                            .environment
                            .iter()
                            .map(|(name, value)| text(&format!("{name}={value}")))
                            .collect(),
                    ),
                ),
                ("sources", list(&launch.sources)),
                (
                    "limits",
                    Node::Fields(vec![
                        ("cpu millis", Node::Number(limits.cpu_millis)),
                        ("memory bytes", Node::Number(limits.memory_bytes)),
                        ("pids", Node::Number(limits.pids)),
                        ("scratch bytes", Node::Number(limits.scratch_bytes)),
                        ("life s", Node::Number(limits.life_s)),
                    ]),
                ),
                ("content", text(&launch.content)),
            ];
            if let Some(isolation) = &launch.isolation {
                fields.push(("isolation", text(&isolation)));
            }
            fields
        }
    }
}

fn inspect_report(bytes: &[u8], keys: &Keys) -> Inspection {
    let mut found = Inspection::new("report", bytes.len());
    let Some(report) = open::<Report>(&mut found, bytes) else {
        return found;
    };
    match report::verify(bytes, &keys.hosts, &report.host) {
        Ok(verified) => {
            let signer = format!("by the host {}", verified.signer());
            found.check("signature", Outcome::Good, signer);
        }
        Err(error) => unverified::<Host>(&mut found, error, kid_of::<Report>(bytes)),
    }
    found.fields = vec![
        ("host", text(&report.host)),
        ("number", Node::Number(report.number)),
        ("time", date(report.time)),
        ("news", text(&report.news.word())),
    ];
    if let News::Forwarded(forwarded) = &report.news {
        found.fields.push(("sandbox", text(&forwarded.sandbox)));
        found.nest("batch", inspect_batch(&forwarded.batch, keys));
    } else {
        let said = Node::Fields(news(&report.news));
        found.fields.push((report.news.word(), said));
    }
    found
}

fn news(news: &News) -> Fields {
    match news {
        News::Refused(refused) => vec![
            ("command", text(&refused.command)),
            ("sandbox", text(&refused.sandbox)),
            ("reason", text(&refused.reason)),
            ("detail", text(&refused.detail)),
        ],
        News::Launched(launched) => vec![
            ("command", text(&launched.command)),
            ("sandbox", text(&launched.sandbox)),
            ("key", text(&launched.key)),
            ("image", text(&launched.image)),
            ("container", text(&launched.container)),
            ("content", text(&launched.content)),
        ],
        News::Ended(ended) => ended_fields(ended),
        News::Stopped(stopped) => vec![
            ("command", text(&stopped.command)),
            ("sandbox", text(&stopped.sandbox)),
        ],
        News::Status(status) => status_fields(status),
        News::Forwarded(forwarded) => vec![("sandbox", text(&forwarded.sandbox))],
        News::Other(label) => vec![("label", Node::Number(*label))],
    }
}

fn status_fields(status: &Status) -> Fields {
    let sandboxes = status.sandboxes.iter();
    let sandboxes = sandboxes.map(|seen| text(&format!("{} {}", seen.sandbox, seen.state)));
    let mut fields = vec![
        ("generation", Node::Number(status.generation)),
        ("version", text(&status.version)),
        ("start", hex(&*status.start)),
        ("engine", Node::Flag(status.engine)),
        ("sandboxes", Node::List(sandboxes.collect())),
    ];
    if let Some(skew_ms) = status.skew_ms {
        fields.push(("clock ahead", text(&format!("{skew_ms} ms"))));
    }
    fields
}

fn ended_fields(ended: &Ended) -> Fields {
    let mut fields = Vec::new();
    if let Some(command) = ended.command {
        fields.push(("command", text(&command)));
    }
    fields.push(("sandbox", text(&ended.sandbox)));
    fields.push(("state", text(&ended.state)));
    if let Some(code) = ended.exit_code {
        fields.push(("exit code", Node::Number(code)));
    }
    if let Some(reason) = ended.reason {
        fields.push(("reason", text(&reason)));
    }
    fields.push(("detail", text(&ended.detail)));
    fields
}

fn inspect_batch(bytes: &[u8], keys: &Keys) -> Inspection {
    let mut found = Inspection::new("batch of events", bytes.len());
    let batch = match Batch::parse(bytes) {
        Ok(batch) => batch,
        Err(error) => {
            found.check("form", Outcome::Bad, error.to_string());
            return found;
        }
    };
    match batch.verify(&keys.sandboxes) {
        Ok(key) => found.check("signature", Outcome::Good, format!("by the sandbox {key}")),
        Err(error) => unverified::<Sandbox>(&mut found, error, Some(batch.kid())),
    }
    let events = batch.events();
    match &events {
        Ok(_) => found.check("body", Outcome::Good, "the one that its head names"),
        Err(error) => found.check("body", Outcome::Bad, error.to_string()),
    }
    let head = &batch.head;
    found.fields = vec![
        ("stream", hex(&*head.stream)),
        ("epoch", Node::Number(head.epoch)),
        ("batch", Node::Number(head.batch)),
        ("first", Node::Number(head.first)),
        ("count", Node::Number(head.count)),
        ("previous", hex(&*head.previous)),
        ("body hash", hex(&*head.body_hash)),
        ("body bytes", Node::Number(head.body_bytes)),
        ("time", date(head.time)),
    ];
    if let Some(token) = &head.token {
        found.fields.push(("token", hex(&**token)));
    }
    let closing = Node::Flag(head.closing.is_some());
    found.fields.push(("closing", closing));
    let events = events.into_iter().flatten().map(|one| event(&one));
    found.fields.push(("events", Node::List(events.collect())));
    found
}

fn event(event: &Event<'_>) -> Node {
    let mut words = format!("{} {}", units::date(event.time), event.kind);
    if event.size > 0 {
        words.push_str(&format!(" {} bytes", event.size));
    }
    if event.value > 0 {
        words.push_str(&format!(" value {}", event.value));
    }
    if event.flags & FLAG_CONTINUED != 0 {
        words.push_str(" continued");
    }
    if !event.data.is_empty() {
        words.push_str(": ");
        words.push_str(&String::from_utf8_lossy(event.data));
    }
    text(&words)
}

fn inspect_request(bytes: &[u8], keys: &Keys) -> Inspection {
    let mut found = Inspection::new("exchange request", bytes.len());
    let Some(request) = open::<Request>(&mut found, bytes) else {
        return found;
    };
    match exchange::verify_request(bytes) {
        Ok(_) => found.check("signature", Outcome::Good, "by the key it asks a token for"),
        Err(error) => found.check("signature", Outcome::Bad, error.to_string()),
    }
    found.fields = vec![
        ("nonce", hex(&*request.nonce)),
        ("host", text(&request.host)),
        ("key", text(&request.key)),
        ("generation", Node::Number(request.generation)),
    ];
    match &request.proof {
        Proof::InstallKey(proof) => {
            let kid = text(&format!("install key {}", protocol::id::hex(&*proof.kid)));
            found.fields.push(("proof", kid));
        }
        Proof::HostKey(succession) => {
            found.nest("proof", inspect_succession(succession, keys));
        }
        Proof::HostKeys(successions) => {
            for succession in successions {
                found.nest("proof", inspect_succession(succession, keys));
            }
        }
    }
    found
}

fn inspect_succession(bytes: &[u8], keys: &Keys) -> Inspection {
    let mut found = Inspection::new("succession", bytes.len());
    let Some(succession) = open::<Succession>(&mut found, bytes) else {
        return found;
    };
    match signed::verify::<Succession>(bytes, &keys.hosts, b"") {
        Ok(verified) => {
            let signer = format!("by the host {}", verified.signer());
            found.check("signature", Outcome::Good, signer);
        }
        Err(error) => unverified::<Host>(&mut found, error, kid_of::<Succession>(bytes)),
    }
    found.fields = vec![
        ("host", text(&succession.host)),
        ("generation", Node::Number(succession.generation)),
        ("key", text(&succession.key)),
        ("time", date(succession.time)),
    ];
    found
}

fn inspect_statement(bytes: &[u8], keys: &Keys, now: UnixMillis) -> Inspection {
    let mut found = Inspection::new("dispatcher's statement", bytes.len());
    let Some(statement) = open::<Statement>(&mut found, bytes) else {
        return found;
    };
    match Statement::verify(bytes, &keys.dispatchers, now) {
        Ok(verified) => {
            let signer = format!("by the dispatcher {}", verified.signer());
            found.check("signature", Outcome::Good, signer);
        }
        Err(StatementError::Unverified(error)) => {
            unverified::<Dispatcher>(&mut found, error, kid_of::<Statement>(bytes));
        }
        Err(error) => found.check("rules", Outcome::Bad, error.to_string()),
    }
    let (word, said) = match &statement.change {
        Change::Next(next) => (
            "next key",
            vec![
                ("key", text(&next.key)),
                ("overlap until", date(next.until)),
            ],
        ),
        Change::Revoke(revoked) => ("revoked", vec![("key", text(&revoked.key))]),
        Change::Restored(trail) => {
            let rows = trail.checkpoint().map(|(_, note)| note.unverified().size());
            let mut said = vec![("at", date(trail.at)), ("signed by", text(&trail.vkey))];
            said.extend(rows.ok().map(|rows| ("rows", Node::Number(rows))));
            ("restored", said)
        }
    };
    found.fields = vec![("time", date(statement.time)), (word, Node::Fields(said))];
    found
}

/// What travels unsigned: the exchange's answers, inside TLS. And what a stream file starts with.
fn inspect_unsigned(bytes: &[u8], keys: &Keys, now: UnixMillis) -> Option<Inspection> {
    let with = |kind, fields| {
        let fields: Fields = fields;
        let mut found = Inspection::new(kind, bytes.len());
        found.fields = fields;
        found
    };
    if let Ok(grant) = cbor::from_slice::<Grant>(bytes, EXCHANGE_BYTES_MAX) {
        let mut found = with(
            "grant",
            vec![
                ("time", date(grant.time)),
                ("generation", Node::Number(grant.generation)),
            ],
        );
        found.nest("token", token::inspect(&grant.token, keys, now)?);
        return Some(found);
    }
    if let Ok(challenge) = cbor::from_slice::<Challenge>(bytes, EXCHANGE_BYTES_MAX) {
        let fields = vec![
            ("nonce", hex(&*challenge.nonce)),
            ("time", date(challenge.time)),
        ];
        return Some(with("challenge", fields));
    }
    if let Ok(refused) = cbor::from_slice::<Refused>(bytes, EXCHANGE_BYTES_MAX) {
        let mut fields = vec![
            ("reason", text(&refused.reason)),
            ("time", date(refused.time)),
        ];
        let known = refused.generation;
        fields.extend(known.map(|known| ("generation", Node::Number(known))));
        return Some(with("refusal of an exchange", fields));
    }
    let mut reader = Reader::default();
    reader.push(bytes);
    let opening = reader.take_opening().ok().flatten()?;
    let mut found = with(
        "stream file",
        vec![
            ("host", text(&opening.host)),
            ("sandbox", text(&opening.sandbox)),
        ],
    );
    let how = "judge it with `outhaul verify-stream`";
    found.check("stream", Outcome::Open, how);
    Some(found)
}

/// What a message says, unproven; a bad form is noted.
fn open<T: Message>(found: &mut Inspection, bytes: &[u8]) -> Option<T> {
    match signed::peek::<T>(bytes) {
        Ok(message) => Some(message),
        Err(error) => {
            found.check("form", Outcome::Bad, error.to_string());
            None
        }
    }
}

fn kid_of<T: Message>(bytes: &[u8]) -> Option<KeyId> {
    let envelope = Envelope::parse(bytes, T::TYP, T::BYTES_MAX).ok()?;
    Some(envelope.kid)
}

fn unverified<R: Role>(found: &mut Inspection, error: VerifyError, kid: Option<KeyId>) {
    match (error, kid) {
        (VerifyError::UnknownKey, Some(kid)) => {
            found.check("signature", Outcome::Open, wanted::<R>(kid));
        }
        (VerifyError::Envelope, _) => {
            found.check(
                "rules",
                Outcome::Bad,
                "something in it is longer than it may be",
            );
        }
        (error, _) => found.check("signature", Outcome::Bad, error.to_string()),
    }
}

fn list<T: std::fmt::Display>(items: &[T]) -> Node {
    Node::List(items.iter().map(text).collect())
}
