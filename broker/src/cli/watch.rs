//! One sandbox, from its command to its end: where it stands, and what a command that waited for it exits with.

use protocol::{
    command::Content,
    id::{CommandId, HostId, SandboxId},
    report::{Ended, News, Reason, Refused},
};

use super::{
    units,
    verify::{Line, Told, What},
};

/// What `run` exits with when it is Outhaul that failed, not the sandbox. (126 and 127 are the shim's, as in a shell.)
pub(crate) const EXIT_OUTHAUL: u8 = 125;

/// Where the sandbox stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its host has said nothing yet.
    Waiting,
    /// At work.
    Running(Content),
    /// Over.
    Ended(Ended),
    /// Its command was refused.
    Refused(Refused),
}

/// Output that stayed on the host, by its content policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// Lines, or parts of them.
    pub(crate) lines: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.lines == 1 { "" } else { "s" };
        let size = units::bytes(self.bytes);
        write!(f, "{} line{plural} of output ({size})", self.lines)
    }
}

/// Watches one sandbox.
#[derive(Debug)]
pub(crate) struct Watch {
    host: HostId,
    sandbox: SandboxId,
    command: Option<CommandId>,
    phase: Phase,
    was_launched: bool,
    withheld: Withheld,
}

impl Watch {
    /// Watches a sandbox; with a command, only as that command's doing.
    pub(crate) fn new(host: HostId, sandbox: SandboxId, command: Option<CommandId>) -> Self {
        Self {
            host,
            sandbox,
            command,
            phase: Phase::Waiting,
            was_launched: false,
            withheld: Withheld::default(),
        }
    }

    /// Where it stands.
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it ever ran: then its stream has an end.
    pub(crate) fn was_launched(&self) -> bool {
        self.was_launched
    }

    /// What stayed on the host.
    pub(crate) fn withheld(&self) -> Withheld {
        self.withheld
    }

    /// Takes a verified line into account.
    pub(crate) fn note(&mut self, line: &Line) {
        let is_ours =
            line.host.as_ref() == Some(&self.host) && line.sandbox.as_ref() == Some(&self.sandbox);
        if !is_ours {
            return;
        }
        match &line.what {
            What::Event(told) => self.note_event(told),
            What::Report(news) => self.note_news(news),
            What::Asked { .. }
            | What::Unverified(_)
            | What::Distrusted(_)
            | What::Missing(_)
            | What::Purged { .. }
            | What::Withdrawn(_)
            | What::Note(_) => {}
        }
    }

    fn note_event(&mut self, told: &Told) {
        if told.withheld {
            self.withheld.lines = self.withheld.lines.saturating_add(1);
            self.withheld.bytes = self.withheld.bytes.saturating_add(told.size);
        }
    }

    fn note_news(&mut self, news: &News) {
        let is_asked = |command: CommandId| self.command.is_none_or(|ours| ours == command);
        match news {
            News::Launched(launched) if is_asked(launched.command) => {
                self.was_launched = true;
                if self.phase == Phase::Waiting {
                    self.phase = Phase::Running(launched.content);
                }
            }
            // Without a command it is ours if we saw it start: its name is unique on its host.
            News::Ended(ended)
                if ended
                    .command
                    .map_or_else(|| self.was_launched || self.command.is_none(), is_asked) =>
            {
                self.phase = Phase::Ended(ended.clone());
            }
            // A later command for the same name may be refused too; that changes nothing for this one.
            News::Refused(refused) if is_asked(refused.command) && self.phase == Phase::Waiting => {
                self.phase = Phase::Refused(refused.clone());
            }
            News::Launched(_)
            | News::Ended(_)
            | News::Refused(_)
            | News::Stopped(_)
            | News::Forwarded(_)
            | News::Status(_)
            | News::Other(_) => {}
        }
    }
}

/// What the end of a sandbox means for whoever waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The exit code.
    pub(crate) code: u8,
    /// What a person should know, beyond the sandbox's own output.
    pub(crate) remark: Option<String>,
}

/// Judges the end of a sandbox. `is_whole`: its stream was seen to its end, or it never had one; `failures`: records of it that
/// did not verify. A lost stream is never reported as success.
pub(crate) fn verdict(ended: &Ended, is_whole: bool, failures: u64) -> Verdict {
    let own = ended
        .exit_code
        .map(|code| u8::try_from(code).unwrap_or(u8::MAX));
    if failures > 0 {
        return Verdict {
            code: EXIT_OUTHAUL,
            remark: Some("not all of what it said verifies: see the warnings above".to_owned()),
        };
    }
    let why = ended
        .reason
        .map(|reason| reason_text(reason, &ended.detail));
    let tail = (!is_whole).then_some("the end of its output did not arrive");
    let code = match (own, ended.reason) {
        (Some(0), Some(reason)) if reason != Reason::Stopped => EXIT_OUTHAUL,
        (Some(0), _) if !is_whole => EXIT_OUTHAUL,
        (Some(code), _) => code,
        (None, _) => EXIT_OUTHAUL,
    };
    let remark = match (why, tail) {
        (Some(why), Some(tail)) => Some(format!("{why}; {tail}")),
        (Some(why), None) => Some(why),
        (None, Some(tail)) => Some(tail.to_owned()),
        (None, None) if own.is_none() => Some("it ended without an exit code".to_owned()),
        (None, None) => None,
    };
    Verdict { code, remark }
}

