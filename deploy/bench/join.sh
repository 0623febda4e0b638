#!/usr/bin/env bash
# A fourth member joins three that hold a gigabyte, while writes go on.
#
#   deploy/bench/join.sh [KEYS] [VALUE_BYTES]        (default 1000000 keys of 1024 bytes)
#
# Prints the latency of writes at the leader before and during, how long the new member took to be
# a voter that has everything, and what memory the leader (which sends the snapshot) and the new
# member (which receives it) took. Environment, all optional:
#   DRILL, NODE       the binaries (default: target/release/…, built when missing)
#   CLIENTS           writers under way at any time, all at the leader (default 8)
#   PORT_BASE         the ports of the members are counted from here (default 23790)
#   BENCH_DIR         data (default: a temporary directory; must be on a real disk)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/bench/lib.sh
source "$here/lib.sh"

keys=${1:-1000000}
value_bytes=${2:-1024}
[[ $keys =~ ^[1-9][0-9]*$ ]] || fail "KEYS must be a positive number, not '$keys'"
[[ $value_bytes =~ ^[1-9][0-9]*$ ]] || fail "VALUE_BYTES is no positive number: '$value_bytes'"
clients=${CLIENTS:-8}
work=${BENCH_DIR:-$(mktemp -d)}
drill=${DRILL:-$root/target/release/raft-drill}
raft=${NODE:-$root/target/release/raft-node}
joiner_client=$((PORT_BASE + 4))
joiner_peer=$((PORT_BASE + 14))
window_s=2

finish() {
  stop_cluster
  rm -rf "$work/data"
  [[ -n ${BENCH_DIR:-} ]] || rm -rf "$work"
}
trap finish EXIT

if [[ ! -x $drill || ! -x $raft ]]; then
  (cd "$root" && cargo build --release --bins)
fi

# latency LABEL: one window of writes at the leader.
latency() {
  "$drill" load put --endpoints "$ENDPOINTS" --target leader --clients "$clients" --connections 2 \
    --warmup-s 0 --duration-s "$window_s" --json --label "$1" |
    tee -a "$work/data/$1" | python3 -c '
import json, sys
report = json.load(sys.stdin)
errors = sum(report["errors"].values())
print("  {label:8} {per_second:7.0f} writes/s  p50 {p50_us:6.0f} µs  p99 {p99_us:7.0f} µs  "
      "max {max_us:7.0f} µs  generator late {generator_late_ms:3.0f} ms  errors {errors}"
      .format(**{**report, "errors": errors}))'
}

# median FILE: of the p99 of its windows, µs.
median() {
  python3 -c '
import json, statistics, sys
print(round(statistics.median(json.loads(line)["p99_us"] for line in open(sys.argv[1]))))' "$1"
}

# peak PID: the most memory that the process ever had since the mark was last reset, in MB.
peak() { awk '/^VmHWM:/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }
# now_mb PID
now_mb() { awk '/^VmRSS:/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }
reset_peak() { echo 5 >"/proc/$1/clear_refs"; }

# leader: the number of the member that leads, from 0.
leader() {
  local i
  for i in 0 1 2; do
    if env -i "RAFT_CLIENT_LISTEN=127.0.0.1:${CLIENT_PORTS[i]}" "$raft" health leader \
      >/dev/null 2>&1; then
      echo "$i"
      return
    fi
  done
  fail "nobody leads"
}

start_joiner() {
  mkdir -p "$work/data/n3"
  env -i RAFT_NODE_ID=4 "RAFT_JOIN=127.0.0.1:${PEER_PORTS[0]},127.0.0.1:${PEER_PORTS[1]}" \
    "RAFT_DATA_DIR=$work/data/n3" "RAFT_PEER_LISTEN=127.0.0.1:$joiner_peer" \
    "RAFT_CLIENT_LISTEN=127.0.0.1:$joiner_client" "$raft" >"$work/data/n3.log" 2>&1 &
  PIDS+=($!)
}

ready() { curl --silent --fail --max-time 1 --output /dev/null "http://127.0.0.1:$1/readyz"; }

main() {
  mkdir -p "$work/data"
  ports_free
  start_raft "$raft" "$work/data"
  wait_healthy "$drill" "$work/data"
  "$drill" fill --endpoints "$ENDPOINTS" --keys "$keys" --value-bytes "$value_bytes"
  local at pid before began took_ms i
  at=$(leader)
  pid=${PIDS[at]}
  for i in 1 2 3 4 5; do latency before; done
  before=$(now_mb "$pid")
  reset_peak "$pid"

  began=$(date +%s%N)
  start_joiner
  local joiner=${PIDS[3]}
  (
    until ready "$joiner_client"; do sleep 0.05; done
    date +%s%N >"$work/data/ready"
  ) &
  local watch=$!
  while kill -0 "$watch" 2>/dev/null; do
    (($(date +%s%N) - began < 300000000000)) || fail "not ready after five minutes"
    latency during
  done
  took_ms=$((($(<"$work/data/ready") - began) / 1000000))
  echo "  the new member was ready after $took_ms ms"
  echo "  leader: $before MB before, at most $(peak "$pid") MB"
  echo "  new member: at most $(peak "$joiner") MB, now $(now_mb "$joiner") MB"
  for i in 1 2 3; do latency after; done
  echo "  p99 before, median of the windows: $(median "$work/data/before") µs"
  echo "  p99 during, the same: $(median "$work/data/during") µs"
  "$drill" hash --endpoints "$ENDPOINTS,127.0.0.1:$joiner_client"
  grep -h -i snapshot "$work"/data/n*.log | tail -n 20
}

main
exit
