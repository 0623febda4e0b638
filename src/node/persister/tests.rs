//! What the event loop may write itself, and what is left to the thread.

use std::sync::mpsc as thread_channel;

use super::*;
use crate::node::recovery::{Recovered, recover};
use crate::raft::{Configuration, EntryId, HardState, Index, NodeId, Payload, Term};
use crate::storage::testing::{Fault, SimDisk};
use crate::storage::{Identity, Options};

struct Desk {
    disk: SimDisk,
    persister: Arc<Mutex<Persister<SimDisk>>>,
    way: WalHandle<SimDisk>,
    jobs: Receiver<Job<SimDisk>>,
    batches: u64,
}

fn open(disk: &SimDisk) -> Recovered<SimDisk> {
    let me = NodeId::new(1).expect("not zero");
    let identity = Identity { cluster_id: 7, node_id: me };
    let options = Options { segment_bytes: 8192, urgent_segment_bytes: 8192, recycled_max: 0 };
    recover(&disk.for_process(), options, identity, &Configuration::of_voters([me]), 1 << 20)
        .unwrap_or_else(|error| panic!("the directory opens: {error}"))
}

impl Desk {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let recovered = open(&disk);
        let persister = Persister::new(recovered.wal, recovered.snapshots);
        let persister = Arc::new(Mutex::new(persister));
        let (to_thread, jobs) = thread_channel::channel();
        let way = WalHandle::new(Arc::clone(&persister), to_thread, Arc::new(Metrics::new()));
        Self { disk, persister, way, jobs, batches: 0 }
    }

    fn batch(&mut self) -> Persist {
        self.batches += 1;
        let id = EntryId { index: Index(self.batches), term: Term(1) };
        Persist {
            seq: PersistSeq(self.batches),
            hard_state: HardState { term: Term(1), vote: None, commit: Index(0) },
            snapshot: None,
            entries: vec![Entry { id, payload: Payload::Noop }],
            messages_after: Vec::new(),
        }
    }

    /// Puts a batch before the event loop's end; what went to the thread stays in `jobs`. However
    /// long the sync before took this test, the disk counts as quick.
    fn write(&mut self) -> bool {
        self.persister.lock().expect("nobody panicked").last_sync = Duration::ZERO;
        let persist = self.batch();
        let Some(written) = self.way.write_at_once(&persist) else {
            assert!(self.way.send(persist));
            return false;
        };
        assert!(matches!(written, Event::Persisted { seq } if seq == persist.seq), "{written:?}");
        true
    }

    /// What the thread would do with what it was given.
    fn thread_works(&mut self) -> Result<(), storage::Error> {
        let mut persister = self.persister.lock().expect("nobody panicked");
        for job in self.jobs.try_iter() {
            persister.take(job)?;
        }
        persister.take_held()?;
        if let Some(seq) = persister.sync()? {
            drop(persister);
            self.way.done(seq);
        }
        Ok(())
    }
}

#[test]
fn what_is_written_on_the_spot_is_durable_when_it_is_reported() {
    let mut desk = Desk::new();
    assert!(desk.write() && desk.write());
    let Desk { disk, .. } = desk;
    disk.power_cut();
    assert_eq!(open(&disk).wal.last().index, Index(2));
}

#[test]
fn nothing_overtakes_what_the_thread_was_given() {
    let mut desk = Desk::new();
    let first = desk.batch();
    assert!(desk.way.send(first));
    assert!(!desk.write(), "it would come before the batch that the thread has");
    desk.thread_works().expect("the disk is sound");
    assert!(desk.write(), "the thread has nothing left");
}

#[test]
fn a_disk_that_was_slow_is_waited_for_by_the_thread_alone() {
    let mut desk = Desk::new();
    assert!(desk.write());
    desk.persister.lock().expect("nobody panicked").last_sync = 2 * QUICK;
    let next = desk.batch();
    assert!(desk.way.write_at_once(&next).is_none());
}

