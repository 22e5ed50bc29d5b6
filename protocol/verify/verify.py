#!/usr/bin/env python3
"""Checks offline what Outhaul's brokers, dispatchers, hosts and sandboxes have signed.

  verify.py token      FILE --issuer-key ohi1_…     --audience outhaul-… [--now SECONDS]
  verify.py command    FILE --dispatcher-key ohd1_… --host edge-1        [--now SECONDS]
  verify.py report     FILE --host-key ohh1_…       --host edge-1
  verify.py succession FILE --host-key ohh1_…       --host edge-1        [--generation OF_THAT_KEY]
  verify.py stream     FILE --host-key ohh1_…       [--dispatcher-key ohd1_… …]

FILE holds the bytes as they travelled; for a stream, what `outhaul export-stream` wrote. Keys come from you, never from FILE: of a
stream's host its first key, else the one that signed. Exit code 0: OK, it verifies. 1: BAD, it does not, and why. 2: wrong usage.
"""
# Written from ../SPEC.md alone; "§" points there. Read downwards: bytes, signatures, shapes, then each kind of message.
import argparse, hashlib, json, re, sys, time
import cbor2
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

class Bad(ValueError):
    """It does not verify. The text says why, and nothing of the content."""

def need(truth, why):
    if not truth:
        raise Bad(why)

# ---- bytes (§1.1) ----
def scan(data, at=0, depth=16):
    """Where the item ends that starts at `at`. cbor2 obeys tags, some at any cost, and knows no order: it sees only what passed here."""
    need(at < len(data), "it ends too early")
    major, n, at = data[at] >> 5, data[at] & 31, at + 1
    need(n < 28 and major < 6 or major == 7 and n in (20, 21, 22), "an indefinite length, tag, float, simple value, or not CBOR")
    if n >= 24 and major < 7:
        n, at = int.from_bytes(data[at:at + (1 << n - 24)], "big"), at + (1 << n - 24)
    at += n if major in (2, 3) else 0
    need(at <= len(data), "it ends too early")
    need(major not in (4, 5) or depth > 0 and (major == 4 or n <= 23), "nested too deep, or a map of too many pairs")
    label = b""
    for _ in range(n if major in (4, 5) else 0):
        if major == 5:
            last, start, at = label, at, scan(data, at, depth - 1)
            label = data[start:at]
            need(label > last, "labels out of order, or one twice")
            need(label[0] >> 5 in (0, 1, 3), "a label that is neither a number nor text")
        at = scan(data, at, depth - 1)
    return at

def decode(data, longest=61_440):
    need(len(data) <= longest, "longer than its limit")
    need(scan(data) == len(data), "bytes after its end")
    value = cbor2.loads(data, str_errors="replace")
    need(cbor2.dumps(value) == data, "a number or length that is not in its shortest form, or text that is not UTF-8")
    return value

# ---- keys and signatures (§1.3, §1.4) ----
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

