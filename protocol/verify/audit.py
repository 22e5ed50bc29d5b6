#!/usr/bin/env python3
"""Verifies offline an audit trail that `outhaul audit export` wrote, or the proof of one row that `outhaul audit prove` wrote.

  audit.py DIR  --vkey KEY [--since SAVED_CHECKPOINT] [--row N]
  audit.py FILE --vkey KEY

KEY is the key that signed first (for a proof: that signed its checkpoint), as `outhaul audit key` prints it, or a file that holds it; have it
from whoever runs the broker, never from the export. Exit code 0: OK. 1: BAD, and which row is the first bad one. 2: wrong usage.
"""
# Written from ../SPEC.md alone; "§" points there. Read downwards: hashes, rows, notes, the trail, a proof.
import argparse, base64, hashlib, json, os, re, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

class Bad(ValueError):
    """It does not verify: `row` is the first that is not as it was written, if that can be said."""
    def __init__(self, why, row=None):
        super().__init__(why)
        self.row = row

def need(truth, why, row=None):
    if not truth:
        raise Bad(why, row)

# ---- the tree (RFC 6962 §2.1) ----
sha256 = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
leaf_hash, node_hash = (lambda row: sha256(b"\0", row)), (lambda left, right: sha256(b"\1", left, right))

class Tree:
    """The right edge: one complete subtree for each bit of the size."""
    def __init__(self):
        self.size, self.peaks = 0, []
    def push(self, node):
        bits, self.size = self.size, self.size + 1
        while bits & 1:
            node, bits = node_hash(self.peaks.pop(), node), bits >> 1
        self.peaks.append(node)
    def root(self):
        if not self.peaks:
            return sha256()
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node

def included(node, index, size, path):
    """The root that `path` leads to from leaf `index` of `size` (RFC 9162 §2.1.3.2); none if it leads nowhere."""
    if index >= size:
        return None
    last = size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None

# ---- rows (§14.1) ----
def head(data, at, major):
    """The argument of a CBOR head of this type, in its shortest form, and where it ends."""
    need(at < len(data) and data[at] >> 5 == major, "not a row")
    n, at = data[at] & 31, at + 1
    if n < 24:
        return n, at
    need(n < 28 and at + (1 << n - 24) <= len(data), "not a row")
    width = 1 << n - 24
    value = int.from_bytes(data[at:at + width], "big")
    need(value >= (24 if width == 1 else 1 << 4 * width), "a number that is not in its shortest form")
    return value, at + width

def row_at(data, at):
    """The row that starts at `at`, as a list of seven, and where it ends."""
    count, at = head(data, at, 4)
    need(count == 7, "not a row")
    row = []
    for major in (0, 0, 3, 3, 3, 3, 2):
        value, at = head(data, at, major)
        if major:
            start, at = at, at + value
            need(at <= len(data), "not a row")
            value = data[start:at].decode("utf-8", "strict") if major == 3 else data[start:at]
        row.append(value)
    need(len(row[6]) == 32, "not a row")
    return row, at

# ---- signed notes (C2SP signed-note, tlog-checkpoint) ----
def unbase64(text):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 that is not in its one form")
    return data

class Key:
    def __init__(self, text):
        self.text, (self.name, key_id, data) = text, text.split("+", 2)
        data = unbase64(data)
        need(len(data) == 33 and data[0] == 1, "not a key for Ed25519 notes")
        self.id = sha256(self.name.encode(), b"\n", data)[:4]
        need(self.id.hex() == key_id, "a key whose hash is not its own")
        self.public = Ed25519PublicKey.from_public_bytes(data[1:])

class Note:
    def __init__(self, text):
        body, lines = re.fullmatch(r"((?:[^\n]*\n)+)\n((?:\u2014 [^ \n]+ [^ \n]+\n)+)", text, re.S).groups()
        self.body = body
        self.origin, size, root = re.fullmatch(r"([^\s+]+)\n(0|[1-9][0-9]*)\n(\S+)\n", body).groups()
        self.size, self.root = int(size), unbase64(root)
        need(self.size < 1 << 64 and len(self.root) == 32, "not a checkpoint")
        signatures = (line.split(" ")[1:] for line in lines.splitlines())
        self.signatures = [(name, unbase64(data)) for name, data in signatures]
    def signed_by(self, key):
        mine = [data[4:] for name, data in self.signatures if (name, data[:4]) == (key.name, key.id)]
        try:
            for signature in mine:
                key.public.verify(signature, self.body.encode())
        except InvalidSignature:
            return False
        return self.origin == key.name and bool(mine)

def note(text):
    try:
        return Note(text)
    except (AttributeError, ValueError) as error:
        raise Bad("not a signed checkpoint") from error

