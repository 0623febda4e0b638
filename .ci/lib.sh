# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

note() { printf '    %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
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
