# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

note() { printf '    %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# section TITLE COMMAND...: runs the command under a heading that tells when it began.
SECTION=start
section() {
    SECTION=$1
    shift
    printf '\n=== %s (at %d:%02d)\n' "$SECTION" $((SECONDS / 60)) $((SECONDS % 60))
    "$@"
}

# Compose v2 where it is, else its predecessor, for whoever sources this.
# shellcheck disable=SC2034
COMPOSE=()
find_compose() {
    if docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        return 1
    fi
}

wait_healthy() {
    local deadline=$((SECONDS + 60)) name health
    for name in "$@"; do
        until health=$(docker inspect --format '{{.State.Health.Status}}' "$name") &&
            [[ $health == healthy ]]; do
            if ((SECONDS > deadline)); then
                docker logs --tail 50 "$name"
                die "$name is $health"
            fi
            sleep 0.1
        done
    done
}

# Debian packages that a fresh machine may lack. apt's lists are fetched only where one is missing.
need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null |
            grep -q 'install ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    note "installing ${missing[*]}"
    local log
    log=$(mktemp)
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends "${missing[@]}"
    } </dev/null >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "apt-get could not install ${missing[*]}"
    }
    rm -f "$log"
}
