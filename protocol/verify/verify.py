#!/usr/bin/env python3
"""Checks offline what Outhaul's brokers, dispatchers, hosts and sandboxes have signed.

Written from ../SPEC.md alone; "§" points there. Nothing of Outhaul is imported. One door for bytes (Reader), one for signatures
(verify); whatever is not exactly as specified raises Bad. Read downwards: bytes, keys, shapes, then one function for each command.
"""
import argparse
import hashlib
import json
import re
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

try:
    import blake3 as _blake3
    blake3 = lambda data: _blake3.blake3(data).digest()
except ImportError:
    from blake3_pure import blake3

# §11. Lengths are in bytes.
PACKET_MAX, MESSAGE_MAX, TOKEN_MAX, SUCCESSION_MAX = 65_536, 61_440, 2_048, 512
HEAD_MAX, BODY_MAX, EVENTS_MAX, EVENT_DATA_MAX = 512, 49_152, 256, 8_192
TOPIC_MAX, SCOPE_ENTRIES_MAX, ARGUMENT_MAX = 256, 16, 32_768
LEEWAY_S, SANDBOX_TOKEN_LIFE_S, COMMAND_LIFE_MS = 60, 900, 7 * 24 * 3_600_000
PAIRS_MAX, SKIPPED_DEPTH_MAX, DEPTH_MAX, WAITING_MAX, U64_MAX = 23, 8, 16, 1_024, 2**64 - 1


class Bad(Exception):
    """It does not verify; the text says why, and nothing of the content."""


def need(truth, why):
    if not truth:
        raise Bad(why)


