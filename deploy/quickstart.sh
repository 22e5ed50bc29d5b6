#!/usr/bin/env bash
# From a fresh machine to a sandbox that streams signed events, in one command. See --help.
set -euo pipefail

usage() {
    cat <<'EOF'
Takes this machine to a sandbox that streams signed events.

usage: deploy/quickstart.sh [--repo DIR] [--bin DIR] [--keep] [--port N]
       deploy/quickstart.sh --down

It installs what is missing (Docker engine, busybox, git, a C compiler), builds the programs, starts a broker on its defaults, makes
a dispatcher key, adds this machine as a host, starts the operator and its egress process, builds a small image from this machine's
own packages, and runs a sandbox that clones a git repository, works through it and writes a report. You see its events live.

  --repo DIR   the git repository to work through (default: the one this script is in)
  --bin DIR    use the programs in DIR (outhaul, outhaul-agent, outhaul-sandbox) instead of building them
  --keep       leave broker, operator and egress running; --down ends them
  --port N     the broker's port on the loopback address (default: 8443, or a free one)
  --down       end what an earlier run with --keep left, and remove its files

Everything it makes lies in one directory (OUTHAUL_QUICKSTART_DIR, default /var/lib/outhaul-quickstart), which is removed at the end
unless --keep is given, as is its image. Packages that it installed stay. Run it as root, or as a user who may use sudo.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/.." && pwd)
dir=${OUTHAUL_QUICKSTART_DIR:-/var/lib/outhaul-quickstart}
image=outhaul-quickstart:1
host=quickstart
target=x86_64-unknown-linux-gnu
repo=$top bin='' keep='' down='' port=''
installed=() steps=8 step=0 started=''

fail() {
    printf 'quickstart: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '  what to do: %s\n' "$2" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --repo) repo=${2:?--repo needs a directory}; shift 2 ;;
        --bin) bin=${2:?--bin needs a directory}; shift 2 ;;
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --keep) keep=yes; shift ;;
        --down) down=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option $1" ;;
    esac
done

sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "this needs root, and there is no sudo" "run it as root"
    sudo=(sudo)
fi
as_root() { "${sudo[@]}" "$@"; }

# --- what people see ---------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

begin_step() {
    step=$((step + 1))
    printf '\n[%d/%d] %s\n' "$step" "$steps" "$1"
}

# Runs a long command with a bar that fills as lines come, out of an expected number; its output goes to a file, shown if it fails.
with_bar() {
    local expected=$1 log=$2 lines width=40 filled
    shift 2
    "$@" >"$log" 2>&1 &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then
            lines=$(wc -l <"$log")
            [ "$lines" -le "$expected" ] || lines=$expected
            filled=$((lines * width / expected))
            printf '\r      [%-*s] %3d %%' "$width" "$(printf '%*s' "$filled" '' | tr ' ' '#')" "$((lines * 100 / expected))"
        fi
        sleep 0.5
    done
    if wait "$pid"; then
        [ ! -t 1 ] || printf '\r      [%s] 100 %%\n' "$(printf '%*s' "$width" '' | tr ' ' '#')"
    else
        printf '\n' >&2
        tail -n 25 "$log" >&2
        return 1
    fi
}

