//! What the consensus core costs by itself: a leader with two followers, all in one thread, with a
//! disk and a network that take no time. Prints the time per proposal that went all the way from
//! `propose` on the leader to `applied` on all three members, by how many share a round, and the
//! time per linearizable read.

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]

use std::time::Instant;

use bytes::Bytes;
use raft_node::raft::{
    Config, Configuration, EntryId, HardState, Index, NodeId, Proposal, RaftNode, RequestId,
    Restored, Role, SnapshotMeta,
};

const OPERATIONS: u64 = 200_000;

struct Cluster {
    nodes: Vec<RaftNode>,
    applied: u64,
    reads: u64,
    messages: u64,
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("positive")
}

fn node(raw: u64) -> RaftNode {
    let config = Config {
        id: id(raw),
        heartbeat_ticks: 5,
        election_ticks_min: 15,
        election_ticks_max: 30,
        leader_lost_delay_ticks_max: 2,
        append_bytes_max: 1 << 20,
        inflight_messages_max: 256,
        inflight_bytes_max: 8 << 20,
        uncommitted_bytes_max: 64 << 20,
        reads_pending_max: 4096,
        ready_bytes_max: 4 << 20,
        addresses: std::collections::BTreeMap::new(),
        address_overrides: std::collections::BTreeMap::new(),
        seed: 1,
    };
    let base = SnapshotMeta {
        last: EntryId::default(),
        config: Configuration::of_voters((1..=3).map(id)),
    };
    let hard_state = HardState::default();
    RaftNode::new(config, Restored { hard_state, base, entries: Vec::new(), applied: Index(0) })
}

impl Cluster {
    fn new() -> Self {
        let nodes = (1..=3).map(node).collect();
        let mut cluster = Self { nodes, applied: 0, reads: 0, messages: 0 };
        cluster.nodes[0].campaign();
        cluster.settle();
        assert!(cluster.nodes[0].role() == Role::Leader, "nothing stood in its way");
        cluster
    }

    /// Does what the nodes ask for until they ask for nothing.
    fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for at in 0..self.nodes.len() {
                let mut ready = self.nodes[at].ready();
                if ready.is_empty() {
                    continue;
                }
                quiet = false;
                if let Some(batch) = ready.persist {
                    self.nodes[at].persisted(batch.seq);
                    ready.messages.extend(batch.messages_after);
                }
                if let Some(last) = ready.committed.last() {
                    self.applied += ready.committed.len() as u64;
                    self.nodes[at].applied(last.id.index);
                }
                self.reads += ready.reads.len() as u64;
                self.messages += ready.messages.len() as u64;
                for message in ready.messages {
                    let to = usize::try_from(message.to.get() - 1).expect("one of three");
                    self.nodes[to].step(message);
                }
            }
        }
        for node in &mut self.nodes {
            let applied = node.applied_index();
            node.compact(Index(applied.0.saturating_sub(1000)));
        }
    }
}

fn report(what: &str, operations: u64, started: Instant, messages: u64) {
    let nanos = started.elapsed().as_nanos() / u128::from(operations);
    let per = messages as f64 / operations as f64;
    println!("{what:32} {nanos:6} ns each, {per:.2} messages each");
}

fn main() {
    for batch in [1, 16, 256] {
        let mut cluster = Cluster::new();
        let (data, origin) = (Bytes::from(vec![7; 256]), id(1));
        let mut sequence = 0;
        let (before, started) = (cluster.messages, Instant::now());
        for _ in 0..OPERATIONS / batch {
            let proposals = (0..batch).map(|_| {
                sequence += 1;
                Proposal { id: RequestId { origin, sequence }, data: data.clone() }
            });
            cluster.nodes[0].propose(proposals.collect());
            cluster.settle();
        }
        assert!(cluster.applied > sequence * 3, "all applied everything, and a no-op");
        let what = format!("propose to applied, {batch} at a time");
        report(&what, sequence, started, cluster.messages - before);
    }
    for batch in [1, 256] {
        let mut cluster = Cluster::new();
        let (before, started) = (cluster.messages, Instant::now());
        for round in 0..OPERATIONS / batch {
            for nth in 0..batch {
                let sequence = round * batch + nth;
                cluster.nodes[0].read_index(RequestId { origin: id(1), sequence });
            }
            cluster.settle();
        }
        let what = format!("read, {batch} at a time");
        report(&what, cluster.reads, started, cluster.messages - before);
    }
}
