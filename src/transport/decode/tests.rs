//! What goes out comes in the same; what is damaged is refused or sound; nothing panics.

use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use prost::Message as _;

use super::super::encode::{self, Call, Frame};
use super::*;

const CLUSTER: u64 = 0xBEE;

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

fn decoder() -> Decoder {
    Decoder { cluster: CLUSTER, me: node(1), peer: node(2) }
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![1..10u64, 1..=NUMBER_MAX - 10]
}

fn places() -> impl Strategy<Value = EntryId> {
    prop_oneof![
        Just(EntryId::default()),
        (1..5u64, numbers())
            .prop_map(|(term, index)| EntryId { term: Term(term), index: Index(index) }),
    ]
}

fn requests(origin: u64) -> impl Strategy<Value = RequestId> {
    any::<u64>().prop_map(move |sequence| RequestId { origin: node(origin), sequence })
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn said(name: &str) -> Attributes {
    Attributes { name: name.to_owned(), client_addr: format!("{name}:2379") }
}

fn configs() -> impl Strategy<Value = Configuration> {
    let ids = |range: std::ops::Range<u64>, sizes| btree_set(range.prop_map(node), sizes);
    (ids(1..50, 1..4), ids(1..100, 0..4), ids(50..100, 0..4)).prop_map(
        |(voters, outgoing, learners)| {
            let id = *learners.iter().next().unwrap_or(&node(99));
            Configuration {
                promoting: [(id, outgoing.iter().next().copied())].into(),
                removed: [node(101)].into(),
                removed_upto: 100,
                addresses: [(id, format!("node{id}:5001"))].into(),
                attributes: [(id, said("name"))].into(),
                request: voters.iter().next().map(|id| RequestId { origin: *id, sequence: 7 }),
                voters,
                outgoing,
                learners,
            }
        },
    )
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Noop),
        (1..9u64, any::<u64>(), data()).prop_map(|(origin, sequence, data)| {
            Payload::Command(Proposal { id: RequestId { origin: node(origin), sequence }, data })
        }),
        configs().prop_map(Payload::Config),
    ]
}

/// Entries of terms that do not fall, behind `prev`.
fn appends() -> impl Strategy<Value = Body> {
    (places(), numbers(), vec((0..2u64, payloads()), 0..5)).prop_map(|(prev, commit, items)| {
        let mut id = prev;
        id.term = id.term.max(Term(1));
        let entries = items
            .into_iter()
            .map(|(step, payload)| {
                id = EntryId { term: Term(id.term.0 + step), index: id.index.next() };
                Entry { id, payload }
            })
            .collect();
        Body::Append { prev, entries, commit: Index(commit) }
    })
}

fn bodies() -> impl Strategy<Value = Body> {
    let proposals = vec((1..100u64, data()), 1..5).prop_map(|items| {
        let mut sequence = 0;
        let proposals = items.into_iter().map(|(step, data)| {
            sequence += step;
            Proposal { id: RequestId { origin: node(2), sequence }, data }
        });
        Body::Propose { proposals: proposals.collect() }
    });
    let why =
        prop_oneof![Just(Refusal::NotLeader), Just(Refusal::Transferring), Just(Refusal::Busy)];
    prop_oneof![
        (places(), any::<bool>(), any::<bool>()).prop_map(|(last, pre_vote, transfer)| {
            Body::RequestVote { last, pre_vote, transfer }
        }),
        any::<(bool, bool)>().prop_map(|(granted, pre_vote)| Body::Vote { granted, pre_vote }),
        appends(),
        numbers().prop_map(|last| Body::Appended { last: Index(last) }),
        places().prop_map(|hint| Body::Rejected { prev: hint.index.next(), hint }),
        (numbers(), any::<u64>(), 0..4u64).prop_map(|(commit, round, successor)| {
            let successor = NodeId::new(successor);
            Body::Heartbeat { commit: Index(commit), round, successor }
        }),
        any::<u64>().prop_map(|round| Body::HeartbeatReply { round }),
        (numbers(), configs()).prop_map(|(index, config)| {
            let last = EntryId { term: Term(3), index: Index(index) };
            Body::InstallSnapshot { meta: SnapshotMeta { last, config } }
        }),
        Just(Body::TimeoutNow),
        Just(Body::AskMembers),
        vec((1..9u64).prop_map(node), 0..5).prop_map(|ids| Body::Members { ids }),
        proposals,
        requests(2).prop_map(|id| Body::ReadIndex { id }),
        (requests(1), numbers())
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index: Index(index) }),
        (vec(requests(1), 0..5), why).prop_map(|(ids, why)| Body::Refused { ids, why }),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    (10..=NUMBER_MAX, bodies()).prop_map(|(term, body)| Message {
        from: node(2),
        to: node(1),
        term: Term(term),
        body,
    })
}

