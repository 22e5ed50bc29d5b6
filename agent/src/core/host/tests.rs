//! The session against a scripted broker and clock.

use super::*;

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    host: Host,
    now: Now,
    done: Vec<Effect>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an origin for the test's own clock"
)]
fn origin() -> Now {
    Now {
        mono: Instant::now(),
        unix: START,
    }
}

impl World {
    fn new(enrolled: bool, persisted: Option<(UnixMillis, UnixMillis)>) -> Self {
        let now = origin();
        let mut world = Self {
            host: Host::new(enrolled, persisted, now, 0),
            now,
            done: vec![],
        };
        world.drain();
        world
    }

    fn drain(&mut self) -> Vec<Effect> {
        let mut new = vec![];
        while let Some(effect) = self.host.poll_effect() {
            new.push(effect);
        }
        self.done.extend(new.iter().cloned());
        new
    }

    fn say(&mut self, event: Event) -> Vec<Effect> {
        self.host.handle(event, self.now, 0);
        self.drain()
    }

    /// Lets time pass by the machine's own timeouts, as drive does.
    fn pass(&mut self, duration: Duration) -> Vec<Effect> {
        let (end, mut new) = (self.now.mono + duration, vec![]);
        loop {
            let next = self.host.poll_timeout().min(end);
            let step = next.saturating_duration_since(self.now.mono);
            self.now.mono = next;
            self.now.unix = self.now.unix.plus(step);
            self.host.handle_timeout(self.now, 0);
            new.extend(self.drain());
            if next >= end {
                return new;
            }
            assert!(
                step > Duration::ZERO || !new.is_empty(),
                "a timeout that does not move"
            );
        }
    }

    /// Answers one exchange from `Prepare` on; the token lives an hour.
    fn exchange(&mut self, attempt: u64, generation: u64) -> Vec<Effect> {
        assert_eq!(
            self.say(Event::Prepared { attempt }),
            [Effect::Challenge { attempt }]
        );
        let nonce = [7; 32];
        assert_eq!(
            self.say(Event::Challenged { attempt, nonce }),
            [Effect::Exchange {
                attempt,
                nonce,
                show: Show::Last
            }]
        );
        let token = vec![1];
        let life = (self.now.unix, self.now.unix.plus(HOUR));
        assert_eq!(
            self.say(Event::Granted {
                attempt,
                token: token.clone(),
                generation,
                life
            }),
            [Effect::Adopt {
                attempt,
                token,
                generation
            }],
            "nothing is done with a grant before it is on disk"
        );
        self.say(Event::Adopted { attempt })
    }

    fn online() -> Self {
        let mut world = Self::new(false, None);
        world.exchange(1, 1);
        world.say(Event::LinkUp { attempt: 1 });
        assert!(world.host.is_online());
        world
    }
}

fn down(attempt: u64, why: Down) -> Event {
    Event::LinkDown { attempt, why }
}

#[test]
fn a_new_host_enrols_then_connects() {
    let mut world = World::new(false, None);
    assert_eq!(world.done, [Effect::Prepare { attempt: 1 }]);
    assert_eq!(
        world.exchange(1, 1),
        [Effect::Remint, Effect::Connect { attempt: 1 }]
    );
    assert!(world.say(Event::LinkUp { attempt: 1 }).is_empty());
    assert!(world.host.is_online());
}

#[test]
fn a_restart_uses_the_token_on_disk_unless_its_life_is_nearly_over() {
    let life_from = |age: u64| {
        (
            UnixMillis(START.0 - age * 1000),
            UnixMillis(START.0 - age * 1000).plus(HOUR),
        )
    };
    let young = World::new(true, Some(life_from(60)));
    assert_eq!(young.done, [Effect::Connect { attempt: 1 }]);
    for old in [life_from(1800), life_from(3599), life_from(7200)] {
        assert_eq!(
            World::new(true, Some(old)).done,
            [Effect::Prepare { attempt: 1 }]
        );
    }
    assert_eq!(
        World::new(true, None).done,
        [Effect::Prepare { attempt: 1 }]
    );
}

#[test]
fn a_live_link_is_given_the_fresh_token_and_never_cut() {
    let mut world = World::online();
    assert!(world.pass(Duration::from_secs(1799)).is_empty());
    assert_eq!(
        world.pass(Duration::from_secs(2)),
        [Effect::Prepare { attempt: 2 }]
    );
    assert_eq!(
        world.exchange(2, 2),
        [Effect::Remint, Effect::Present { attempt: 1 }]
    );
    assert!(world.say(Event::Renewed { attempt: 1 }).is_empty());
    assert!(world.host.is_online());
    assert!(
        world.pass(Duration::from_secs(1798)).is_empty(),
        "and lives its whole life again"
    );
}