# ---- bytes (§1.1): a decoder that knows one encoding of each value, so that there is nothing to re-encode and compare ----

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(count <= len(self.data) - self.at, "it ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def head(self):
        """Major type and argument, in the shortest form."""
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if low < 24:
            return major, low
        need(low < 28, "an indefinite length, or not CBOR")
        value = int.from_bytes(self.take(1 << low - 24), "big")
        need(value >= (24, 1 << 8, 1 << 16, 1 << 32)[low - 24], "a number or length that is not in its shortest form")
        return major, value

    def item(self, depth=DEPTH_MAX):
        major, n = self.head()
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return self.take(n)
        if major == 3:
            try:
                return self.take(n).decode("utf-8")
            except UnicodeDecodeError:
                raise Bad("text that is not UTF-8") from None
        if major == 7:
            need(n in (20, 21, 22), "a float or simple value")
            return (False, True, None)[n - 20]
        need(major != 6, "a tag")
        need(depth > 0, "nested too deep")
        if major == 4:
            return [self.item(depth - 1) for _ in range(n)]
        need(n <= PAIRS_MAX, "a map of too many pairs")
        pairs, last = {}, b""
        for _ in range(n):
            start = self.at
            key = self.item(depth - 1)
            encoded = self.data[start:self.at]
            need(encoded > last, "labels out of order, or one twice")
            last = encoded
            # Only integers are labels of ours. Other keys occur in what is skipped; by their encoding, True is not 1.
            pairs[key if type(key) is int else encoded] = self.item(depth - 1)
        return pairs

    def octets(self):
        value = self.item()
        need(type(value) is bytes, "something else where bytes belong")
        return value

    def end(self):
        need(self.at == len(self.data), "bytes after its end")


def decode(data, shape):
    reader = Reader(data)
    value = shape(reader.item())
    reader.end()
    return value


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    width = next(width for width in (1, 2, 4, 8) if n < 1 << 8 * width)
    return bytes([major << 5 | 23 + width.bit_length()]) + n.to_bytes(width, "big")


def bstr(data):
    return head(2, len(data)) + data


# ---- keys and signatures (§1.3, §1.4) ----

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def is_strong(point):
    """Whether 32 bytes are a point of the curve, in its one encoding, and not of small order (§1.3)."""
    y = int.from_bytes(point, "little") & (1 << 255) - 1
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    is_small = x2 == 0 or y == 0 or (x2 + y * y) % P == 0  # orders 1 and 2; 4; 8
    return y < P and not is_small and pow(x2, (P - 1) // 2, P) == 1


def kid_of(key):
    """RFC 9679: SHA-256 of the deterministic COSE_Key; the first 8 bytes."""
    return hashlib.sha256(bytes.fromhex("a301012006215820") + key).digest()[:8]


class Envelope:
    """A COSE_Sign1 of our profile, at the front of what a reader reads. Nothing in it is proven until verify()."""

    def __init__(self, reader, typ, may_have_parent=False):
        start = reader.at
        need(reader.head() == (4, 4), "not a signed message")
        self.protected = reader.octets()
        self.kid = self.protected[5:13]
        typ_item = head(0, typ) if type(typ) is int else head(3, len(typ)) + typ.encode()
        header = b"\xa3\x01\x32\x04" + bstr(self.kid) + b"\x10" + typ_item  # {1: -19, 4: kid, 16: typ}
        need(len(self.kid) == 8 and self.protected == header, "not a signed message of this kind")
        unprotected, self.parent = reader.head(), None
        if may_have_parent and unprotected == (5, 1):
            need(reader.item() == 13, "an unknown header")
            self.parent = Envelope(reader, typ)
        else:
            need(unprotected == (5, 0), "a header that is not signed")
        self.payload, self.signature = reader.octets(), reader.octets()
        need(len(self.signature) == 64, "a signature that is not of 64 bytes")
        self.raw = reader.data[start:reader.at]

    def verify(self, keys, aad=b""):
        """The one of `keys` that signed it."""
        key = next((key for key in keys if kid_of(key) == self.kid), None)
        need(key is not None, "signed by a key that is not trusted here")
        message = b"\x84\x6aSignature1" + bstr(self.protected) + bstr(aad) + bstr(self.payload)
        s = int.from_bytes(self.signature[32:], "little")
        need(is_strong(key) and is_strong(self.signature[:32]) and s < L, "the signature does not verify")
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(self.signature, message)
        except InvalidSignature:
            raise Bad("the signature does not verify") from None
        return key


def open_envelope(data, longest, typ, may_have_parent=False):
    need(len(data) <= longest, "longer than its limit")
    reader = Reader(data)
    envelope = Envelope(reader, typ, may_have_parent)
    reader.end()
    return envelope


# ---- shapes: a shape takes a decoded value and returns it, with names where it is a map; or it raises ----

def fit(value, truth, why):
    need(truth, why)
    return value


def number(low=0, high=U64_MAX):
    return lambda value: fit(value, type(value) is int and low <= value <= high, "a number out of its range, or none")


def text(longest=MESSAGE_MAX, pattern=r"(?s:.*)"):
    return lambda value: fit(value, type(value) is str and len(value.encode()) <= longest and re.fullmatch(pattern, value),
                             "not a text, or not one of its kind")


name = text(64, r"[a-z0-9-]+")


def octets(size=None):
    return lambda value: fit(value, type(value) is bytes and size in (None, len(value)), "not bytes, or not so many")


def public(value):
    return fit(value, is_strong(octets(32)(value)), "not a public key, or a weak one")


def boolean(value):
    return fit(value, type(value) is bool, "neither true nor false")


def true(value):
    return fit(value, value is True, "not true")


def array(shape, most=MESSAGE_MAX):
    return lambda value: [shape(one) for one in fit(value, type(value) is list and len(value) <= most, "no list, or too long")]


def pair(first, second):
    return lambda value: [shape(one) for shape, one in zip((first, second), fit(value, type(value) is list and len(value) == 2,
                                                                                "not a pair"))]


def within(shape):
    return lambda value: decode(octets()(value), shape)


def depth(value):
    inside = list(value.values()) if type(value) is dict else value if type(value) is list else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


def skip(value):
    need(depth(value) <= SKIPPED_DEPTH_MAX, "an unknown value that is nested too deep")


def fields(spec, is_open=False):
    """A map: label → (name, shape). A name that starts with "?" may be left out. What is unknown: §9."""
    def shape(value):
        need(type(value) is dict, "not a map")
        named = {}
        for label, one in value.items():
            if label in spec:
                named[spec[label][0].lstrip("?")] = spec[label][1](one)
            else:
                need(is_open and type(label) is int and label >= 64, "an unknown label")
                skip(one)
        need(all(label in value or called[0] == "?" for label, (called, _) in spec.items()), "a label is missing")
        return named
    return shape


def choice(spec, is_open=False):
    """[label, body]: label → (name, shape)."""
    def shape(value):
        need(type(value) is list and len(value) == 2 and type(value[0]) is int and value[0] >= 0, "not a choice")
        if value[0] in spec:
            return spec[value[0]][0], spec[value[0]][1](value[1])
        need(is_open, "an unknown choice")
        skip(value[1])
        return "other", {}
    return shape


def word(words, is_open=False):
    """A number that stands for the first, second, … of the words."""
    def shape(value):
        n = number()(value)
        need(is_open or 1 <= n <= len(words.split()), "an unknown word")
        return words.split()[n - 1] if 1 <= n <= len(words.split()) else f"other {n}"
    return shape


# ---- tokens (§4) ----

def filter_(value):
    levels = text(TOPIC_MAX)(value).split("/")
    plain = r"[!\"%-*,-.0-~]+"  # visible ASCII without # $ + /
    need(all(level in ("+", "#") or re.fullmatch(plain, level) for level in levels), "not a topic filter")
    need("#" not in levels[:-1], "not a topic filter")
    return value


def covers(rule, wanted):
    rule, wanted = rule.split("/"), wanted.split("/")
    for at, level in enumerate(rule):
        if level == "#":
            return True
        if at >= len(wanted) or (wanted[at] == "#" if level == "+" else wanted[at] != level):
            return False
    return len(rule) == len(wanted)


def permissions(value):
    return fit(value, type(value) is list and 1 <= len(value) <= 2 and all(one in ("pub", "sub") for one in value),
               "not permissions")


SCOPE = within(array(pair(filter_, permissions), SCOPE_ENTRIES_MAX))
COSE_KEY = fields({1: ("kty", number(1, 1)), -1: ("crv", number(6, 6)), -2: ("x", public)})
CLAIMS = fields({
    1: ("iss", text()), 2: ("sub", text()), 3: ("aud", text()), 4: ("exp", number()), 5: ("?nbf", number()), 6: ("iat", number()),
    7: ("cti", octets(8)), 8: ("cnf", fields({1: ("key", COSE_KEY)})), 9: ("scope", SCOPE),
    -70001: ("?delegable", SCOPE), -70002: ("?generation", number())})


def check_link(envelope, keys, audience, now_s):
    envelope.verify(keys)
    claims = decode(envelope.payload, CLAIMS)
    need(claims["aud"] == audience, "for another audience")
    need(now_s < claims["exp"] + LEEWAY_S, "expired")
    need(max(claims.get("nbf", 0), claims["iat"]) <= now_s + LEEWAY_S, "not valid yet")
    return claims


def check_token(data, options):
    leaf = open_envelope(data, TOKEN_MAX, 61, may_have_parent=True)
    host = check_link(leaf.parent or leaf, [options.issuer_key], options.audience, options.now)
    name(host["sub"])
    need("generation" in host, "a host's token without a generation")
    links = [host]
    if leaf.parent:
        claims = check_link(leaf, [host["cnf"]["key"]["x"]], options.audience, options.now)
        owner, slash, sandbox = claims["sub"].partition("/")
        need(slash and name(owner) and name(sandbox), "its subject is not a sandbox")
        topic = f"v1/{owner}/{sandbox}/events"
        need(claims["iss"] == owner == host["sub"] and "delegable" not in claims and "generation" not in claims
             and claims["exp"] <= host["exp"] and claims["exp"] - claims["iat"] <= SANDBOX_TOKEN_LIFE_S
             and claims["scope"] == [[topic, ["pub"]]]
             and any("pub" in may and covers(rule, topic) for rule, may in host.get("delegable", [])),
             "beyond what its parent delegates")
        links.append(claims)
    may = ", ".join(f"{'+'.join(may)} {where}" for where, may in links[-1]["scope"])
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(links[-1]["exp"], 253402300799)))
    return f"OK: token of {links[-1]['sub']} until {until}: {may or 'permits nothing'}", {"links": links}


