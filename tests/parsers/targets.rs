//! Everything that parses bytes from outside, as functions that take any bytes and fail if a parser
//! panics, accepts what it would not write, or believes a length that the input does not back.
//!
//! `cargo test --test parsers` calls them with valid bytes that were damaged, `fuzz/` with whatever
//! a coverage-guided search comes upon. So nothing here may need a test harness.

#![allow(dead_code, reason = "the fuzzers use one each")]

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use raft_node::api::bare as api;
use raft_node::config::Config;
use raft_node::kv::{
    Command, CompactionRequest, Machine, RangeRequest, Response, SnapshotCursor, SnapshotImport,
    Store,
};
use raft_node::node::snapshot_stream;
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::raft as wire;
use raft_node::raft::types::{
    Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, Proposal, RequestId,
    SnapshotMeta, Term,
};
use raft_node::storage::disk::{Access, Disk, DiskFile};
use raft_node::storage::testing::SimDisk;
use raft_node::storage::{self, DataDir, Error, Identity, Options, Record};
use raft_node::transport::bare::{self as transport, Call, Decoder, Frame};

const CLUSTER: u64 = 0xc1;
const OPTIONS: Options =
    Options { segment_bytes: 4096, urgent_segment_bytes: 4096, recycled_max: 1 };

/// A member's directory, with some history in it.
pub static DIRECTORY: LazyLock<SimDisk> = LazyLock::new(make_directory);

/// What that directory's log holds.
pub static ENTRIES: LazyLock<Vec<Entry>> =
    LazyLock::new(|| recover(&DIRECTORY.fork()).expect("it was written so").1);

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("above 0")
}

fn members() -> Configuration {
    Configuration::of_voters([node(1), node(2), node(3)])
}

fn make_directory() -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk).expect("a new directory");
    let mut hard_state = HardState { term: Term(2), ..HardState::default() };
    for index in 1..=12 {
        let data = Bytes::from(vec![index as u8 ^ 0x5a; 40 * index as usize]);
        let id = RequestId { origin: node(2), sequence: index };
        let payload = match index {
            1 => Payload::Noop,
            2 => Payload::Config(members()),
            _ => Payload::Command(Proposal { id, data }),
        };
        let entry = Entry { id: EntryId { index: Index(index), term: Term(2) }, payload };
        hard_state.commit = Index(index - 1);
        dir.wal.append(hard_state, None, &[entry]).expect("a healthy disk");
        dir.wal.sync().expect("a healthy disk");
        if index == 8 {
            let last = EntryId { index: Index(6), term: Term(2) };
            let meta = SnapshotMeta { last, config: members() };
            let mut writer = dir.snapshots.create(&meta).expect("a healthy disk");
            writer.write(&[7; 3000]).expect("a healthy disk");
            let info = writer.finish().expect("a healthy disk");
            dir.wal.release(&meta).expect("a healthy disk");
            dir.snapshots.adopt(info).expect("a healthy disk");
        }
    }
    dir.wal.vouch().expect("a healthy disk");
    drop(dir);
    disk.kill();
    disk
}

/// Opens the directory and reads all that it holds.
fn recover(disk: &SimDisk) -> Result<(DataDir<SimDisk>, Vec<Entry>), Error> {
    let identity = Identity { cluster_id: CLUSTER, node_id: node(1) };
    let opening = storage::open(&disk.for_process(), OPTIONS, identity, &members())?;
    if let Some(mut snapshot) = opening.read_snapshot()? {
        while snapshot.next_chunk()?.is_some() {}
    }
    let mut entries: Vec<Entry> = Vec::new();
    let dir = opening.replay(|record| {
        match record {
            Record::Entry(entry) => {
                entries.retain(|held| held.id.index < entry.id.index);
                entries.push(entry);
            }
            Record::HardState(_) => {}
            Record::Restart => entries.clear(),
        }
        Ok::<(), Error>(())
    })?;
    Ok((dir, entries))
}