# Waits until a command succeeds; gives up after so many seconds.
wait_for() {
    local seconds=$1 end
    shift
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# --- ending ------------------------------------------------------------------------------------------------------------------

# Ends a program by its pid file, and waits until it is gone.
end_program() {
    local file=$dir/$1.pid pid
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    as_root kill "$pid" 2>/dev/null || true
    wait_for 10 bash -c "! kill -0 $pid 2>/dev/null && ! [ -e /proc/$pid ]" || as_root kill -9 "$pid" 2>/dev/null || true
    rm -f "$file"
}

end_everything() {
    end_program operator
    if command -v docker >/dev/null && as_root docker info >/dev/null 2>&1; then
        local containers
        containers=$(as_root docker ps -aq --filter "label=outhaul.host=$host")
        # shellcheck disable=SC2086 # one word for each container
        [ -z "$containers" ] || as_root docker rm -f $containers >/dev/null
        as_root docker image rm -f "$image" >/dev/null 2>&1 || true
    fi
    end_program egress
    end_program broker
    if [ -f "$dir/dockerd.started" ]; then
        end_program dockerd
    fi
    as_root rm -rf "$dir"
}

at_exit() {
    local code=$?
    trap - EXIT INT TERM
    if [ -n "$started" ]; then
        if [ "$code" -ne 0 ] && [ -d "$dir/log" ]; then
            printf '\nthe last lines of the logs:\n' >&2
            tail -n 5 "$dir"/log/{broker,egress,operator}.log >&2 2>/dev/null || true
        fi
        if [ -n "$keep" ] && [ "$code" -eq 0 ]; then
            :
        else
            end_everything
            say "ended: every process, container, image and file that this run made is gone"
            [ ${#installed[@]} -eq 0 ] || say "kept: the packages it installed: ${installed[*]}"
        fi
    fi
    exit "$code"
}

if [ -n "$down" ]; then
    [ -d "$dir" ] || { say "nothing to end: $dir is not there"; exit 0; }
    end_everything
    say "ended: every process, container, image and file of the quickstart is gone"
    exit 0
fi

# --- beginning ---------------------------------------------------------------------------------------------------------------

[ -d "$repo" ] || fail "--repo $repo is not a directory" "name a git repository"
repo=$(cd "$repo" && pwd)
if [ -d "$dir" ]; then
    if [ -f "$dir/kept" ] && kill -0 "$(cat "$dir/broker.pid" 2>/dev/null || echo 0)" 2>/dev/null; then
        fail "an earlier run with --keep is still there" "look at it with $dir/outhaul ps, or end it with deploy/quickstart.sh --down"
    fi
    say "cleaning up after an earlier run that did not end in order"
    end_everything
fi
trap at_exit EXIT
trap 'exit 130' INT TERM

need_package() {
    local program=$1 package=$2
    command -v "$program" >/dev/null || [ -x "/usr/bin/$program" ] || [ -x "/usr/sbin/$program" ] || missing+=("$package")
}

install_missing() {
    missing=()
    [ -x /usr/bin/git ] || missing+=(git)
    need_package busybox busybox-static
    need_package curl curl
    as_root docker info >/dev/null 2>&1 || need_package dockerd docker.io
    [ -n "$bin" ] || need_package cc build-essential
    [ ${#missing[@]} -gt 0 ] || { say "      nothing is missing"; return 0; }
    command -v apt-get >/dev/null || fail "${missing[*]} missing, and there is no apt-get" "install them with this machine's package manager"
    say "      installing: ${missing[*]}"
    with_bar 60 "$dir/log/apt.log" as_root env DEBIAN_FRONTEND=noninteractive bash -c \
        "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" ||
        fail "installing ${missing[*]} failed" "see above; install them by hand and run this again"
    installed=("${missing[@]}")
}

start_engine() {
    if as_root docker info >/dev/null 2>&1; then
        say "      an engine answers: $(as_root docker info --format '{{.ServerVersion}}')"
        return 0
    fi
    as_root systemctl start docker >/dev/null 2>&1 || as_root service docker start >/dev/null 2>&1 || true
    if ! wait_for 10 as_root docker info; then
        say "      no service manager starts it: starting dockerd by hand"
        as_root sh -c "dockerd >'$dir/log/dockerd.log' 2>&1 & echo \$! >'$dir/dockerd.pid'"
        touch "$dir/dockerd.started"
        wait_for 60 as_root docker info || {
            tail -n 5 "$dir/log/dockerd.log" >&2
            fail "the Docker engine does not start" "see above; start one by hand and run this again"
        }
    fi
    say "      the engine is up: $(as_root docker info --format '{{.ServerVersion}}')"
}

build_programs() {
    if [ -n "$bin" ]; then
        bin=$(cd "$bin" && pwd)
        for program in outhaul outhaul-agent outhaul-sandbox; do
            [ -x "$bin/$program" ] || fail "--bin $bin has no $program" "build it, or leave --bin out"
        done
        say "      using $bin"
        return 0
    fi
    command -v cargo >/dev/null || fail "there is no Rust toolchain to build with" \
        "install rustup (https://rustup.rs) and run this again, or name prebuilt programs with --bin DIR"
    say "      the broker and the command line (some minutes the first time)"
    with_bar 330 "$dir/log/build-broker.log" cargo build --manifest-path "$top/Cargo.toml" --locked --release --package broker ||
        fail "building the broker failed" "see above"
    say "      the operator and the shim, small and static"
    with_bar 260 "$dir/log/build-agent.log" env RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --manifest-path "$top/Cargo.toml" --locked --profile small --package agent --target "$target" ||
        fail "building the operator failed" "see above"
    local built=${CARGO_TARGET_DIR:-$top/target}
    bin=$dir/bin
    mkdir -p "$bin"
    cp "$built/release/outhaul" "$built/$target/small/outhaul-agent" "$built/$target/small/outhaul-sandbox" "$bin/"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

choose_port() {
    if [ -n "$port" ]; then
        port_is_free "$port" || fail "port $port is in use" "name another with --port"
        return 0
    fi
    for port in 8443 $(seq 18443 18463); do
        ! port_is_free "$port" || return 0
    done
    fail "no free port between 18443 and 18463" "name one with --port"
}

outhaul() { XDG_CONFIG_HOME=$dir/config OUTHAUL_SOCKET=$dir/broker/outhaul.sock "$bin/outhaul" "$@"; }

start_broker() {
    choose_port
    setsid "$bin/outhaul" serve --data-dir "$dir/broker" --listen "127.0.0.1:$port" --public-address "localhost:$port" \
        >"$dir/log/broker.log" 2>&1 </dev/null &
    echo $! >"$dir/broker.pid"
    wait_for 20 curl -fsS --cacert "$dir/broker/keys/ca.crt" "https://localhost:$port/readyz" || fail "the broker does not get ready" "see its log"
    say "      the broker listens on localhost:$port"
}

add_host() {
    outhaul dispatcher init
    outhaul host add "$host" --kind docker --out "$dir/bundle" >"$dir/log/host-add.log"
    say "      host $host added; its bundle holds a key that works once"
    # In the place of the bundle's own, which allows nothing.
    cat >"$dir/bundle/policy.toml" <<EOF
# What this host's owner allows, whatever a command asks for.
images = ["$image"]
# The default is "metadata": then no output leaves the host. The quickstart shows output, so it says "full".
content = "full"
parallel = 4

[sources]
project = "$repo"
EOF
    say "      its policy allows the image $image, the source \"project\" = $repo, and events with content (\"full\")"
}

start_operator() {
    local flags=(--bundle "$dir/bundle" --state-dir "$dir/operator" --run-dir "$dir/run")
    as_root mkdir -p "$dir/operator" "$dir/run"
    as_root chmod 0700 "$dir/operator"
    as_root chmod 0711 "$dir/run"
    # shellcheck disable=SC2016 # the inner shell expands them
    as_root sh -c 'setsid "$0" "$@" >'"'$dir/log/egress.log'"' 2>&1 </dev/null & echo $! >'"'$dir/egress.pid'" \
        "$bin/outhaul-agent" egress "${flags[@]}"
    # shellcheck disable=SC2016 # the inner shell expands them
    as_root sh -c 'setsid "$0" "$@" >'"'$dir/log/operator.log'"' 2>&1 </dev/null & echo $! >'"'$dir/operator.pid'" \
        "$bin/outhaul-agent" run "${flags[@]}" --policy "$dir/bundle/policy.toml"
    wait_for 20 host_is_connected || fail "the operator does not connect" "see its log"
    say "      the operator is connected; it opened no port"
}

host_is_connected() { outhaul host list --json | grep -q '"connected":true'; }

# A way to look around later, as long as it runs.
write_wrapper() {
    printf '#!/bin/sh\nXDG_CONFIG_HOME=%s/config OUTHAUL_SOCKET=%s/broker/outhaul.sock exec %s/outhaul "$@"\n' "$dir" "$dir" "$bin" >"$dir/outhaul"
    chmod 0755 "$dir/outhaul"
}

as_root mkdir -p "$dir"
[ "$(id -u)" -eq 0 ] || as_root chown "$(id -u):$(id -g)" "$dir"
chmod 0711 "$dir"
mkdir -p "$dir/log" "$dir/config"
chmod 0700 "$dir/log" "$dir/config"
started=yes

begin_step "what is missing"
install_missing
begin_step "the Docker engine"
start_engine
begin_step "the programs"
build_programs
begin_step "the broker"
start_broker
begin_step "a dispatcher key, and this machine as a host"
add_host
begin_step "the operator and its egress process"
start_operator
begin_step "the sandbox's image, from this machine's own packages"
as_root "$here/quickstart/image.sh" "$image" >"$dir/log/image.log" || fail "building the image failed" "see $dir/log/image.log"
say "      $image is built"
begin_step "the sandbox: it clones $repo, works through it and reports"
name=report-$(date +%H%M%S)
code=0
outhaul run --host "$host" --name "$name" --source project --content full "$image" -- /job/report.sh /sources/project || code=$?
say ''
outhaul ps -a
say ''
write_wrapper
if [ "$code" -ne 0 ]; then
    say "the sandbox ended with exit code $code"
    exit "$code"
fi
if [ -n "$keep" ]; then
    touch "$dir/kept"
    say "Everything runs on. Look around:"
    say "  $dir/outhaul logs $name          what it printed, verified again"
    say "  $dir/outhaul events              everything the channel carried"
    say "  $dir/outhaul run --source project --content full $image -- git -C /sources/project log -3"
    say "  deploy/quickstart.sh --down      to end it and remove its files"
else
    say "Run it with --keep to look around afterwards. Next: README.md, and ARCHITECTURE.md for how it works."
fi
