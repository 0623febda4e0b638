//! Whole members without sockets and disks: three replicas, an obliging world, and stories about
//! what becomes of requests. Faults in quantity are the simulator's business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::kv::{Command, PutRequest};
use crate::raft::{
    self, Configuration, EntryId, HardState, Index, LogCacheLimits, Message, NodeId, Payload,
    Restored, Role, SnapshotMeta, Term,
};

use super::error::RequestError;
use super::{Effect, Event, Replica, ReplicaConfig};

mod membership;
mod proposals;

/// What a ticket's owner heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Applied(Index),
    ReadReady,
    Moved,
    Changed,
    Vote(bool),
    Failed(RequestError),
}

/// Three members; every disk write and application succeeds at once.
struct Cluster {
    members: BTreeMap<NodeId, Replica<u32>>,
    network: VecDeque<Message>,
    down: BTreeSet<NodeId>,
    /// Whose disk takes writes and never says that they are done.
    hung: BTreeSet<NodeId>,
    applied: BTreeMap<NodeId, Vec<Bytes>>,
    heard: BTreeMap<u32, Heard>,
    /// Who knows that it was removed.
    removed: BTreeSet<NodeId>,
    /// Whom a member was last told to speak with.
    reached: Option<BTreeMap<NodeId, String>>,
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("positive")
}

fn config(member: NodeId) -> ReplicaConfig {
    ReplicaConfig {
        raft: raft::Config {
            id: member,
            heartbeat_ticks: 10,
            election_ticks_min: 30,
            election_ticks_max: 60,
            leader_lost_delay_ticks_max: 4,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 64,
            inflight_bytes_max: 4 << 20,
            uncommitted_bytes_max: 8 << 20,
            reads_pending_max: 1024,
            ready_bytes_max: 4 << 20,
            addresses: [1, 2, 3].map(|raw| (id(raw), format!("node{raw}:5001"))).into(),
            address_overrides: BTreeMap::new(),
            seed: 7,
        },
        first_sequence: 1,
        request_ticks: 1000,
        park_ticks: 120,
        disk_stall_ticks: 120,
        proposals_max: 8,
        proposal_bytes_max: 1 << 20,
        reads_max: 8,
        log_cache_limits: LogCacheLimits { bytes_max: 1 << 20, lagging_bytes_max: 1 << 20 },
        snapshot_log_bytes_min: 1 << 20,
    }
}

impl Cluster {
    fn new() -> Self {
        Self::with(config)
    }

    fn with(config: impl Fn(NodeId) -> ReplicaConfig) -> Self {
        let members = [1, 2, 3].map(id);
        let restored = || Restored {
            hard_state: HardState::default(),
            base: SnapshotMeta {
                last: raft::EntryId::default(),
                config: Configuration::of_voters(members),
            },
            entries: Vec::new(),
            applied: Index(0),
        };
        Self {
            members: members
                .map(|member| (member, Replica::new(config(member), restored(), Index(0), 0)))
                .into(),
            network: VecDeque::new(),
            down: BTreeSet::new(),
            hung: BTreeSet::new(),
            applied: BTreeMap::new(),
            heard: BTreeMap::new(),
            removed: BTreeSet::new(),
            reached: None,
        }
    }

    /// Whom a member was last told to speak with.
    fn reached_ids(&self) -> Vec<u64> {
        self.reached.iter().flatten().map(|(peer, _)| peer.get()).collect()
    }

    fn give(&mut self, to: u64, event: Event<u32>) {
        self.members.get_mut(&id(to)).expect("a member").handle(event);
    }