#[test]
fn what_makes_a_segment_or_is_large_is_for_the_thread() {
    let mut desk = Desk::new();
    let written = (0..64).take_while(|_| desk.write()).count();
    assert!((2..63).contains(&written), "a segment is full after {written} batches");
    desk.thread_works().expect("the disk is sound");
    desk.persister.lock().expect("nobody panicked").last_sync = Duration::ZERO;
    let mut large = desk.batch();
    large.entries = (0..=AT_ONCE_MAX as u64)
        .map(|at| {
            let index = Index(large.entries[0].id.index.0 + at);
            Entry { id: EntryId { index, term: Term(1) }, payload: Payload::Noop }
        })
        .collect();
    assert!(desk.way.write_at_once(&large).is_none());
}

#[test]
fn a_sync_is_not_put_off_for_the_sake_of_many_bytes() {
    let mut desk = Desk::new();
    let (small, mut large) = (desk.batch(), desk.batch());
    let id = crate::raft::RequestId { origin: NodeId::new(1).expect("not zero"), sequence: 1 };
    let data = vec![1; GROUP_BYTES_MAX].into();
    large.entries[0].payload = Payload::Command(crate::raft::Proposal { id, data });
    let mut persister = desk.persister.lock().expect("nobody panicked");
    persister.take(Job::Write(small)).expect("the disk is sound");
    assert!(!persister.is_full());
    persister.take(Job::Write(large)).expect("the disk is sound");
    assert!(persister.is_full());
    assert_eq!(persister.sync().expect("the disk is sound"), Some(PersistSeq(2)));
    assert!(!persister.is_full());
}

#[test]
fn the_thread_tells_what_failed_on_the_spot() {
    let mut desk = Desk::new();
    assert!(desk.write());
    desk.disk.fault_at(desk.disk.operations(), Fault::Fail(std::io::ErrorKind::Other));
    assert!(!desk.write());
    let told = desk.thread_works().expect_err("the disk failed");
    assert!(!matches!(told, storage::Error::Poisoned { .. }), "the cause, not its echo: {told}");
}

#[test]
fn a_log_that_is_left_alone_is_handed_over_to_be_vouched_for() {
    let mut desk = Desk::new();
    assert!(desk.write());
    assert!(desk.way.tick() && desk.jobs.try_recv().is_err());
    assert!(desk.write(), "not left alone yet");
    assert!(desk.way.tick() && desk.jobs.try_recv().is_err());
    assert!(desk.way.tick());
    assert!(matches!(desk.jobs.try_recv(), Ok(Job::Rest)));
    assert!(desk.way.tick() && desk.jobs.try_recv().is_err(), "once");
}

#[test]
fn what_finds_no_room_waits_and_so_does_what_comes_after_it() {
    let mut desk = Desk::new();
    let room = Room::default();
    {
        let mut persister = desk.persister.lock().expect("nobody panicked");
        persister.room = room.clone();
    }
    desk.disk.set_capacity(Some(desk.disk.used_bytes()));
    let mut reported = 0;
    while !room.is_short() {
        let next = desk.batch();
        assert!(desk.way.send(next));
        desk.thread_works().expect("nothing fails");
        reported = desk.batches;
        assert!(reported < 1000, "no disk is that large");
    }
    assert!(room.is_waited_for());
    let durable = desk.persister.lock().expect("nobody panicked").wal.last().index;
    assert_eq!(durable, Index(reported - 1), "the last one waits");
    for _ in 0..3 {
        let next = desk.batch();
        assert!(desk.way.write_at_once(&next).is_none(), "it would overtake");
        assert!(desk.way.send(next));
        desk.thread_works().expect("nothing fails");
    }
    let persister = Arc::clone(&desk.persister);
    let last = || persister.lock().expect("nobody panicked").wal.last().index;
    assert_eq!(last(), durable);
    desk.disk.set_capacity(None);
    let look = |desk: &mut Desk| {
        let mut persister = desk.persister.lock().expect("nobody panicked");
        persister.take(Job::Rest).expect("nothing fails");
        persister.take_held().expect("nothing fails");
        persister.sync().expect("nothing fails")
    };
    assert_eq!(look(&mut desk), Some(PersistSeq(desk.batches)));
    assert_eq!(last(), Index(desk.batches));
    assert!(!room.is_waited_for() && !room.is_short());
}
