//! The decoder between the wire and consensus: what a `raft.v1` frame says, as a [`Message`].
//!
//! Everything a frame could get wrong is refused here, so that the core may trust what it is
//! stepped with: ids are nonzero, terms and indices leave room to count on, entries follow each
//! other, enums are known, sets are bounded. What a message *means* is not judged. Nothing here
//! does I/O, and no input panics.
//!
//! Sizes in bytes are bounded before this: the server and the clients refuse a frame larger than
//! [`Config::frame_bytes_max`](super::Config::frame_bytes_max) while reading it.

use std::collections::BTreeSet;

use thiserror::Error;
use tonic::Status;

use super::{Introduction, PeerRejection, instance};
use crate::proto::raft as wire;
use crate::raft::message::{Body, Message, Refusal};
use crate::raft::types::{
    Attributes, Configuration, Entry, EntryId, Index, NodeId, Payload, Proposal, RequestId,
    SnapshotMeta, Term,
};
use crate::raft::{
    ADDRESS_BYTES_MAX, ATTRIBUTE_BYTES_MAX, CHANGES_MAX, Change, ChangeError, REMOVED_MAX,
    TargetRole,
};

/// The highest term and index let in: half the range, so that counting on never overflows.
pub const NUMBER_MAX: u64 = u64::MAX / 2;
/// Entries, proposals or refused requests in one frame.
pub const ITEMS_MAX: usize = 65_536;
/// Members in one set of a configuration.
pub const MEMBERS_MAX: usize = 128;

/// Why a frame was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// From a member of another cluster.
    #[error("frame is of cluster {theirs:016x}, this is cluster {ours:016x}")]
    Stranger {
        /// The frame's cluster.
        theirs: u64,
        /// This cluster.
        ours: u64,
    },
    /// From a member that was removed.
    #[error("node {from} was removed from the cluster")]
    Removed {
        /// Who it says it is.
        from: NodeId,
    },
    /// From a member of this id, and another data directory than the one that was met.
    #[error("node {from} has lost the data directory by which node {me} knows it")]
    OtherInstance {
        /// Who it says it is.
        from: NodeId,
        /// This member.
        me: NodeId,
    },
    /// From somebody who is not, or no longer, spoken with.
    #[error("node {from} is not a member known to node {me}")]
    NotMember {
        /// Who it says it is.
        from: NodeId,
        /// This member.
        me: NodeId,
    },
    /// For somebody else: a stale or wrong address at the sender.
    #[error("frame is for node {to}, this is node {me}")]
    Misaddressed {
        /// Whom the frame is for.
        to: u64,
        /// This member.
        me: NodeId,
    },
    /// From another sender than the stream was opened by.
    #[error("frame is from node {from} on a stream of node {opener}")]
    Impostor {
        /// The frame's sender.
        from: u64,
        /// The stream's opener.
        opener: NodeId,
    },
    /// A part without which the frame means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A number that cannot be.
    #[error("{what} cannot be {value}")]
    OutOfBounds {
        /// Which.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// More items than a frame may hold.
    #[error("{count} {what}, at most {max} fit a frame")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// Items out of order.
    #[error("{what} {found} follows {before}")]
    Disorder {
        /// Of what.
        what: &'static str,
        /// The one before.
        before: u64,
        /// The one that does not fit behind it.
        found: u64,
    },
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = match error {
            // Which cluster this is, is not for strangers to learn by asking.
            Error::Stranger { theirs, .. } => {
                format!("this member is not of cluster {theirs:016x}")
            }
            ref other => other.to_string(),
        };
        match error {
            Error::Removed { .. } => instance::rejections(PeerRejection::Removed, text),
            Error::OtherInstance { .. } => instance::rejections(PeerRejection::OtherInstance, text),
            Error::Stranger { .. } | Error::NotMember { .. } | Error::Impostor { .. } => {
                Self::permission_denied(text)
            }
            Error::Misaddressed { .. } => Self::failed_precondition(text),
            Error::Missing(_)
            | Error::OutOfBounds { .. }
            | Error::TooMany { .. }
            | Error::Disorder { .. } => Self::invalid_argument(text),
        }
    }
}

