#!/usr/bin/env bash
# Measures our broker beside others, each under the same load from the same client, in one run. Builds what ships, starts and ends everything
# itself, and leaves nothing behind. Options: benches/macro.sh --help
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: benches/macro.sh [--smoke | OPTION...] [publish] [idle] [storm] [durable] [newcomer]

  publish   broker CPU for each event and messages a second: one publisher with 64 in flight, four with 64 each, fifty with one each;
            a reader gets every message
  idle      resident memory of 10,000 idle connections, each with a token of its own
  storm     2,000 clients that connect at once, from one address and from many
  durable   messages a second of 200 publishers with one in flight, and how long one alone waits, beside an fdatasync of this disk
  newcomer  milliseconds from an install key to a link, beside a client of another broker that only connects
            (none named: all five)

  --smoke          every bench small, two seconds a broker, no limits: does it all still run?
  --json           figures of every round, for programs
  --check          fail (1) if a limit does not hold
  --bin DIR        measure the `outhaul` in DIR instead of building it
  --brokers LIST   of outhaul-fsync, outhaul-os, mosquitto, rumqttd (the last one if it is installed)
  --shapes LIST    for publish: PUBLISHERSxWINDOW, as in 1x64,50x1
  --rounds N       of each measurement (5)
  --messages N, --seconds N, --no-reader, --idle N, --storm N
                   how much: see target/release/load --help

Needs: mosquitto (apt-get install mosquitto), rustc and cc, about 1 GB below TMPDIR (/var/tmp) on the kind of disk that is to be measured,
and `ulimit -Hn` above the number of idle connections. Stock rumqttd is optional:
  cargo install rumqttd --version 0.20.0 --root target/tools

How to read the figures. Brokers take turns within a round, and another one starts each round; a figure is the median of its rounds, and
"x mosquitto" the median of the ratios within each round. On a machine that does other things as well, trust the ratios: absolute figures
move by half and more, and two ratios that differ by less than a tenth do not differ. CPU is user and system time of the broker's process
from the first message to the last that was acknowledged and read; what the load generator needs is not in it. It is divided by what was
acknowledged, so look at "received %" beside it: a broker that acknowledges and does not deliver is cheap. outhaul-fsync acknowledges what
is on the disk (the default), outhaul-os what the kernel has; mosquitto and rumqttd acknowledge what is in their memory. Every payload is a
true batch of one signed event, about 256 bytes in all.
TEXT
}

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin='' smoke='' brokers='' arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --smoke) smoke=yes ;;
        --bin) bin=$(cd "${2:?--bin DIR}" && pwd); shift ;;
        --brokers) brokers=${2:?--brokers LIST}; shift ;;
        --shapes | --rounds | --messages | --seconds | --idle | --storm)
            arguments+=("$1" "${2:?$1 needs a value}"); shift ;;
        --json | --check | --no-reader | publish | idle | storm | durable | newcomer) arguments+=("$1") ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

rumqttd=$top/target/tools/bin/rumqttd
if [ -z "$brokers" ]; then
    brokers=outhaul-fsync,outhaul-os,mosquitto
    [ ! -x "$rumqttd" ] || brokers+=,rumqttd
fi
export PATH=$PATH:/usr/sbin
case ,$brokers, in
    *,mosquitto,*)
        if ! command -v mosquitto >/dev/null || ! command -v mosquitto_passwd >/dev/null; then
            echo 'benches/macro.sh: mosquitto is missing: apt-get install mosquitto, or leave it out with --brokers' >&2
            exit 2
        fi
        ;;
esac
case ,$brokers, in
    *,rumqttd,*)
        if [ ! -x "$rumqttd" ]; then
            echo 'benches/macro.sh: rumqttd is missing: cargo install rumqttd --version 0.20.0 --root target/tools' >&2
            exit 2
        fi
        ;;
esac
[ -z "$smoke" ] || arguments+=(--no-limits --rounds 1 --seconds 2 --messages 20000 --idle 200 --storm 200)

cd "$top"
# One by one: together their features would be united, and the broker would not be the one that ships.
[ -n "$bin" ] || { cargo build --quiet --locked --release --package broker --bins && bin=$top/target/release; }
cargo build --quiet --locked --release --package benches --bin load

place=$(mktemp -d "${TMPDIR:-/var/tmp}/outhaul-bench-XXXXXX")
load='' file=''
# The generator first, then the brokers that it could not end itself: their numbers lie beside their logs.
trap '[ -z "$load" ] || kill "$load" 2>/dev/null || true
    for file in "$place"/*/*.pid; do [ ! -e "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true; done
    rm -rf "$place"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
target/release/load --outhaul "$bin/outhaul" --rumqttd "$rumqttd" --dir "$place" --brokers "$brokers" \
    ${arguments[@]+"${arguments[@]}"} &
load=$!
status=0
wait "$load" || status=$?
load=''
exit "$status"
