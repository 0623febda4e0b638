//! Logs that are hard to read back.

use std::sync::RwLock;

use super::*;
use crate::kv::SnapshotCursor;
use crate::node::persister::{Job, Persister};
use crate::node::snapshotter::{self, Saving};
use crate::raft::{NodeId, Persist, PersistSeq, Term};
use crate::storage::testing::SimDisk;

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: Index(index), term: Term(term) }
}

fn batch(seq: u64, term: u64, commit: u64, entries: &[EntryId]) -> Persist {
    let noop = |id: &EntryId| Entry { id: *id, payload: Payload::Noop };
    Persist {
        seq: PersistSeq(seq),
        hard_state: HardState { term: Term(term), vote: None, commit: Index(commit) },
        snapshot: None,
        entries: entries.iter().map(noop).collect(),
        messages_after: Vec::new(),
    }
}

/// A leader of term 1 was alone with its entries; the next one's snapshot covers all but the last.
#[test]
fn an_entry_of_an_older_term_beyond_the_snapshot_was_never_applied() {
    let disk = SimDisk::new(1);
    let node_id = NodeId::new(1).expect("not zero");
    let config = Configuration::of_voters([node_id]);
    let identity = Identity { cluster_id: 7, node_id };
    let open = || {
        recover(&disk.for_process(), Options::default(), identity, &config, 0)
            .unwrap_or_else(|error| panic!("the directory opens: {error}"))
    };
    let found = open();
    let mut log = Persister::new(found.wal, found.snapshots.clone());
    log.take(Job::Write(batch(1, 1, 0, &[id(1, 1), id(2, 1), id(3, 1)]))).expect("room");
    log.take(Job::Write(batch(2, 2, 0, &[]))).expect("room");

    let meta = SnapshotMeta { last: id(2, 2), config: config.clone() };
    let cursor = SnapshotCursor::new(found.machine.store());
    let machine = RwLock::new(found.machine);
    let job = snapshotter::Job { meta: meta.clone(), cursor };
    let mut saving = Saving::begin(job, &found.snapshots).expect("room");
    while saving.write(&machine).expect("room") {}
    saving.finish().expect("room");
    let restart = Persist { snapshot: Some(meta), ..batch(3, 2, 2, &[id(3, 2)]) };
    log.take(Job::Write(restart)).expect("room");
    log.sync().expect("a sound disk");
    drop((log, found.snapshots));

    let found = open();
    assert_eq!(found.applied, id(2, 2));
    assert_eq!(found.wal.last(), id(3, 2));
    let kept: Vec<EntryId> = found.restored.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(kept, [id(3, 2)], "what the old leader wrote is gone");
    assert_eq!(found.restored.base.last, id(2, 2));
}