def is_strong(point):
    """Whether 32 bytes are a point of the curve, in its one encoding, and not of small order."""
    y = int.from_bytes(point, "little") & (1 << 255) - 1
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    is_small = x2 == 0 or y == 0 or (x2 + y * y) % P == 0  # orders 1 and 2; 4; 8
    return y < P and not is_small and pow(x2, (P - 1) // 2, P) == 1

def unseal(kind, item, keys, host=None, header={}):
    """What one of `keys` has signed: a COSE_Sign1 of our profile and no other. Every key was is_strong() when it was read."""
    _, place, shape = KINDS[kind]
    typ = 61 if kind == "token" else f"application/vnd.outhaul.{kind}+cbor"
    need(type(item) is list and list(map(type, item)) == [bytes, dict, bytes, bytes], "not a signed message")
    protected, unprotected, payload, signature = item
    kid, s = protected[5:13], int.from_bytes(signature[32:], "little")
    need(len(kid) == 8 and protected == cbor2.dumps({1: -19, 4: kid, 16: typ}), "not a signed message of this kind")
    need(unprotected == header, "a header that is not signed")
    key = next((key for key in keys if hashlib.sha256(cbor2.dumps({1: 1, -1: 6, -2: key})).digest()[:8] == kid), None)
    need(key, "signed by a key that is not trusted here")
    try:
        need(len(signature) == 64 and is_strong(signature[:32]) and s < L, "the signature does not verify")
        message = cbor2.dumps(["Signature1", protected, place.format(host=host).encode(), payload])
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        raise Bad("the signature does not verify") from None
    found = fit(decode(payload), shape)
    need(found.get("host", host) == host, "of another host, or for one")
    return found

def read(kind, data, keys, host=None):
    return unseal(kind, decode(data, KINDS[kind][0]), keys, host)

# ---- shapes: what a value must be, as data ----
class Map(dict):
    """label → (name, shape). Labels count up from 1 unless given; a name with "?" may be left out. Open or closed: §9."""
    def __init__(self, names, *shapes, is_open=False):
        self.is_open = is_open
        for n, (name, shape) in enumerate(zip(names.split(), shapes, strict=True), 1):
            name, _, label = name.partition("=")
            self[int(label or n)] = name, shape

class Choice(Map):
    """[label, body], likewise: one of them."""

def news(names, *shapes):
    return Map(names, *shapes, is_open=True)

def fit(value, shape):
    """The value, with names for labels, if it has the shape. Patterns are over UTF-8, so that lengths are in bytes."""
    match shape:
        case range(): need(type(value) is int and value in shape, "a number out of its range, or none")
        case bytes(): need(type(value) is str and re.fullmatch(shape, value.encode()), "not a text, or not one of its kind")
        case slice(): need(type(value) is bytes and shape.start <= len(value) <= shape.stop, "not bytes, or not so many")
        case set(): need(any(type(value) is type(one) and value == one for one in shape), "not a value that it may be")
        case "key": need(is_strong(fit(value, HASH)), "not a public key, or a weak one")
        case "scope":
            value = fit(decode(fit(value, slice(0, 2_048))), SCOPE)
            need(all(may in (["pub"], ["sub"], ["pub", "sub"]) for _, may in value), "not permissions")
        case "anything": pass
        case "skipped":
            scan(cbor2.dumps(value), depth=8)
            return {}
        case tuple():
            need(type(value) is list and len(value) == len(shape), "no list, or not of this length")
            return list(map(fit, value, shape))
        case [inner, least, most]:
            need(type(value) is list and least <= len(value) <= most, "no list, or not of this length")
            return [fit(one, inner) for one in value]
        case Choice():
            label, body = fit(value, (U64, "anything"))
            need(label in shape or shape.is_open, "an unknown choice")
            name, inner = shape.get(label, ("other", "skipped"))
            return name, fit(body, inner)
        case Map():
            need(type(value) is dict and all(type(label) is int for label in value), "not a map of labels")
            need(all(label in value or "?" in name for label, (name, _) in shape.items()), "a label is missing")
            for label in value.keys() - shape.keys():
                need(shape.is_open and 64 <= label < 2**63, "an unknown label")
                fit(value[label], "skipped")
            return {name.strip("?"): fit(value[label], inner) for label, (name, inner) in shape.items() if label in value}
    return value

U64, LIMIT, CONTENT, CTI, ID, HASH = range(2**64), range(1, 2**63), range(1, 4), slice(8, 8), slice(16, 16), slice(32, 32)
NAME, ANY, SHORT, DETAIL, ARGUMENT = rb"[a-z0-9-]{1,64}", rb"(?s:.*)", rb"(?s:.{0,256})", rb"(?s:.{0,512})", rb"[^\0]{0,32768}"
FILTER = rb'(?=.{1,256}\Z)((\+|[!"%-*,\-.0-~]+)/)*(\+|#|[!"%-*,\-.0-~]+)'  # levels of visible ASCII without # $ + /
SCOPE = [(FILTER, [ANY, 1, 2]), 0, 16]
CLAIMS = Map("iss sub aud exp nbf? iat cti cnf scope delegable?=-70001 generation?=-70002", ANY, ANY, ANY, U64, U64, U64, CTI,
             Map("key", Map("kty crv=-1 x=-2", {1}, {6}, "key")), "scope", "scope", U64)
IMAGE, VARIABLE = rb"(?!.*(\.\.|//))[A-Za-z0-9][A-Za-z0-9._\-/:@]{0,511}", rb"[A-Za-z_][A-Za-z0-9_]*"
LAUNCH = Map("sandbox image arguments environment sources limits content isolation?", NAME, IMAGE, [ARGUMENT, 0, 256],
             [(VARIABLE, ARGUMENT), 0, 128], [NAME, 0, 16],
             Map("cpu_millis memory_bytes pids scratch_bytes life_s", LIMIT, LIMIT, LIMIT, LIMIT, LIMIT), CONTENT, NAME)
NEWS = Choice("refused launched ended stopped forwarded status",
              news("command sandbox reason detail", ID, NAME, U64, DETAIL),
              news("command sandbox key image container content", ID, NAME, "key", SHORT, SHORT, CONTENT),
              news("command? sandbox state exit_code? reason? detail", ID, NAME, U64, U64, U64, DETAIL),
              news("command sandbox", ID, NAME), news("sandbox batch", NAME, slice(0, 60_928)),
              news("generation version start engine sandboxes skew_ms?=65", U64, SHORT, CTI, {True, False},
                   [news("sandbox state", NAME, U64), 0, 256], range(-2**63, 2**63)), is_open=True)
LOST, BATCH, REPORT, COMMAND, SUCCESSION, HEAD = 0, 1, 2, 3, 4, 6
RECORD, CAUSES = (U64, U64, {LOST, BATCH, REPORT, COMMAND, SUCCESSION, HEAD}, ANY, ANY, slice(0, 65_536)), range(5)
EVENT, EXITED, GAP = (U64, U64, U64, U64, U64, slice(0, 8_192)), 5, 6
KINDS = {  # longest envelope; the place that its signature is bound to; shape
    "token": (2_048, "", CLAIMS),
    "command": (61_440, "v1/{host}/commands", Map("id host issued expires order", ID, NAME, U64, U64,
                                                  Choice("launch stop", LAUNCH, Map("sandbox grace_s", NAME, U64)))),
    "report": (61_440, "v1/{host}/reports", news("host number time news", NAME, U64, U64, NEWS)),
    "succession": (512, "", Map("host generation key time", NAME, U64, "key", U64)),
    "batch": (512, "", Map("stream epoch batch first count previous body_hash body_bytes time token? closing?", ID, range(1, 2**64),
                           range(2**64 - 1), U64, range(257), HASH, HASH, range(60_417), U64, CTI, {True}))}

# ---- tokens (§4) ----
def covers(rule, topic):
    """Whether a filter covers a topic (§4.1). What a sandbox may have is a topic, so nothing more general is needed."""
    levels = {"+": "[^/]+/", "#": ".*"}
    return re.fullmatch("".join(levels.get(level, re.escape(level) + "/") for level in rule.split("/")), topic + "/")

def link(item, key, audience, now, header={}):
    claims = unseal("token", item, [key], header=header)
    need(claims["aud"] == audience, "for another audience")
    need(max(claims.get("nbf", 0), claims["iat"]) - 60 <= now < claims["exp"] + 60, "expired, or not valid yet")
    return claims

def check_token(data, issuer_key, audience, now):
    item = decode(data, KINDS["token"][0])
    has_parent = type(item) is list and len(item) == 4 and type(item[1]) is dict and list(item[1]) == [13]
    links = [host] = [link(item[1][13] if has_parent else item, issuer_key, audience, now)]
    need(fit(host["sub"], NAME) and "generation" in host, "a host's token without a generation")
    need(host["exp"] - host["iat"] <= 3_600, "it would live too long")
    if has_parent:
        links.append(leaf := link(item, host["cnf"]["key"]["x"], audience, now, header=item[1]))
        owner, _, sandbox = leaf["sub"].partition("/")
        topic = f"v1/{owner}/{fit(sandbox, NAME)}/events"
        need(leaf["iss"] == owner == host["sub"] and not {"delegable", "generation"} & leaf.keys() and leaf["exp"] <= host["exp"]
             and leaf["exp"] - leaf["iat"] <= 900 and leaf["scope"] == [[topic, ["pub"]]]
             and any("pub" in may and covers(rule, topic) for rule, may in host.get("delegable", [])), "beyond what its parent delegates")
    may = ", ".join(f"{'+'.join(acts)} {where}" for where, acts in links[-1]["scope"])
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(links[-1]["exp"], 253402300799)))
    return f"OK: token of {links[-1]['sub']} until {until}: {may or 'permits nothing'}", {"links": links}