/// Which of a member's two connections a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, hand-overs, forwarded requests.
    Control,
    /// Entries.
    Bulk,
}

/// The lane that an `AppendEntries` stream opens with.
pub fn append_lane(frame: &wire::AppendRequest) -> Result<Lane, Error> {
    match &frame.body {
        Some(wire::append_request::Body::Hello(hello)) => lane(hello),
        _ => Err(Error::Missing("hello")),
    }
}

/// Checks that a `Forward` stream opens as it must.
pub fn forward_lane(frame: &wire::ForwardRequest) -> Result<Lane, Error> {
    match &frame.body {
        Some(wire::forward_request::Body::Hello(hello)) => lane(hello),
        _ => Err(Error::Missing("hello")),
    }
}

/// What the caller says of itself, if it says anything that can be shown.
pub fn introduction(frame: &wire::AppendRequest) -> Option<Introduction> {
    let Some(wire::append_request::Body::Hello(hello)) = &frame.body else { return None };
    let shown = |text: &str| {
        !text.is_empty()
            && text.len() <= Introduction::BYTES_MAX
            && !text.chars().any(char::is_control)
    };
    (shown(&hello.name) && shown(&hello.client_address)).then(|| Introduction {
        name: hello.name.clone(),
        client_addr: hello.client_address.clone(),
    })
}

fn lane(hello: &wire::Hello) -> Result<Lane, Error> {
    match wire::Lane::try_from(hello.lane) {
        Ok(wire::Lane::Control) => Ok(Lane::Control),
        Ok(wire::Lane::Bulk) => Ok(Lane::Bulk),
        Ok(wire::Lane::Unspecified) | Err(_) => Err(unknown("lane", hello.lane)),
    }
}

/// Who `route` comes from, once cluster and target are right. Whether that is a member, only the
/// table of peers knows.
pub fn sender(cluster: u64, me: NodeId, route: Option<&wire::Route>) -> Result<NodeId, Error> {
    let route = route.ok_or(Error::Missing("route"))?;
    if route.cluster != cluster {
        return Err(Error::Stranger { theirs: route.cluster, ours: cluster });
    }
    if route.to != me.get() {
        return Err(Error::Misaddressed { to: route.to, me });
    }
    let from = node_id("sender", route.from)?;
    if from == me {
        return Err(Error::OutOfBounds { what: "sender", value: route.from });
    }
    Ok(from)
}

/// Reads the frames of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// This cluster.
    pub cluster: u64,
    /// This member.
    pub me: NodeId,
    /// The only sender whose frames pass.
    pub peer: NodeId,
}

impl Decoder {
    /// Checks the address of a frame.
    pub fn admit(&self, route: Option<&wire::Route>) -> Result<(), Error> {
        let from = sender(self.cluster, self.me, route)?;
        if from == self.peer {
            return Ok(());
        }
        Err(Error::Impostor { from: from.get(), opener: self.peer })
    }

    fn message(&self, term: Term, body: Body) -> Message {
        Message { from: self.peer, to: self.me, term, body }
    }

