#!/usr/bin/env bash
# Prints the size of what runs on hosts beside its limit, and fails if one is over it.
# usage: benches/footprint.sh DIR     DIR holds outhaul-agent and outhaul-sandbox, built with --profile small
# Resident memory is measured where the programs run: benches/memory.sh.
set -euo pipefail

dir=${1:?usage: benches/footprint.sh DIR}
over=0

# A static program carries its C library: design limits differ.
row() {
    local program=$1 dynamic_max=$2 static_max=$3 bytes max kind
    bytes=$(stat -c %s "$dir/$program")
    if readelf -l "$dir/$program" 2>/dev/null | grep -q INTERP; then
        kind=dynamic max=$dynamic_max
    else
        kind=static max=$static_max
    fi
    printf '%-16s %-8s %10d bytes   limit %10d   %3d %%\n' "$program" "$kind" "$bytes" "$max" $((bytes * 100 / max))
    [ "$bytes" -le "$max" ] || over=1
}

row outhaul-agent 3800000 4900000
row outhaul-sandbox 1900000 2800000
exit "$over"