/// Recovers a directory in which one file was replaced; what it then holds.
pub fn recovered(name: &str, content: &[u8]) -> Option<Vec<Entry>> {
    let disk = DIRECTORY.fork();
    if disk.content(name).is_some() {
        disk.remove(name).expect("it is there");
    }
    let file = disk.open(name, Access::Create).expect("the name is free");
    file.write_at(content, 0).expect("a healthy disk");
    drop(file);
    let (mut dir, entries) = recover(&disk).ok()?;
    // What was accepted can be gone on with, and is found again.
    let hard_state = dir.wal.hard_state();
    let index = dir.wal.last().index.next();
    let term = hard_state.term.max(dir.wal.last().term);
    // A number near the end of its range is believed, for the log's owner is trusted.
    if index.0 < u64::MAX / 2 {
        let entry = Entry { id: EntryId { index, term }, payload: Payload::Noop };
        let same_term = term == hard_state.term;
        let hard_state =
            HardState { term, vote: hard_state.vote.filter(|_| same_term), ..hard_state };
        dir.wal.append(hard_state, None, std::slice::from_ref(&entry)).expect("a healthy disk");
        dir.wal.sync().expect("a healthy disk");
        drop(dir);
        disk.kill();
        let (_, again) = recover(&disk).expect("what was recovered once is sound");
        assert_eq!(again.split_last(), Some((&entry, entries.as_slice())));
    }
    Some(entries)
}

/// The name of the last segment of the log.
pub fn last_segment() -> String {
    let names = DIRECTORY.names().into_iter().filter(|name| name.starts_with("wal-"));
    names.max().expect("there is a log")
}

/// The last segment is any bytes.
pub fn wal(bytes: &[u8]) {
    recovered(&last_segment(), bytes);
}

/// The last segment goes on with a group that has good checksums and any bytes for records.
pub fn records(bytes: &[u8]) {
    let name = last_segment();
    let mut content = DIRECTORY.content(&name).expect("it is there");
    let is_group = |at: &usize| &content[at + 4..at + 8] == b"RWAL";
    let last = (0..content.len()).step_by(64).rfind(is_group).expect("it was begun");
    let body_bytes = u32::from_le_bytes(content[last + 32..last + 36].try_into().expect("four"));
    let end = last + 64 + (body_bytes as usize).next_multiple_of(64);
    let mut group = content[last..last + 64].to_vec();
    let link: [u8; 4] = group[..4].try_into().expect("four");
    let mut body = bytes.to_vec();
    body.resize(body.len().next_multiple_of(64), 0);
    assert!(end + 64 + 1024 <= content.len(), "there is room for a group");
    if end + 64 + body.len() > content.len() {
        return;
    }
    group[12..16].copy_from_slice(&[0; 4]);
    group[24..32].copy_from_slice(&(end as u64).to_le_bytes());
    group[32..36].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    group[36..40].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    group[40..44].copy_from_slice(&link);
    let crc = crc32c::crc32c(&group[4..]);
    group[..4].copy_from_slice(&crc.to_le_bytes());
    content[end..end + 64].copy_from_slice(&group);
    content[end + 64..end + 64 + body.len()].copy_from_slice(&body);
    recovered(&name, &content);
}

/// One file of the directory, which the first byte chooses, is any bytes.
pub fn directory(bytes: &[u8]) {
    let Some((choice, content)) = bytes.split_first() else { return };
    let mut names = DIRECTORY.names();
    names.push("wal-0000000099".to_owned());
    names.push("snapshot-00000000000000000099-0000000009".to_owned());
    let name = names[usize::from(*choice) % names.len()].clone();
    if name != "lock" {
        recovered(&name, content);
    }
}

/// The name of the snapshot that the log names.
pub fn snapshot_name() -> String {
    let names = DIRECTORY.names().into_iter();
    names.filter(|name| name.starts_with("snapshot-")).max().expect("there is one")
}

/// The snapshot file is any bytes.
pub fn snapshot(bytes: &[u8]) {
    recovered(&snapshot_name(), bytes);
}

