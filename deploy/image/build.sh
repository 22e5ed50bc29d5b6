#!/usr/bin/env bash
# Builds the operator's image out of its two static programs. Asks no registry, and pushes to none.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: deploy/image/build.sh --bin DIR [--tag NAME:TAG] [--save FILE]

  --bin DIR    where outhaul-agent and outhaul-sandbox are, both static
  --tag        what the image is called (default: outhaul-agent:VERSION, as bundles call it)
  --save FILE  write it to a file too, for `docker load` on hosts without a registry

The programs are built by:
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile small --package agent --target x86_64-unknown-linux-gnu
EOF
}

fail() {
    printf 'build.sh: %s\n' "$1" >&2
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin='' tag='' save=''
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=${2:?--bin needs a directory}; shift 2 ;;
        --tag) tag=${2:?--tag needs a name}; shift 2 ;;
        --save) save=${2:?--save needs a file}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
[ -n "$bin" ] || { usage >&2; exit 2; }

# In an image from scratch there is no loader: a program that needs one would fail there without a word.
for program in outhaul-agent outhaul-sandbox; do
    [ -x "$bin/$program" ] || fail "$bin/$program is not there: build it (--help says how)"
    if ldd "$bin/$program" 2>/dev/null | grep -q '=>'; then
        fail "$bin/$program is linked dynamically: build it static (--help says how)"
    fi
done
[ -n "$tag" ] || tag=outhaul-agent:$("$bin/outhaul-agent" --version | awk '{ print $2 }')

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$here/Dockerfile" "$context/"
install -m 0755 "$bin/outhaul-agent" "$bin/outhaul-sandbox" "$context/"
# Engines without the buildx plugin still build the old way, and this image is the same either way.
if docker buildx version >/dev/null 2>&1; then
    docker build --quiet --network none --tag "$tag" "$context" >/dev/null
else
    DOCKER_BUILDKIT=0 docker build --quiet --network none --tag "$tag" "$context" 2>/dev/null >/dev/null ||
        fail "docker build failed: run it by hand to see why: docker build $here (with the two programs beside the Dockerfile)"
fi
if [ -n "$save" ]; then
    docker save --output "$save" "$tag"
fi
echo "$tag"