    /// Does what `member` wants done, and reports back, until it wants nothing more.
    fn perform(&mut self, member: NodeId) {
        loop {
            let replica = self.members.get_mut(&member).expect("a member");
            let effects = replica.flush();
            if effects.is_empty() {
                return;
            }
            let mut reports = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Send(message) => self.network.push_back(message),
                    Effect::Persist(_) if self.hung.contains(&member) => {}
                    Effect::Persist(batch) => reports.push(Event::Persisted { seq: batch.seq }),
                    Effect::Apply(entries) => {
                        for (entry, ticket) in entries {
                            if let Payload::Command(proposal) = entry.payload {
                                self.applied.entry(member).or_default().push(proposal.data);
                            }
                            if let Some(ticket) = ticket {
                                self.hear(ticket, Heard::Applied(entry.id.index));
                            }
                            reports.push(Event::Applied { index: entry.id.index, data_bytes: 0 });
                        }
                    }
                    Effect::ReadReady(tickets) => {
                        for ticket in tickets {
                            self.hear(ticket, Heard::ReadReady);
                        }
                    }
                    Effect::TransferDone(ticket) => self.hear(ticket, Heard::Moved),
                    Effect::ChangeDone(ticket) => self.hear(ticket, Heard::Changed),
                    Effect::Removed => {
                        self.removed.insert(member);
                    }
                    Effect::VoteReply { ticket, granted } => {
                        self.hear(ticket, Heard::Vote(granted));
                    }
                    Effect::Fail(ticket, why) => self.hear(ticket, Heard::Failed(why)),
                    Effect::Peers(table) => {
                        let reached = table.peers.clone().into_iter();
                        reports.extend(
                            reached
                                .filter(|(peer, _)| !self.down.contains(peer))
                                .map(|(peer, address)| Event::PeerReached { peer, address }),
                        );
                        self.reached = Some(table.peers);
                    }
                    Effect::SoftState(_) | Effect::Notice(_) => {}
                    Effect::Restore(_) | Effect::SaveSnapshot | Effect::SendSnapshot { .. } => {
                        unreachable!("nothing here is large enough for a snapshot")
                    }
                }
            }
            for report in reports {
                self.members.get_mut(&member).expect("a member").handle(report);
            }
        }
    }

    fn hear(&mut self, ticket: u32, what: Heard) {
        let before = self.heard.insert(ticket, what);
        assert_eq!(before, None, "ticket {ticket} was answered twice");
    }

    /// Delivers everything that is under way, and what comes of it.
    fn settle(&mut self) {
        let everyone: Vec<NodeId> = self.members.keys().copied().collect();
        loop {
            for member in &everyone {
                if !self.down.contains(member) {
                    self.perform(*member);
                }
            }
            if self.network.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                let reached = self.members.contains_key(&message.to)
                    && !self.down.contains(&message.to)
                    && !self.down.contains(&message.from);
                if reached {
                    self.give(message.to.get(), Event::Message(message));
                }
            }
        }
    }

    fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for member in [1, 2, 3] {
                if !self.down.contains(&id(member)) {
                    self.give(member, Event::Tick);
                }
            }
            self.settle();
        }
    }

    /// Lets time pass until somebody who is up leads, and everyone who is up knows.
    fn elect(&mut self) -> u64 {
        for _ in 0..2000 {
            self.tick(1);
            let up = || self.members.iter().filter(|(member, _)| !self.down.contains(member));
            let leader = up().find(|(_, replica)| replica.seen().role == Role::Leader);
            if let Some((leader, _)) = leader
                && up().all(|(_, replica)| replica.seen().leader == Some(*leader))
            {
                return leader.get();
            }
        }
        panic!("nobody was elected");
    }

    fn propose(&mut self, at: u64, ticket: u32) {
        self.give(at, Event::Propose { data: data(ticket), ticket });
    }
}

fn data(ticket: u32) -> Bytes {
    put(&ticket.to_be_bytes(), 0)
}

/// A command of `bytes` bytes more than it needs.
fn put(key: &[u8], bytes: usize) -> Bytes {
    let (key, value) = (Bytes::copy_from_slice(key), vec![0; bytes].into());
    Command::Put(PutRequest { key, value, ..PutRequest::default() }).encode()
}

fn follower_of(leader: u64) -> u64 {
    leader % 3 + 1
}

#[test]
fn a_command_is_answered_by_the_member_that_was_asked() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.propose(leader, 1);
    world.propose(follower_of(leader), 2);
    world.tick(11);
    assert!(matches!(world.heard[&1], Heard::Applied(_)), "{:?}", world.heard);
    assert!(matches!(world.heard[&2], Heard::Applied(_)), "{:?}", world.heard);
    for member in [1, 2, 3] {
        assert_eq!(world.applied[&id(member)], [data(1), data(2)]);
    }
}

#[test]
fn a_read_on_a_follower_waits_for_what_the_leader_has_committed() {
    let mut world = Cluster::new();
    let leader = world.elect();
    let reader = follower_of(leader);
    world.propose(leader, 1);
    world.settle();
    assert!(matches!(world.heard[&1], Heard::Applied(_)), "{:?}", world.heard);
    assert!(!world.applied.contains_key(&id(reader)), "nobody there waited for the write");
    world.give(reader, Event::Read { ticket: 2 });
    world.settle();
    assert_eq!(world.heard[&2], Heard::ReadReady);
    assert_eq!(world.applied[&id(reader)], [data(1)], "the read began after the write");
}

#[test]
fn a_command_lost_with_its_leader_is_applied_once_by_the_next() {
    let mut world = Cluster::new();
    let old = world.elect();
    let asked = follower_of(old);
    // The proposal leaves for the leader, which dies before it arrives.
    world.propose(asked, 1);
    world.perform(id(asked));
    world.down.insert(id(old));
    world.settle();
    world.give(asked, Event::PeerLost(id(old)));
    world.elect();
    world.tick(20);
    assert!(matches!(world.heard[&1], Heard::Applied(_)), "{:?}", world.heard);
    assert_eq!(world.applied[&id(asked)], [data(1)]);
}

