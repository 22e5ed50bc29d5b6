//! What every reader refuses, each for one reason.

mod audit;
mod batch;
mod cbor;
mod command;
mod envelope;
mod exchange;
mod open;
mod report;
mod signature;
mod stream;
mod stream_claims;
mod text;
mod token;
mod token_chain;

use crate::vector::Vector;

/// The words of our errors.
const ENVELOPE: &str = "not a signed message of this kind";
const UNKNOWN_KEY: &str = "signed by a key that is not listed";
const SIGNATURE: &str = "the signature does not verify";
const MALFORMED: &str = "the payload is not well-formed";
const TOO_LONG: &str = "the payload is longer than its limit";
const NOT_DETERMINISTIC: &str = "the payload is not in deterministic encoding";

pub(crate) fn all() -> Vec<Vector> {
    [
        envelope::all(),
        signature::all(),
        cbor::all(),
        open::all(),
        token::all(),
        token_chain::all(),
        command::all(),
        report::all(),
        batch::all(),
        stream::all(),
        stream_claims::all(),
        exchange::all(),
        crate::statement::bad(),
        text::all(),
        audit::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A command that is refused before anybody asks what it says.
fn command(name: &str, bytes: &[u8], reason: &str, why: &str) -> Vector {
    Vector::command(name, bytes).refused(&format!("command: {reason}"), why)
}

fn token(name: &str, bytes: &[u8], reason: &str, why: &str) -> Vector {
    Vector::token(name, bytes).refused(&format!("token: {reason}"), why)
}

fn report(name: &str, bytes: &[u8], reason: &str, why: &str) -> Vector {
    Vector::report(name, bytes).refused(reason, why)
}
