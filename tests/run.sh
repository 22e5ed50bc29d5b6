#!/usr/bin/env bash
# Runs every test: the README's second command. Installs and starts what they need, and ends with one line.
# usage: tests/run.sh [--quick] [--kills N] [--images N]
#   --quick     leaves out what needs a Docker engine, a release build or a fuzzer
#   --kills N   how often the broker is killed in the kill loop (50)
#   --images N  how many power cuts its recording is played into (400)
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
quick=''
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes ;;
        --kills) export OUTHAUL_KILLS=${2:?--kills N}; shift ;;
        --images) export OUTHAUL_IMAGES=${2:?--images N}; shift ;;
        *) echo "usage: tests/run.sh [--quick] [--kills N] [--images N]" >&2; exit 2 ;;
    esac
    shift
done

target=x86_64-unknown-linux-gnu
tools=$PWD/target/tools
export PATH=$tools/bin:$PATH CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
passed=0 failed=0 failures=() engine_pid=''
log=$(mktemp -d)
trap '[ -z "$engine_pid" ] || kill "$engine_pid" 2>/dev/null; rm -rf "$log"' EXIT

# Runs one step; its output is shown only if it fails. A step that runs tests adds their numbers to ours.
check() {
    local name=$1 start=$SECONDS file
    shift
    file=$log/$(tr -c 'a-z0-9\n' - <<<"$name")
    printf '%-34s ' "$name"
    if "$@" >"$file" 2>&1; then
        passed=$((passed + $(tests_in "$file")))
        printf 'ok      %4d s\n' $((SECONDS - start))
    else
        failed=$((failed + 1))
        failures+=("$name")
        printf 'FAILED  %4d s\n' $((SECONDS - start))
        tail -n 120 "$file"
    fi
}

# How many tests a step ran: what nextest says, or 1 for a step that is one check.
tests_in() {
    local count
    count=$(sed -n 's/.*Summary.* \([0-9][0-9]*\) tests\{0,1\} run: .*/\1/p' "$1" | tail -n 1)
    echo "${count:-1}"
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v shellcheck >/dev/null || missing+=(shellcheck)
    command -v curl >/dev/null || missing+=(curl)
    command -v strace >/dev/null || missing+=(strace)
    [ -x /usr/bin/git ] || missing+=(git)
    [ -x /bin/busybox ] || missing+=(busybox-static)
    command -v mosquitto_sub >/dev/null || missing+=(mosquitto-clients)
    command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
    command -v strace >/dev/null || missing+=(strace)
    command -v faketime >/dev/null || missing+=(faketime)
    command -v mkfs.ext4 >/dev/null || [ -x /usr/sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    [ -n "$quick" ] || docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || missing+=(docker-compose)
    [ -n "$quick" ] || command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || missing+=(docker.io)
    [ ${#missing[@]} -eq 0 ] || as_root env DEBIAN_FRONTEND=noninteractive bash -c \
        "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
}

install_tools() {
    command -v cargo-nextest >/dev/null || cargo install --locked --root "$tools" cargo-nextest || return 1
    command -v cargo-deny >/dev/null || cargo install --locked --root "$tools" cargo-deny
}

# What the verifier that is none of our code needs, and a COSE library that is not ours either.
install_python() {
    [ -x "$tools/python/bin/pip" ] || python3 -m venv "$tools/python" || return 1
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
        -r protocol/verify/requirements.txt -r tests/e2e/requirements.txt
}

start_engine() {
    docker info >/dev/null 2>&1 && return 0
    as_root systemctl start docker >/dev/null 2>&1 || as_root service docker start >/dev/null 2>&1
    local tries
    for tries in $(seq 1 600); do
        docker info >/dev/null 2>&1 && return 0
        if [ "$tries" -eq 50 ]; then
            as_root dockerd >"$log/dockerd" 2>&1 &
            engine_pid=$!
        fi
        sleep 0.1
    done
    tail -n 20 "$log/dockerd"
    return 1
}

# Advisories too, wherever their database can be reached.
check_dependencies() {
    cargo deny --locked check bans licenses sources || return 1
    if cargo deny --locked check advisories >"$log/advisories" 2>&1; then
        return 0
    elif grep -q 'failed to fetch advisory database' "$log/advisories"; then
        echo 'no advisory database within reach' >"$log/note"
    else
        cat "$log/advisories"
        return 1
    fi
}

# The programs as they ship: what runs on hosts small and static, and the probe that the tests put into a sandbox.
build_programs() {
    cargo build --locked --release --package broker --bins || return 1
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile small --target "$target" \
        --package agent --package tests --bins || return 1
    mkdir -p "$PWD/target/shipped"
    cp target/release/outhaul "target/$target/small/outhaul-agent" "target/$target/small/outhaul-sandbox" \
        "target/$target/small/probe" target/shipped/
}

check 'packages' install_packages
check 'tools' install_tools
check 'python' install_python
check 'format' cargo fmt --all --check
check 'lint' cargo clippy --workspace --all-targets --locked -- -D warnings
check 'scripts' shellcheck protocol/fuzz/run.sh broker/fuzz/run.sh deploy/quickstart.sh deploy/quickstart/image.sh deploy/quickstart/report.sh deploy/image/build.sh broker/src/core/bundle/install.sh tests/run.sh benches/footprint.sh benches/memory.sh benches/macro.sh
check 'dependencies' check_dependencies
check 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
[ -n "$quick" ] || check 'engine' start_engine
check 'unit tests' cargo nextest run --workspace --exclude protocol --lib --bins --locked
check 'protocol' cargo nextest run --package protocol --tests --locked
check 'golden vectors, in Python' "$tools/python/bin/python3" protocol/verify/vectors.py
check 'documentation tests' cargo test --doc --package protocol --locked
check 'tidy' cargo nextest run --package tests --test tidy --locked
check 'beside mosquitto' cargo nextest run --package tests --test differential --locked
check 'simulation' cargo nextest run --package tests --test sim --locked
if [ -z "$quick" ]; then
    check 'fuzzing' protocol/fuzz/run.sh 5
    check 'fuzzing of the gate' broker/fuzz/run.sh 20
    check 'build what ships' build_programs
    export OUTHAUL_BIN=$PWD/target/shipped
    check 'footprint' benches/footprint.sh target/shipped
    check 'memory' benches/memory.sh target/shipped
    check 'macro benches, small' benches/macro.sh --smoke --bin target/shipped
    check 'hostile cases' cargo nextest run --profile e2e --package tests --test hostile --locked
    check 'faults' cargo nextest run --profile e2e --package tests --test faults --locked
    check 'power cuts' cargo nextest run --profile e2e --package tests --test crash --locked
    check 'end to end' cargo nextest run --profile e2e --package tests --test e2e --locked
fi

[ ! -s "$log/note" ] || printf 'note: %s\n' "$(cat "$log/note")"
[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