/// Reads bytes as one kind of frame: gives nothing, if they are none.
type Reader = fn(&[u8]) -> Option<Result<Message, Error>>;

/// The bytes of a frame, and what reads them.
fn bytes_of(frame: &Frame) -> (Vec<u8>, Reader) {
    match frame {
        Frame::Call(Call::Vote(f)) => (f.encode_to_vec(), READERS[0]),
        Frame::VoteReply(f) => (f.encode_to_vec(), READERS[1]),
        Frame::Call(Call::TimeoutNow(f)) => (f.encode_to_vec(), READERS[2]),
        Frame::Append(f) | Frame::Heartbeat(f) => (f.encode_to_vec(), READERS[3]),
        Frame::AppendReply(f) | Frame::HeartbeatReply(f) => (f.encode_to_vec(), READERS[4]),
        Frame::Forward(f) => (f.encode_to_vec(), READERS[5]),
        Frame::ForwardReply(f) => (f.encode_to_vec(), READERS[6]),
        Frame::Snapshot(f) => (f.encode_to_vec(), READERS[7]),
    }
}

/// One per kind of frame.
const READERS: [Reader; 8] = [
    |bytes| wire::VoteRequest::decode(bytes).ok().map(|f| decoder().vote_request(&f)),
    |bytes| wire::VoteReply::decode(bytes).ok().map(|f| decoder().vote_reply(&f)),
    |bytes| wire::TimeoutNowRequest::decode(bytes).ok().map(|f| decoder().timeout_now(&f)),
    |bytes| wire::AppendRequest::decode(bytes).ok().map(|f| decoder().append_request(f)),
    |bytes| wire::AppendReply::decode(bytes).ok().map(|f| decoder().append_reply(&f)),
    |bytes| wire::ForwardRequest::decode(bytes).ok().map(|f| decoder().forward_request(f)),
    |bytes| wire::ForwardReply::decode(bytes).ok().map(|f| decoder().forward_reply(f)),
    |bytes| {
        let frame = wire::SnapshotFrame::decode(bytes).ok()?;
        let Some(wire::snapshot_frame::Body::Header(header)) = frame.body else {
            return None;
        };
        let read = decoder().admit(frame.route.as_ref()).and_then(|()| snapshot(&header));
        Some(read.map(|(term, meta)| decoder().installed(term, meta)))
    },
];

fn through(message: &Message) -> Option<Result<Message, Error>> {
    let (bytes, reader) = bytes_of(&encode::encode(CLUSTER, message.clone()));
    reader(&bytes)
}