    /// A campaign.
    pub fn vote_request(&self, frame: &wire::VoteRequest) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let term = live_term(frame.term)?;
        let last = entry_id("last", frame.last)?;
        if last.term > term {
            return Err(Error::OutOfBounds { what: "term of last", value: last.term.0 });
        }
        let (pre_vote, transfer) = (frame.pre_vote, frame.transfer);
        Ok(self.message(term, Body::RequestVote { last, pre_vote, transfer }))
    }

    /// Its answer.
    pub fn vote_reply(&self, frame: &wire::VoteReply) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let term = any_term(frame.term)?;
        let wire::VoteReply { granted, pre_vote, removed, .. } = *frame;
        let body =
            if removed { Body::Removed { pre_vote } } else { Body::Vote { granted, pre_vote } };
        Ok(self.message(term, body))
    }

    /// A hand-over.
    pub fn timeout_now(&self, frame: &wire::TimeoutNowRequest) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        Ok(self.message(live_term(frame.term)?, Body::TimeoutNow))
    }

    /// Entries or a heartbeat.
    pub fn append_request(&self, frame: wire::AppendRequest) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let term = live_term(frame.term)?;
        let body = match frame.body.ok_or(Error::Missing("body"))? {
            wire::append_request::Body::Append(append) => append_in(term, append)?,
            wire::append_request::Body::Heartbeat(beat) => {
                let successor = NodeId::new(beat.successor);
                let commit = index("commit", beat.commit)?;
                Body::Heartbeat { commit, round: beat.round, successor }
            }
            wire::append_request::Body::Hello(_) => return Err(Error::Missing("body after hello")),
            wire::append_request::Body::Detour(_) | wire::append_request::Body::Ping(_) => {
                return Err(Error::Missing("message"));
            }
        };
        Ok(self.message(term, body))
    }

    /// Their answer.
    pub fn append_reply(&self, frame: &wire::AppendReply) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let term = any_term(frame.term)?;
        let body = match frame.body.as_ref().ok_or(Error::Missing("body"))? {
            wire::append_reply::Body::Appended(appended) => {
                Body::Appended { last: index("last", appended.last)? }
            }
            wire::append_reply::Body::Rejected(rejected) => {
                let prev = index("prev", rejected.prev)?;
                let hint = entry_id("hint", rejected.hint)?;
                if hint.index > prev {
                    return Err(Error::OutOfBounds { what: "hint", value: hint.index.0 });
                }
                Body::Rejected { prev, hint }
            }
            wire::append_reply::Body::Heartbeat(reply) => {
                Body::HeartbeatReply { round: reply.round }
            }
            wire::append_reply::Body::Detour(_) | wire::append_reply::Body::Pong(_) => {
                return Err(Error::Missing("message"));
            }
        };
        Ok(self.message(term, body))
    }

    /// A follower's proposals or read.
    pub fn forward_request(&self, frame: wire::ForwardRequest) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let body = frame.body.ok_or(Error::Missing("body"))?;
        if let wire::forward_request::Body::AskMembers(wire::AskMembers {}) = body {
            // A machine that is yet to hear of any leader asks as well.
            return Ok(self.message(any_term(frame.term)?, Body::AskMembers));
        }
        let term = live_term(frame.term)?;
        let body = match body {
            wire::forward_request::Body::Propose(propose) => {
                Body::Propose { proposals: proposals_in(self.peer, propose.proposals)? }
            }
            wire::forward_request::Body::ReadIndex(read) => {
                Body::ReadIndex { id: request_of(self.peer, read.id)? }
            }
            wire::forward_request::Body::Change(change) => {
                bounded("changes", change.changes.len(), CHANGES_MAX)?;
                let changes = change.changes.into_iter().map(change_in);
                let id = request_of(self.peer, change.id)?;
                Body::Change { id, changes: changes.collect::<Result<_, _>>()? }
            }
            wire::forward_request::Body::Hello(_) => {
                return Err(Error::Missing("body after hello"));
            }
            wire::forward_request::Body::AskMembers(_) | wire::forward_request::Body::Detour(_) => {
                return Err(Error::Missing("message"));
            }
        };
        Ok(self.message(term, body))
    }

    /// Their answer.
    pub fn forward_reply(&self, frame: wire::ForwardReply) -> Result<Message, Error> {
        self.admit(frame.route.as_ref())?;
        let term = any_term(frame.term)?;
        let body = match frame.body.ok_or(Error::Missing("body"))? {
            wire::forward_reply::Body::ReadIndex(reply) => Body::ReadIndexReply {
                id: request_of(self.me, reply.id)?,
                index: index("index", reply.index)?,
            },
            wire::forward_reply::Body::Refused(refused) => {
                bounded("refused requests", refused.ids.len(), ITEMS_MAX)?;
                let why = refusal(refused.why)?;
                let ids = refused.ids.into_iter().map(|id| request_of(self.me, Some(id)));
                Body::Refused { ids: ids.collect::<Result<_, _>>()?, why }
            }
            wire::forward_reply::Body::Members(members) => {
                bounded("members", members.ids.len(), MEMBERS_MAX * 3)?;
                let ids = members.ids.into_iter().map(|id| node_id("member", id));
                Body::Members { ids: ids.collect::<Result<_, _>>()? }
            }
            wire::forward_reply::Body::Detour(_) => return Err(Error::Missing("message")),
        };
        Ok(self.message(term, body))
    }

    /// What the header of a snapshot says once the content is stored.
    pub fn installed(&self, term: Term, meta: SnapshotMeta) -> Message {
        self.message(term, Body::InstallSnapshot { meta })
    }
}