#[test]
fn a_command_that_outlived_its_leader_is_not_applied_twice() {
    let mut world = Cluster::new();
    let old = world.elect();
    let asked = follower_of(old);
    // The entry reaches a quorum, but the leader dies before it can tell that it is committed.
    world.propose(asked, 1);
    world.perform(id(asked));
    for _ in 0..2 {
        for message in std::mem::take(&mut world.network) {
            world.give(message.to.get(), Event::Message(message));
        }
        for member in [1, 2, 3] {
            world.perform(id(member));
        }
    }
    world.down.insert(id(old));
    world.settle();
    for member in [1, 2, 3] {
        world.give(member, Event::PeerLost(id(old)));
    }
    world.elect();
    world.tick(20);
    assert!(matches!(world.heard[&1], Heard::Applied(_)), "{:?}", world.heard);
    assert_eq!(world.applied[&id(asked)], [data(1)]);
}

#[test]
fn a_command_that_comes_with_news_of_a_new_term_is_submitted_once() {
    let mut world = Cluster::new();
    let says = |from: u64, term: u64, body| {
        Event::Message(Message { from: id(from), to: id(1), term: Term(term), body })
    };
    world
        .give(1, says(2, 1, raft::Body::Heartbeat { commit: Index(0), round: 1, successor: None }));
    world.perform(id(1));
    // In one turn: another leader, of a later term, and a client's command.
    world
        .give(1, says(3, 2, raft::Body::Heartbeat { commit: Index(0), round: 1, successor: None }));
    world.propose(1, 1);
    world.perform(id(1));
    // The first entry of that term is applied. It says nothing of what was submitted in it.
    let noop_id = EntryId { term: Term(2), index: Index(1) };
    let noop = raft::Entry { id: noop_id, payload: Payload::Noop };
    let (prev, entries, commit) = (EntryId::default(), vec![noop], Index(1));
    world.give(1, says(3, 2, raft::Body::Append { prev, entries, commit }));
    world.perform(id(1));
    let passed_on = |message: &&Message| matches!(message.body, raft::Body::Propose { .. });
    assert_eq!(world.network.iter().filter(passed_on).count(), 1);
}

#[test]
fn requests_without_a_leader_fail_soon_and_then_at_once() {
    let mut world = Cluster::new();
    world.down.extend([id(2), id(3)]);
    world.propose(1, 1);
    world.give(1, Event::Read { ticket: 2 });
    world.tick(119);
    assert!(world.heard.is_empty(), "a leader may yet appear: {:?}", world.heard);
    world.tick(1);
    assert_eq!(world.heard[&1], Heard::Failed(RequestError::NoLeader));
    assert_eq!(world.heard[&2], Heard::Failed(RequestError::NoLeader));
    world.propose(1, 3);
    world.settle();
    assert_eq!(world.heard[&3], Heard::Failed(RequestError::NoLeader));
}

#[test]
fn more_requests_than_the_bound_are_refused() {
    let mut world = Cluster::new();
    for ticket in 0..10 {
        world.propose(1, ticket);
        world.give(1, Event::Read { ticket: 100 + ticket });
    }
    world.settle();
    let refused = |ticket: &u32| {
        world.heard.get(ticket) == Some(&Heard::Failed(RequestError::TooManyRequests))
    };
    assert_eq!((0..10).filter(refused).count(), 2);
    assert_eq!((100..110).filter(refused).count(), 2);
}

#[test]
fn a_stopping_leader_hands_over_and_its_clients_lose_nothing() {
    let mut world = Cluster::new();
    let old = world.elect();
    world.give(old, Event::Stop);
    world.propose(old, 1);
    world.give(old, Event::Read { ticket: 2 });
    world.settle();
    world.tick(12);
    assert!(world.members[&id(old)].stopped());
    assert!(matches!(world.heard[&1], Heard::Applied(_)), "{:?}", world.heard);
    assert_eq!(world.heard[&2], Heard::ReadReady);
}

#[test]
fn leadership_moves_to_whom_the_operator_names() {
    let mut world = Cluster::new();
    let old = world.elect();
    let next = follower_of(old);
    world.give(old, Event::Transfer { to: Some(id(next)), ticket: 1 });
    world.give(next, Event::Transfer { to: None, ticket: 2 });
    world.give(old, Event::Transfer { to: Some(id(9)), ticket: 3 });
    world.settle();
    world.tick(1);
    assert_eq!(world.heard[&1], Heard::Moved);
    assert_eq!(world.heard[&2], Heard::Failed(RequestError::NotLeader));
    assert_eq!(world.heard[&3], Heard::Failed(RequestError::BadTransferee));
    assert_eq!(world.members[&id(next)].seen().role, Role::Leader);
}

