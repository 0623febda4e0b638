//! The way out: a [`Message`] as the `raft.v1` frame that says it, and the lane it takes.
//!
//! Checks nothing: what the core says is its own business, and the receiver's
//! [`codec`](super::decode) judges it.

use std::collections::BTreeSet;

use super::Introduction;
use super::decode::Lane;
use crate::proto::raft as wire;
use crate::raft::message::{Body, Message, Refusal};
use crate::raft::types::{
    Attributes, Configuration, Entry, EntryId, Index, NodeId, Payload, Proposal, RequestId,
    SnapshotMeta, Term,
};
use crate::raft::{ADDRESS_BYTES_MAX, Change, ChangeError, TargetRole};

/// What a frame costs beside its content, as counted against the queues.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// An encoded message, by the way it takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A call of its own.
    Call(Call),
    /// The answer of such a call.
    VoteReply(wire::VoteReply),
    /// Entries: the bulk lane.
    Append(wire::AppendRequest),
    /// The control lane.
    Heartbeat(wire::AppendRequest),
    /// Back on the stream that brought the entries.
    AppendReply(wire::AppendReply),
    /// Back on the stream that brought the heartbeat.
    HeartbeatReply(wire::AppendReply),
    /// To the leader.
    Forward(wire::ForwardRequest),
    /// Back to the follower.
    ForwardReply(wire::ForwardReply),
    /// Travels only with its content.
    Snapshot(wire::SnapshotFrame),
}

/// A message that is a call of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Answered by a vote, or not at all.
    Vote(wire::VoteRequest),
    /// Answered by nothing but the receipt.
    TimeoutNow(wire::TimeoutNowRequest),
}