/// A reason and its detail, safe to show.
pub(crate) fn reason_text(reason: Reason, detail: &str) -> String {
    if detail.is_empty() {
        reason.word().to_owned()
    } else {
        format!("{reason}: {}", super::terminal::one_line(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::tests::{TIME, ended_news, host, launched_news, sandbox};
    use super::*;

    const OURS: CommandId = CommandId([1; 16]);

    fn line(what: What) -> Line {
        Line {
            offset: 1,
            incarnation: 0,
            time: TIME,
            host: Some(host()),
            sandbox: Some(sandbox()),
            what,
        }
    }

    fn watch(news: &[News]) -> Watch {
        let mut watch = Watch::new(host(), sandbox(), Some(OURS));
        for news in news {
            watch.note(&line(What::Report(news.clone())));
        }
        watch
    }

    fn refused(command: CommandId) -> News {
        News::Refused(Refused {
            command,
            sandbox: sandbox(),
            reason: Reason::Busy,
            detail: String::new(),
        })
    }

    fn ended(exit_code: Option<u64>, reason: Option<Reason>) -> Ended {
        match ended_news(exit_code, reason) {
            News::Ended(ended) => ended,
            _ => unreachable!("it is made above"),
        }
    }

    #[test]
    fn a_sandbox_waits_runs_and_ends() {
        assert_eq!(watch(&[]).phase(), &Phase::Waiting);
        let launched = launched_news(Content::Metadata);
        let running = watch(std::slice::from_ref(&launched));
        assert_eq!(running.phase(), &Phase::Running(Content::Metadata));
        let over = watch(&[launched, ended_news(Some(3), None)]);
        assert!(matches!(over.phase(), Phase::Ended(_)) && over.was_launched());
    }

    #[test]
    fn another_commands_fate_is_not_ours() {
        assert_eq!(
            watch(&[refused(CommandId([9; 16]))]).phase(),
            &Phase::Waiting
        );
        assert!(matches!(watch(&[refused(OURS)]).phase(), Phase::Refused(_)));
        let after = watch(&[launched_news(Content::Full), refused(OURS)]);
        assert!(matches!(after.phase(), Phase::Running(_)));
        let mut stale = ended(Some(0), None);
        stale.command = None;
        assert_eq!(
            watch(&[News::Ended(stale)]).phase(),
            &Phase::Waiting,
            "an end without a command, before ours began"
        );
    }

    #[test]
    fn another_sandboxs_lines_are_not_ours() {
        let mut watch = watch(&[]);
        let mut other = line(What::Report(ended_news(Some(0), None)));
        other.sandbox = SandboxId::new("other").ok();
        watch.note(&other);
        assert_eq!(watch.phase(), &Phase::Waiting);
    }

    #[test]
    fn what_stays_on_the_host_is_counted() {
        let mut watch = watch(&[]);
        let told = |size, withheld| {
            line(What::Event(Told {
                kind: protocol::event::Kind::Stdout,
                continued: false,
                size,
                value: 0,
                data: Vec::new(),
                withheld,
            }))
        };
        watch.note(&told(10, true));
        watch.note(&told(5, true));
        watch.note(&told(3, false));
        assert_eq!(
            watch.withheld(),
            Withheld {
                lines: 2,
                bytes: 15
            }
        );
    }

    #[test]
    fn the_exit_code_is_the_sandboxs_unless_that_would_hide_something() {
        let code = |exit, reason, is_whole, failures| {
            verdict(&ended(exit, reason), is_whole, failures).code
        };
        assert_eq!(code(Some(0), None, true, 0), 0);
        assert_eq!(code(Some(3), None, true, 0), 3);
        assert_eq!(code(Some(127), None, true, 0), 127);
        assert_eq!(code(Some(0), None, true, 1), EXIT_OUTHAUL, "unverified");
        assert_eq!(code(Some(0), None, false, 0), EXIT_OUTHAUL, "no end");
        assert_eq!(code(Some(3), None, false, 0), 3);
        assert_eq!(code(Some(137), Some(Reason::OomKilled), false, 0), 137);
        assert_eq!(code(Some(0), Some(Reason::Stopped), true, 0), 0);
        assert_eq!(
            code(Some(0), Some(Reason::DeadlineExceeded), true, 0),
            EXIT_OUTHAUL
        );
        assert_eq!(
            code(None, Some(Reason::ImageNotFound), true, 0),
            EXIT_OUTHAUL
        );
        assert_eq!(code(None, None, true, 0), EXIT_OUTHAUL);
        assert_eq!(code(Some(1 << 40), None, true, 0), 255);
    }

    #[test]
    fn a_detail_cannot_drive_the_terminal() {
        assert_eq!(
            reason_text(Reason::PolicyRefused, "images\x1b[2J"),
            "policy_refused: images^[[2J"
        );
    }
}
