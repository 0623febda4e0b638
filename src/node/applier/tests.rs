//! Who applies what, and that order is kept between the two who may.

use std::sync::mpsc::{self as thread_channel, Receiver};

use tokio::sync::{oneshot, watch};

use super::*;
use crate::kv::{CompactionRequest, DeleteRangeRequest, PutRequest};
use crate::node::RequestError;
use crate::node::persister::{self, Persister};
use crate::node::recovery::recover;
use crate::node::snapshotter::Saving;
use crate::raft::{HardState, Index, NodeId, Persist, PersistSeq, Proposal, RequestId, Term};
use crate::storage::testing::SimDisk;
use crate::storage::{Identity, Options};

type Answer = oneshot::Receiver<Result<Applied, RequestError>>;

struct Desk {
    machine: Arc<RwLock<Machine>>,
    applier: Arc<Mutex<Applier<SimDisk>>>,
    way: ApplierHandle<SimDisk>,
    jobs: Receiver<Job<Ticket>>,
    last: u64,
}

impl Desk {
    fn new() -> Self {
        let me = NodeId::new(1).expect("not zero");
        let identity = Identity { cluster_id: 7, node_id: me };
        let first = Configuration::of_voters([me]);
        let options =
            Options { segment_bytes: 4096, urgent_segment_bytes: 4096, ..Options::default() };
        let recovered = recover(&SimDisk::new(1), options, identity, &first, 0)
            .unwrap_or_else(|error| panic!("an empty disk opens: {error}"));
        let machine = Arc::new(RwLock::new(recovered.machine));
        let applier = Arc::new(Mutex::new(Applier {
            machine: Arc::clone(&machine),
            applied: recovered.applied,
            config: recovered.config,
            snapshots: recovered.snapshots,
            metrics: Arc::new(Metrics::new()),
            revisions: watch::Sender::default(),
        }));
        let (to_thread, jobs) = thread_channel::channel();
        let way = ApplierHandle::new(Arc::clone(&applier), to_thread);
        Self { machine, applier, way, jobs, last: 0 }
    }

    fn entry(&mut self, command: &Command) -> (Vec<(Entry, Option<Ticket>)>, Answer) {
        self.last += 1;
        let (reply, answer) = oneshot::channel();
        let origin = NodeId::new(1).expect("not zero");
        let id = RequestId { origin, sequence: self.last };
        let payload = Payload::Command(Proposal { id, data: command.encode() });
        let id = EntryId { index: Index(self.last), term: Term(1) };
        (vec![(Entry { id, payload }, Some(Ticket::Propose(reply)))], answer)
    }

    /// Puts `command` before the event loop's end; what went to the thread stays in `jobs`.
    fn put_forward(&mut self, command: &Command) -> (bool, Answer) {
        let (entries, answer) = self.entry(command);
        match self.way.apply_at_once(entries) {
            Ok(_) => (true, answer),
            Err(entries) => {
                assert!(self.way.send(Job::Apply(entries)));
                (false, answer)
            }
        }
    }

    /// What the thread would do.
    fn thread_works(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            let Job::Apply(entries) = job else { panic!("only entries were given") };
            let mut applier = self.applier.lock().expect("nobody panicked");
            apply(&mut applier, entries.into_iter()).expect("the commands are known");
            drop(applier);
            self.way.job_done();
        }
    }
}

