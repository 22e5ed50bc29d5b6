#!/usr/bin/env python3
"""Runs python-cwt, a COSE library that is not ours, against the same bytes as Outhaul's programs, both ways.

  interop.py check KIND FILE KEY [--aad TEXT]   KIND: token, command, report, batch, succession or exchange
  interop.py sign OUT_DIR

check verifies with python-cwt what our programs made. KEY is a public key in its text form (ohh1_…; the prefix is not looked at): of
a token the issuer's, else the signer's. --aad is the external_aad, such as v1/edge-1/commands; without it, empty, but for an exchange.
Prints OK and exits 0, or BAD and exits 1; 2 is wrong usage. Whether the message is allowed what it says, verify.py checks; this does not.

sign makes with python-cwt what our programs must accept: host.token, sandbox.token, stop.command, launch.command, launched.report; and
keys.json with the public key of each role, names and dates. Always the same bytes: each secret key is a seed of 32 times the byte that
SEEDS gives for its role.
"""
import argparse
import hashlib
import io
import json
import pathlib
import re
import sys

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cwt import COSE, COSEKey

SEEDS = {"issuer": ("ohi1", 0x0A), "host": ("ohh1", 0x0B), "dispatcher": ("ohd1", 0x0C), "sandbox": ("ohs1", 0x0D)}
HOST, SANDBOX, ISSUED_S = "edge-1", "build-7", 1_800_000_000
ISSUED_MS = ISSUED_S * 1000
HOST_TOKEN_ENDS_S, SANDBOX_TOKEN_ENDS_S, COMMANDS_END_MS = ISSUED_S + 3_600, ISSUED_S + 900, ISSUED_MS + 86_400_000

ED25519, CWT, KCWT = -19, 61, 13
OURS = ("command", "report", "batch", "succession", "exchange")
TYPES = {"token": CWT, **{kind: f"application/vnd.outhaul.{kind}+cbor" for kind in OURS}}


def cose_key(x):
    return {1: 1, -1: 6, -2: x}


def kid_of(x):
    """python-cwt knows no RFC 9679: the thumbprint is made here."""
    return hashlib.sha256(cbor2.dumps(cose_key(x))).digest()[:8]


# ---- check ----

class Bad(Exception):
    """It does not verify."""


def verify(item, kind, x, aad=b""):
    """The payload of one COSE_Sign1, as python-cwt sees it."""
    # verify_kid: without it, python-cwt tries every key when there is no kid.
    cose = COSE.new(verify_kid=True)
    key = COSEKey.new({**cose_key(x), 2: kid_of(x), 3: ED25519})
    try:
        # It takes tagged messages alone, ours are untagged: tag 18 is put on here. It verifies over the protected bytes as they came.
        protected, unprotected, payload = cose.decode_with_headers(cbor2.CBORTag(18, item), key, external_aad=aad)
    except Exception as error:
        raise Bad(f"python-cwt: {error}") from None
    # It passes header parameters on without a look: it takes a message of alg -8 with a key of -19, and leaves typ to us.
    if protected != {1: ED25519, 4: kid_of(x), 16: TYPES[kind]}:
        raise Bad("other protected headers")
    if unprotected and not (kind == "token" and list(unprotected) == [KCWT]):
        raise Bad("an unprotected header")
    return payload


def check(kind, data, x, aad):
    reader = io.BytesIO(data)
    item = cbor2.load(reader)
    if kind != "batch" and reader.tell() != len(data):  # behind a batch's head comes its body
        raise Bad("bytes after its end")
    parent = item[1].get(KCWT) if kind == "token" else None
    if parent:
        x = cbor2.loads(verify(parent, "token", x))[8][1][-2]
    payload = verify(item, kind, x, aad)
    return f"OK: {kind}, {len(payload)} bytes of payload{', and its parent' if parent else ''}"


# ---- sign ----

def sign(role, kind, payload, aad="", unprotected=None):
    """One message, untagged. `payload` is a dict whose labels stand in the order of the wire."""
    seed = bytes([SEEDS[role][1]]) * 32
    x = public(role)
    key = COSEKey.new({**cose_key(x), -4: seed, 2: kid_of(x), 3: ED25519})
    # The headers are given whole, since python-cwt would put a kid of its own into the unprotected ones. Parameters without a name in
    # python-cwt (typ, kcwt) go by their numbers. deterministic_header sorts the protected ones as RFC 8949 §4.2.1 does.
    protected = {1: ED25519, 4: kid_of(x), 16: TYPES[kind]}
    message = COSE.new(deterministic_header=True).encode_and_sign(
        cbor2.dumps(payload), key, protected, unprotected or {}, external_aad=aad.encode(), out="cbor2/CBORTag")
    # It always tags. What is under the tag is ours.
    return cbor2.dumps(message.value)


