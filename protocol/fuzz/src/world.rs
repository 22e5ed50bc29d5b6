//! The one world of all targets: who there is, with which keys, and when it is now. Seeds are the bytes of its messages.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use protocol::{
    id::{HostId, SandboxId},
    key::{Public, Role, Secret},
    limits::HOST_TOKEN_LIFE_S_MAX,
    time::UnixMillis,
    token::{self, HostTerms},
};
use zeroize::Zeroizing;

/// The issuer's key: its seed is this byte, 32 times over. So it is for all of them.
pub const ISSUER: u8 = 0x0b;
/// The host's.
pub const HOST: u8 = 0x0c;
/// The sandbox's.
pub const SANDBOX: u8 = 0x0d;
/// The dispatcher's.
pub const DISPATCHER: u8 = 0x0e;

/// A key that nobody trusts.
pub const STRANGER: u8 = 0x77;

/// Now.
pub const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// The broker that tokens are for.
pub const AUDIENCE: &str = "outhaul-0123456789abcdef";

/// The secret key of a seed.
pub fn secret<R: Role + 'static>(seed: u8) -> &'static Secret<R> {
    &pair(seed).0
}

/// The same to give away: a writer of a stream keeps its key.
pub fn owned<R: Role>(seed: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([seed; 32]))
}

/// The public key of a seed.
pub fn public<R: Role + 'static>(seed: u8) -> Public<R> {
    pair(seed).1
}

type Pair<R> = (Secret<R>, Public<R>);

/// Both halves. Made once for each role and seed, since a public key costs as much as a signature.
fn pair<R: Role + 'static>(seed: u8) -> &'static Pair<R> {
    type Known = BTreeMap<(TypeId, u8), &'static (dyn Any + Send + Sync)>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("nobody panics in here");
    let found = known.entry((TypeId::of::<R>(), seed)).or_insert_with(|| {
        let secret = owned::<R>(seed);
        let public = secret.public();
        Box::leak(Box::new((secret, public)))
    });
    let found: &'static (dyn Any + Send + Sync) = *found;
    found
        .downcast_ref::<Pair<R>>()
        .expect("filed under its role")
}

/// The host.
pub fn host() -> HostId {
    HostId::new("edge-1").expect("a good name")
}

/// The sandbox.
pub fn sandbox() -> SandboxId {
    SandboxId::new("build-7").expect("a good name")
}

/// A good token of the host.
pub static HOST_TOKEN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    token::mint_host(
        secret(ISSUER),
        &HostTerms {
            audience: AUDIENCE,
            host: &host(),
            key: public(HOST),
            generation: 3,
            id: [1; 8],
            issued: NOW,
            life_s: HOST_TOKEN_LIFE_S_MAX,
        },
    )
});

/// A good token of the sandbox, with its host's inside.
pub static SANDBOX_TOKEN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    token::mint_sandbox(
        secret(HOST),
        &HOST_TOKEN,
        &sandbox(),
        &public(SANDBOX),
        [2; 8],
        NOW,
    )
    .expect("the parent is good")
});