# ---- commands (§6), reports (§7), successions (§5) ----
def read_command(data, keys, host):
    command = read("command", data, keys, host)
    need(command["expires"] - command["issued"] <= 604_800_000, "it would live too long")
    return command

def check_command(data, dispatcher_key, host, now):
    command = read_command(data, dispatcher_key, host)
    need(command["issued"] - 60_000 <= now * 1000 < command["expires"] + 60_000, "expired, or not valid yet")
    order, body = command["order"]
    return f"OK: command {command['id'].hex()}: {order} {body['sandbox']} on {host}", command

def check_report(data, host_key, host):
    report = read("report", data, [host_key], host)
    kind, body = report["news"]
    return f"OK: report {report['number']} of {host}: {kind} {body.get('sandbox', '')}".rstrip(), report

def check_succession(data, host_key, host, generation):
    found = read("succession", data, [host_key], host)
    need(generation in (None, found["generation"] - 1), "a generation is left out, or comes twice")
    return f"OK: succession of {host}: generation {found['generation']} has ohh1_{found['key'].hex()}", found

# ---- streams (§8) and the stream file (§10) ----
class Stream:
    """The batches of one sandbox: §8.7, to the letter."""
    def __init__(self, host, sandbox, key, is_part=False):
        self.key, self.id = key, blake3(f"v1/{host}/{sandbox}/events".encode()).digest()[:16]
        self.epoch, self.next, self.events, self.previous, self.closed, self.seen = 1, 0, 0, bytes(32), False, set()
        self.lost, self.exit_code, self.purged, self.purged_events = 0, None, 0, 0
        self.is_part, self.began, self.earlier = is_part, None, 0

    def judge(self, payload, is_purged=False):
        end = scan(payload)
        signed, body = payload[:end], payload[end:]
        head, hashed = read("batch", signed, [self.key]), blake3(signed).digest()
        need((head["body_bytes"] > 0 == len(body) if is_purged else head["body_bytes"] == len(body)) and head["first"] + head["count"] < 2**64
             and ("token" in head) == (head["batch"] == 0), "its head and its body do not fit")
        if hashed in self.seen:
            return
        need(head["stream"] == self.id, "a batch of another stream")
        place = (head["epoch"], head["batch"], head["first"])
        if self.is_part and self.began and place[:2] < self.began[:2]:
            self.earlier += 1
            return
        if self.is_part and not self.began:  # What came before is taken as the first head has it.
            self.began, self.previous = place, head["previous"]
            self.epoch, self.next, self.events = place
        need(not self.closed, "a batch after the closing one")
        expected = 0 if head["epoch"] > self.epoch else self.next
        need(head["epoch"] >= self.epoch and head["batch"] >= expected, "a fork: another batch of an earlier number")
        need(head["batch"] == expected, f"batches are missing: expected {expected}, found {head['batch']}")
        need(head["first"] == self.events and head["previous"] == self.previous, "it does not follow from the batch before it")
        need(is_purged or blake3(body).digest() == head["body_hash"], "the body is not the one that was signed")
        events = [] if is_purged else fit(decode(body), [EVENT, head["count"], head["count"]])
        self.purged, self.purged_events = self.purged + is_purged, self.purged_events + is_purged * head["count"]
        self.epoch, self.next, self.events = head["epoch"], head["batch"] + 1, self.events + head["count"]
        self.previous, self.closed = hashed, "closing" in head
        self.seen.add(hashed)
        self.lost += sum(value for _, kind, _, _, value, _ in events if kind == GAP)
        self.exit_code = next((value for _, kind, _, _, value, _ in reversed(events) if kind == EXITED), self.exit_code)

