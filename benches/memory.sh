#!/usr/bin/env bash
# Prints the resident memory of operator, egress process and shim when idle and connected, beside its limit, and fails if one is over.
# usage: benches/memory.sh DIR     DIR holds the programs as they ship; needs a Docker engine
set -euo pipefail

dir=$(cd "${1:?usage: benches/memory.sh DIR}" && pwd)
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
place=$(mktemp -d /var/tmp/outhaul-memory-XXXXXX)
export OUTHAUL_QUICKSTART_DIR=$place/here
over=0
trap '"$top/deploy/quickstart.sh" --down >/dev/null 2>&1 || true; rm -rf "$place"' EXIT

"$top/deploy/quickstart.sh" --bin "$dir" --keep >"$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
"$OUTHAUL_QUICKSTART_DIR/outhaul" run --detach --name idle outhaul-quickstart:1 sleep 600 >/dev/null
for _ in $(seq 1 100); do
    container=$(docker ps -q --filter label=outhaul.sandbox=idle)
    [ -z "$container" ] || break
    sleep 0.1
done
# Idle means idle: what start-up and launch needed has been given back.
sleep 5

row() {
    local name=$1 pid=$2 limit_kb=$3 rss
    rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
    printf '%-16s %8d kB   limit %8d   %3d %%\n' "$name" "$rss" "$limit_kb" $((rss * 100 / limit_kb))
    [ "$rss" -le "$limit_kb" ] || over=1
}

row operator "$(cat "$OUTHAUL_QUICKSTART_DIR/operator.pid")" 5000
row egress "$(cat "$OUTHAUL_QUICKSTART_DIR/egress.pid")" 5000
row shim "$(docker inspect --format '{{.State.Pid}}' "$container")" 4000
exit "$over"