# ---- commands (§6) ----

def image(value):
    value = text(512, r"[A-Za-z0-9][A-Za-z0-9._\-/:@]*")(value)
    return fit(value, ".." not in value and "//" not in value, "not an image")


ARGUMENT = text(ARGUMENT_MAX, r"[^\0]*")
VARIABLE = pair(text(MESSAGE_MAX, r"[A-Za-z_][A-Za-z0-9_]*"), ARGUMENT)
CONTENTS = "metadata redacted full"
LIMIT = number(1, 2**63 - 1)
LIMITS = fields({1: ("cpu_millis", LIMIT), 2: ("memory_bytes", LIMIT), 3: ("pids", LIMIT), 4: ("scratch_bytes", LIMIT),
                 5: ("life_s", LIMIT)})
COMMAND = fields({
    1: ("id", octets(16)), 2: ("host", name), 3: ("issued", number()), 4: ("expires", number()), 5: ("order", choice({
        1: ("launch", fields({
            1: ("sandbox", name), 2: ("image", image), 3: ("arguments", array(ARGUMENT, 256)),
            4: ("environment", array(VARIABLE, 128)), 5: ("sources", array(name, 16)), 6: ("limits", LIMITS),
            7: ("content", word(CONTENTS)), 8: ("?isolation", name)})),
        2: ("stop", fields({1: ("sandbox", name), 2: ("grace_s", number())}))}))})


