//! The way out: a [`Message`] as the `raft.v1` frame that says it, and the lane it takes.
//!
//! Checks nothing: what the core says is its own business, and the receiver's
//! [`codec`](super::codec) judges it.

use std::collections::BTreeSet;

use super::codec::Lane;
use crate::proto::raft as wire;
use crate::raft::message::{Body, Message, Refusal};
use crate::raft::types::{
    Configuration, Entry, EntryId, NodeId, Payload, Proposal, RequestId, SnapshotMeta, Term,
};

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
        Body::Propose { proposals } => proposals
            .iter()
            .map(|p| p.data.len() + FRAME_OVERHEAD_BYTES)
            .sum(),
        Body::Refused { ids, .. } => ids.len() * FRAME_OVERHEAD_BYTES,
        Body::RequestVote { .. }
        | Body::Vote { .. }
        | Body::Appended { .. }
        | Body::Rejected { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::InstallSnapshot { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => 0,
    };
    content + FRAME_OVERHEAD_BYTES
}

/// The frame that says `message` within `cluster`.
pub fn encode(cluster: u64, message: Message) -> Frame {
    let route = Some(route(cluster, message.from, message.to));
    let term = message.term.0;
    match message.body {
        Body::RequestVote {
            last,
            pre_vote,
            transfer,
        } => {
            let last = Some(entry_id_out(last));
            Frame::Call(Call::Vote(wire::VoteRequest {
                route,
                term,
                last,
                pre_vote,
                transfer,
            }))
        }
        Body::Vote { granted, pre_vote } => Frame::VoteReply(wire::VoteReply {
            route,
            term,
            granted,
            pre_vote,
        }),
        Body::TimeoutNow => Frame::Call(Call::TimeoutNow(wire::TimeoutNowRequest { route, term })),
        Body::Append {
            prev,
            entries,
            commit,
        } => {
            let entries = entries.into_iter().map(entry_out).collect();
            let append = wire::Append {
                prev: Some(entry_id_out(prev)),
                commit: commit.0,
                entries,
            };
            let body = Some(wire::append_request::Body::Append(append));
            Frame::Append(wire::AppendRequest { route, term, body })
        }
        Body::Heartbeat { commit, round } => {
            let beat = wire::Heartbeat {
                commit: commit.0,
                round,
            };
            let body = Some(wire::append_request::Body::Heartbeat(beat));
            Frame::Heartbeat(wire::AppendRequest { route, term, body })
        }
        Body::Appended { last } => {
            let body = wire::append_reply::Body::Appended(wire::Appended { last: last.0 });
            Frame::AppendReply(wire::AppendReply {
                route,
                term,
                body: Some(body),
            })
        }
        Body::Rejected { prev, hint } => {
            let rejected = wire::Rejected {
                prev: prev.0,
                hint: Some(entry_id_out(hint)),
            };
            let body = Some(wire::append_reply::Body::Rejected(rejected));
            Frame::AppendReply(wire::AppendReply { route, term, body })
        }
        Body::HeartbeatReply { round } => {
            let body = wire::append_reply::Body::Heartbeat(wire::HeartbeatReply { round });
            Frame::HeartbeatReply(wire::AppendReply {
                route,
                term,
                body: Some(body),
            })
        }
        Body::InstallSnapshot { meta } => {
            let header = snapshot_header(Term(term), &meta);
            let body = Some(wire::snapshot_frame::Body::Header(header));
            Frame::Snapshot(wire::SnapshotFrame { route, body })
        }
        Body::Propose { proposals } => {
            let proposals = proposals.into_iter().map(proposal_out).collect();
            let body = wire::forward_request::Body::Propose(wire::Propose { proposals });
            Frame::Forward(wire::ForwardRequest {
                route,
                term,
                body: Some(body),
            })
        }
        Body::ReadIndex { id } => {
            let read = wire::ReadIndex {
                id: Some(request_id_out(id)),
            };
            let body = Some(wire::forward_request::Body::ReadIndex(read));
            Frame::Forward(wire::ForwardRequest { route, term, body })
        }
        Body::ReadIndexReply { id, index } => {
            let reply = wire::ReadIndexReply {
                id: Some(request_id_out(id)),
                index: index.0,
            };
            let body = Some(wire::forward_reply::Body::ReadIndex(reply));
            Frame::ForwardReply(wire::ForwardReply { route, term, body })
        }
        Body::Refused { ids, why } => {
            let ids = ids.into_iter().map(request_id_out).collect();
            let refused = wire::Refused {
                ids,
                why: refusal_out(why).into(),
            };
            let body = Some(wire::forward_reply::Body::Refused(refused));
            Frame::ForwardReply(wire::ForwardReply { route, term, body })
        }
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
    wire::Route {
        cluster,
        from: from.get(),
        to: to.get(),
    }
}

/// The first frame of an `AppendEntries` stream.
pub fn append_hello(route: wire::Route, lane: Lane) -> wire::AppendRequest {
    let body = Some(wire::append_request::Body::Hello(hello(lane)));
    wire::AppendRequest {
        route: Some(route),
        term: 0,
        body,
    }
}

/// The first frame of a `Forward` stream.
pub fn forward_hello(route: wire::Route) -> wire::ForwardRequest {
    let body = Some(wire::forward_request::Body::Hello(hello(Lane::Control)));
    wire::ForwardRequest {
        route: Some(route),
        term: 0,
        body,
    }
}

fn hello(lane: Lane) -> wire::Hello {
    let lane = match lane {
        Lane::Control => wire::Lane::Control,
        Lane::Bulk => wire::Lane::Bulk,
    };
    wire::Hello { lane: lane.into() }
}

fn refusal_out(why: Refusal) -> wire::Refusal {
    match why {
        Refusal::NotLeader => wire::Refusal::NotLeader,
        Refusal::Transferring => wire::Refusal::Transferring,
        Refusal::Busy => wire::Refusal::Busy,
    }
}

fn entry_id_out(id: EntryId) -> wire::EntryId {
    wire::EntryId {
        term: id.term.0,
        index: id.index.0,
    }
}

fn request_id_out(id: RequestId) -> wire::RequestId {
    wire::RequestId {
        origin: id.origin.get(),
        sequence: id.sequence,
    }
}

fn proposal_out(proposal: Proposal) -> wire::Proposal {
    wire::Proposal {
        id: Some(request_id_out(proposal.id)),
        data: proposal.data,
    }
}

fn config_out(config: &Configuration) -> wire::Configuration {
    let raw = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
    wire::Configuration {
        voters: raw(&config.voters),
        outgoing: raw(&config.outgoing),
        learners: raw(&config.learners),
    }
}

fn entry_out(entry: Entry) -> wire::Entry {
    let payload = match entry.payload {
        Payload::Noop => wire::entry::Payload::Noop(wire::Noop {}),
        Payload::Command(proposal) => wire::entry::Payload::Command(proposal_out(proposal)),
        Payload::Config(config) => wire::entry::Payload::Config(config_out(&config)),
    };
    wire::Entry {
        term: entry.id.term.0,
        index: entry.id.index.0,
        payload: Some(payload),
    }
}
