//! One life of one member: the production parts, and the work that lies before each of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use raft_node::kv::Machine;
use raft_node::metrics::Metrics;
use raft_node::node::applier::{self, Applier, Batch};
use raft_node::node::persister::{self, Persister};
use raft_node::node::recovery::Recovered;
use raft_node::node::snapshotter::{self, Saving};
use raft_node::node::{PeerTable, Replica, ReplicaConfig};
use raft_node::raft::{NodeId, SnapshotMeta};
use raft_node::storage::testing::SimDisk;
use raft_node::storage::{self, SnapshotStore, SpareJob};

/// Who waits for an answer: a number in the simulator's list of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub usize);

/// Whom a member speaks with, as its transport keeps it.
#[derive(Clone, Debug, Default)]
pub struct Circle {
    /// Whom it dials and where, and who is refused, and told so.
    pub table: PeerTable,
    /// Others who dialled it. They are heard, and answered.
    pub guests: BTreeSet<NodeId>,
    /// Where each peer was reached, as the member knows.
    pub reached: BTreeMap<NodeId, String>,
}

/// The parts of a running member.
#[expect(clippy::struct_excessive_bools, reason = "each says whether one part is busy")]
pub struct Process {
    /// Whom it speaks with.
    pub circle: Circle,
    /// Between sockets and disk.
    pub replica: Replica<Ticket>,
    /// The state.
    pub machine: Arc<RwLock<Machine>>,
    /// The snapshot files.
    pub snapshots: SnapshotStore<SimDisk>,
    /// The log writer.
    pub persister: Persister<SimDisk>,
    /// Its work.
    pub writes: VecDeque<persister::Job<SimDisk>>,
    /// A sync is under way.
    pub syncing: bool,
    /// The log writer waits for room, and will look again.
    pub looking: bool,
    /// A blank segment in the making.
    pub spare: Option<SpareJob<SimDisk>>,
    /// The owner of the state machine.
    pub applier: Applier<SimDisk>,
    /// Its work.
    pub jobs: VecDeque<applier::Job<Ticket>>,
    /// What it is in the middle of.
    pub batch: Option<Batch<Ticket>>,
    /// It has something to do.
    pub applying: bool,
    /// Snapshots to be written.
    pub to_save: VecDeque<snapshotter::Job>,
    /// The one being written.
    pub saving: Option<(SnapshotMeta, Saving<SimDisk>)>,
    /// A snapshot comes in.
    pub receiving: bool,
    /// Requests that were not answered yet.
    pub open: BTreeSet<Ticket>,
    /// Events were taken in, and what follows from them is not done yet.
    pub turning: bool,
}

impl Process {
    /// A member as its disk remembers it.
    pub fn new(recovered: Recovered<SimDisk>, config: ReplicaConfig) -> Self {
        let machine = Arc::new(RwLock::new(recovered.machine));
        let replica = Replica::new(
            config,
            recovered.restored,
            recovered.latest_snapshot,
            recovered.log_bytes,
        );
        let applier = Applier {
            machine: Arc::clone(&machine),
            applied: recovered.applied,
            config: recovered.config,
            snapshots: recovered.snapshots.clone(),
            metrics: Arc::new(Metrics::new()),
            revisions: tokio::sync::watch::Sender::default(),
        };
        Self {
            circle: Circle::default(),
            replica,
            machine,
            persister: Persister::new(recovered.wal, recovered.snapshots.clone()),
            snapshots: recovered.snapshots,
            writes: VecDeque::new(),
            syncing: false,
            looking: false,
            spare: None,
            applier,
            jobs: VecDeque::new(),
            batch: None,
            applying: false,
            to_save: VecDeque::new(),
            saving: None,
            receiving: false,
            open: BTreeSet::new(),
            turning: false,
        }
    }

    /// Takes up what waits for the log, as one group.
    pub fn write_group(&mut self) -> Result<(), storage::Error> {
        while !self.persister.is_full()
            && let Some(job) = self.writes.pop_front()
        {
            self.persister.take(job)?;
        }
        self.persister.take_held()
    }

    /// Asks for a blank segment, if one is wanted; true if so.
    pub fn want_spare(&mut self, now_us: u64) -> bool {
        if self.spare.is_none() {
            self.spare = self.persister.spare_job(Duration::from_micros(now_us));
            return self.spare.is_some();
        }
        false
    }
}
