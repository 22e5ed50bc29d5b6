//! Commands, as the host meets them: what anybody may publish, and what a dispatcher that is listed may sign.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    command::{self, Command, CommandError, Launch, Order},
    key::Dispatcher,
    limits::{
        ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, COMMAND_LIFE_MS_MAX, ENVIRONMENT_MAX, LEEWAY_S,
        MESSAGE_BYTES_MAX, SOURCES_MAX,
    },
    signed::{self, Message as _, Typ},
    time::UnixMillis,
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    item::Item,
    quiet,
    seal::{is_worth_signing, seal},
    world::{self, DISPATCHER, NOW},
};

const AAD: &[u8] = b"v1/edge-1/commands";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => strangers_bytes(input.rest()),
        1 => good_one_changed(input),
        2 => signed_for_something_else(input),
        _ => signed(input.rest()),
    }
});

fn strangers_bytes(bytes: &[u8]) {
    assert!(verify(bytes).is_none());
    if let Ok(command) = signed::peek::<Command>(bytes) {
        let payload = cbor::to_vec(&command);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX && Item::read(bytes).is_some());
        assert!(bytes.windows(payload.len()).any(|part| part == payload));
    }
}

/// A good command with any change is no command. Which one it is, the fuzzer says: it makes the payload.
fn good_one_changed(mut input: Input<'_>) {
    let good = seal(DISPATCHER, Command::TYP, input.chunk(), AAD, None);
    let bytes = edited(&good, input);
    assert!(bytes == good || verify(&bytes).is_none());
}

/// A signature holds for one kind and one place.
fn signed_for_something_else(mut input: Input<'_>) {
    let others: [(Typ, &[u8]); 4] = [
        (Typ::Text("application/vnd.outhaul.report+cbor"), AAD),
        (Typ::Number(61), AAD),
        (Command::TYP, b"v1/edge-2/commands"),
        (Command::TYP, b""),
    ];
    let (typ, aad) = others[usize::from(input.byte()) % others.len()];
    assert!(verify(&seal(DISPATCHER, typ, input.rest(), aad, None)).is_none());
}

/// A dispatcher signed it, whatever it is: it is taken exactly if `SPEC.md` 6 says so.
fn signed(payload: &[u8]) {
    let read = cbor::from_slice::<Command>(payload, MESSAGE_BYTES_MAX).ok();
    if let Some(command) = &read {
        assert_eq!(cbor::to_vec(command), payload);
        assert!(Item::read(payload).is_some());
    }
    if !is_worth_signing(payload, read.is_some()) {
        return;
    }
    let bytes = seal(DISPATCHER, Command::TYP, payload, AAD, None);
    let expected = read.filter(|command| bytes.len() <= MESSAGE_BYTES_MAX && is_good(command, NOW));
    assert_eq!(verify(&bytes), expected);
}

fn verify(bytes: &[u8]) -> Option<Command> {
    let keys = [world::public::<Dispatcher>(DISPATCHER)];
    let verified = command::verify(bytes, &keys, &world::host(), NOW);
    let verified = verified.map_err(quiet::check::<CommandError>).ok()?;
    assert_eq!(verified.signer(), keys[0]);
    Some(verified.into_value())
}

fn is_good(command: &Command, now: UnixMillis) -> bool {
    let wide = |time: UnixMillis| i128::from(time.0);
    let (now, leeway) = (wide(now), i128::from(LEEWAY_S) * 1000);
    let (issued, expires) = (wide(command.issued), wide(command.expires));
    command.host == world::host()
        && expires - issued <= COMMAND_LIFE_MS_MAX.into()
        && now < expires + leeway
        && now + leeway >= issued
        && match &command.order {
            Order::Launch(launch) => launch_is_good(launch),
            Order::Stop(_) => true,
        }
}

fn launch_is_good(launch: &Launch) -> bool {
    let is_text = |text: &String| text.len() <= ARGUMENT_BYTES_MAX && !text.contains('\0');
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let is_name = |name: &String| {
        name.starts_with(|c: char| is_word(c) && !c.is_ascii_digit()) && name.chars().all(is_word)
    };
    let limits = &launch.limits;
    let amounts = [
        limits.cpu_millis,
        limits.memory_bytes,
        limits.pids,
        limits.scratch_bytes,
        limits.life_s,
    ];
    image_is_good(&launch.image)
        && launch.arguments.len() <= ARGUMENTS_MAX
        && launch.arguments.iter().all(is_text)
        && launch.environment.len() <= ENVIRONMENT_MAX
        && launch
            .environment
            .iter()
            .all(|(name, value)| is_name(name) && is_text(value))
        && launch.sources.len() <= SOURCES_MAX
        && amounts
            .iter()
            .all(|amount| *amount >= 1 && *amount < 1 << 63)
}

fn image_is_good(image: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    (1..=512).contains(&image.len())
        && image.chars().all(is_allowed)
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !image.contains("..")
        && !image.contains("//")
}