#[test]
fn a_vote_is_refused_while_the_leader_lives_and_to_logs_that_lack_entries() {
    let mut world = Cluster::new();
    let leader = world.elect();
    let asked = follower_of(leader);
    let candidate = id(follower_of(asked));
    let term = |world: &Cluster| world.members[&id(asked)].raft().term();
    let next = Term(term(&world).0 + 1);
    world.give(asked, Event::VoteRequest { candidate, term: next, ticket: 1 });
    world.settle();
    assert_eq!(world.heard[&1], Heard::Vote(false));
    assert!(term(&world) < next, "a request that a live leader refutes changes no term");
}

#[test]
fn a_vote_for_a_fellow_with_an_equally_empty_log_is_given() {
    let mut world = Cluster::new();
    world.give(1, Event::VoteRequest { candidate: id(2), term: Term(5), ticket: 1 });
    world.give(1, Event::VoteRequest { candidate: id(3), term: Term(5), ticket: 2 });
    world.give(1, Event::VoteRequest { candidate: id(9), term: Term(6), ticket: 3 });
    world.settle();
    assert_eq!(world.heard[&1], Heard::Vote(true));
    assert_eq!(world.heard[&2], Heard::Vote(false), "one vote in a term");
    assert_eq!(world.heard[&3], Heard::Vote(false), "a stranger");
}

#[test]
fn a_vote_given_in_an_earlier_term_does_not_answer_for_a_later_one() {
    let mut world = Cluster::new();
    let voter = world.members.get_mut(&id(1)).expect("a member");
    let body =
        raft::Body::RequestVote { last: EntryId::default(), pre_vote: false, transfer: false };
    // The candidate itself asks; the vote is on its way to the disk when somebody asks again.
    voter.handle(Event::Message(Message { from: id(2), to: id(1), term: Term(5), body }));
    let mut batches = VecDeque::new();
    let persisted = |effects: Vec<Effect<u32>>, batches: &mut VecDeque<_>| {
        let batch = |effect| match effect {
            Effect::Persist(batch) => Some(batch.seq),
            other => {
                let told = matches!(other, Effect::VoteReply { .. });
                assert!(!told, "the vote of term 6 is not durable: {other:?}");
                None
            }
        };
        batches.extend(effects.into_iter().filter_map(batch));
    };
    persisted(voter.flush(), &mut batches);
    voter.handle(Event::VoteRequest { candidate: id(2), term: Term(6), ticket: 1 });
    persisted(voter.flush(), &mut batches);
    assert_eq!(batches.len(), 2, "a vote in each term");
    voter.handle(Event::Persisted { seq: batches[0] });
    persisted(voter.flush(), &mut batches);
    voter.handle(Event::Persisted { seq: batches[1] });
    let effects = voter.flush();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::VoteReply { ticket: 1, granted: true })),
        "{effects:?}"
    );
}

#[test]
fn a_disk_that_hangs_shows_and_costs_the_leadership() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.hung.insert(id(leader));
    world.propose(leader, 1);
    world.tick(200);
    assert!(world.members[&id(leader)].disk_stalled());
    assert_ne!(world.members[&id(leader)].seen().role, Role::Leader);
}

/// Each try would write until there is no room, for as long as there is none.
#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again_ever_more_rarely() {
    let base = SnapshotMeta { last: EntryId::default(), config: Configuration::of_voters([id(1)]) };
    let restored = Restored {
        hard_state: HardState::default(),
        base: base.clone(),
        entries: Vec::new(),
        applied: Index(0),
    };
    let mut replica: Replica<u32> = Replica::new(config(id(1)), restored, Index(0), 2 << 20);
    let longest = u64::from(config(id(1)).raft.election_ticks_max) << 6;
    let (mut asked_at, mut now) = (Vec::new(), 0);
    replica.handle(Event::Shrunk { data_bytes: 0 });
    while asked_at.len() < 10 {
        for effect in replica.flush() {
            if matches!(effect, Effect::SaveSnapshot) {
                asked_at.push(now);
                replica.handle(Event::SnapshotFailed);
            }
        }
        replica.handle(Event::Tick);
        now += 1;
    }
    let rests: Vec<u64> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(rests[0] <= 70, "the first comes soon: {rests:?}");
    assert!(rests.windows(2).all(|pair| pair[0] <= pair[1] + 8), "{rests:?}");
    assert!(rests[8].abs_diff(longest) <= 8, "{rests:?}");
    // One that succeeds ends it.
    while !replica.flush().iter().any(|effect| matches!(effect, Effect::SaveSnapshot)) {
        replica.handle(Event::Tick);
    }
    replica.handle(Event::SnapshotSaved { meta: base });
    for _ in 0..2 * longest {
        replica.handle(Event::Tick);
        assert!(!replica.flush().iter().any(|effect| matches!(effect, Effect::SaveSnapshot)));
    }
}
