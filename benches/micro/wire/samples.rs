//! What is measured.

use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::{Host, Issuer, Public, Sandbox, Secret},
    possession::{self, PROOF_BYTES},
    stream::{Writer, stream_id},
    time::UnixMillis,
    token::{HostTerms, mint_host, mint_sandbox},
};
use zeroize::Zeroizing;

/// The broker that the tokens are for.
pub(crate) const AUDIENCE: &str = "outhaul-bench";

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// An event of 233 bytes, as the numbers in the design assume.
const DATA: [u8; 216] = [b'x'; 216];

pub(crate) fn event() -> Event<'static> {
    Event {
        time: NOW,
        kind: Kind::Stdout,
        flags: 0,
        size: 217,
        value: 0,
        data: &DATA,
    }
}

fn secret<R: protocol::key::Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

pub(crate) fn names() -> (HostId, SandboxId) {
    match (HostId::new("edge-1"), SandboxId::new("build-7")) {
        (Ok(host), Ok(sandbox)) => (host, sandbox),
        _ => unreachable!(),
    }
}

pub(crate) fn writer() -> (HostId, SandboxId, Writer) {
    let (host, sandbox) = names();
    let writer = Writer::new(secret::<Sandbox>(7), stream_id(&host, &sandbox), [1; 8]);
    (host, sandbox, writer)
}

/// A first batch of `count` events.
pub(crate) fn batch(count: u64) -> Vec<u8> {
    let (_, _, mut writer) = writer();
    for _ in 0..count {
        let _ = writer.push(&event());
    }
    writer.seal(UnixMillis(1), false)
}

/// Both kinds of token, each with a proof of possession.
pub(crate) struct Sample {
    pub(crate) issuer: Public<Issuer>,
    pub(crate) now: UnixMillis,
    pub(crate) challenge: [u8; 8],
    pub(crate) host: (Vec<u8>, [u8; PROOF_BYTES]),
    pub(crate) sandbox: (Vec<u8>, [u8; PROOF_BYTES]),
}

pub(crate) fn sample() -> Option<Sample> {
    let (host, sandbox) = names();
    let issuer = secret::<Issuer>(10);
    let host_key = secret::<Host>(11);
    let sandbox_key = secret::<Sandbox>(13);
    let challenge = [3; 8];
    let terms = HostTerms {
        audience: AUDIENCE,
        host: &host,
        key: host_key.public(),
        generation: 1,
        id: [1; 8],
        issued: NOW,
        life_s: 3600,
    };
    let parent = mint_host(&issuer, &terms);
    let key = sandbox_key.public();
    let child = mint_sandbox(&host_key, &parent, &sandbox, &key, [2; 8], NOW).ok()?;
    Some(Sample {
        issuer: issuer.public(),
        now: NOW,
        challenge,
        host: (parent, possession::prove(&host_key, &challenge, &[4; 8])),
        sandbox: (child, possession::prove(&sandbox_key, &challenge, &[4; 8])),
    })
}
