//! One member's door for votes, with a disk that takes its time and candidates who ask there and as
//! peers. What the door grants must be on the disk by then: in the term that was asked for, and for
//! whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_node::node::{Effect, Event, Replica, ReplicaConfig};
use raft_node::raft::types::{Configuration, EntryId, Index, NodeId, PersistSeq, Term};
use raft_node::raft::types::{HardState, SnapshotMeta};
use raft_node::raft::{self, Body, LogCacheLimits, Message, Restored};

use super::Rng;

const STEPS: u64 = 60;

/// Whether the door of this seed told no lie.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut door = Door::new(seed);
    for _ in 0..STEPS {
        door.step()?;
    }
    Ok(())
}

struct Door {
    rng: Rng,
    replica: Replica<u32>,
    /// Batches under way.
    writing: VecDeque<(PersistSeq, HardState)>,
    /// Every vote that the disk ever held.
    durable: BTreeSet<(Term, NodeId)>,
    asked: BTreeMap<u32, (Term, NodeId)>,
    term: u64,
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("members are numbered from 1")
}

impl Door {
    fn new(seed: u64) -> Self {
        let restored = Restored {
            hard_state: HardState::default(),
            base: SnapshotMeta {
                last: EntryId::default(),
                config: Configuration::of_voters([1, 2, 3].map(id)),
            },
            entries: Vec::new(),
            applied: Index(0),
        };
        Self {
            rng: Rng::new(seed),
            replica: Replica::new(config(seed), restored, Index(0), 0),
            writing: VecDeque::new(),
            durable: BTreeSet::new(),
            asked: BTreeMap::new(),
            term: 1,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.term += self.rng.below(2);
        let (candidate, term) = (self.rng.of(&[id(2), id(3)]), Term(self.term));
        match self.rng.below(4) {
            0 => {
                let body = Body::RequestVote {
                    last: EntryId::default(),
                    pre_vote: false,
                    transfer: false,
                };
                let message = Message { from: candidate, to: id(1), term, body };
                self.replica.handle(Event::Message(message));
            }
            1 => {
                let ticket = self.asked.len() as u32;
                self.asked.insert(ticket, (term, candidate));
                self.replica.handle(Event::VoteRequest { candidate, term, ticket });
            }
            _ => {
                if let Some((seq, hard_state)) = self.writing.pop_front() {
                    self.durable.extend(hard_state.vote.map(|vote| (hard_state.term, vote)));
                    self.replica.handle(Event::Persisted { seq });
                }
            }
        }
        self.replica.flush().into_iter().try_for_each(|effect| self.look(effect))
    }

    fn look(&mut self, effect: Effect<u32>) -> Result<(), String> {
        match effect {
            Effect::Persist(batch) => self.writing.push_back((batch.seq, batch.hard_state)),
            Effect::VoteReply { ticket, granted: true } => {
                let vote = self.asked[&ticket];
                if !self.durable.contains(&vote) {
                    return Err(format!("a grant of {vote:?} that is not on the disk"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn config(seed: u64) -> ReplicaConfig {
    ReplicaConfig {
        raft: raft::Config {
            id: id(1),
            heartbeat_ticks: 3,
            election_ticks_min: 10,
            election_ticks_max: 20,
            leader_lost_delay_ticks_max: 2,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 8,
            inflight_bytes_max: 1 << 20,
            uncommitted_bytes_max: 1 << 20,
            reads_pending_max: 8,
            ready_bytes_max: 1 << 20,
            addresses: std::collections::BTreeMap::new(),
            address_overrides: std::collections::BTreeMap::new(),
            seed,
        },
        first_sequence: 1,
        request_ticks: 1000,
        park_ticks: 40,
        disk_stall_ticks: 1000,
        proposals_max: 8,
        proposal_bytes_max: 1 << 20,
        reads_max: 8,
        log_cache_limits: LogCacheLimits { bytes_max: 1 << 20, lagging_bytes_max: 1 << 20 },
        snapshot_log_bytes_min: 1 << 20,
    }
}
