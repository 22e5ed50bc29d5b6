#!/bin/sh
# Installs the operator of host @HOST@ on this machine. Runs as root, and is short: read it first.
#
# usage: ./install.sh compose     operator and egress process as containers of the image @IMAGE@
#        ./install.sh systemd     as services; outhaul-agent and outhaul-sandbox have to be in /usr/local/bin
#
# Run it again after you have edited policy.toml or agent.env, or with a fresh bundle. Sandboxes keep running.
# Variables: DOCKER_SOCKET (/var/run/docker.sock); with compose, OUTHAUL_STATE_DIR (/var/lib/outhaul-agent).
set -eu
cd "$(dirname "$0")"

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

# The host's keys lie in the state directory, and so does the install key until it is used up: there the operator can remove it.
prepare_state() { # user group
    install -d -m 0700 -o "$1" -g "$2" "$state" "$state/run"
    if [ -f install.key ]; then
        install -m 0600 -o "$1" -g "$2" install.key "$state/install.key"
        rm -f install.key
    fi
}

with_compose() {
    docker image inspect "@IMAGE@" >/dev/null 2>&1 ||
        fail "the image @IMAGE@ is not on this machine: load it (docker load), or build it (deploy/image/build.sh)"
    if docker compose version >/dev/null 2>&1; then
        compose='docker compose'
    elif command -v docker-compose >/dev/null; then
        compose=docker-compose
    else
        fail "neither \`docker compose\` nor docker-compose is there: install the compose plugin, or use ./install.sh systemd"
    fi
    prepare_state 10500 10500
    # The containers see this directory, read-only, as another user; no secret is left in it.
    chmod 0755 .
    chmod 0644 bundle.toml ca.crt policy.toml
    cat >.env <<EOF
COMPOSE_PROJECT_NAME=outhaul-@HOST@
DOCKER_GID=$(stat -L -c %g "$socket")
DOCKER_SOCKET=$socket
OUTHAUL_STATE_DIR=$state
EOF
    # Variables of the caller's shall not come in the way of those.
    # shellcheck disable=SC2086 # two words or one
    env -u COMPOSE_PROJECT_NAME -u COMPOSE_FILE -u DOCKER_GID -u DOCKER_SOCKET -u OUTHAUL_STATE_DIR \
        $compose up -d --force-recreate --remove-orphans
    echo "The operator of host @HOST@ runs. Its log: cd $PWD && $compose logs -f operator"
}

with_systemd() {
    [ "$state" = /var/lib/outhaul-agent ] || fail "the units keep state in /var/lib/outhaul-agent: leave OUTHAUL_STATE_DIR unset"
    for program in outhaul-agent outhaul-sandbox; do
        [ -x "/usr/local/bin/$program" ] || fail "/usr/local/bin/$program is not there: copy it there from the release"
    done
    install -D -m 0644 systemd/outhaul-agent.sysusers /etc/sysusers.d/outhaul-agent.conf
    systemd-sysusers /etc/sysusers.d/outhaul-agent.conf
    prepare_state outhaul-agent outhaul-agent
    install -d -m 0755 /etc/outhaul-agent
    install -m 0644 bundle.toml ca.crt /etc/outhaul-agent/
    for file in policy.toml agent.env; do
        # Yours, once it is there.
        [ -e "/etc/outhaul-agent/$file" ] || install -m 0644 "$file" /etc/outhaul-agent/
    done
    install -m 0644 systemd/outhaul-agent.service systemd/outhaul-egress.service /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable outhaul-egress.service outhaul-agent.service
    systemctl restart outhaul-egress.service outhaul-agent.service
    echo "The operator of host @HOST@ runs. Its settings and policy: /etc/outhaul-agent. Its log: journalctl -fu outhaul-agent"
}

state=${OUTHAUL_STATE_DIR:-/var/lib/outhaul-agent}
socket=${DOCKER_SOCKET:-/var/run/docker.sock}
case ${1:-} in
    compose | systemd) ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
[ "$(id -u)" -eq 0 ] || fail "this needs root: sudo ./install.sh $1"
[ -S "$socket" ] || fail "no engine listens at $socket: start it, or name its socket with DOCKER_SOCKET"
"with_$1"
