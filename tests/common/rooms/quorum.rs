//! The core's rule for changes of the voters: never to voters of whom too few are in touch.
//!
//! A leader among members of whom some are dead, for longer than an election timeout, is asked to
//! remove voters. It must do so exactly if most of the remaining ones are alive: a cluster that
//! gave its quorum away would never get it back. Or it is asked to record other addresses of
//! voters, at which they were not reached: they count as out of touch from then on.

use std::collections::BTreeMap;

use raft_node::raft::{
    Body, Change, ChangeError, Config, Configuration, EntryId, HardState, Index, Message, NodeId,
    RaftNode, Refusal, RequestId, Restored, Role, SnapshotMeta,
};

use super::Rng;

/// The shortest election time-out.
pub const ELECTION_TICKS: u32 = 10;

/// The members that live; what is said to the others is lost.
struct Cluster {
    alive: BTreeMap<NodeId, RaftNode>,
    refused: Vec<Refusal>,
}

/// One cluster, one request.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let count = rng.of(&[3, 4, 5]);
    let ids: Vec<NodeId> = (1..=count).map(id).collect();
    let dead = rng.below((count - 1) / 2 + 1) as usize;
    let alive = &ids[..ids.len() - dead];
    let mut cluster = Cluster::new(&ids, alive, seed);
    let leader = cluster.settle()?;
    if rng.one_in(2) {
        return cluster.judge_moves(leader, &ids, &mut rng);
    }
    let gone: Vec<NodeId> =
        ids.iter().copied().filter(|id| *id != leader && rng.one_in(3)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let stay = || ids.iter().filter(|id| !gone.contains(id));
    let enough = stay().filter(|id| alive.contains(id)).count() > stay().count() / 2;
    let node = cluster.alive.get_mut(&leader).expect("it leads");
    let changes = gone.iter().map(|id| Change::Remove(*id)).collect();
    node.change_membership(RequestId { origin: leader, sequence: 1 }, changes);
    for _ in 0..10 * ELECTION_TICKS {
        cluster.tick();
    }
    let told = || format!("{gone:?} were to go from {ids:?}, of whom {alive:?} live");
    let refused = cluster.refused.contains(&Refusal::Change(ChangeError::NoQuorum));
    let voters = &cluster.alive[&leader].membership().voters;
    let done = stay().eq(voters) && !cluster.alive[&leader].membership().is_joint();
    match (enough, refused, done) {
        (true, false, true) | (false, true, false) => Ok(()),
        (true, ..) => Err(format!("{}, and it was not done: {voters:?} vote", told())),
        (false, ..) => Err(format!("{}, and it was begun: a quorum is given up", told())),
    }
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("counted from one")
}

impl Cluster {
    fn new(ids: &[NodeId], alive: &[NodeId], seed: u64) -> Self {
        let first = Configuration::of_voters(ids.iter().copied());
        let node = |id: &NodeId| {
            let base = SnapshotMeta { last: EntryId::default(), config: first.clone() };
            let (hard_state, applied) = (HardState::default(), Index(0));
            let restored = Restored { hard_state, base, entries: Vec::new(), applied };
            (*id, RaftNode::new(config(*id, seed), restored))
        };
        Self { alive: alive.iter().map(node).collect(), refused: Vec::new() }
    }

    /// Voters are said to be where the leader did not reach them: done exactly if the others that
    /// are alive make a quorum.
    fn judge_moves(&mut self, leader: NodeId, ids: &[NodeId], rng: &mut Rng) -> Result<(), String> {
        let alive: Vec<NodeId> = self.alive.keys().copied().collect();
        let node = self.alive.get_mut(&leader).expect("it leads");
        for id in &alive {
            node.peer_reached(*id, Some(format!("host{id}:5001")));
        }
        let moved: Vec<NodeId> =
            ids.iter().copied().filter(|id| *id != leader && rng.one_in(2)).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let staying = alive.iter().filter(|id| !moved.contains(id)).count();
        let enough = staying > ids.len() / 2;
        let to = |id: &NodeId| Change::UpdateAddress { id: *id, address: format!("nowhere{id}:9") };
        node.change_membership(
            RequestId { origin: leader, sequence: 1 },
            moved.iter().map(to).collect(),
        );
        for _ in 0..10 * ELECTION_TICKS {
            self.tick();
        }
        let refused = self.refused.contains(&Refusal::Change(ChangeError::NoQuorum));
        if refused == enough {
            let what = if enough { "refused" } else { "done" };
            return Err(format!("{moved:?} of {ids:?} were to move, {alive:?} live: {what}"));
        }
        Ok(())
    }

    /// Until somebody leads, and knows who is dead.
    fn settle(&mut self) -> Result<NodeId, String> {
        for _ in 0..40 * ELECTION_TICKS {
            self.tick();
        }
        let leads = |(_, node): &(&NodeId, &RaftNode)| node.role() == Role::Leader;
        let leader = self.alive.iter().find(leads).map(|(id, _)| *id);
        leader.ok_or_else(|| "a majority lives, and nobody leads".to_owned())
    }

    /// Time passes, and everything that is said arrives.
    fn tick(&mut self) {
        self.alive.values_mut().for_each(RaftNode::tick);
        let mut said = self.work();
        while !said.is_empty() {
            for message in said {
                if let Some(node) = self.alive.get_mut(&message.to) {
                    node.step(message);
                }
            }
            said = self.work();
        }
    }

    /// Everybody does what there is to do. What they say comes back.
    fn work(&mut self) -> Vec<Message> {
        let mut said = Vec::new();
        for node in self.alive.values_mut() {
            loop {
                let ready = node.ready();
                if ready.is_empty() {
                    break;
                }
                said.extend(ready.messages);
                self.refused.extend(ready.refused.iter().map(|(_, why)| *why));
                if let Some(batch) = ready.persist {
                    said.extend(batch.messages_after);
                    node.persisted(batch.seq);
                }
                if let Some(last) = ready.committed.last() {
                    node.applied(last.id.index);
                }
            }
        }
        // Nobody forgets a log here, so nobody needs a snapshot.
        said.retain(|message| !matches!(message.body, Body::InstallSnapshot { .. }));
        said
    }
}

/// Settings of a small member.
pub fn config(id: NodeId, seed: u64) -> Config {
    Config {
        id,
        heartbeat_ticks: 2,
        election_ticks_min: ELECTION_TICKS,
        election_ticks_max: 2 * ELECTION_TICKS,
        leader_lost_delay_ticks_max: 1,
        append_bytes_max: 1 << 20,
        inflight_messages_max: 16,
        inflight_bytes_max: 1 << 20,
        uncommitted_bytes_max: 1 << 20,
        reads_pending_max: 16,
        ready_bytes_max: 1 << 20,
        addresses: BTreeMap::new(),
        address_overrides: BTreeMap::new(),
        seed,
    }
}