def open_command(data, keys, host):
    envelope = open_envelope(data, MESSAGE_MAX, "application/vnd.outhaul.command+cbor")
    envelope.verify(keys, f"v1/{host}/commands".encode())
    command = decode(envelope.payload, COMMAND)
    need(command["host"] == host, "for another host")
    need(command["expires"] - command["issued"] <= COMMAND_LIFE_MS, "it would live too long")
    return command


def check_command(data, options):
    command = open_command(data, [options.dispatcher_key], options.host)
    need(options.now * 1000 < command["expires"] + LEEWAY_S * 1000, "expired")
    need(command["issued"] <= (options.now + LEEWAY_S) * 1000, "not valid yet")
    order, body = command["order"]
    return f"OK: command {command['id'].hex()}: {order} {body['sandbox']} on {options.host}", command


# ---- reports (§7): open, so what is newer than this program is passed over ----

def news(spec):
    return fields(spec, is_open=True)


STATE = word("creating running paused finished failed unknown", is_open=True)
REASON = word("policy_refused image_not_found image_pull_failed digest_mismatch source_unreadable start_timeout no_first_event "
              "oom_killed deadline_exceeded engine_unavailable spec_mismatch disk_full quota_exceeded busy conflict not_found "
              "engine_refused stopped lost", is_open=True)
REPORT = news({1: ("host", name), 2: ("number", number()), 3: ("time", number()), 4: ("news", choice({
    1: ("refused", news({1: ("command", octets(16)), 2: ("sandbox", name), 3: ("reason", REASON), 4: ("detail", text())})),
    2: ("launched", news({1: ("command", octets(16)), 2: ("sandbox", name), 3: ("key", public), 4: ("image", text()),
                          5: ("container", text()), 6: ("content", word(CONTENTS, is_open=True))})),
    3: ("ended", news({1: ("?command", octets(16)), 2: ("sandbox", name), 3: ("state", STATE), 4: ("?exit_code", number()),
                       5: ("?reason", REASON), 6: ("detail", text())})),
    4: ("stopped", news({1: ("command", octets(16)), 2: ("sandbox", name)})),
    5: ("forwarded", news({1: ("sandbox", name), 2: ("batch", octets())})),
    6: ("status", news({1: ("generation", number()), 2: ("version", text()), 3: ("start", octets(8)), 4: ("engine", boolean),
                        5: ("sandboxes", array(news({1: ("sandbox", name), 2: ("state", STATE)})))}))}, is_open=True))})


def open_report(data, keys, host):
    envelope = open_envelope(data, MESSAGE_MAX, "application/vnd.outhaul.report+cbor")
    envelope.verify(keys, f"v1/{host}/reports".encode())
    report = decode(envelope.payload, REPORT)
    need(report["host"] == host, "of another host")
    return report


def check_report(data, options):
    report = open_report(data, [options.host_key], options.host)
    kind, body = report["news"]
    about = f" {body['sandbox']}" if "sandbox" in body else ""
    return f"OK: report {report['number']} of {options.host}: {kind}{about}", report


# ---- streams (§8) and the stream file (§10) ----

HEAD = fields({
    1: ("stream", octets(16)), 2: ("epoch", number(1)), 3: ("batch", number(0, U64_MAX - 1)), 4: ("first", number()),
    5: ("count", number(0, EVENTS_MAX)), 6: ("previous", octets(32)), 7: ("body_hash", octets(32)),
    8: ("body_bytes", number(0, BODY_MAX)), 9: ("time", number()), 10: ("?token", octets(8)), 11: ("?closing", true)})
KIND = word("started stdout stderr progress exited gap", is_open=True)
SUCCESSION = fields({1: ("host", name), 2: ("generation", number()), 3: ("key", public), 4: ("time", number())})


def event(value):
    need(type(value) is list and len(value) == 6, "not an event")
    for one in value[:5]:
        number()(one)
    need(len(octets()(value[5])) <= EVENT_DATA_MAX, "an event that is too long")
    return dict(zip(("time", "kind", "flags", "size", "value", "data"), value), kind=KIND(value[1]))