/// A store to do things to.
fn some_machine() -> Machine {
    let mut machine = Machine::new();
    for index in 1..=9_u64 {
        let key = Bytes::from(vec![b'a' + (index % 4) as u8]);
        let value = Bytes::from(vec![index as u8; index as usize]);
        let put = raft_node::kv::PutRequest { key, value, ..Default::default() };
        machine.apply(index, Command::Put(put)).expect("a plain put");
    }
    let compaction = Command::Compact(CompactionRequest { revision: 4 });
    machine.apply(10, compaction).expect("a plain compaction");
    machine
}

/// The content of a snapshot of some store.
pub fn some_image() -> Vec<u8> {
    image_of(some_machine().store())
}

fn image_of(store: &Store) -> Vec<u8> {
    let mut cursor = SnapshotCursor::new(store);
    let mut content = Vec::new();
    while let Some(chunk) = cursor.next_chunk(store, 64).expect("nobody replaces the store") {
        content.extend_from_slice(&snapshot_stream::head(&chunk));
        content.extend_from_slice(&chunk);
    }
    content
}

/// The content of a snapshot, as it comes from a file or another member, is any bytes.
pub fn content(bytes: &[u8]) {
    let mut import = snapshot_stream::Import::default();
    if bytes.chunks(7).any(|piece| import.take(piece).is_err()) {
        return;
    }
    let Ok(machine) = import.finish(7) else { return };
    let store = machine.store();
    let everything = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let all = store.range(&everything).expect("now can always be read");
    let written = image_of(store);
    let mut again = snapshot_stream::Import::default();
    again.take(&written).expect("what was written is read");
    let again = again.finish(7).expect("what was written is whole");
    assert_eq!(again.store().hash(0), store.hash(0), "the same meaning");
    assert_eq!(again.store().range(&everything), Ok(all));
    let _ = SnapshotImport::new().chunk(&Bytes::copy_from_slice(bytes));
    let _ = apply_to(machine, 8, Command::Compact(CompactionRequest { revision: i64::MAX }));
}

/// A committed entry is any bytes.
pub fn command(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(command) = Command::decode(&bytes) else { return };
    assert_eq!(command.encode(), bytes, "a command has one form");
    let _ = command.cost_bytes();
    let (first, second) =
        (apply_to(some_machine(), 11, command.clone()), apply_to(some_machine(), 11, command));
    assert_eq!(first, second, "every member comes to the same");
}

/// What came of a command, and the store's hash after it, before and after physical compaction.
fn apply_to(
    mut machine: Machine,
    index: u64,
    command: Command,
) -> (Result<Response, raft_node::kv::Error>, u32) {
    let before = machine.store().hash(0).expect("all of it");
    let answer = machine.answer(index, command);
    let result = answer.map(|answer| answer.read(machine.store()).expect("the same store"));
    let after = machine.store().hash(0).expect("all of it");
    assert!(result.is_ok() || before == after, "a refusal leaves no effect");
    machine.compact_step(usize::MAX);
    assert_eq!(machine.store().hash(0).expect("all of it"), after, "memory is nobody's business");
    (result, after.hash)
}

