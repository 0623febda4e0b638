//! What a log should hold, computed the plain way, and short names for making it.

use bytes::Bytes;

use crate::raft::types::{
    Attributes, Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, Proposal,
    RequestId, SnapshotMeta, Term,
};
use crate::storage::{
    DataDir, Disk, Error, Identity, OpenedDataDir, Options, Record, SnapshotInfo, SnapshotStore,
    Wal,
};

pub(super) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(super) fn identity() -> Identity {
    Identity { cluster_id: 0x00c1_0057_e41d, node_id: node(1) }
}

pub(super) fn members() -> Configuration {
    Configuration::of_voters([node(1), node(2), node(3)])
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: NodeId::new(vote), commit: Index(commit) }
}

pub(super) fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: Index(index), term: Term(term) }
}

pub(super) fn command(index: u64, term: u64, data: impl Into<Bytes>) -> Entry {
    let request = RequestId { origin: node(2), sequence: 1000 + index };
    Entry {
        id: id(index, term),
        payload: Payload::Command(Proposal { id: request, data: data.into() }),
    }
}

fn said(name: &str, client_addr: &str) -> Attributes {
    Attributes { name: name.to_owned(), client_addr: client_addr.to_owned() }
}

pub(super) fn meta(index: u64, term: u64) -> SnapshotMeta {
    let config = Configuration {
        learners: [node(9)].into(),
        promoting: [(node(9), Some(node(1)))].into(),
        removed: [node(7), node(8)].into(),
        removed_upto: 6,
        addresses: [(node(1), "one:5001".to_owned()), (node(9), String::new())].into(),
        attributes: [(node(1), said("one", "one:2379")), (node(9), said("", ""))].into(),
        request: Some(RequestId { origin: node(2), sequence: index }),
        ..members()
    };
    SnapshotMeta { last: id(index, term), config }
}

/// Segments so small that everything happens soon.
pub(super) fn small() -> Options {
    Options { segment_bytes: 4096, urgent_segment_bytes: 2048, recycled_max: 1 }
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub hard_state: HardState,
    pub base: SnapshotMeta,
    pub entries: Vec<Entry>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            hard_state: HardState::default(),
            base: SnapshotMeta { last: EntryId::default(), config: members() },
            entries: Vec::new(),
        }
    }

    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base.last, |entry| entry.id)
    }

    pub(super) fn append(
        &mut self,
        hard_state: HardState,
        snapshot: Option<&SnapshotMeta>,
        entries: &[Entry],
    ) {
        if let Some(snapshot) = snapshot {
            self.base = snapshot.clone();
            self.entries.clear();
        }
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.id.index < first.id.index);
            self.entries.extend_from_slice(entries);
        }
        self.hard_state = hard_state;
    }

    pub(super) fn release(&mut self, base: &SnapshotMeta) {
        self.base = base.clone();
        self.entries.retain(|entry| entry.id.index > base.last.index);
    }

    /// Follows a record as a caller would.
    fn replay(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => {
                let index = entry.id.index;
                self.entries.retain(|held| held.id.index < index);
                assert_eq!(self.last().index.next(), index, "no gap is handed out");
                self.entries.push(entry);
            }
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::Restart => self.entries.clear(),
        }
    }

    /// Equal but for the commit index, which may lag.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let lasting = |model: &Self| (model.hard_state.term, model.hard_state.vote);
        self.base == other.base && self.entries == other.entries && lasting(self) == lasting(other)
    }
}

pub(super) fn open<D: Disk>(disk: &D, options: Options) -> Result<OpenedDataDir<D>, Error> {
    crate::storage::open(disk, options, identity(), &members())
}

/// Opens the directory and says what it holds, its snapshot read to the end.
pub(super) fn recover<D: Disk>(disk: &D, options: Options) -> Result<(DataDir<D>, Model), Error> {
    let opening = open(disk, options)?;
    let mut model = Model { base: opening.base().clone(), ..Model::new() };
    if let Some(mut snapshot) = opening.read_snapshot()? {
        assert_eq!(snapshot.info().meta, model.base);
        let mut content = Vec::new();
        while let Some(chunk) = snapshot.next_chunk()? {
            content.extend_from_slice(&chunk);
        }
        assert_eq!(content, snapshot_content(&model.base));
    } else {
        assert_eq!(model.base.last, EntryId::default());
    }
    let (hard_state, last) = (opening.hard_state(), opening.last());
    let dir = opening.replay(|record| {
        model.replay(record);
        Ok::<(), Error>(())
    })?;
    assert_eq!((model.hard_state, model.last()), (hard_state, last));
    assert_eq!((dir.wal.hard_state(), dir.wal.last()), (hard_state, last));
    assert_eq!(dir.wal.base(), &model.base);
    Ok((dir, model))
}

/// What the machine of the tests is, as of `meta`.
pub(super) fn snapshot_content(meta: &SnapshotMeta) -> Vec<u8> {
    let word = meta.last.index.0 * 31 + meta.last.term.0;
    (0..200 + word % 700).flat_map(|at| (word ^ at).to_le_bytes()).collect()
}

pub(super) fn write_snapshot<D: Disk>(
    store: &SnapshotStore<D>,
    meta: &SnapshotMeta,
) -> Result<SnapshotInfo, Error> {
    let mut writer = store.create(meta)?;
    for piece in snapshot_content(meta).chunks(333) {
        writer.write(piece)?;
    }
    writer.finish()
}

/// A snapshot of our own, from start to end.
pub(super) fn take_snapshot<D: Disk>(
    wal: &mut Wal<D>,
    store: &SnapshotStore<D>,
    meta: &SnapshotMeta,
) -> Result<(), Error> {
    let info = write_snapshot(store, meta)?;
    wal.release(meta)?;
    store.adopt(info)
}
