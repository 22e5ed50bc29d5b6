//! One event as one line. What strangers wrote may be in it, so nothing in it moves a terminal's cursor or begins a line.

use std::fmt::{self, Write as _};

use protocol::time::UnixMillis;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::core::time::Rfc3339;

/// The field that holds an event's text.
const MESSAGE: &str = "message";

/// A line for a person: time, level, text, and the other fields by name.
pub(super) fn text(event: &Event<'_>, now: UnixMillis, is_coloured: bool) -> String {
    let mut fields = Text::default();
    event.record(&mut fields);
    let (time, level) = (Rfc3339(now), *event.metadata().level());
    let mut line = String::new();
    let _ = match (is_coloured, colour(level)) {
        (true, colour) => write!(
            line,
            "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m "
        ),
        (false, _) => write!(line, "{time} {level:>5} "),
    };
    line.push_str(&fields.message);
    if !fields.message.is_empty() && !fields.others.is_empty() {
        line.push(' ');
    }
    line.push_str(&fields.others);
    line.push('\n');
    line
}

/// A line for a program: an object of text members, numbers and truth values.
pub(super) fn json(event: &Event<'_>, now: UnixMillis) -> String {
    let mut object = serde_json::Map::new();
    object.insert("timestamp".to_owned(), Rfc3339(now).to_string().into());
    object.insert("level".to_owned(), event.metadata().level().as_str().into());
    event.record(&mut Members(&mut object));
    format!("{}\n", serde_json::Value::Object(object))
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        _ => 35,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    others: String,
}

impl Text {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == MESSAGE {
            let _ = write!(Tame(&mut self.message), "{value}");
            return;
        }
        if !self.others.is_empty() {
            self.others.push(' ');
        }
        let _ = write!(Tame(&mut self.others), "{}={value}", field.name());
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.put(field, format_args!("{value}"));
        } else {
            self.put(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

struct Members<'a>(&'a mut serde_json::Map<String, serde_json::Value>);

impl Members<'_> {
    fn put(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// Writes text with its control characters escaped.
struct Tame<'a>(&'a mut String);

impl fmt::Write for Tame<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::with_default;
    use tracing::{Metadata, Subscriber};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_852_278_460);

    /// Keeps an event as both lines.
    struct Kept(Arc<Mutex<(String, String)>>);

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            *self.0.lock().unwrap() = (text(event, NOW, false), json(event, NOW));
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn lines(log: impl FnOnce()) -> (String, String) {
        let kept = Arc::new(Mutex::new(Default::default()));
        with_default(Kept(Arc::clone(&kept)), log);
        kept.lock().unwrap().clone()
    }

    #[test]
    fn a_line_has_time_level_text_and_fields_and_json_has_them_as_members() {
        let (text, json) = lines(|| {
            let name = String::from("edge-1");
            tracing::warn!(host = %name, broker = "b:1", skew_ms = -3_i64, "not {}", "well");
        });
        assert_eq!(
            text,
            "2026-11-28T07:51:18.460Z  WARN not well host=edge-1 broker=\"b:1\" skew_ms=-3\n"
        );
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "timestamp": "2026-11-28T07:51:18.460Z", "level": "WARN", "message": "not well",
                "host": "edge-1", "broker": "b:1", "skew_ms": -3
            })
        );
        assert!(json.ends_with("}\n"));
    }

    #[test]
    fn a_strangers_text_stays_on_its_line_and_moves_no_cursor() {
        let evil = "a\n2026 INFO forged\x1b[2J\u{9b}1m";
        let (text, json) = lines(|| tracing::info!(evil, shown = %evil, "said {evil}"));
        for line in [text, json] {
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.contains(|c: char| c.is_ascii_control()), "{line:?}");
        }
    }
}
