#!/usr/bin/env bash
# Fuzzes the protocol's decoders, each for a bounded time, and says what came of it. Another crate's targets, if FUZZ names its folder.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
FUZZ="${FUZZ:-$HERE}"
CARGO_FUZZ_VERSION=0.13.2
export CARGO_TARGET_DIR="$FUZZ/target"

usage() {
    cat <<TEXT
usage: ${FUZZ#"$ROOT"/}/run.sh [SECONDS_PER_TARGET] [TARGET…]

Builds all targets, then runs each for so many seconds (30 if not given); 0 only runs what was found before. That grows
below its target/corpus, so that a later run goes on from there; the seeds in its corpus stay as they are.
Fails if a target does. Targets:
TEXT
    printf '  %s\n' "${ALL[@]}"
}

# The longest input worth making: the limit of the message, and room to pass it.
bytes_max() {
    case "$1" in
    token) echo 4400 ;;
    session) echo 4096 ;;
    exchange) echo 9000 ;;
    text) echo 1100 ;;
    stream | stream_file) echo 4096 ;;
    batch) echo 61500 ;;
    command | report) echo 62500 ;;
    *) echo 66000 ;;
    esac
}

install_cargo_fuzz() {
    export PATH="$ROOT/target/tools/bin:$PATH"
    command -v cargo-fuzz >/dev/null && return
    CARGO_TARGET_DIR="$ROOT/target/tools/build" \
        cargo install --locked --root "$ROOT/target/tools" cargo-fuzz --version "$CARGO_FUZZ_VERSION"
}

# The last number behind a word of libFuzzer's log, or a dash.
number() {
    sed -n "s/.*$1 *\([0-9][0-9]*\).*/\1/p" "$2" | tail -n 1 | grep . || echo -
}

run() {
    local target=$1 work="$FUZZ/target/corpus/$1" found="$FUZZ/artifacts/$1/"
    local log="$FUZZ/target/logs/$1.log" result=ok bound="-max_total_time=$SECONDS_EACH"
    mkdir -p "$work" "$found" "$(dirname "$log")"
    [[ $SECONDS_EACH == 0 ]] && bound="-runs=0"
    echo "$target …" >&2
    if ! "$BIN/$target" "$bound" "-max_len=$(bytes_max "$target")" -rss_limit_mb=1024 -timeout=10 \
        -print_final_stats=1 "-artifact_prefix=$found" "$work" "$FUZZ/corpus/$target" >"$log" 2>&1; then
        result=FAILED
        FAILED+=("$target")
    fi
    ROWS+=("$(printf '%-14s %12s %10s %7s %7s  %s' "$target" "$(number 'number_of_executed_units:' "$log")" \
        "$(number 'average_exec_per_sec:' "$log")" "$(number 'cov:' "$log")" "$(number 'ft:' "$log")" "$result")")
}

explain() {
    local target=$1 log="$FUZZ/target/logs/$1.log" artifact
    artifact="$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
    echo
    echo "$target failed; its log is $log"
    sed -n '/panicked at/,/^stack backtrace/p; /^==.*ERROR/p' "$log" | cut -c 1-200 | grep -v '^stack' | head -n 8 || true
    if [[ -n $artifact ]]; then
        echo "the input is $artifact; again:"
        echo "  PATH=$ROOT/target/tools/bin:\$PATH cargo fuzz run --fuzz-dir $FUZZ --sanitizer none $target $artifact"
    fi
}

mapfile -t ALL < <(cd "$FUZZ/fuzz_targets" && printf '%s\n' *.rs | sed 's/\.rs$//')
if [[ ${1-} == -h || ${1-} == --help ]]; then
    usage
    exit 0
fi
SECONDS_EACH=30
if [[ ${1-} =~ ^[0-9]+$ ]]; then
    SECONDS_EACH=$1
    shift
fi
TARGETS=("$@")
[[ $# == 0 ]] && TARGETS=("${ALL[@]}")
for target in "${TARGETS[@]}"; do
    if [[ ! -f $FUZZ/fuzz_targets/$target.rs ]]; then
        usage >&2
        exit 2
    fi
done

install_cargo_fuzz
# Stable Rust has the coverage but no sanitizers; the crate under test has no unsafe code for them to look at.
(cd "$FUZZ" && cargo fuzz build --fuzz-dir "$FUZZ" --sanitizer none)
BIN="$FUZZ/target/$(rustc -vV | sed -n 's/^host: //p')/release"

ROWS=() FAILED=()
for target in "${TARGETS[@]}"; do
    run "$target"
done
printf '\n%-14s %12s %10s %7s %7s  %s\n' target executions per-second cov ft result
printf '%s\n' "${ROWS[@]}"
for target in ${FAILED[@]+"${FAILED[@]}"}; do
    explain "$target"
done
[[ ${#FAILED[@]} == 0 ]]
