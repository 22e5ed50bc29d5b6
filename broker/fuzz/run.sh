#!/usr/bin/env bash
# Fuzzes the broker's gate, as protocol/fuzz/run.sh does the decoders; its arguments are the same.
set -euo pipefail

FUZZ="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export FUZZ
exec "$FUZZ/../../protocol/fuzz/run.sh" "$@"
