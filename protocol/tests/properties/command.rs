//! A host takes a command if and only if `SPEC.md` chapter 6 lets it.

use proptest::{prelude::*, sample::select};
use protocol::{
    command::{self, Command, Launch, Order, is_image},
    id::HostId,
    key::Dispatcher,
    signed,
    time::UnixMillis,
};

use crate::any::{cases, command, secret};

const NOW_MS: u64 = 1_800_000_000_000;
const LIFE_MS_MAX: u64 = 604_800_000;
/// The last now of which a leeway more is still a number.
const CLOCK_MS_MAX: u64 = u64::MAX - 60_000;

/// When a command was issued, when it expires, and now: each at an edge of what the others allow, or a step beside it.
fn dates() -> impl Strategy<Value = (u64, u64, u64)> {
    let step = || select(&[-1_i64, 0, 1][..]);
    let life = select(&[0, 1, 60_000, LIFE_MS_MAX, u64::MAX][..]);
    let from_issued = (life, step()).prop_flat_map(move |(life, one)| {
        let age = select(vec![0, 60_000, life, life.saturating_add(60_000), u64::MAX]);
        (
            Just(life.saturating_add_signed(one)),
            age,
            step(),
            any::<bool>(),
        )
    });
    let issued = select(&[0, NOW_MS, CLOCK_MS_MAX, u64::MAX][..]);
    (issued, from_issued).prop_map(|(issued, (life, age, step, is_early))| {
        // Early: it is issued after now.
        let now = if is_early {
            issued.saturating_sub(age)
        } else {
            issued.saturating_add(age)
        };
        let now = now.saturating_add_signed(step).min(CLOCK_MS_MAX);
        (issued, issued.saturating_add(life), now)
    })
}

/// What may be put into a launch, and whether a host takes it.
#[derive(Clone, Debug)]
enum Change {
    Image(String),
    Argument(String),
    Arguments(usize),
    Variable(String, String),
    Variables(usize),
    Sources(usize),
    Limit(usize, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let long = || select(&[0, 1, 32_767, 32_768, 32_769][..]).prop_map(|bytes| "x".repeat(bytes));
    let text = || prop_oneof![long(), "[a\0]{0,3}"];
    prop_oneof![
        prop_oneof![
            "[a-zA-Z0-9._/:@ -]{0,6}",
            "[a./]{0,4}",
            "a[a./]{1,4}a",
            "[a-z]{511,513}",
            "\\PC{0,3}"
        ]
        .prop_map(Change::Image),
        text().prop_map(Change::Argument),
        (255..258_usize).prop_map(Change::Arguments),
        ("[A-Za-z0-9_=é]{0,3}", text()).prop_map(|(name, value)| Change::Variable(name, value)),
        (127..130_usize).prop_map(Change::Variables),
        (15..18_usize).prop_map(Change::Sources),
        (
            0..5_usize,
            select(&[0, 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX][..])
        )
            .prop_map(|(which, limit)| Change::Limit(which, limit)),
    ]
}

impl Change {
    fn apply(self, launch: &mut Launch) {
        match self {
            Self::Image(image) => launch.image = image,
            Self::Argument(argument) => launch.arguments.push(argument),
            Self::Arguments(count) => launch.arguments = vec![String::new(); count],
            Self::Variable(name, value) => launch.environment.push((name, value)),
            Self::Variables(count) => launch.environment = vec![("A".into(), String::new()); count],
            Self::Sources(count) => launch.sources = vec!["code".parse().unwrap(); count],
            Self::Limit(which, limit) => {
                let limits = &mut launch.limits;
                *[
                    &mut limits.cpu_millis,
                    &mut limits.memory_bytes,
                    &mut limits.pids,
                    &mut limits.scratch_bytes,
                    &mut limits.life_s,
                ][which] = limit;
            }
        }
    }
}

/// An image, from the words of chapter 6.
fn is_image_by_the_words(text: &str) -> bool {
    (1..=512).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c))
        && text.chars().next().unwrap().is_ascii_alphanumeric()
        && !text.contains("..")
        && !text.contains("//")
}

/// The bounds at the end of chapter 6.
fn is_within_bounds(launch: &Launch) -> bool {
    let is_text = |text: &String| text.len() <= 32_768 && !text.contains('\0');
    let is_variable = |name: &str| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let limits = &launch.limits;
    is_image_by_the_words(&launch.image)
        && launch.arguments.len() <= 256
        && launch.arguments.iter().all(is_text)
        && launch.environment.len() <= 128
        && launch
            .environment
            .iter()
            .all(|(name, value)| is_variable(name) && is_text(value))
        && launch.sources.len() <= 16
        && [
            limits.cpu_millis,
            limits.memory_bytes,
            limits.pids,
            limits.scratch_bytes,
            limits.life_s,
        ]
        .iter()
        .all(|limit| *limit >= 1 && *limit < 1 << 63)
}

fn is_in_time(command: &Command, now_ms: u64) -> bool {
    let [issued, expires, now] = [command.issued.0, command.expires.0, now_ms].map(i128::from);
    expires - issued <= i128::from(LIFE_MS_MAX) && now < expires + 60_000 && now + 60_000 >= issued
}

/// Whether `host` takes `command`, which `signer` signed for the topic of the host `place`.
fn is_taken(command: &Command, signer: u8, place: &HostId, host: &HostId, now_ms: u64) -> bool {
    let listed = [1, 2].map(|seed| secret::<Dispatcher>(seed).public());
    let topic = format!("v1/{place}/commands");
    let bytes = signed::sign(&secret(signer), command, topic.as_bytes());
    command::verify(&bytes, &listed, host, UnixMillis(now_ms)).is_ok()
}

proptest! {
    #![proptest_config(cases(800))]

    #[test]
    fn a_command_is_taken_in_its_time_from_who_is_listed_for_this_host_alone(
        command in command(), dates in dates(), signer in prop_oneof![9 => 1..3_u8, 1 => Just(9)],
        is_other in [prop::bool::weighted(0.1), prop::bool::weighted(0.1)],
    ) {
        let (issued, expires, now_ms) = dates;
        let command = Command { issued: UnixMillis(issued), expires: UnixMillis(expires), ..command };
        let own = || command.host.clone();
        let [place, host] = is_other.map(|is_other| if is_other { "another".parse().unwrap() } else { own() });
        let expected = signer != 9 && host == command.host && place == host && is_in_time(&command, now_ms);
        prop_assert_eq!(is_taken(&command, signer, &place, &host, now_ms), expected);
    }

    #[test]
    fn a_launch_is_taken_within_its_bounds_alone(
        command in command().prop_filter("a stop", |command| matches!(command.order, Order::Launch(_))),
        changes in prop::collection::vec(change(), 1..3),
    ) {
        let mut command = command;
        let Order::Launch(launch) = &mut command.order else {
            return Ok(());
        };
        changes.into_iter().for_each(|change| change.apply(launch));
        let is_good = is_within_bounds(launch);
        let bytes = command::sign(&secret::<Dispatcher>(1), &command);
        let expected = is_good && bytes.len() <= 61_440;
        prop_assert_eq!(is_taken(&command, 1, &command.host, &command.host, command.issued.0), expected);
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn an_image_is_what_the_words_say(
        text in prop_oneof!["[a-zA-Z0-9._/:@ -]{0,6}", "a[a./]{0,6}", "[a.:/@_-]{1,4}", "[a-z]{511,513}", "\\PC{0,3}"],
    ) {
        prop_assert_eq!(is_image(&text), is_image_by_the_words(&text));
    }
}