/// A frame of another member is any bytes; the first says of which kind it is. Its address is made
/// good, for a wrong one is refused before anything else is looked at.
pub fn frame(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let decoder = Decoder { cluster: CLUSTER, me: node(1), peer: node(2) };
    let route = Some(transport::route(CLUSTER, node(2), node(1)));
    let message = match kind % 9 {
        0 => wire::VoteRequest::decode(bytes)
            .ok()
            .and_then(|frame| decoder.vote_request(&wire::VoteRequest { route, ..frame }).ok()),
        1 => wire::VoteReply::decode(bytes)
            .ok()
            .and_then(|frame| decoder.vote_reply(&wire::VoteReply { route, ..frame }).ok()),
        2 => wire::TimeoutNowRequest::decode(bytes).ok().and_then(|frame| {
            decoder.timeout_now(&wire::TimeoutNowRequest { route, ..frame }).ok()
        }),
        3 => wire::AppendRequest::decode(bytes)
            .ok()
            .and_then(|frame| decoder.append_request(wire::AppendRequest { route, ..frame }).ok()),
        4 => wire::AppendReply::decode(bytes)
            .ok()
            .and_then(|frame| decoder.append_reply(&wire::AppendReply { route, ..frame }).ok()),
        5 => wire::ForwardRequest::decode(bytes).ok().and_then(|frame| {
            decoder.forward_request(wire::ForwardRequest { route, ..frame }).ok()
        }),
        6 => wire::ForwardReply::decode(bytes)
            .ok()
            .and_then(|frame| decoder.forward_reply(wire::ForwardReply { route, ..frame }).ok()),
        7 => wire::SnapshotHeader::decode(bytes).ok().and_then(|header| {
            let (term, meta) = transport::snapshot(&header).ok()?;
            let again = transport::snapshot_header(term, &meta);
            assert_eq!(transport::snapshot(&again), Ok((term, meta)), "the same meaning");
            None
        }),
        // As it came, with whatever address it has.
        _ => wire::AppendRequest::decode(bytes)
            .ok()
            .and_then(|frame| decoder.append_request(frame).ok()),
    };
    let Some(message) = message else { return };
    let again = match transport::encode(CLUSTER, message.clone()) {
        Frame::Call(Call::Vote(frame)) => decoder.vote_request(&frame),
        Frame::Call(Call::TimeoutNow(frame)) => decoder.timeout_now(&frame),
        Frame::VoteReply(frame) => decoder.vote_reply(&frame),
        Frame::Append(frame) | Frame::Heartbeat(frame) => decoder.append_request(frame),
        Frame::AppendReply(frame) | Frame::HeartbeatReply(frame) => decoder.append_reply(&frame),
        Frame::Forward(frame) => decoder.forward_request(frame),
        Frame::ForwardReply(frame) => decoder.forward_reply(frame),
        Frame::Snapshot(_) => return,
    };
    assert_eq!(again, Ok(message), "what was let in is what would be sent");
}

/// A request of a client is any bytes; the first says of which kind it is.
pub fn request(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let command = match kind % 5 {
        0 => {
            let range = pb::RangeRequest::decode(bytes).ok();
            if let Some(range) = range.and_then(|range| api::range(range).ok()) {
                let _ = some_machine().store().range(&range);
            }
            None
        }
        1 => {
            pb::PutRequest::decode(bytes).ok().and_then(|put| api::put(put).ok()).map(Command::Put)
        }
        2 => pb::DeleteRangeRequest::decode(bytes)
            .ok()
            .and_then(|delete| api::delete_range(delete).ok())
            .map(Command::DeleteRange),
        3 => {
            pb::TxnRequest::decode(bytes).ok().and_then(|txn| api::txn(txn).ok()).map(Command::Txn)
        }
        _ => pb::CompactionRequest::decode(bytes)
            .ok()
            .map(|request| CompactionRequest { revision: request.revision })
            .map(Command::Compact),
    };
    let Some(command) = command else { return };
    if let Command::Txn(txn) = &command
        && txn.is_read_only()
    {
        let _ = some_machine().store().read_txn(txn);
    }
    let decoded = Command::decode(&command.encode());
    assert_eq!(decoded.as_ref(), Ok(&command), "what a member proposes every member can apply");
    let _ = apply_to(some_machine(), 11, command);
}

/// The environment is any lines of `NAME=value`.
pub fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    match Config::from_pairs(pairs) {
        Ok(config) => {
            assert_ne!(config.cluster_id(), 0, "0 stands for no cluster");
            assert!(config.election_timeout_min_ms <= config.election_timeout_max_ms);
            let _ = config.client_loopback();
        }
        Err(faults) => {
            assert!(faults.iter().count() > 0, "a refusal has a reason");
            assert!(!faults.to_string().is_empty());
        }
    }
}
