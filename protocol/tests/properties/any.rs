//! Contents of any kind, within the limits.

use proptest::{collection::vec, option, prelude::*};
use protocol::{
    command::{Command, Content, Launch, Limits, Order, Stop},
    id::{CommandId, HostId, SandboxId, SourceName},
    key::{Public, Role, Secret},
    time::UnixMillis,
};
use zeroize::Zeroizing;

/// So many cases, and no file of those that failed: each prints what is needed to see it again.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn secret<R: Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

pub(crate) fn public<R: Role + 'static>() -> impl Strategy<Value = Public<R>> {
    any::<[u8; 32]>().prop_map(|seed| Secret::from_seed(&Zeroizing::new(seed)).public())
}

/// A number, with those at the edges of its encodings more often than others.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    let edges = (0..64_u32, 0..3_u64)
        .prop_map(|(bit, step)| (1_u64 << bit).wrapping_sub(1).wrapping_add(step));
    prop_oneof![any::<u64>(), 0..30_u64, edges]
}

pub(crate) fn time() -> impl Strategy<Value = UnixMillis> {
    number().prop_map(UnixMillis)
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    "[a-z0-9-]{1,64}"
}

pub(crate) fn host() -> impl Strategy<Value = HostId> {
    name().prop_map(|name| name.parse().unwrap())
}

pub(crate) fn sandbox() -> impl Strategy<Value = SandboxId> {
    name().prop_map(|name| name.parse().unwrap())
}

pub(crate) fn command_id() -> impl Strategy<Value = CommandId> {
    any::<[u8; 16]>().prop_map(CommandId)
}

pub(crate) fn content() -> impl Strategy<Value = Content> {
    prop::sample::select(Content::ALL)
}

/// Text of any characters but NUL.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "[^\0]{0,40}"]
}

/// A command that every host takes in its time.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let order = prop_oneof![
        launch().prop_map(Order::Launch),
        (sandbox(), number()).prop_map(|(sandbox, grace_s)| Order::Stop(Stop { sandbox, grace_s })),
    ];
    (
        command_id(),
        host(),
        0..1_u64 << 62,
        0..7 * 24 * 3_600_000_u64,
        order,
    )
        .prop_map(|(id, host, issued, life_ms, order)| Command {
            id,
            host,
            issued: UnixMillis(issued),
            expires: UnixMillis(issued + life_ms),
            order,
        })
}

fn launch() -> impl Strategy<Value = Launch> {
    let source = name().prop_map(|name| SourceName::new(&name).unwrap());
    let isolation = name().prop_map(|name| name.parse().unwrap());
    let variable = ("[A-Za-z_][A-Za-z0-9_]{0,20}", text());
    (
        (
            sandbox(),
            "[a-zA-Z0-9][a-z0-9._@:-]{0,40}(/[a-z0-9]{1,20})?",
        ),
        (
            vec(text(), 0..20),
            vec(variable, 0..10),
            vec(source, 0..=16),
        ),
        (limits(), content(), option::of(isolation)),
    )
        .prop_filter("no image", |((_, image), ..)| !image.contains(".."))
        .prop_map(|(what, lists, how)| Launch {
            sandbox: what.0,
            image: what.1,
            arguments: lists.0,
            environment: lists.1,
            sources: lists.2,
            limits: how.0,
            content: how.1,
            isolation: how.2,
        })
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = || number().prop_map(|number| number.clamp(1, i64::MAX as u64));
    [limit(), limit(), limit(), limit(), limit()].prop_map(
        |[cpu_millis, memory_bytes, pids, scratch_bytes, life_s]| Limits {
            cpu_millis,
            memory_bytes,
            pids,
            scratch_bytes,
            life_s,
        },
    )
}