#[test]
fn a_year_online_renews_for_ever_on_one_link() {
    let mut world = World::online();
    for attempt in 2..=300 {
        let effects = world.pass(Duration::from_secs(1802));
        assert_eq!(effects, [Effect::Prepare { attempt }]);
        world.exchange(attempt, attempt);
        world.say(Event::Renewed { attempt: 1 });
    }
    assert!(world.host.is_online());
}

#[test]
fn a_lost_answer_is_asked_for_again_with_back_off() {
    let mut world = World::new(false, None);
    world.say(Event::Prepared { attempt: 1 });
    world.say(Event::Challenged {
        attempt: 1,
        nonce: [0; 32],
    });
    assert!(
        world
            .pass(ASK_WAIT_MAX - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(
        world.pass(Duration::from_millis(200)),
        [Effect::Prepare { attempt: 2 }]
    );
    let late = Event::Granted {
        attempt: 1,
        token: vec![1],
        generation: 1,
        life: (START, START.plus(HOUR)),
    };
    assert!(
        world.say(late).is_empty(),
        "an answer to a question no longer asked"
    );
    assert_eq!(
        world.exchange(2, 1),
        [Effect::Remint, Effect::Connect { attempt: 1 }]
    );
}

#[test]
fn every_silent_step_ends_by_itself() {
    let steps: [fn(&mut World); 4] = [
        |_| {},
        |w| drop(w.say(Event::Prepared { attempt: 1 })),
        |w| {
            w.say(Event::Prepared { attempt: 1 });
            w.say(Event::Challenged {
                attempt: 1,
                nonce: [0; 32],
            });
        },
        |w| {
            w.say(Event::Prepared { attempt: 1 });
            w.say(Event::Challenged {
                attempt: 1,
                nonce: [0; 32],
            });
            let life = (w.now.unix, w.now.unix.plus(HOUR));
            w.say(Event::Granted {
                attempt: 1,
                token: vec![],
                generation: 1,
                life,
            });
        },
    ];
    for (index, step) in steps.iter().enumerate() {
        let mut world = World::new(false, None);
        step(&mut world);
        let effects = world.pass(Duration::from_secs(31));
        assert_eq!(
            effects.first(),
            Some(&Effect::Prepare { attempt: 2 }),
            "step {index}"
        );
    }
    let mut world = World::new(false, None);
    world.exchange(1, 1);
    let effects = world.pass(CONNECT_WAIT_MAX + Duration::from_millis(200));
    assert_eq!(
        effects,
        [Effect::Close { attempt: 1 }, Effect::Connect { attempt: 2 }]
    );
}

#[test]
fn a_silent_renewal_on_the_link_costs_the_link_and_no_more() {
    let mut world = World::online();
    world.pass(Duration::from_secs(1801));
    world.exchange(2, 2);
    let effects = world.pass(PRESENT_WAIT_MAX + Duration::from_millis(200));
    assert_eq!(
        effects,
        [Effect::Close { attempt: 1 }, Effect::Connect { attempt: 2 }]
    );
}

#[test]
fn refusals_at_enrolment_end_the_program_and_later_ones_take_the_slow_lane() {
    for refusal in [Refusal::InstallKey, Refusal::Proof, Refusal::Revoked] {
        let failed = |attempt| Event::ExchangeFailed {
            attempt,
            failure: Failure::Refused {
                refusal,
                known: None,
            },
        };
        let mut world = World::new(false, None);
        assert_eq!(world.say(failed(1)), [Effect::GiveUp(refusal)]);
        let mut world = World::new(true, None);
        let mut attempt = 1;
        if refusal == Refusal::Proof {
            // The chain is shown once.
            assert_eq!(world.say(failed(1)), [Effect::Prepare { attempt: 2 }]);
            attempt = 2;
        }
        assert!(world.say(failed(attempt)).is_empty());
        assert!(
            world.pass(Duration::from_millis(59_990)).is_empty(),
            "{refusal}"
        );
        attempt += 1;
        assert_eq!(
            world.pass(Duration::from_millis(20)),
            [Effect::Prepare { attempt }]
        );
    }
}

/// Answers an exchange with a refusal of the proof; what it had shown, and what follows.
fn refuse_proof(world: &mut World, attempt: u64, known: Option<u64>) -> (Show, Vec<Effect>) {
    world.say(Event::Prepared { attempt });
    let nonce = [7; 32];
    let asked = world.say(Event::Challenged { attempt, nonce });
    let [Effect::Exchange { show, .. }] = asked[..] else {
        panic!("{asked:?}");
    };
    let failure = Failure::Refused {
        refusal: Refusal::Proof,
        known,
    };
    (show, world.say(Event::ExchangeFailed { attempt, failure }))
}

#[test]
fn a_broker_that_is_behind_is_shown_the_chain_part_by_part_and_at_once() {
    let mut world = World::new(true, None);
    let mut expected = Show::Last;
    for (attempt, known) in [(1, None), (2, Some(5)), (3, Some(29)), (4, Some(53))] {
        let (show, next) = refuse_proof(&mut world, attempt, known);
        assert_eq!(show, expected);
        let attempt = attempt + 1;
        assert_eq!(next, [Effect::Prepare { attempt }], "at once");
        expected = Show::Chain { after: known };
    }
    world.say(Event::Prepared { attempt: 5 });
    let nonce = [7; 32];
    assert_eq!(
        world.say(Event::Challenged { attempt: 5, nonce }),
        [Effect::Exchange {
            attempt: 5,
            nonce,
            show: expected
        }]
    );
    // Once it grants, the last key's word is enough again.
    world.say(Event::Granted {
        attempt: 5,
        token: vec![1],
        generation: 60,
        life: (world.now.unix, world.now.unix.plus(HOUR)),
    });
    world.say(Event::Adopted { attempt: 5 });
    assert_eq!(world.host.show, Show::Last);
}

#[test]
fn a_broker_that_gets_no_further_is_left_alone_for_a_minute_and_asked_from_the_start_again() {
    for stuck in [Some(5), Some(4), None] {
        let mut world = World::new(true, None);
        refuse_proof(&mut world, 1, None);
        refuse_proof(&mut world, 2, Some(5));
        let (_, next) = refuse_proof(&mut world, 3, stuck);
        assert!(next.is_empty());
        assert!(world.pass(Duration::from_millis(59_990)).is_empty());
        world.pass(Duration::from_millis(20));
        assert_eq!(refuse_proof(&mut world, 4, None).0, Show::Last);
    }
    // One that says that it knows more for ever is asked a bounded number of times.
    let mut world = World::new(true, None);
    let mut attempt = 1;
    while !refuse_proof(&mut world, attempt, Some(attempt))
        .1
        .is_empty()
    {
        attempt += 1;
        assert!(attempt < 1000);
    }
}

#[test]
fn a_broker_that_knows_no_chains_is_not_asked_in_a_loop() {
    let mut world = World::new(true, None);
    refuse_proof(&mut world, 1, None);
    world.say(Event::Prepared { attempt: 2 });
    let failure = Failure::Refused {
        refusal: Refusal::Malformed,
        known: None,
    };
    let failed = Event::ExchangeFailed {
        attempt: 2,
        failure,
    };
    assert!(world.say(failed).is_empty());
    assert!(world.pass(Duration::from_millis(59_990)).is_empty());
    assert_eq!(world.host.show, Show::Last);
}

#[test]
fn a_token_that_was_good_until_now_is_replaced_at_once() {
    // Ended by an administrator: the broker's key was replaced. Or lost, and refused when it is shown again.
    let mut world = World::online();
    world.say(down(1, Down::Code(0x98)));
    let soon = Duration::from_millis(150);
    assert_eq!(world.pass(soon), [Effect::Prepare { attempt: 2 }]);
    let mut world = World::online();
    world.say(down(1, Down::Lost));
    assert_eq!(world.pass(soon), [Effect::Connect { attempt: 2 }]);
    world.say(down(2, Down::Code(0x87)));
    assert_eq!(world.pass(soon), [Effect::Prepare { attempt: 2 }]);
    // Another machine has our place: no race for it.
    let mut world = World::online();
    world.say(down(1, Down::Code(0x8e)));
    assert!(world.pass(Duration::from_millis(59_990)).is_empty());
}

#[test]
fn the_link_outlives_failed_renewals_until_its_token_ends() {
    let mut world = World::online();
    let mut until_end = world.pass(Duration::from_secs(1801));
    while !until_end.contains(&Effect::Close { attempt: 1 }) {
        assert!(world.host.is_online());
        let attempt = world.host.exchange_attempt;
        world.say(Event::ExchangeFailed {
            attempt,
            failure: Failure::Unreachable,
        });
        until_end = world.pass(Duration::from_secs(1));
    }
    assert!(world.now.unix >= START.plus(HOUR) && world.now.unix < START.plus(HOUR + LOOK_AGAIN));
    let presents = |e: &Effect| matches!(e, Effect::Connect { .. } | Effect::Present { .. });
    assert!(
        !world.pass(HOUR * 8).iter().any(presents),
        "nobody presents a token that is known to be expired"
    );
}

#[test]
fn a_refused_fresh_token_takes_the_slow_lane_and_a_found_one_is_replaced_at_once() {
    for code in [0x86, 0x87, 0x8a, 0x8c, 0x8e, 0x98] {
        let mut world = World::new(false, None);
        world.exchange(1, 1);
        assert!(world.say(down(1, Down::Code(code))).is_empty());
        assert!(
            world.pass(Duration::from_millis(59_990)).is_empty(),
            "{code:#x}"
        );
        assert_eq!(
            world.pass(Duration::from_millis(20)),
            [Effect::Prepare { attempt: 2 }]
        );

        let mut found = World::new(true, Some((START, START.plus(HOUR))));
        found.say(down(1, Down::Code(code)));
        assert_eq!(
            found.pass(Duration::from_millis(150)),
            [Effect::Prepare { attempt: 1 }]
        );
    }
}

#[test]
fn a_lost_link_is_dialled_again_under_the_same_token() {
    let mut world = World::online();
    for attempt in 1..50 {
        for why in [Down::Lost, Down::Code(0x88), Down::Code(0x97)] {
            world.say(down(attempt, why));
            assert!(!world.host.is_online());
            if why == Down::Lost {
                break;
            }
        }
        let effects = world.pass(Duration::from_millis(101));
        assert_eq!(
            effects,
            [Effect::Connect {
                attempt: attempt + 1
            }]
        );
    }
    assert!(
        world.say(down(7, Down::Lost)).is_empty(),
        "news of an earlier link"
    );
}

#[test]
fn nobody_connects_while_an_exchange_is_being_answered() {
    let mut world = World::online();
    world.pass(Duration::from_secs(1801));
    world.say(Event::Prepared { attempt: 2 });
    world.say(Event::Challenged {
        attempt: 2,
        nonce: [0; 32],
    });
    world.say(down(1, Down::Lost));
    assert!(world.pass(Duration::from_secs(20)).is_empty());
    let life = (world.now.unix, world.now.unix.plus(HOUR));
    world.say(Event::Granted {
        attempt: 2,
        token: vec![2],
        generation: 2,
        life,
    });
    assert_eq!(
        world.say(Event::Adopted { attempt: 2 }),
        [Effect::Remint, Effect::Connect { attempt: 2 }]
    );
}

#[test]
fn an_outage_longer_than_the_token_ends_in_renewal_then_connection() {
    let mut world = World::online();
    world.say(down(1, Down::Lost));
    for _ in 0..2000 {
        for effect in world.pass(Duration::from_secs(5)) {
            match effect {
                Effect::Connect { attempt } => drop(world.say(down(attempt, Down::Lost))),
                Effect::Prepare { attempt } => drop(world.say(Event::ExchangeFailed {
                    attempt,
                    failure: Failure::Unreachable,
                })),
                Effect::Challenge { .. }
                | Effect::Exchange { .. }
                | Effect::Adopt { .. }
                | Effect::Remint
                | Effect::Present { .. }
                | Effect::Close { .. }
                | Effect::GiveUp(_) => panic!("{effect:?}"),
            }
        }
    }
    assert!(world.now.unix > START.plus(HOUR * 2));
    let attempt = loop {
        if let Some(Effect::Prepare { attempt }) = world.pass(Duration::from_secs(1)).first() {
            break *attempt;
        }
    };
    let effects = world.exchange(attempt, 2);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Remint, Effect::Connect { .. }]
    ));
}

