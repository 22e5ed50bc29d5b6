//! Where a sandbox stands, as far as its host's reports tell.
//!
//! Reports may come twice and, after a crash of ours, be applied again: what is written here is safe to repeat, and no late word
//! wakes a sandbox that has ended.

use protocol::report::{News, Reason, State};

/// Where a sandbox stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In the words of the reports.
    pub state: State,
    /// Why, if it was refused or ended by force.
    pub reason: Option<Reason>,
    /// What its command ended with.
    pub exit_code: Option<u64>,
    /// For a person.
    pub text: Option<String>,
    /// The key that signs its events.
    pub key: Option<[u8; 32]>,
}

impl Standing {
    /// A command asks for it, and nobody has answered.
    #[must_use]
    pub const fn creating() -> Self {
        Self {
            state: State::Creating,
            reason: None,
            exit_code: None,
            text: None,
            key: None,
        }
    }
}

/// Where it stands after a report, if that changes anything. `None` as `now`: it was never heard of. `is_stop` says that the command
/// which a refusal names is known to ask for a stop: then the refusal says nothing of the sandbox.
#[must_use]
pub fn after_report(now: Option<&Standing>, news: &News, is_stop: bool) -> Option<Standing> {
    let before = now.cloned().unwrap_or_else(Standing::creating);
    let after = match news {
        News::Launched(launched) => {
            let key = Some(before.key.unwrap_or(*launched.key.as_bytes()));
            if before.state.is_final() {
                Standing { key, ..before }
            } else {
                Standing {
                    state: State::Running,
                    reason: None,
                    text: None,
                    key,
                    ..before
                }
            }
        }
        News::Refused(refused) if !is_stop && is_unanswered(&before) => Standing {
            state: State::Failed,
            reason: Some(refused.reason),
            text: text(&refused.detail),
            ..before
        },
        News::Ended(ended) => Standing {
            // Whatever the report calls it, there is nothing after it.
            state: if ended.state == State::Finished {
                State::Finished
            } else {
                State::Failed
            },
            reason: ended.reason,
            exit_code: ended.exit_code,
            text: text(&ended.detail),
            key: before.key,
        },
        News::Stopped(_) if !before.state.is_final() => Standing {
            state: State::Failed,
            reason: Some(Reason::Stopped),
            text: None,
            ..before
        },
        News::Refused(_)
        | News::Stopped(_)
        | News::Forwarded(_)
        | News::Status(_)
        | News::Other(_) => return None,
    };
    (now != Some(&after)).then_some(after)
}

/// Where it stands after its host's `status` report names it as being in `seen`, if that changes anything. An end is left to its own
/// report, which says why.
#[must_use]
pub fn after_sighting(now: Option<&Standing>, seen: State) -> Option<Standing> {
    let seen = match seen {
        // A newer operator's word: what it means is not known here.
        State::Other(_) => State::Unknown,
        known => known,
    };
    if seen.is_final() || now.is_some_and(|now| now.state.is_final() || now.state == seen) {
        return None;
    }
    let before = now.cloned().unwrap_or_else(Standing::creating);
    Some(Standing {
        state: seen,
        text: None,
        ..before
    })
}

/// Where it stands when the command that asked for it has expired and no report has come.
#[must_use]
pub fn after_expiry(now: &Standing) -> Option<Standing> {
    (now.state == State::Creating).then(|| Standing {
        state: State::Unknown,
        text: Some("the host did not answer before the command expired".to_owned()),
        ..now.clone()
    })
}

fn is_unanswered(standing: &Standing) -> bool {
    standing.key.is_none() && matches!(standing.state, State::Creating | State::Unknown)
}

fn text(detail: &str) -> Option<String> {
    (!detail.is_empty()).then(|| detail.to_owned())
}

#[cfg(test)]
mod tests {
    use protocol::{
        command::Content,
        id::{CommandId, SandboxId},
        key::{Sandbox, Secret},
        report::{Ended, Launched, Refused, Stopped},
    };
    use zeroize::Zeroizing;