/// The header of a snapshot: the term of its sender, and what it stands for.
pub fn snapshot(header: &wire::SnapshotHeader) -> Result<(Term, SnapshotMeta), Error> {
    let term = live_term(header.term)?;
    let last = entry_id("last", header.last)?;
    if last.index == Index(0) {
        return Err(Error::OutOfBounds { what: "last", value: 0 });
    }
    if last.term > term {
        return Err(Error::OutOfBounds { what: "term of last", value: last.term.0 });
    }
    let config = config(header.config.as_ref().ok_or(Error::Missing("configuration"))?)?;
    Ok((term, SnapshotMeta { last, config }))
}

fn append_in(term: Term, append: wire::Append) -> Result<Body, Error> {
    bounded("entries", append.entries.len(), ITEMS_MAX)?;
    let prev = entry_id("prev", append.prev)?;
    let commit = index("commit", append.commit)?;
    let mut entries = Vec::with_capacity(append.entries.len());
    let mut before = prev;
    for frame in append.entries {
        let entry = entry(frame)?;
        let (found, expected) = (entry.id.index, before.index.next());
        if found != expected {
            return Err(Error::Disorder { what: "entry", before: before.index.0, found: found.0 });
        }
        if entry.id.term < before.term {
            let (before, found) = (before.term.0, entry.id.term.0);
            return Err(Error::Disorder { what: "entry of term", before, found });
        }
        before = entry.id;
        entries.push(entry);
    }
    // The last term is the highest, and no leader holds entries of terms to come.
    if before.term > term {
        return Err(Error::OutOfBounds { what: "term of an entry", value: before.term.0 });
    }
    Ok(Body::Append { prev, entries, commit })
}

fn entry(frame: wire::Entry) -> Result<Entry, Error> {
    let id =
        EntryId { term: live_term(frame.term)?, index: index("index of an entry", frame.index)? };
    let payload = match frame.payload.ok_or(Error::Missing("payload"))? {
        wire::entry::Payload::Noop(wire::Noop {}) => Payload::Noop,
        wire::entry::Payload::Command(proposal) => {
            Payload::Command(Proposal { id: request_id(proposal.id)?, data: proposal.data })
        }
        wire::entry::Payload::Config(frame) => Payload::Config(config(&frame)?),
    };
    Ok(Entry { id, payload })
}

