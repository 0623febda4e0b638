//! What would stop every member at every start, had it got into a log or in the place of one:
//! commands that nobody can apply, and snapshots that make no state.

use std::sync::RwLock;

use bytes::{Bytes, BytesMut};
use raft_node::kv::{Command, Machine, PutRequest, SnapshotCursor};
use raft_node::node::received::Receiving;
use raft_node::node::{intake, recovery, snapshot_stream};
use raft_node::raft::{
    Body, Configuration, EntryId, Index, Message, NodeId, Proposal, RequestId, SnapshotMeta, Term,
};
use raft_node::storage::testing::SimDisk;
use raft_node::storage::{Identity, Options};

use super::Rng;

/// Some proposals and one snapshot, of which some are poison.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    judge_proposals(&mut rng)?;
    judge_snapshot(seed, &mut rng)
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("counted from one")
}

fn put(rng: &mut Rng) -> Command {
    let key = vec![b'k', rng.below(200) as u8].into();
    Command::Put(PutRequest { key, value: vec![1; 40].into(), ..PutRequest::default() })
}

fn judge_proposals(rng: &mut Rng) -> Result<(), String> {
    let proposals: Vec<Proposal> = (1..5)
        .map(|sequence| {
            let whole = put(rng).encode();
            let data = match rng.below(3) {
                0 => whole,
                1 => whole.slice(..rng.below(whole.len() as u64) as usize),
                _ => Bytes::from(vec![rng.below(256) as u8; 9]),
            };
            Proposal { id: RequestId { origin: id(2), sequence }, data }
        })
        .collect();
    let sound = |one: &Proposal| Command::decode(&one.data).is_ok();
    let due: Vec<Proposal> = proposals.iter().filter(|one| sound(one)).cloned().collect();
    let (from, to, term, body) = (id(2), id(1), Term(1), Body::Propose { proposals });
    let admitted = match intake::admitted(Message { from, to, term, body }) {
        Some(Message { body: Body::Propose { proposals }, .. }) => proposals,
        _ => Vec::new(),
    };
    if admitted == due { Ok(()) } else { Err(format!("{admitted:?} were admitted, not {due:?}")) }
}

fn judge_snapshot(seed: u64, rng: &mut Rng) -> Result<(), String> {
    let mut machine = Machine::new();
    let last = 1 + rng.below(20);
    for index in 1..=last {
        let _ = machine.apply(index, put(rng));
    }
    let mut content = BytesMut::new();
    let machine = RwLock::new(machine);
    let mut cursor = {
        let machine = machine.read().map_err(|error| error.to_string())?;
        SnapshotCursor::new(machine.store())
    };
    while let Some(chunk) =
        snapshot_stream::next_chunk(&machine, &mut cursor).map_err(|error| error.to_string())?
    {
        content.extend_from_slice(&snapshot_stream::head(&chunk));
        content.extend_from_slice(&chunk);
    }
    let poisoned = rng.one_in(2);
    if poisoned {
        let length = rng.below(content.len() as u64) as usize;
        content.truncate(length);
    }
    let identity = Identity { cluster_id: 1, node_id: id(1) };
    let first = Configuration::of_voters([id(1), id(2)]);
    let disk = SimDisk::new(seed);
    let recovered = recovery::recover(&disk, Options::default(), identity, &first, 0)
        .map_err(|error| error.to_string())?;
    let last = EntryId { term: Term(1), index: Index(last) };
    let meta = SnapshotMeta { last, config: first };
    let outcome = Receiving::begin(&recovered.snapshots, &meta)
        .map_err(recovery::Error::from)
        .and_then(|mut file| {
            content.chunks(7).try_for_each(|piece| file.write(piece))?;
            file.finish()
        });
    match (poisoned, outcome) {
        (false, Ok(_)) | (true, Err(_)) => Ok(()),
        (true, Ok(_)) => Err("a snapshot that makes no state was taken".to_owned()),
        (false, Err(error)) => Err(format!("a snapshot that is whole was refused: {error}")),
    }
}