class Stream:
    """§8.7, to the letter."""

    def __init__(self, host, sandbox, key):
        self.key, self.id = key, blake3(f"v1/{host}/{sandbox}/events".encode())[:16]
        self.epoch, self.next, self.events, self.previous = 1, 0, 0, bytes(32)
        self.closed, self.seen, self.lost, self.exit_code = False, set(), 0, None

    def judge(self, payload):
        reader = Reader(payload)
        envelope = Envelope(reader, "application/vnd.outhaul.batch+cbor")
        body = payload[reader.at:]
        need(len(envelope.raw) <= HEAD_MAX and len(body) <= BODY_MAX, "longer than its limit")
        batch = decode(envelope.payload, HEAD)
        need(batch["body_bytes"] == len(body) and batch["first"] + batch["count"] <= U64_MAX
             and ("token" in batch) == (batch["batch"] == 0), "its head and its body do not fit")
        head_hash = blake3(envelope.raw)
        if head_hash in self.seen:
            return
        envelope.verify([self.key])
        need(batch["stream"] == self.id, "a batch of another stream")
        need(not self.closed, "a batch after the closing one")
        expected = 0 if batch["epoch"] > self.epoch else self.next
        need(batch["epoch"] >= self.epoch and batch["batch"] >= expected, "a fork: another batch of an earlier number")
        need(batch["batch"] == expected, f"batches are missing: expected {expected}, found {batch['batch']}")
        need(batch["first"] == self.events and batch["previous"] == self.previous, "it does not follow from the batch before it")
        need(blake3(body) == batch["body_hash"], "the body is not the one that was signed")
        events = decode(body, array(event, EVENTS_MAX))
        need(len(events) == batch["count"], "not as many events as its head says")
        self.epoch, self.next, self.events = batch["epoch"], batch["batch"] + 1, self.events + batch["count"]
        self.previous, self.closed = head_hash, "closing" in batch
        self.seen.add(head_hash)
        for one in events:
            self.lost += one["value"] if one["kind"] == "gap" else 0
            self.exit_code = one["value"] if one["kind"] == "exited" else self.exit_code


class File:
    """§10, item by item. `at` is the item that is being judged."""

    def __init__(self, host, sandbox, anchor, dispatchers):
        self.host, self.sandbox, self.dispatchers = host, sandbox, dispatchers
        self.keys, self.generation, self.offset, self.at = [anchor], None, None, 1
        self.stream, self.waiting, self.reports, self.commands, self.holes = None, [], 0, 0, 0

    def record(self, item):
        need(type(item) is list and len(item) == 6, "not a record")
        offset, received, kind = number()(item[0]), number()(item[1]), number(0, 4)(item[2])
        payload = octets()(item[5])
        need(len(payload) <= PACKET_MAX, "longer than its limit")
        place = [("", ""), (self.host, self.sandbox), (self.host, self.sandbox), (self.host, self.sandbox), (self.host, "")][kind]
        need((item[3], item[4]) == place, "filed under another host or sandbox")
        need(kind not in (0, 4) or received == 0, "a date where there is none")
        if kind == 4:
            need(self.offset is None and offset == 0, "a succession out of its place")
            return self.succession(payload)
        need(self.offset is None or offset > self.offset, "offsets that do not increase")
        self.offset = offset
        if kind == 0:
            need(payload == b"", "a hole with something in it")
            self.holes += 1
        elif kind == 1:
            self.batch(payload)
        elif kind == 2:
            self.report(payload)
        else:
            self.commands += 1
            if self.dispatchers:
                open_command(payload, self.dispatchers, self.host)

    def succession(self, payload):
        envelope = open_envelope(payload, SUCCESSION_MAX, "application/vnd.outhaul.succession+cbor")
        envelope.verify(self.keys[-1:])
        named = decode(envelope.payload, SUCCESSION)
        need(named["host"] == self.host, "a succession of another host")
        need(self.generation in (None, named["generation"] - 1), "a generation is left out, or comes twice")
        self.generation = named["generation"]
        self.keys.append(named["key"])

    def batch(self, payload):
        if self.stream:
            return self.stream.judge(payload)
        need(len(self.waiting) < WAITING_MAX, "too many batches before the report that names their key")
        self.waiting.append((self.at, payload))

    def report(self, payload):
        self.reports += 1
        kind, body = open_report(payload, self.keys, self.host)["news"]
        if body.get("sandbox") != self.sandbox:
            return
        if kind == "launched" and self.stream is None:
            self.stream = Stream(self.host, self.sandbox, body["key"])
            now, waiting, self.waiting = self.at, self.waiting, []
            for self.at, batch in waiting:
                self.stream.judge(batch)
            self.at = now
        elif kind == "launched":
            need(body["key"] == self.stream.key, "it names another key for a sandbox that has one")
        elif kind == "forwarded":
            self.batch(body["batch"])
        elif kind == "ended":
            self.nothing_waits()

    def nothing_waits(self):
        if self.waiting:
            self.at = self.waiting[0][0]
            raise Bad("no report of the host names the key that signs it")


