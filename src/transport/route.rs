//! Which stream a message takes, when several would carry it.
//!
//! Two members have up to two connections of each lane between them, one dialled by either, and
//! each stream carries frames both ways. A fault may take any of them away and leave the others: a
//! port that cannot be dialled, a firewall that forgets, a path that works one way round. So what
//! cannot go by the stream that is preferred goes by another.
//!
//! What answers a member, and what is asked of it, goes back on the connection on which it was last
//! heard. A leader is heard all the time: as long as its heartbeats arrive, requests reach it.
//!
//! Pure, so that the simulated network takes the same decisions.

use crate::raft::message::Body;
use crate::testpoints::{Mutant, mutant};

/// Which side opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// This member.
    Here,
    /// The peer.
    There,
}

impl Dialled {
    fn other(self) -> Self {
        match self {
            Self::Here => Self::There,
            Self::There => Self::Here,
        }
    }
}

/// The streams of a pair of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Heartbeats, in the control connection.
    Beats,
    /// Requests for the leader, in the control connection.
    Requests,
    /// Entries, in the bulk connection.
    Entries,
}

/// A stream, and whose connection it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The stream.
    pub stream: Stream,
    /// Who opened it.
    pub dialled: Dialled,
}

/// What a message is, as far as its way goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question for a vote, or the order to campaign: a call of its own on this member's
    /// connection, if that stands.
    Call,
    /// Its answer.
    Vote,
    /// A heartbeat.
    Heartbeat,
    /// Its answer.
    HeartbeatReply,
    /// Entries.
    Entries,
    /// Their answer.
    EntriesReply,
    /// What a client of this member wants of the leader, or this member of another.
    Request,
    /// Its answer.
    Answer,
}

impl Kind {
    /// What `body` is. A snapshot travels only with its content, by a connection of its own.
    pub fn of(body: &Body) -> Option<Self> {
        Some(match body {
            Body::RequestVote { .. } | Body::TimeoutNow => Self::Call,
            Body::Vote { .. } | Body::Removed { .. } => Self::Vote,
            Body::Heartbeat { .. } => Self::Heartbeat,
            Body::HeartbeatReply { .. } => Self::HeartbeatReply,
            Body::Append { .. } => Self::Entries,
            Body::Appended { .. } | Body::Rejected { .. } => Self::EntriesReply,
            Body::Propose { .. }
            | Body::ReadIndex { .. }
            | Body::Change { .. }
            | Body::AskMembers => Self::Request,
            Body::ReadIndexReply { .. } | Body::Refused { .. } | Body::Members { .. } => {
                Self::Answer
            }
            Body::InstallSnapshot { .. } => return None,
        })
    }

    /// The ways that it may take, the preferred first. `heard` is the connection on which the peer
    /// was last heard.
    pub fn ways(self, heard: Dialled) -> [Way; 4] {
        let ([first, second], preferred) = match self {
            Self::Call | Self::Heartbeat => ([Stream::Beats, Stream::Requests], Dialled::Here),
            Self::Vote | Self::HeartbeatReply => ([Stream::Beats, Stream::Requests], heard),
            Self::Entries => ([Stream::Entries, Stream::Requests], Dialled::Here),
            // What answers a snapshot may find no bulk stream.
            Self::EntriesReply => ([Stream::Entries, Stream::Beats], heard),
            Self::Request | Self::Answer => ([Stream::Requests, Stream::Entries], heard),
        };
        let way = |stream, dialled| Way { stream, dialled };
        if self == Self::Request && mutant(Mutant::RequestsByOwnDial) {
            return [way(first, Dialled::Here); 4];
        }
        let other = preferred.other();
        [way(first, preferred), way(first, other), way(second, preferred), way(second, other)]
    }

    /// The first of its ways that is open.
    pub fn choose(self, heard: Dialled, open: impl Fn(Way) -> bool) -> Option<Way> {
        self.ways(heard).into_iter().find(|way| open(*way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 8] = [
        Kind::Call,
        Kind::Vote,
        Kind::Heartbeat,
        Kind::HeartbeatReply,
        Kind::Entries,
        Kind::EntriesReply,
        Kind::Request,
        Kind::Answer,
    ];

    #[test]
    fn any_control_connection_carries_everything_but_a_snapshot() {
        for kind in KINDS {
            for heard in [Dialled::Here, Dialled::There] {
                for dialled in [Dialled::Here, Dialled::There] {
                    let open = |way: Way| way.dialled == dialled && way.stream != Stream::Entries;
                    assert!(
                        kind.choose(heard, open).is_some(),
                        "{kind:?} where {dialled:?} dialled"
                    );
                }
            }
        }
    }

    #[test]
    fn a_request_takes_the_connection_that_brings_heartbeats() {
        let way = Kind::Request.choose(Dialled::There, |_| true);
        assert_eq!(way, Some(Way { stream: Stream::Requests, dialled: Dialled::There }));
        let way = Kind::HeartbeatReply.choose(Dialled::Here, |_| true);
        assert_eq!(way, Some(Way { stream: Stream::Beats, dialled: Dialled::Here }));
    }

    #[test]
    fn entries_delay_no_heartbeats_even_on_a_detour() {
        for kind in [Kind::Entries, Kind::Request, Kind::Answer] {
            let ways = kind.ways(Dialled::There);
            assert!(ways.iter().all(|way| way.stream != Stream::Beats), "{kind:?}: {ways:?}");
        }
    }
}
