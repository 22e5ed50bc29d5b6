//! One line for each reason.

/// Says each reason once, until it changes: a broker that is away for a day is one line, not a thousand.
#[derive(Debug, Default)]
pub(super) struct Said(Option<String>);

impl Said {
    /// Logs a reason, unless it was the last one.
    pub(super) fn warn(&mut self, what: &str, why: String) {
        if self.0.as_ref() == Some(&why) {
            tracing::debug!("{what}: {why}");
        } else {
            tracing::warn!("{what}: {why}");
            self.0 = Some(why);
        }
    }

    /// What was said last, unless all is well.
    pub(super) fn last(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// All is well again.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}