def public(role):
    return Ed25519PrivateKey.from_private_bytes(bytes([SEEDS[role][1]]) * 32).public_key().public_bytes_raw()


def make():
    audience = "outhaul-" + kid_of(public("issuer")).hex()
    commands, reports, events = f"v1/{HOST}/commands", f"v1/{HOST}/reports", f"v1/{HOST}/{SANDBOX}/events"
    host = sign("issuer", "token", {
        1: audience, 2: HOST, 3: audience, 4: HOST_TOKEN_ENDS_S, 6: ISSUED_S, 7: b"\x01" * 8, 8: {1: cose_key(public("host"))},
        9: cbor2.dumps([[commands, ["sub"]], [reports, ["pub"]]]),
        -70001: cbor2.dumps([[f"v1/{HOST}/+/events", ["pub"]]]), -70002: 1})
    sandbox = sign("host", "token", {
        1: HOST, 2: f"{HOST}/{SANDBOX}", 3: audience, 4: SANDBOX_TOKEN_ENDS_S, 6: ISSUED_S, 7: b"\x02" * 8,
        8: {1: cose_key(public("sandbox"))}, 9: cbor2.dumps([[events, ["pub"]]])}, unprotected={KCWT: cbor2.loads(host)})

    def command(number, order):
        return sign("dispatcher", "command", {1: bytes([number]) * 16, 2: HOST, 3: ISSUED_MS, 4: COMMANDS_END_MS, 5: order}, commands)

    launch = command(3, [1, {
        1: SANDBOX, 2: "registry.example/web:1", 3: ["sh", "-c", "echo hello"], 4: [["LANG", "C.UTF-8"]], 5: ["models"],
        6: {1: 1_000, 2: 1 << 30, 3: 256, 4: 1 << 30, 5: 3_600}, 7: 3, 8: "tenant-1"}])
    stop = command(4, [2, {1: SANDBOX, 2: 10}])
    launched = sign("host", "report", {1: HOST, 2: 1, 3: ISSUED_MS, 4: [2, {
        1: bytes([3]) * 16, 2: SANDBOX, 3: public("sandbox"), 4: "sha256:" + "00" * 32, 5: "c0ffee", 6: 3}]}, reports)
    keys = {role: f"{prefix}_{public(role).hex()}" for role, (prefix, _) in SEEDS.items()}
    about = {**keys, "host_id": HOST, "sandbox_id": SANDBOX, "audience": audience, "issued_s": ISSUED_S,
             "host_token_ends_s": HOST_TOKEN_ENDS_S, "sandbox_token_ends_s": SANDBOX_TOKEN_ENDS_S, "commands_end_ms": COMMANDS_END_MS}
    return {"host.token": host, "sandbox.token": sandbox, "stop.command": stop, "launch.command": launch, "launched.report": launched,
            "keys.json": json.dumps(about, indent=2).encode() + b"\n"}


# ---- the command line ----

def key(text):
    return bytes.fromhex(re.fullmatch("oh[a-z]1_([0-9a-fA-F]{64})", text.strip())[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    checks = what.add_parser("check")
    checks.add_argument("kind", choices=TYPES)
    checks.add_argument("file", type=pathlib.Path)
    checks.add_argument("key", type=key)
    checks.add_argument("--aad")
    what.add_parser("sign").add_argument("out_dir", type=pathlib.Path)
    options = parser.parse_args()
    if options.what == "sign":
        options.out_dir.mkdir(parents=True, exist_ok=True)
        for name, data in make().items():
            (options.out_dir / name).write_bytes(data)
        return 0
    aad = options.aad if options.aad is not None else "/v1/exchange" if options.kind == "exchange" else ""
    try:
        data = options.file.read_bytes()
    except OSError as error:
        parser.exit(2, f"read {options.file}: {error.strerror}\n")
    try:
        print(check(options.kind, data, options.key, aad.encode()))
    except Bad as bad:
        print(f"BAD: {bad}")
        return 1
    except Exception as error:  # cbor2 or a shape that is not there: strangers' bytes are no reason for a traceback
        print(f"BAD: not a message of this kind ({type(error).__name__})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