/// Bytes that `message` counts for in a queue.
pub fn size_bytes(message: &Message) -> usize {
    let content = match &message.body {
        Body::Append { entries, .. } => entries.iter().map(Entry::size_bytes).sum(),
        Body::Propose { proposals } => {
            proposals.iter().map(|p| p.data.len() + FRAME_OVERHEAD_BYTES).sum()
        }
        Body::Refused { ids, .. } => ids.len() * FRAME_OVERHEAD_BYTES,
        Body::Members { ids } => ids.len() * size_of::<u64>(),
        Body::Change { changes, .. } => changes.len() * (FRAME_OVERHEAD_BYTES + ADDRESS_BYTES_MAX),
        Body::RequestVote { .. }
        | Body::Vote { .. }
        | Body::Appended { .. }
        | Body::Rejected { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::InstallSnapshot { .. }
        | Body::TimeoutNow
        | Body::Removed { .. }
        | Body::AskMembers
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => 0,
    };
    content + FRAME_OVERHEAD_BYTES
}

/// The frame that says `message` within `cluster`.
pub fn encode(cluster: u64, message: Message) -> Frame {
    let Message { from, to, term, body } = message;
    let cover = Envelope { route: Some(route(cluster, from, to)), term: term.0 };
    match body {
        Body::RequestVote { last, pre_vote, transfer } => cover.ask(last, pre_vote, transfer),
        Body::Vote { granted, pre_vote } => cover.vote(granted, pre_vote),
        Body::Append { prev, entries, commit } => cover.append(prev, entries, commit),
        Body::Appended { last } => cover.appended(last),
        Body::Rejected { prev, hint } => cover.rejected(prev, hint),
        Body::Heartbeat { commit, round, successor } => cover.heartbeat(commit, round, successor),
        Body::HeartbeatReply { round } => cover.heartbeat_reply(round),
        Body::InstallSnapshot { meta } => cover.snapshot(&meta),
        Body::TimeoutNow => cover.timeout_now(),
        Body::Propose { proposals } => cover.propose(proposals),
        Body::ReadIndex { id } => cover.read_index(id),
        Body::ReadIndexReply { id, index } => cover.read_index_reply(id, index),
        Body::Refused { ids, why } => cover.refused(ids, why),
        Body::Change { id, changes } => cover.change(id, changes),
        Body::Removed { pre_vote } => cover.removed(pre_vote),
        Body::AskMembers => cover.ask_members(),
        Body::Members { ids } => cover.members(&ids),
    }
}

/// What every frame begins with; each method puts one kind of content into it.
struct Envelope {
    route: Option<wire::Route>,
    term: u64,
}

impl Envelope {
    fn ask(self, last: EntryId, pre_vote: bool, transfer: bool) -> Frame {
        let Self { route, term } = self;
        let last = Some(entry_id_out(last));
        Frame::Call(Call::Vote(wire::VoteRequest { route, term, last, pre_vote, transfer }))
    }

    fn vote(self, granted: bool, pre_vote: bool) -> Frame {
        let Self { route, term } = self;
        Frame::VoteReply(wire::VoteReply { route, term, granted, pre_vote, removed: false })
    }

    fn removed(self, pre_vote: bool) -> Frame {
        let Self { route, term } = self;
        let granted = false;
        Frame::VoteReply(wire::VoteReply { route, term, granted, pre_vote, removed: true })
    }

    fn timeout_now(self) -> Frame {
        let Self { route, term } = self;
        Frame::Call(Call::TimeoutNow(wire::TimeoutNowRequest { route, term }))
    }

    fn append(self, prev: EntryId, entries: Vec<Entry>, commit: Index) -> Frame {
        let Self { route, term } = self;
        let (prev, entries) = (entry_id_out(prev), entries.into_iter().map(entry_out).collect());
        let append = wire::Append { prev: Some(prev), commit: commit.0, entries };
        let body = Some(wire::append_request::Body::Append(append));
        Frame::Append(wire::AppendRequest { route, term, body })
    }

    fn heartbeat(self, commit: Index, round: u64, successor: Option<NodeId>) -> Frame {
        let Self { route, term } = self;
        let successor = successor.map_or(0, NodeId::get);
        let beat = wire::Heartbeat { commit: commit.0, round, successor };
        let body = Some(wire::append_request::Body::Heartbeat(beat));
        Frame::Heartbeat(wire::AppendRequest { route, term, body })
    }

    fn append_reply(self, body: wire::append_reply::Body) -> wire::AppendReply {
        let Self { route, term } = self;
        wire::AppendReply { route, term, body: Some(body) }
    }

    fn appended(self, last: Index) -> Frame {
        let body = wire::append_reply::Body::Appended(wire::Appended { last: last.0 });
        Frame::AppendReply(self.append_reply(body))
    }

    fn rejected(self, prev: Index, hint: EntryId) -> Frame {
        let hint = Some(entry_id_out(hint));
        let body = wire::append_reply::Body::Rejected(wire::Rejected { prev: prev.0, hint });
        Frame::AppendReply(self.append_reply(body))
    }

    fn heartbeat_reply(self, round: u64) -> Frame {
        let body = wire::append_reply::Body::Heartbeat(wire::HeartbeatReply { round });
        Frame::HeartbeatReply(self.append_reply(body))
    }

    fn snapshot(self, meta: &SnapshotMeta) -> Frame {
        let header = snapshot_header(Term(self.term), meta);
        let body = Some(wire::snapshot_frame::Body::Header(header));
        Frame::Snapshot(wire::SnapshotFrame { route: self.route, body })
    }

    fn forward(self, body: wire::forward_request::Body) -> Frame {
        let Self { route, term } = self;
        Frame::Forward(wire::ForwardRequest { route, term, body: Some(body) })
    }

    fn propose(self, proposals: Vec<Proposal>) -> Frame {
        let proposals = proposals.into_iter().map(proposal_out).collect();
        self.forward(wire::forward_request::Body::Propose(wire::Propose { proposals }))
    }

    fn read_index(self, id: RequestId) -> Frame {
        let id = Some(request_id_out(id));
        self.forward(wire::forward_request::Body::ReadIndex(wire::ReadIndex { id }))
    }

    fn change(self, id: RequestId, changes: Vec<Change>) -> Frame {
        let id = Some(request_id_out(id));
        let changes = changes.into_iter().map(change_out).collect();
        self.forward(wire::forward_request::Body::Change(wire::ChangeRequest { id, changes }))
    }

    fn ask_members(self) -> Frame {
        self.forward(wire::forward_request::Body::AskMembers(wire::AskMembers {}))
    }

    fn members(self, ids: &[NodeId]) -> Frame {
        let ids = ids.iter().map(|id| id.get()).collect();
        self.forward_reply(wire::forward_reply::Body::Members(wire::Members { ids }))
    }

    fn forward_reply(self, body: wire::forward_reply::Body) -> Frame {
        let Self { route, term } = self;
        Frame::ForwardReply(wire::ForwardReply { route, term, body: Some(body) })
    }

    fn read_index_reply(self, id: RequestId, index: Index) -> Frame {
        let (id, index) = (Some(request_id_out(id)), index.0);
        let reply = wire::ReadIndexReply { id, index };
        self.forward_reply(wire::forward_reply::Body::ReadIndex(reply))
    }

    fn refused(self, ids: Vec<RequestId>, why: Refusal) -> Frame {
        let ids = ids.into_iter().map(request_id_out).collect();
        let refused = wire::Refused { ids, why: refusal_out(why).into() };
        self.forward_reply(wire::forward_reply::Body::Refused(refused))
    }
}

/// The header of a snapshot that a leader of `term` sends.
pub fn snapshot_header(term: Term, meta: &SnapshotMeta) -> wire::SnapshotHeader {
    wire::SnapshotHeader {
        term: term.0,
        last: Some(entry_id_out(meta.last)),
        config: Some(config_out(&meta.config)),
    }
}

/// The address of a frame.
pub fn route(cluster: u64, from: NodeId, to: NodeId) -> wire::Route {
    wire::Route { cluster, from: from.get(), to: to.get() }
}

/// The first frame of an `AppendEntries` stream.
pub fn append_hello(route: wire::Route, lane: Lane) -> wire::AppendRequest {
    let body = Some(wire::append_request::Body::Hello(hello(lane)));
    wire::AppendRequest { route: Some(route), term: 0, body }
}

/// The first frame of a `Forward` stream.
pub fn forward_hello(route: wire::Route) -> wire::ForwardRequest {
    let body = Some(wire::forward_request::Body::Hello(hello(Lane::Control)));
    wire::ForwardRequest { route: Some(route), term: 0, body }
}

/// Measures the way to a peer and back.
pub fn ping(number: u64) -> wire::AppendRequest {
    let body = Some(wire::append_request::Body::Ping(number));
    wire::AppendRequest { body, ..Default::default() }
}

/// What a ping is answered by.
pub fn pong(number: u64) -> wire::AppendReply {
    let body = Some(wire::append_reply::Body::Pong(number));
    wire::AppendReply { body, ..Default::default() }
}

fn hello(lane: Lane) -> wire::Hello {
    let lane = match lane {
        Lane::Control => wire::Lane::Control,
        Lane::Bulk => wire::Lane::Bulk,
    };
    wire::Hello { lane: lane.into(), name: String::new(), client_address: String::new() }
}

/// The same frame, with who we are.
pub fn introduced(mut frame: wire::AppendRequest, who: &Introduction) -> wire::AppendRequest {
    if let Some(wire::append_request::Body::Hello(hello)) = &mut frame.body {
        hello.name.clone_from(&who.name);
        hello.client_address.clone_from(&who.client_addr);
    }
    frame
}

fn change_out(change: Change) -> wire::Change {
    let change = match change {
        Change::Add { id, address, aim } => {
            let (votes, replaces) = match aim {
                TargetRole::Learner => (false, None),
                TargetRole::Voter { replaces } => (true, replaces),
            };
            let replaces = replaces.map_or(0, NodeId::get);
            wire::change::Change::Add(wire::Addition { id: id.get(), address, votes, replaces })
        }
        Change::Promote(id) => wire::change::Change::Promote(id.get()),
        Change::Remove(id) => wire::change::Change::Remove(id.get()),
        Change::UpdateAddress { id, address } => {
            wire::change::Change::UpdateAddress(wire::Address { id: id.get(), address })
        }
        Change::Publish { id, attributes } => {
            wire::change::Change::Publish(attributes_out((&id, &attributes)))
        }
    };
    wire::Change { change: Some(change) }
}

fn refusal_out(why: Refusal) -> wire::Refusal {
    match why {
        Refusal::Change(ChangeError::InProgress) => wire::Refusal::ChangeUnderWay,
        Refusal::Change(ChangeError::LeaderNotReady) => wire::Refusal::ChangeUnsettled,
        Refusal::Change(ChangeError::Exists) => wire::Refusal::ChangeExists,
        Refusal::Change(ChangeError::WasRemoved) => wire::Refusal::ChangeWasRemoved,
        Refusal::Change(ChangeError::Unknown) => wire::Refusal::ChangeUnknown,
        Refusal::Change(ChangeError::NotLearner) => wire::Refusal::ChangeNotLearner,
        Refusal::Change(ChangeError::NotCaughtUp) => wire::Refusal::ChangeNotCaughtUp,
        Refusal::Change(ChangeError::NoQuorum) => wire::Refusal::ChangeNoQuorum,
        Refusal::Change(ChangeError::TooMany) => wire::Refusal::ChangeTooMany,
        Refusal::Change(ChangeError::NoChange) => wire::Refusal::ChangeNothing,
        Refusal::NotLeader => wire::Refusal::NotLeader,
        Refusal::Transferring => wire::Refusal::Transferring,
        Refusal::Busy => wire::Refusal::Busy,
    }
}

fn entry_id_out(id: EntryId) -> wire::EntryId {
    wire::EntryId { term: id.term.0, index: id.index.0 }
}

fn request_id_out(id: RequestId) -> wire::RequestId {
    wire::RequestId { origin: id.origin.get(), sequence: id.sequence }
}

fn proposal_out(proposal: Proposal) -> wire::Proposal {
    wire::Proposal { id: Some(request_id_out(proposal.id)), data: proposal.data }
}

fn attributes_out((id, said): (&NodeId, &Attributes)) -> wire::Attributes {
    let (name, client_address) = (said.name.clone(), said.client_addr.clone());
    wire::Attributes { id: id.get(), name, client_address }
}

fn config_out(config: &Configuration) -> wire::Configuration {
    let raw = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
    let promotion = |(id, replaces): (&NodeId, &Option<NodeId>)| wire::Promotion {
        id: id.get(),
        replaces: replaces.map_or(0, NodeId::get),
    };
    let address = |(id, address): (&NodeId, &String)| wire::Address {
        id: id.get(),
        address: address.clone(),
    };
    wire::Configuration {
        voters: raw(&config.voters),
        outgoing: raw(&config.outgoing),
        learners: raw(&config.learners),
        promoting: config.promoting.iter().map(promotion).collect(),
        removed: raw(&config.removed),
        removed_upto: config.removed_upto,
        addresses: config.addresses.iter().map(address).collect(),
        attributes: config.attributes.iter().map(attributes_out).collect(),
        request: config.request.map(request_id_out),
    }
}

fn entry_out(entry: Entry) -> wire::Entry {
    let payload = match entry.payload {
        Payload::Noop => wire::entry::Payload::Noop(wire::Noop {}),
        Payload::Command(proposal) => wire::entry::Payload::Command(proposal_out(proposal)),
        Payload::Config(config) => wire::entry::Payload::Config(config_out(&config)),
    };
    wire::Entry { term: entry.id.term.0, index: entry.id.index.0, payload: Some(payload) }
}
