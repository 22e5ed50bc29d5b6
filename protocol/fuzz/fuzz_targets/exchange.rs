//! The token exchange: requests as the broker meets them, answers as a host meets them, and the chain of successions that readers follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    exchange::{self, Challenge, EXCHANGE_PATH, Grant, InstallProof, Proof, Request, Succession},
    install_key::InstallKey,
    key::{Host, Public},
    limits::EXCHANGE_BYTES_MAX,
    signed::{Message as _, VerifyError},
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    item::Item,
    quiet,
    seal::{is_worth_signing, seal},
    world::{self, HOST},
};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Links of a chain that one input may have.
const LINKS_MAX: usize = 6;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => assert!(verify(input.rest()).is_none()),
        1 => good_one_changed(input),
        2 => request(input.rest()),
        3 => answers(input.rest()),
        _ => chain(input),
    }
});

fn good_one_changed(mut input: Input<'_>) {
    let good = seal(
        HOST,
        Request::TYP,
        input.chunk(),
        EXCHANGE_PATH.as_bytes(),
        None,
    );
    let bytes = edited(&good, input);
    assert!(bytes == good || verify(&bytes).is_none());
}

/// The key of the seed signed it: it is taken exactly if it is a request for that very key.
fn request(payload: &[u8]) {
    let read = cbor::from_slice::<Request>(payload, EXCHANGE_BYTES_MAX).ok();
    if let Some(request) = &read {
        assert_eq!(cbor::to_vec(request), payload);
        assert!(Item::read(payload).is_some());
        look_at(&request.proof);
    }
    if !is_worth_signing(payload, read.is_some()) {
        return;
    }
    let bytes = seal(HOST, Request::TYP, payload, EXCHANGE_PATH.as_bytes(), None);
    let is_taken =
        |request: &Request| bytes.len() <= EXCHANGE_BYTES_MAX && request.key == world::public(HOST);
    assert_eq!(verify(&bytes), read.filter(is_taken));
}

/// The secret of an install key is not printed: with another secret the same is.
fn look_at(proof: &Proof) {
    let Proof::InstallKey(proof) = proof else {
        return;
    };
    let other = InstallKey::new(*proof.kid, Zeroizing::new([7; 32]));
    assert_eq!(
        format!("{proof:?}"),
        format!("{:?}", InstallProof::from(&other))
    );
    assert_eq!(
        proof.secret == *other.secret(),
        proof.secret.hash() == other.secret().hash()
    );
}

fn verify(bytes: &[u8]) -> Option<Request> {
    let verified = exchange::verify_request(bytes);
    let verified = verified.map_err(quiet::check::<VerifyError>).ok()?;
    assert_eq!(verified.signer(), verified.value().key);
    Some(verified.into_value())
}

fn answers(bytes: &[u8]) {
    answer::<Challenge>(bytes, &[]);
    answer::<Grant>(bytes, &[65, 66]);
    answer::<exchange::Refused>(bytes, &[65]);
}

/// `labels` are those from 64 on that it knows.
fn answer<T: DeserializeOwned + serde::Serialize>(bytes: &[u8], labels: &[u64]) {
    match cbor::from_slice::<T>(bytes, EXCHANGE_BYTES_MAX) {
        Ok(answer) => {
            let item = Item::read(bytes).expect("what is taken is in its one encoding");
            let known = |path: &[u64], label| path.is_empty() && labels.contains(&label);
            assert_eq!(cbor::to_vec(&answer), item.without_skipped(&known).to_vec());
        }
        Err(error) => quiet::check(error),
    }
}

/// Links by any keys, in any order: the chain is followed exactly as far as `SPEC.md` 5 says.
fn chain(mut input: Input<'_>) {
    let first: Public<Host> = world::public(HOST);
    let generation = match input.byte() {
        255 => u64::MAX,
        low => low.into(),
    };
    let mut links = Vec::new();
    let mut expected = Some(vec![(generation, first)]);
    let mut signer = HOST;
    while !input.is_empty() && links.len() < LINKS_MAX {
        let seed = HOST.wrapping_add(input.byte() % 4);
        let payload = input.chunk();
        let link = seal(seed, Succession::TYP, payload, b"", None);
        expected = expected.and_then(|keys| {
            let succession = succession(payload).filter(|_| link.len() <= Succession::BYTES_MAX)?;
            let (last, _) = *keys.last()?;
            let follows = seed == signer
                && succession.host == world::host()
                && i128::from(succession.generation) == i128::from(last) + 1;
            let next = (succession.generation, succession.key);
            follows.then(|| [&keys[..], &[next]].concat())
        });
        // Whose seed the next link must be signed with; no seed of ours has another key.
        if let Some((_, key)) = expected.as_ref().and_then(|keys| keys.last()) {
            let known = (0..4).map(|step| HOST.wrapping_add(step));
            signer = known
                .into_iter()
                .find(|seed| world::public(*seed) == *key)
                .unwrap_or(0);
        }
        links.push(link);
    }
    let links = links.iter().map(Vec::as_slice);
    let followed = exchange::follow(&world::host(), first, generation, links);
    assert_eq!(followed.map_err(quiet::check::<VerifyError>).ok(), expected);
}

fn succession(payload: &[u8]) -> Option<Succession> {
    let read = cbor::from_slice::<Succession>(payload, Succession::BYTES_MAX).ok()?;
    assert_eq!(cbor::to_vec(&read), payload);
    Some(read)
}
