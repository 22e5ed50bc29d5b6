#!/usr/bin/env python3
"""Judges ../vectors with verify.py: every good line must be OK, every bad one BAD, and a stream at the item that its line names.

Kinds that verify.py does not know (what nobody signs, texts, single rules) are counted as left out.
"""
import collections, json, pathlib, re, sys
import audit, verify

def key(text):
    return bytes.fromhex(text.split("_")[1])

def judge(line):
    """The verdict, or nothing if verify.py has none for this kind."""
    kind, data = line["kind"], bytes.fromhex(line.get("hex", ""))
    given = {name: key(line[name]) for name in ("issuer_key", "host_key", "sandbox_key", "dispatcher_key") if name in line}
    dispatchers = [given["dispatcher_key"]] if "dispatcher_key" in given else []
    match kind:
        case "token": return verify.check_token(data, given["issuer_key"], line["audience"], line["now_s"])[0]
        case "command": return verify.check_command(data, dispatchers, line["host"], line["now_s"])[0]
        case "report": return verify.check_report(data, given["host_key"], line["host"])[0]
        case "succession": return verify.check_succession(data, given["host_key"], line["host"], line["generation"])[0]
        case "stream": return verify.check_stream(data, given["host_key"], dispatchers)[0]
        case "checkpoint" | "tlog-proof" | "audit-row":
            return judge_audit(kind, line, data)
        case "batch":
            stream = verify.Stream(line["host"], line["sandbox"], given["sandbox_key"])
            for payload in [*map(bytes.fromhex, line.get("before", [])), data]:
                stream.judge(payload)
            return "OK"

def judge_audit(kind, line, data):
    try:
        match kind:
            case "audit-row": audit.need(audit.row_at(data, 0)[1] == len(data), "bytes behind it")
            case "checkpoint": audit.need(audit.note(line["text"]).signed_by(audit.Key(line["vkey"])), "not signed with this key")
            case "tlog-proof": audit.check_proof(line["text"], audit.Key(line["vkey"]))
    except (audit.Bad, ValueError) as bad:
        raise verify.Bad(str(bad)) from bad
    return "OK"

def main():
    counts, differences = collections.Counter(), []
    for path in sorted(pathlib.Path(__file__).parent.parent.joinpath("vectors").glob("*.jsonl")):
        for line in map(json.loads, path.open()):
            try:
                verdict = judge(line)
            except verify.Bad as bad:
                verdict = f"BAD: {bad}"
            if verdict is None:
                counts["left out"] += 1
                continue
            item = re.match(r"item \d+:", line.get("reason", "")) if line["kind"] == "stream" else None
            expected = "OK" if line["verdict"] == "ok" else f"BAD: {item[0] if item else ''}"
            counts[line["verdict"]] += 1
            if not verdict.startswith(expected):
                differences.append(f"{line['name']}: expected {expected}, found {verdict}")
    print(*differences, sep="\n", end="\n" if differences else "")
    print(f"{counts['ok']} good and {counts['refused']} bad lines, {counts['left out']} left out, {len(differences)} judged otherwise")
    return 1 if differences or not counts["ok"] or not counts["refused"] else 0

if __name__ == "__main__":
    sys.exit(main())