def causes(offset, payload):
    """Why records are lost, if the broker says so (§10)."""
    if payload:
        to, *found = fit(decode(payload), [U64, 1, 6])
        need(to > offset and all(cause in CAUSES for cause in found) and found == sorted(set(found)), "a lost record that says what it cannot")
        return found

def check_stream(data, host_key, dispatcher_key):
    keys, generation, last, stream, waiting, counts, item, at = [host_key], None, -1, None, [], [0] * 7, 0, 0
    removed = 0
    try:  # `at` is the item that is judged: this one, or a batch that waited.
        end = scan(data)
        name, _, host, sandbox = fit(decode(data[:end]), ({"outhaul-stream", "outhaul-stream-part"}, {1}, NAME, NAME))
        while end < len(data):
            at = item = item + 1
            start, end = end, scan(data, end)
            offset, received, kind, *place, payload = fit(decode(data[start:end], 66_000), RECORD)
            is_about_sandbox, what, body = kind in (BATCH, HEAD, REPORT, COMMAND), None, {}
            need(place == [host if kind else "", sandbox if is_about_sandbox else ""], "filed under another host or sandbox")
            need(is_about_sandbox or received == 0, "a date where there is none")
            need(last < 0 == offset if kind == SUCCESSION else offset > last, "offsets that do not increase, or a late succession")
            last, counts[kind] = last if kind == SUCCESSION else offset, counts[kind] + 1
            if kind == LOST:
                removed += 0 not in (causes(offset, payload) or [0])
            if kind == SUCCESSION:
                found = read("succession", payload, keys[-1:], host)
                need(generation in (None, found["generation"] - 1), "a generation is left out, or comes twice")
                generation, keys = found["generation"], [*keys, found["key"]]
            if kind == COMMAND and dispatcher_key:
                read_command(payload, dispatcher_key, host)
            if kind == REPORT:
                what, body = read("report", payload, keys, host)["news"]
                what = what if body.get("sandbox") == sandbox else None
            if what == "launched":
                stream = stream or Stream(host, sandbox, body["key"], name == "outhaul-stream-part")
                need(body["key"] == stream.key, "it names another key for a sandbox that has one")
            if kind in (BATCH, HEAD) or what == "forwarded":
                waiting.append((at, body.get("batch", payload), kind == HEAD))
                need(len(waiting) <= 1_024, "too many batches before the report that names their key")
            while stream and waiting:
                at, *batch = waiting.pop(0)
                stream.judge(*batch)
            if waiting and (what == "ended" or end == len(data)):
                at = waiting[0][0]
                raise Bad("no report of the host names the key that signs it")
    except Bad as bad:
        raise Bad(f"item {at}: {bad}") from None
    stream = stream or Stream(host, sandbox, None)
    purged = f"; body purged in {stream.purged} of them, with {stream.purged_events} events" if stream.purged else ""
    before = stream.began[2] if stream.began else 0
    has_beginning = name == "outhaul-stream" or bool(stream.began) and stream.began[:2] == (1, 0)
    verdict = "OK, whole" if stream.closed else "OK, open: no closing head, the tail may be missing"
    if not has_beginning:
        verdict = f"OK, part: what came before event {before} is not in it" + ("" if stream.closed else ", nor a closing head")
    return f"{verdict}: {stream.events - before} events in {len(stream.seen)} batches of {host}/{sandbox}{purged}", {
        "host": host, "sandbox": sandbox, "is_whole": stream.closed and has_beginning, "has_beginning": has_beginning,
        "events": stream.events - before, "events_before": before, "batches": len(stream.seen), "batches_before": stream.earlier,
        "events_lost_before_sealing": stream.lost, "exit_code": stream.exit_code, "reports": counts[REPORT], "commands": counts[COMMAND],
        "commands_judged": bool(dispatcher_key), "holes_in_the_journal": counts[LOST], "holes_made_by_its_owner": removed,
        "batches_purged": stream.purged, "events_purged": stream.purged_events, "host_keys": keys,
        "sandbox_key": stream.key, "items": item + 1}