    use super::*;

    fn sandbox() -> SandboxId {
        SandboxId::new("build-7").unwrap()
    }

    fn every_news() -> Vec<News> {
        let key = Secret::<Sandbox>::from_seed(&Zeroizing::new([2; 32])).public();
        let (command, sandbox) = (CommandId([1; 16]), sandbox());
        let ended = |state, exit_code, reason| {
            News::Ended(Ended {
                command: None,
                sandbox: sandbox.clone(),
                state,
                exit_code,
                reason,
                detail: String::new(),
            })
        };
        vec![
            News::Launched(Launched {
                command,
                sandbox: sandbox.clone(),
                key,
                image: "sha256:00".into(),
                container: "c".into(),
                content: Content::Full,
            }),
            News::Refused(Refused {
                command,
                sandbox: sandbox.clone(),
                reason: Reason::PolicyRefused,
                detail: "rule".into(),
            }),
            ended(State::Finished, Some(3), None),
            ended(State::Failed, Some(137), Some(Reason::OomKilled)),
            News::Stopped(Stopped {
                command,
                sandbox: sandbox.clone(),
            }),
        ]
    }

    fn play(reports: &[&News]) -> Option<Standing> {
        reports.iter().fold(None, |now, news| {
            after_report(now.as_ref(), news, false).or(now)
        })
    }

    #[test]
    fn every_report_applied_twice_says_the_same_as_once() {
        let all = every_news();
        for first in &all {
            for second in &all {
                let once = play(&[first, second]);
                assert_eq!(play(&[first, second, second]), once);
                assert_eq!(
                    after_report(once.as_ref(), second, false),
                    None,
                    "{first:?} {second:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_wakes_a_sandbox_that_has_ended() {
        for first in &every_news() {
            let Some(before) = play(&[first]).filter(|standing| standing.state.is_final()) else {
                continue;
            };
            for second in &every_news() {
                let after = play(&[first, second]).unwrap();
                assert!(after.state.is_final(), "{first:?} {second:?}");
            }
            for seen in State::ALL {
                assert_eq!(after_sighting(Some(&before), *seen), None);
            }
        }
    }

    #[test]
    fn an_end_says_more_than_the_stop_that_led_to_it_in_either_order() {
        let all = every_news();
        let (launched, ended, stopped) = (&all[0], &all[2], &all[4]);
        let expected = play(&[launched, ended]);
        assert_eq!(play(&[launched, stopped, ended]), expected);
        assert_eq!(play(&[launched, ended, stopped]), expected);
        assert_eq!(
            play(&[ended, launched]),
            expected,
            "the key is kept, whenever it is told"
        );
        assert_eq!(play(&[stopped]).unwrap().reason, Some(Reason::Stopped));
    }

    #[test]
    fn a_refusal_speaks_of_a_launch_that_nobody_answered_and_of_nothing_else() {
        let all = every_news();
        assert_eq!(
            play(&[&all[1]]).unwrap().reason,
            Some(Reason::PolicyRefused)
        );
        let running = play(&[&all[0]]).unwrap();
        assert_eq!(
            after_report(Some(&running), &all[1], false),
            None,
            "a second launch of the same id"
        );
        assert_eq!(
            after_report(Some(&Standing::creating()), &all[1], true),
            None,
            "a refused stop"
        );
    }

    #[test]
    fn what_nobody_answered_is_unknown_until_somebody_does() {
        let unknown = after_expiry(&Standing::creating()).unwrap();
        assert_eq!(unknown.state, State::Unknown);
        let all = every_news();
        let late = after_report(Some(&unknown), &all[0], false).unwrap();
        assert_eq!((late.state, late.text.clone()), (State::Running, None));
        assert_eq!(after_expiry(&late), None);
        let seen = after_sighting(Some(&unknown), State::Running).unwrap();
        assert_eq!(seen.state, State::Running);
        assert_eq!(after_sighting(Some(&seen), State::Running), None);
    }
}