# ---- the trail (§14.3) ----
def verify_trail(directory, key, saved, wanted):
    read = lambda name: open(os.path.join(directory, name), "rb").read()
    lines = lambda name: [json.loads(line) for line in read(name).decode().splitlines()]
    data, hashes = read("entries.cbor"), read("hashes.bin")
    notes = [note(line["note"]) for line in lines("checkpoints.jsonl")]
    openings = lines("openings.jsonl") if os.path.exists(os.path.join(directory, "openings.jsonl")) else []
    need(len(hashes) % 32 == 0, "hashes.bin ends in the middle of a hash")
    tree, at, last, bad, handing, signed, unsigned, shown = Tree(), 0, bytes(32), None, None, 0, None, None
    count = len(hashes) // 32
    if saved:
        need(saved.size <= count, f"it is missing: the saved checkpoint covers {saved.size} rows", count)
        notes.append(saved)
    notes.sort(key=lambda one: one.size)
    opened = {}
    for one in openings:
        opened.setdefault(one["seq"], []).append(one)
    for index in range(count + 1):
        while notes and notes[0].size == index:
            one = notes.pop(0)
            stands = one.signed_by(key) and one.root == tree.root()
            if stands:
                signed = index
            elif one is saved:
                raise bad or Bad("this is not the trail that was saved: its checkpoint does not stand")
            elif unsigned is None:
                unsigned = Bad(f"the checkpoint of {index} rows does not stand", signed)
            if stands and handing and one.signed_by(handing):
                key, handing = handing, None
        if handing and not bad:
            bad = Bad("it hands over to another key, and no checkpoint by both ends with it", index - 1)
        if index == count:
            break
        expected, handing = hashes[32 * index:32 * index + 32], None
        try:
            if not bad:
                need(at < len(data), "it is missing: the file ends before it")
                row, end = row_at(data, at)
                need(row[0] == index, "another row stands in its place")
                need(leaf_hash(data[at:end]) == expected, "it is not as it was written")
                need(row[6] == last, "it does not follow from the row before")
                at, shown = end, row if wanted == index else shown
                if row[2] == "key.rotated" and row[3] == key.name:
                    said = json.loads(row[5])
                    need(said.get("key") == "audit" and said.get("old") == key.text, "it hands over from a key that is not in use")
                    handing = Key(said["new"])
                for one in opened.pop(index, []):
                    commitment = sha256(bytes.fromhex(one["salt"]), one["value"].encode()).hex()
                    need(json.loads(row[5]).get(one["field"]) == {"sha256": commitment}, "a disclosed value is not what it commits to")
        except (Bad, ValueError, KeyError, TypeError, AttributeError) as error:
            bad = Bad(str(error), index)
        last = expected
        tree.push(expected)
    failed = bad or unsigned
    if failed:
        raise failed
    need(not notes, "it is missing: more rows were signed", count)
    need(at == len(data), "rows that are in no list", count)
    need(not opened, "a disclosed value of a row that is not there", count)
    need(signed or not count, "nothing in here is signed", 0)
    print(f"OK: {count} rows, {signed} of them signed; root {tree.root().hex()}")
    if shown:
        print("row", json.dumps(shown[:6]))

def check_proof(text, key):
    """The row, and how many there are, if the proof holds."""
    lines, _, checkpoint = text.partition("\n\n")
    first, extra, index, *hashes = lines.split("\n")
    need(first == "c2sp.org/tlog-proof@v1" and extra.startswith("extra ") and re.fullmatch("index (0|[1-9][0-9]*)", index), "not a proof")
    data, index, signed = unbase64(extra[6:]), int(index[6:]), note(checkpoint)
    row, end = row_at(data, 0)
    need(end == len(data) and row[0] == index, "another row than it says")
    need(signed.signed_by(key), "its checkpoint is not signed with this key")
    need(included(leaf_hash(data), index, signed.size, [unbase64(one) for one in hashes]) == signed.root, "the row is not in the tree")
    return row, signed.size

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--vkey", required=True)
    parser.add_argument("--since")
    parser.add_argument("--row", type=int)
    given = parser.parse_args()
    text = lambda value: open(value, encoding="utf-8", newline="").read()
    try:
        key = Key((given.vkey if "+" in given.vkey else text(given.vkey)).strip())
        if os.path.isdir(given.path):
            verify_trail(given.path, key, note(text(given.since)) if given.since else None, given.row)
        else:
            row, size = check_proof(open(given.path, encoding="utf-8", newline="").read(), key)
            print(f"OK: row {row[0]} is among the first {size}: {json.dumps(row[:6])}")
    except Bad as bad:
        sys.exit(f"BAD, row {bad.row}: {bad}" if bad.row is not None else f"BAD: {bad}")
    except (OSError, ValueError) as error:
        sys.exit(f"BAD: {error}")

if __name__ == "__main__":
    main()