proptest! {
    #[test]
    fn every_message_arrives_as_it_left(message in messages()) {
        prop_assert_eq!(through(&message), Some(Ok(message)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for reader in READERS {
            reader(&bytes);
        }
    }

    /// What passes the decoder after damage is a message that could have been sent: it leaves and
    /// arrives again as itself.
    #[test]
    fn damaged_frames_are_refused_or_sound(
        message in messages(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let (mut bytes, reader) = bytes_of(&encode::encode(CLUSTER, message));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(Ok(passed)) = reader(&bytes) {
            prop_assert_eq!((passed.from, passed.to), (node(2), node(1)));
            prop_assert!(passed.term.0 <= NUMBER_MAX);
            prop_assert_eq!(through(&passed), Some(Ok(passed)));
        }
    }
}

fn append(prev: (u64, u64), entries: &[(u64, u64)]) -> wire::AppendRequest {
    let entries = entries.iter().map(|&(term, index)| wire::Entry {
        term,
        index,
        payload: Some(wire::entry::Payload::Noop(wire::Noop {})),
    });
    let append = wire::Append {
        prev: Some(wire::EntryId { term: prev.0, index: prev.1 }),
        commit: 0,
        entries: entries.collect(),
    };
    wire::AppendRequest {
        route: Some(encode::route(CLUSTER, node(2), node(1))),
        term: 5,
        body: Some(wire::append_request::Body::Append(append)),
    }
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    let read = |frame| decoder().append_request(frame).map(drop);
    assert_eq!(read(append((1, 3), &[(1, 4), (2, 5)])), Ok(()));
    let gap = Error::Disorder { what: "entry", before: 4, found: 6 };
    assert_eq!(read(append((1, 3), &[(1, 4), (1, 6)])), Err(gap));
    let falls = Error::Disorder { what: "entry of term", before: 2, found: 1 };
    assert_eq!(read(append((2, 3), &[(1, 4)])), Err(falls));
    let ahead = Error::OutOfBounds { what: "term of an entry", value: 6 };
    assert_eq!(read(append((1, 3), &[(6, 4)])), Err(ahead));
    let nowhere = Error::OutOfBounds { what: "prev", value: 0 };
    assert_eq!(read(append((1, 0), &[])), Err(nowhere));
    let huge = Error::OutOfBounds { what: "prev", value: u64::MAX };
    assert_eq!(read(append((1, u64::MAX), &[])), Err(huge));
    let many: Vec<_> = (1..=ITEMS_MAX as u64 + 1).map(|index| (1, index)).collect();
    assert!(matches!(read(append((0, 0), &many)), Err(Error::TooMany { .. })));
}

#[test]
fn frames_of_strangers_and_for_others_are_refused() {
    let read = |cluster, from, to| {
        let mut frame = append((0, 0), &[]);
        frame.route = Some(wire::Route { cluster, from, to });
        decoder().append_request(frame).map(drop)
    };
    assert_eq!(read(CLUSTER, 2, 1), Ok(()));
    assert_eq!(read(7, 2, 1), Err(Error::Stranger { theirs: 7, ours: CLUSTER }));
    assert_eq!(read(CLUSTER, 2, 3), Err(Error::Misaddressed { to: 3, me: node(1) }));
    assert_eq!(read(CLUSTER, 3, 1), Err(Error::Impostor { from: 3, opener: node(2) }));
    assert_eq!(read(CLUSTER, 1, 1), Err(Error::OutOfBounds { what: "sender", value: 1 }));
    assert_eq!(read(CLUSTER, 0, 1), Err(Error::OutOfBounds { what: "sender", value: 0 }));
    let mut frame = append((0, 0), &[]);
    frame.route = None;
    assert_eq!(decoder().append_request(frame), Err(Error::Missing("route")));
}

#[test]
fn requests_are_passed_on_only_by_the_member_they_came_in_at() {
    let read = |ids: &[(u64, u64)]| {
        let proposals = ids.iter().map(|&(origin, sequence)| wire::Proposal {
            id: Some(wire::RequestId { origin, sequence }),
            data: Bytes::new(),
        });
        let propose = wire::Propose { proposals: proposals.collect() };
        let frame = wire::ForwardRequest {
            route: Some(encode::route(CLUSTER, node(2), node(1))),
            term: 5,
            body: Some(wire::forward_request::Body::Propose(propose)),
        };
        decoder().forward_request(frame).map(drop)
    };
    assert_eq!(read(&[(2, 7), (2, 9)]), Ok(()));
    assert_eq!(read(&[(3, 7)]), Err(Error::OutOfBounds { what: "origin", value: 3 }));
    let twice = Error::Disorder { what: "proposal", before: 7, found: 7 };
    assert_eq!(read(&[(2, 7), (2, 7)]), Err(twice));
    assert_eq!(read(&[]), Err(Error::Missing("proposal")));
}

#[test]
fn configurations_without_voters_or_with_double_roles_are_refused() {
    let read = |voters: &[u64], learners: &[u64]| {
        let header = wire::SnapshotHeader {
            term: 5,
            last: Some(wire::EntryId { term: 1, index: 1 }),
            config: Some(wire::Configuration {
                voters: voters.to_vec(),
                outgoing: vec![],
                learners: learners.to_vec(),
                ..wire::Configuration::default()
            }),
        };
        snapshot(&header).map(drop)
    };
    assert_eq!(read(&[1, 2], &[3]), Ok(()));
    assert_eq!(read(&[], &[3]), Err(Error::Missing("voter")));
    assert_eq!(read(&[0], &[]), Err(Error::OutOfBounds { what: "voters", value: 0 }));
    let both = Error::OutOfBounds { what: "voter and learner", value: 2 };
    assert_eq!(read(&[1, 2], &[2]), Err(both));
    let crowd: Vec<u64> = (1..=MEMBERS_MAX as u64 + 1).collect();
    assert!(matches!(read(&crowd, &[]), Err(Error::TooMany { .. })));
}