fn proposals_in(origin: NodeId, frames: Vec<wire::Proposal>) -> Result<Vec<Proposal>, Error> {
    bounded("proposals", frames.len(), ITEMS_MAX)?;
    if frames.is_empty() {
        return Err(Error::Missing("proposal"));
    }
    let mut proposals: Vec<Proposal> = Vec::with_capacity(frames.len());
    for frame in frames {
        let id = request_of(origin, frame.id)?;
        if let Some(before) = proposals.last().filter(|p| p.id.sequence >= id.sequence) {
            let (before, found) = (before.id.sequence, id.sequence);
            return Err(Error::Disorder { what: "proposal", before, found });
        }
        proposals.push(Proposal { id, data: frame.data });
    }
    Ok(proposals)
}

fn config(frame: &wire::Configuration) -> Result<Configuration, Error> {
    let voters = node_ids("voters", &frame.voters)?;
    let outgoing = node_ids("outgoing voters", &frame.outgoing)?;
    let learners = node_ids("learners", &frame.learners)?;
    if voters.is_empty() {
        return Err(Error::Missing("voter"));
    }
    if let Some(both) = voters.intersection(&learners).next() {
        return Err(Error::OutOfBounds { what: "voter and learner", value: both.get() });
    }
    bounded("removed members", frame.removed.len(), REMOVED_MAX)?;
    let removed = frame.removed.iter().map(|id| node_id("removed member", *id));
    let promoting = frame
        .promoting
        .iter()
        .map(|one| Ok((node_id("learner to promote", one.id)?, NodeId::new(one.replaces))));
    let addresses = frame
        .addresses
        .iter()
        .map(|one| Ok((node_id("member's address", one.id)?, address(one.address.clone())?)));
    Ok(Configuration {
        voters,
        outgoing,
        learners,
        promoting: promoting.collect::<Result<_, Error>>()?,
        removed: removed.collect::<Result<_, Error>>()?,
        removed_upto: frame.removed_upto,
        addresses: addresses.collect::<Result<_, Error>>()?,
        attributes: frame.attributes.iter().map(attributes).collect::<Result<_, Error>>()?,
        request: frame.request.map(|id| request_id(Some(id))).transpose()?,
    })
}

fn change_in(frame: wire::Change) -> Result<Change, Error> {
    Ok(match frame.change.ok_or(Error::Missing("change"))? {
        wire::change::Change::Add(add) => {
            let replaces = NodeId::new(add.replaces);
            let aim = if add.votes { TargetRole::Voter { replaces } } else { TargetRole::Learner };
            Change::Add { id: node_id("new member", add.id)?, address: address(add.address)?, aim }
        }
        wire::change::Change::Promote(id) => Change::Promote(node_id("learner", id)?),
        wire::change::Change::Remove(id) => Change::Remove(node_id("member", id)?),
        wire::change::Change::UpdateAddress(to) => {
            Change::UpdateAddress { id: node_id("member", to.id)?, address: address(to.address)? }
        }
        wire::change::Change::Publish(said) => {
            let (id, attributes) = attributes(&said)?;
            Change::Publish { id, attributes }
        }
    })
}

fn attributes(frame: &wire::Attributes) -> Result<(NodeId, Attributes), Error> {
    let id = node_id("member that says something", frame.id)?;
    for text in [&frame.name, &frame.client_address] {
        bounded("bytes of a name or address", text.len(), ATTRIBUTE_BYTES_MAX)?;
    }
    let (name, client_addr) = (frame.name.clone(), frame.client_address.clone());
    Ok((id, Attributes { name, client_addr }))
}

fn address(raw: String) -> Result<String, Error> {
    bounded("bytes of an address", raw.len(), ADDRESS_BYTES_MAX)?;
    if raw.is_empty() { Err(Error::Missing("address")) } else { Ok(raw) }
}

fn node_ids(what: &'static str, raw: &[u64]) -> Result<BTreeSet<NodeId>, Error> {
    bounded(what, raw.len(), MEMBERS_MAX)?;
    raw.iter().map(|id| node_id(what, *id)).collect()
}

fn bounded(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count <= max { Ok(()) } else { Err(Error::TooMany { what, count, max }) }
}