# ---- the command line ----
def key(role):
    def public_key(value):
        return fit(bytes.fromhex(re.fullmatch(role + "_([0-9a-fA-F]{64})", value.strip())[1]), "key")
    return public_key

def host_name(value):
    return fit(value, NAME)

READ = {"issuer-key": key("ohi1"), "host-key": key("ohh1"), "dispatcher-key": key("ohd1"), "host": host_name, "audience": str, "now": int,
        "generation": int}
CHECKS = ((check_token, "issuer-key audience now?"), (check_command, "dispatcher-key host now?"), (check_report, "host-key host"),
          (check_succession, "host-key host generation?"), (check_stream, "host-key dispatcher-key?"))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True, metavar="KIND", help="token, command, report, succession or stream")
    for check, flags in CHECKS:
        one = kinds.add_parser(check.__name__.removeprefix("check_"))
        one.set_defaults(check=check)
        one.add_argument("file")
        one.add_argument("--json", action="store_true", help="print all that was found, on one line")
        for flag in flags.split():
            one.add_argument("--" + flag.strip("?"), type=READ[flag.strip("?")], required="?" not in flag,
                             default=int(time.time()) if flag == "now?" else None,
                             action="append" if flag.startswith("dispatcher") else "store")
    options = vars(parser.parse_args())
    check, path, is_json = options.pop("check"), options.pop("file"), options.pop("json")
    try:
        with open(path, "rb") as file:
            verdict, details = check(file.read(), **options)
    except OSError as error:
        parser.exit(2, f"read {path}: {error.strerror}\n")
    except Bad as bad:
        verdict, details = f"BAD: {bad}", {}
    verifies = verdict.startswith("OK")
    print(json.dumps({"verifies": verifies, "verdict": verdict, **details}, default=bytes.hex) if is_json else verdict)
    return 0 if verifies else 1

if __name__ == "__main__":
    sys.exit(main())
