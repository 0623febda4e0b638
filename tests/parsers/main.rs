//! Every parser of bytes from outside, with arbitrary bytes and with valid ones that were flipped,
//! cut, stretched and spliced, which is where bugs are. From a fixed seed: a failure here fails
//! everywhere, and proptest shrinks it. `fuzz/` goes on from there.
//!
//! The whole process may take one gigabyte of addresses: a length that the input does not back, if
//! memory were taken for it, would end the run.

mod targets;

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message as _;
use raft_node::kv::{Command, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::raft as wire;
use raft_node::raft::types::Entry;
use rustix::process::{Resource, Rlimit, setrlimit};

const CASES: u32 = 6000;
const ADDRESSES_BYTES_MAX: u64 = 1 << 30;

static LIMITED: LazyLock<()> = LazyLock::new(|| {
    let limit = Rlimit { current: Some(ADDRESSES_BYTES_MAX), maximum: None };
    setrlimit(Resource::As, limit).expect("a limit may always be lowered");
});

/// One way in which bytes change.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: usize,
        bit: u8,
    },
    Cut {
        at: usize,
        bytes: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    /// A piece of it comes again somewhere else.
    Splice {
        from: usize,
        to: usize,
        bytes: usize,
    },
    /// A number becomes the largest of its width.
    Fill {
        at: usize,
        bytes: usize,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        1 => (at(), 1..40_usize).prop_map(|(at, bytes)| Change::Cut { at, bytes }),
        1 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        1 => (at(), at(), 1..200_usize)
            .prop_map(|(from, to, bytes)| Change::Splice { from, to, bytes }),
        1 => (at(), prop_oneof![Just(1), Just(2), Just(4), Just(8)])
            .prop_map(|(at, bytes)| Change::Fill { at, bytes }),
    ]
}

/// Applies changes; where they point is taken modulo the length.
fn changed(valid: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        let span = |at: usize, count: usize| at % length..(at % length + count).min(length);
        match change {
            Change::Flip { at, bit } => bytes[at % length] ^= 1 << bit,
            Change::Cut { at, bytes: count } => drop(bytes.drain(span(*at, *count))),
            Change::Insert { at, bytes: more } => {
                let at = at % length;
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Splice { from, to, bytes: count } => {
                let piece = bytes[span(*from, *count)].to_vec();
                let to = span(*to, piece.len());
                let count = to.len();
                bytes[to].copy_from_slice(&piece[..count]);
            }
            Change::Fill { at, bytes: count } => bytes[span(*at, *count)].fill(0xff),
        }
    }
    bytes
}