fn put(key: &'static str) -> Command {
    let (key, value) = (key.into(), "value".into());
    Command::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn delete_all() -> Command {
    let (key, range_end) = ("a".into(), vec![0].into());
    Command::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
}

fn index(answer: &mut Answer) -> u64 {
    answer.try_recv().expect("answered").expect("applied").index.0
}

#[test]
fn a_single_put_is_answered_on_the_spot() {
    let mut desk = Desk::new();
    let (at_once, mut answer) = desk.put_forward(&put("a"));
    assert!(at_once);
    assert_eq!(index(&mut answer), 1);
}

#[test]
fn nothing_overtakes_what_the_thread_was_given() {
    let mut desk = Desk::new();
    let (at_once, mut first) = desk.put_forward(&delete_all());
    assert!(!at_once, "a range can take long");
    let (at_once, mut second) = desk.put_forward(&put("a"));
    assert!(!at_once, "it would come before the deletion");
    assert!(first.try_recv().is_err() && second.try_recv().is_err());
    desk.thread_works();
    assert_eq!((index(&mut first), index(&mut second)), (1, 2));
    let (at_once, mut third) = desk.put_forward(&put("b"));
    assert!(at_once, "the thread has nothing left");
    assert_eq!(index(&mut third), 3);
}

#[test]
fn what_can_take_long_is_for_the_thread() {
    let mut desk = Desk::new();
    let compact = Command::Compact(CompactionRequest { revision: 1 });
    assert!(!desk.put_forward(&compact).0);
    desk.thread_works();
    let long = Command::Put(PutRequest {
        key: "a".into(),
        value: vec![0; AT_ONCE_BYTES_MAX].into(),
        ..PutRequest::default()
    });
    assert!(!desk.put_forward(&long).0);
    desk.thread_works();
    let many: Vec<_> = (0..=AT_ONCE_MAX).flat_map(|_| desk.entry(&put("a")).0).collect();
    assert!(desk.way.apply_at_once(many).is_err());
}

#[test]
fn the_event_loop_waits_for_no_reader_and_not_for_the_thread() {
    let mut desk = Desk::new();
    let machine = Arc::clone(&desk.machine);
    let reader = machine.read().expect("nobody panicked");
    assert!(!desk.put_forward(&put("a")).0, "somebody reads");
    drop(reader);
    desk.thread_works();
    let applier = Arc::clone(&desk.applier);
    let compacting = applier.lock().expect("nobody panicked");
    assert!(!desk.put_forward(&put("a")).0, "the thread has the state machine");
    drop(compacting);
    desk.thread_works();
}

/// The batch by which the log restarts at `meta`.
fn received(seq: u64, meta: &SnapshotMeta) -> persister::Job<SimDisk> {
    let hard_state = HardState { term: meta.last.term, vote: None, commit: meta.last.index };
    persister::Job::Write(Persist {
        seq: PersistSeq(seq),
        hard_state,
        snapshot: Some(meta.clone()),
        entries: Vec::new(),
        messages_after: Vec::new(),
    })
}

#[test]
fn a_snapshot_is_restored_though_a_newer_one_has_taken_its_place_on_disk() {
    let disk = SimDisk::new(1);
    let node_id = NodeId::new(1).expect("not zero");
    let config = Configuration::of_voters([node_id]);
    let identity = Identity { cluster_id: 7, node_id };
    let found =
        recover(&disk, Options::default(), identity, &config, 1 << 20).expect("an empty disk");
    let mut applier = Applier {
        machine: Arc::new(RwLock::new(found.machine)),
        applied: found.applied,
        config: found.config,
        snapshots: found.snapshots.clone(),
        metrics: Arc::new(Metrics::new()),
        revisions: watch::Sender::default(),
    };
    let mut log = Persister::new(found.wal, found.snapshots.clone());

    // Two come in, and both count before the state machine gets to the first.
    let metas = [5, 9].map(|index| SnapshotMeta {
        last: EntryId { index: Index(index), term: Term(1) },
        config: config.clone(),
    });
    for (seq, meta) in (1..).zip(&metas) {
        let cursor = SnapshotCursor::new(applier.lock().store());
        let job = snapshotter::Job { meta: meta.clone(), cursor };
        let mut saving = Saving::begin(job, &found.snapshots).expect("room");
        while saving.write(&applier.machine).expect("room") {}
        saving.finish().expect("room");
        log.take(received(seq, meta)).expect("room");
    }
    assert_eq!(log.sync().expect("a sound disk"), Some(PersistSeq(2)));
    for meta in &metas {
        applier.restore(meta, || ()).expect("a sound disk");
        assert_eq!(applier.applied, meta.last);
    }
}
