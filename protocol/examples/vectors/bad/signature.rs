//! Signatures that do not verify, or must not (`SPEC.md`, 1.3 and 1.4).

use super::{SIGNATURE, UNKNOWN_KEY, command, report, token};
use crate::{
    forge::{Envelope, header, plus_order, small_order_r},
    message::{
        COMMANDS, EXCHANGE, REPORTS, command_envelope, host_claims, report as a_report, request,
        request_envelope, stop_command, stopped, token as token_envelope, typ,
    },
    vector::Vector,
    world::{DISPATCHER, HOST_KEY, STRANGER, kid_of, public, secret, weak_key},
};
use ed25519_dalek::Signer as _;

pub(crate) fn all() -> Vec<Vector> {
    let mut all = changed();
    all.extend(strict());
    all.extend(places());
    all.extend(signers());
    all
}

fn envelope() -> Envelope {
    command_envelope(stop_command())
}

fn refused(name: &str, bytes: &[u8], why: &str) -> Vector {
    command(name, bytes, SIGNATURE, why)
}

fn changed() -> Vec<Vector> {
    let good = envelope().seal();
    let flip = |from_the_end: usize, bit: u8| {
        let mut bytes = good.clone();
        let at = bytes.len() - from_the_end;
        bytes[at] ^= bit;
        bytes
    };
    let why = "1.4: the signature is over the bytes that came";
    let other = command_envelope(stop_command().with(1, crate::item::bytes(&[4; 16])));
    vec![
        refused("signature-with-one-bit-flipped-in-r", &flip(64, 1), why),
        refused("signature-with-one-bit-flipped-in-s", &flip(32, 1), why),
        refused("signature-with-its-last-bit-flipped", &flip(1, 0x80), why),
        // The grace at the end of the payload, 10 seconds, becomes 11.
        refused("payload-with-one-bit-flipped", &flip(64 + 2 + 1, 1), why),
        refused("signature-of-zeros", &envelope().seal_with(&[0; 64]), why),
        refused(
            "signature-of-another-message",
            &envelope().seal_with(&other.signature()),
            why,
        ),
        refused(
            "signature-over-the-payload-alone",
            &envelope().seal_with(&secret(DISPATCHER).sign(&envelope().payload).to_bytes()),
            "1.4: the signature is over the Sig_structure of RFC 9052",
        ),
    ]
}

/// What a lenient library takes.
fn strict() -> Vec<Vector> {
    let strictly = "1.3: verify strictly";
    vec![
        refused(
            "signature-with-s-plus-the-order",
            &envelope().seal_with(&plus_order(&envelope().signature())),
            &format!("{strictly}: S < L"),
        ),
        refused(
            "signature-with-an-r-of-small-order",
            &envelope().seal_with(&small_order_r(&envelope())),
            &format!("{strictly}: no R of small order, though the equation holds"),
        ),
    ]
}

/// Signed for another place, or as another kind.
fn places() -> Vec<Vector> {
    let command_for = |topic: &str| {
        Envelope {
            aad: topic.into(),
            ..envelope()
        }
        .seal()
    };
    let report_for =
        |topic: &str| Envelope::new(HOST_KEY, typ("report"), topic, a_report(4, stopped())).seal();
    let kid = kid_of(&public(DISPATCHER));
    let as_report = Envelope {
        protected: header(&kid, typ("report")),
        ..envelope()
    };
    let token_for = Envelope {
        aad: COMMANDS.into(),
        ..token_envelope(crate::world::ISSUER, host_claims())
    };
    let request_for = |place: &str| {
        Envelope {
            aad: place.into(),
            ..request_envelope(request())
        }
        .seal()
    };
    let place = "1.4: the external_aad binds the signature to its place";
    vec![
        refused(
            "command-signed-for-another-host",
            &command_for("v1/edge-2/commands"),
            place,
        ),
        refused("command-signed-for-no-place", &command_for(""), place),
        refused(
            "command-signed-for-the-topic-of-reports",
            &command_for(REPORTS),
            place,
        ),
        refused(
            "command-signed-as-a-report",
            &envelope().seal_with(&as_report.signature()),
            "1.4: a signature over one typ is none over another",
        ),
        report(
            "report-signed-for-another-host",
            &report_for("v1/edge-2/reports"),
            SIGNATURE,
            place,
        ),
        report(
            "report-signed-for-the-topic-of-commands",
            &report_for(COMMANDS),
            SIGNATURE,
            place,
        ),
        token(
            "token-signed-for-a-place",
            &token_for.seal(),
            SIGNATURE,
            "1.4: the external_aad of a token is empty",
        ),
        Vector::exchange(
            "request",
            "request-signed-for-another-path",
            &request_for("/v1/exchange/challenge"),
        )
        .refused(SIGNATURE, &format!("{place}, which is {EXCHANGE}")),
        Vector::exchange("request", "request-signed-for-no-place", &request_for(""))
            .refused(SIGNATURE, &format!("{place}, which is {EXCHANGE}")),
    ]
}

/// Signed by somebody else.
fn signers() -> Vec<Vector> {
    let stranger = Envelope::new(STRANGER, typ("command"), COMMANDS, stop_command());
    let posing = Envelope {
        protected: envelope().protected,
        ..stranger.clone()
    };
    // For the neutral point as a key, R = B·0 and S = 0 fit every message.
    let weak = Envelope {
        protected: header(&kid_of(&weak_key()), typ("command")),
        ..envelope()
    };
    let mut fits_all = [0; 64];
    fits_all[0] = 1;
    vec![
        command(
            "command-of-a-stranger",
            &stranger.seal(),
            UNKNOWN_KEY,
            "6: a dispatcher that is listed signed it",
        ),
        refused(
            "command-of-a-stranger-with-the-kid-of-the-dispatcher",
            &posing.seal(),
            "1.3: a kid is a hint to find the key by, never a proof",
        ),
        command(
            "command-of-a-key-that-fits-every-message",
            &weak.seal_with(&fits_all),
            UNKNOWN_KEY,
            "1.3: a key of small order proves nothing, and is nobody's",
        ),
        report(
            "report-of-the-dispatcher",
            &Envelope::new(DISPATCHER, typ("report"), REPORTS, a_report(4, stopped())).seal(),
            UNKNOWN_KEY,
            "1.3: one key for one role",
        ),
        token(
            "token-of-a-stranger",
            &token_envelope(STRANGER, host_claims()).seal(),
            UNKNOWN_KEY,
            "4.2, 2: the kid is a known issuer's",
        ),
    ]
}