/// Calls `target` with any bytes, and with each of `valid` as it is and changed.
fn throw(valid: &[Vec<u8>], target: impl Fn(&[u8])) {
    *LIMITED;
    for bytes in valid {
        target(bytes);
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let of_valid = (0..valid.len().max(1), vec(change(), 1..6))
        .prop_map(|(which, changes)| valid.get(which).map(|bytes| changed(bytes, &changes)));
    let any = vec(any::<u8>(), 0..300).prop_map(Some);
    let bytes = prop_oneof![3 => of_valid, 1 => any];
    let outcome = runner.run(&bytes, |bytes| {
        target(&bytes.unwrap_or_default());
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What was found is the beginning of what was written, or all of it.
fn assert_prefix(found: Option<Vec<Entry>>) {
    if let Some(found) = found {
        let written = &targets::ENTRIES;
        assert!(written.starts_with(&found), "{found:?} is not how {written:?} begins");
    }
}

fn content_of(name: &str) -> Vec<u8> {
    targets::DIRECTORY.content(name).expect("it is there")
}

#[test]
fn a_damaged_segment_is_refused_or_read_as_far_as_it_was_written() {
    let name = targets::last_segment();
    throw(&[content_of(&name)], |bytes| assert_prefix(targets::recovered(&name, bytes)));
}

#[test]
fn a_damaged_snapshot_file_is_refused() {
    let name = targets::snapshot_name();
    throw(&[content_of(&name)], |bytes| assert_prefix(targets::recovered(&name, bytes)));
}

#[test]
fn any_file_of_the_directory_may_be_anything() {
    let names = targets::DIRECTORY.names();
    let files = names.iter().enumerate().map(|(place, name)| {
        let mut bytes = vec![u8::try_from(place).expect("few files")];
        bytes.extend(content_of(name));
        bytes
    });
    throw(&files.collect::<Vec<_>>(), targets::directory);
}

#[test]
fn records_behind_good_checksums_may_be_anything() {
    // Bodies of groups as they were written: behind a header each, until the next one.
    let content = content_of(&targets::last_segment());
    let starts: Vec<usize> =
        (0..content.len()).step_by(64).filter(|at| content[at + 4..at + 8] == *b"RWAL").collect();
    let bodies = starts.iter().map(|at| {
        let bytes = u32::from_le_bytes(content[at + 32..at + 36].try_into().expect("four"));
        content[at + 64..at + 64 + bytes as usize].to_vec()
    });
    throw(&bodies.collect::<Vec<_>>(), targets::records);
}

#[test]
fn the_content_of_a_snapshot_may_be_anything() {
    throw(&[targets::some_image()], targets::content);
}

fn some_txn() -> TxnRequest {
    let put = PutRequest { key: "b".into(), value: "x".into(), ..PutRequest::default() };
    let delete = DeleteRangeRequest { key: "c".into(), ..DeleteRangeRequest::default() };
    let inner = TxnRequest { success: vec![RequestOp::DeleteRange(delete)], ..Default::default() };
    let success = vec![RequestOp::Put(put), RequestOp::Txn(inner)];
    TxnRequest { success, ..TxnRequest::default() }
}

#[test]
fn a_committed_entry_may_be_anything() {
    let put =
        PutRequest { key: "a".into(), value: "v".into(), prev_kv: true, ..Default::default() };
    let range_end = "c".into();
    let delete = DeleteRangeRequest { key: "a".into(), range_end, prev_kv: true };
    let commands = [Command::Put(put), Command::DeleteRange(delete), Command::Txn(some_txn())];
    throw(&commands.map(|command| command.encode().to_vec()), targets::command);
}

#[test]
fn a_frame_of_another_member_may_be_anything() {
    let id = Some(wire::EntryId { term: 3, index: 9 });
    let vote = wire::VoteRequest { term: 4, last: id, ..Default::default() };
    let entry = wire::Entry { term: 3, index: 10, ..Default::default() };
    let append = wire::Append { prev: id, entries: vec![entry], commit: 9 };
    let body = Some(wire::append_request::Body::Append(append));
    let append = wire::AppendRequest { term: 4, body, ..Default::default() };
    let rejected = wire::Rejected { prev: 9, hint: Some(wire::EntryId { term: 2, index: 5 }) };
    let body = Some(wire::append_reply::Body::Rejected(rejected));
    let reply = wire::AppendReply { term: 4, body, ..Default::default() };
    let kinds =
        [vote.encode_to_vec(), vec![], vec![], append.encode_to_vec(), reply.encode_to_vec()];
    let frames = kinds.into_iter().zip(0..).map(|(bytes, kind)| [vec![kind], bytes].concat());
    throw(&frames.collect::<Vec<_>>(), targets::frame);
}

#[test]
fn a_request_of_a_client_may_be_anything() {
    let range = pb::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 2,
        revision: 6,
        sort_order: 1,
        sort_target: 3,
        ..Default::default()
    };
    let put = pb::PutRequest { key: "a".into(), value: "v".into(), ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        key: "a".into(),
        target: 3,
        target_union: Some(pb::compare::TargetUnion::Value("v".into())),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(pb::request_op::Request::RequestPut(put.clone()))],
        failure: vec![op(pb::request_op::Request::RequestRange(range.clone()))],
    };
    let kinds = [
        range.encode_to_vec(),
        put.encode_to_vec(),
        delete.encode_to_vec(),
        txn.encode_to_vec(),
        pb::CompactionRequest { revision: 5, physical: true }.encode_to_vec(),
    ];
    let requests = kinds.into_iter().zip(0..).map(|(bytes, kind)| [vec![kind], bytes].concat());
    throw(&requests.collect::<Vec<_>>(), targets::request);
}

#[test]
fn the_environment_may_be_anything() {
    let all = raft_node::config::VARIABLES;
    let lines = all.iter().map(|variable| format!("{}={}\n", variable.name, variable.default));
    let few = "RAFT_NODE_ID=2\nRAFT_PEERS=1=a:1,2=b:2\nRAFT_QUOTA_BYTES=2GiB\nRAFT_LOG=debug\n";
    let times = "RAFT_ELECTION_TIMEOUT_MIN_MS=150\nRAFT_ELECTION_TIMEOUT_MAX_MS=300\n";
    let environments = [lines.collect::<String>(), few.to_owned(), times.to_owned()];
    throw(&environments.map(String::into_bytes), targets::environment);
}