#[test]
fn suspension_is_noticed_when_the_machine_wakes() {
    let mut world = World::online();
    world.now.unix = world.now.unix.plus(HOUR * 8);
    let effects = world.pass(LOOK_AGAIN + Duration::from_millis(200));
    assert_eq!(
        effects,
        [Effect::Close { attempt: 1 }, Effect::Prepare { attempt: 2 }]
    );
}

#[test]
fn a_token_that_is_old_when_it_comes_makes_no_hot_loop() {
    let mut world = World::new(false, None);
    world.say(Event::Prepared { attempt: 1 });
    world.say(Event::Challenged {
        attempt: 1,
        nonce: [0; 32],
    });
    world.say(Event::Granted {
        attempt: 1,
        token: vec![],
        generation: 1,
        life: (UnixMillis(0), UnixMillis(1)),
    });
    assert_eq!(world.say(Event::Adopted { attempt: 1 }), [Effect::Remint]);
    assert!(world.pass(Duration::from_millis(90)).is_empty());
}

#[test]
fn stopping_closes_the_link_and_begins_nothing() {
    let mut world = World::online();
    assert_eq!(world.say(Event::Stop), [Effect::Close { attempt: 1 }]);
    world.say(down(1, Down::Closed));
    assert!(world.pass(HOUR * 3).is_empty());
}