def check_stream(data, options):
    reader, file, at = Reader(data), None, 0
    try:
        first = reader.item()
        need(type(first) is list and len(first) == 4 and first[0] == "outhaul-stream", "not a stream file")
        need(type(first[1]) is int and first[1] == 1, "a stream file of another version")
        file = File(name(first[2]), name(first[3]), options.host_key, options.dispatcher_key)
        while reader.at < len(data):
            at += 1
            file.at = at
            file.record(reader.item())
        file.nothing_waits()
    except Bad as bad:
        raise Bad(f"item {file.at if file else 0}: {bad}") from None
    stream = file.stream or Stream(file.host, file.sandbox, b"")
    details = {"host": file.host, "sandbox": file.sandbox, "is_whole": stream.closed, "events": stream.events,
               "batches": len(stream.seen), "events_lost_before_sealing": stream.lost, "exit_code": stream.exit_code,
               "reports": file.reports, "commands": file.commands, "commands_judged": bool(file.dispatchers),
               "holes_in_the_journal": file.holes, "host_keys": file.keys, "sandbox_key": stream.key or None, "items": at + 1}
    verdict = "OK, whole" if stream.closed else "OK, open: no closing head, the tail may be missing"
    return f"{verdict}: {stream.events} events in {len(stream.seen)} batches of {file.host}/{file.sandbox}", details


# ---- the command line ----

def key(prefix):
    def read(value):
        match = re.fullmatch(prefix + r"_([0-9a-fA-F]{64})", value.strip())
        if not match or not is_strong(bytes.fromhex(match[1])):
            raise argparse.ArgumentTypeError(f"not a good key of the form {prefix}_…")
        return bytes.fromhex(match[1])
    return read


def host(value):
    if not re.fullmatch(r"[a-z0-9-]{1,64}", value):
        raise argparse.ArgumentTypeError("not a host's name")
    return value


def main():
    parser = argparse.ArgumentParser(description="Checks what Outhaul's peers have signed. 0: verifies, 1: does not, 2: usage.")
    commands = parser.add_subparsers(dest="what", required=True)

    def add(what, longest, check):
        one = commands.add_parser(what)
        one.add_argument("file")
        one.add_argument("--json", action="store_true", help="all that was found, on one line")
        one.set_defaults(longest=longest, check=check)
        return one

    token, command = add("token", TOKEN_MAX, check_token), add("command", MESSAGE_MAX, check_command)
    report, stream = add("report", MESSAGE_MAX, check_report), add("stream", None, check_stream)
    token.add_argument("--issuer-key", type=key("ohi1"), required=True)
    token.add_argument("--audience", required=True)
    command.add_argument("--dispatcher-key", type=key("ohd1"), required=True)
    stream.add_argument("--dispatcher-key", type=key("ohd1"), action="append", default=[], help="judge commands too; may be repeated")
    for one in (command, report):
        one.add_argument("--host", type=host, required=True)
    for one in (report, stream):
        one.add_argument("--host-key", type=key("ohh1"), required=True)
    for one in (token, command):
        one.add_argument("--now", type=int, default=int(time.time()), metavar="SECONDS")
    options = parser.parse_args()
    try:
        with open(options.file, "rb") as file:
            data = file.read() if options.longest is None else file.read(options.longest + 1)
    except OSError as error:
        parser.exit(2, f"read {options.file}: {error.strerror}\n")
    try:
        verdict, details = options.check(data, options)
        code = 0
    except Bad as bad:
        verdict, details, code = f"BAD: {bad}", {}, 1
    if options.json:
        print(json.dumps({"verifies": code == 0, "verdict": verdict, **details}, default=bytes.hex))
    else:
        print(verdict)
    return code


if __name__ == "__main__":
    sys.exit(main())