fn node_id(what: &'static str, raw: u64) -> Result<NodeId, Error> {
    NodeId::new(raw).ok_or(Error::OutOfBounds { what, value: raw })
}

fn number(what: &'static str, raw: u64) -> Result<u64, Error> {
    if raw <= NUMBER_MAX { Ok(raw) } else { Err(Error::OutOfBounds { what, value: raw }) }
}

fn index(what: &'static str, raw: u64) -> Result<Index, Error> {
    number(what, raw).map(Index)
}

/// The term of somebody who may still be in none.
fn any_term(raw: u64) -> Result<Term, Error> {
    number("term", raw).map(Term)
}

/// The term of a leader, a candidate or an entry: there is none before the first election.
fn live_term(raw: u64) -> Result<Term, Error> {
    if raw == 0 { Err(Error::OutOfBounds { what: "term", value: 0 }) } else { any_term(raw) }
}

/// An entry, or the place before the log.
fn entry_id(what: &'static str, frame: Option<wire::EntryId>) -> Result<EntryId, Error> {
    let frame = frame.ok_or(Error::Missing(what))?;
    let id = EntryId { term: any_term(frame.term)?, index: index(what, frame.index)? };
    if (id.term == Term(0)) == (id.index == Index(0)) {
        return Ok(id);
    }
    Err(Error::OutOfBounds { what, value: frame.index })
}

fn request_id(frame: Option<wire::RequestId>) -> Result<RequestId, Error> {
    let frame = frame.ok_or(Error::Missing("request id"))?;
    Ok(RequestId { origin: node_id("origin", frame.origin)?, sequence: frame.sequence })
}

/// A request that came in at `origin` and nowhere else: requests are passed on once at most.
fn request_of(origin: NodeId, frame: Option<wire::RequestId>) -> Result<RequestId, Error> {
    let id = request_id(frame)?;
    if id.origin == origin {
        return Ok(id);
    }
    Err(Error::OutOfBounds { what: "origin", value: id.origin.get() })
}

fn refusal(raw: i32) -> Result<Refusal, Error> {
    match wire::Refusal::try_from(raw) {
        Ok(wire::Refusal::NotLeader) => Ok(Refusal::NotLeader),
        Ok(wire::Refusal::Transferring) => Ok(Refusal::Transferring),
        Ok(wire::Refusal::Busy) => Ok(Refusal::Busy),
        Ok(wire::Refusal::ChangeUnderWay) => Ok(Refusal::Change(ChangeError::InProgress)),
        Ok(wire::Refusal::ChangeUnsettled) => Ok(Refusal::Change(ChangeError::LeaderNotReady)),
        Ok(wire::Refusal::ChangeExists) => Ok(Refusal::Change(ChangeError::Exists)),
        Ok(wire::Refusal::ChangeWasRemoved) => Ok(Refusal::Change(ChangeError::WasRemoved)),
        Ok(wire::Refusal::ChangeUnknown) => Ok(Refusal::Change(ChangeError::Unknown)),
        Ok(wire::Refusal::ChangeNotLearner) => Ok(Refusal::Change(ChangeError::NotLearner)),
        Ok(wire::Refusal::ChangeNotCaughtUp) => Ok(Refusal::Change(ChangeError::NotCaughtUp)),
        Ok(wire::Refusal::ChangeNoQuorum) => Ok(Refusal::Change(ChangeError::NoQuorum)),
        Ok(wire::Refusal::ChangeTooMany) => Ok(Refusal::Change(ChangeError::TooMany)),
        Ok(wire::Refusal::ChangeNothing) => Ok(Refusal::Change(ChangeError::NoChange)),
        Ok(wire::Refusal::Unspecified) | Err(_) => Err(unknown("refusal", raw)),
    }
}

fn unknown(what: &'static str, raw: i32) -> Error {
    Error::OutOfBounds { what, value: u64::from(raw.cast_unsigned()) }
}

#[cfg(test)]
mod tests;
