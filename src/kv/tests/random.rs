//! The store against the model, with everything interleaved that may be: commands, reads as of
//! any revision, long scans, physical compaction and snapshots.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::Model;
use super::strategy;
use crate::kv::{
    Answer, AnswerScan, Command, HashScan, Machine, RangeRequest, RangeResponse, RangeScan,
    Response, SnapshotCursor, SnapshotImport, StoreHash, TxnRequest, TxnResponse, TxnScan,
};

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Read(RangeRequest),
    ReadTxn(TxnRequest),
    Sweep(usize),
    BeginScan(RangeRequest),
    BeginTxnScan(TxnRequest),
    BeginHash,
    BeginSnapshot,
    /// Goes on with all that has begun.
    GoOn(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => strategy::command().prop_map(Step::Apply),
        5 => strategy::range().prop_map(Step::Read),
        2 => strategy::read_txn().prop_map(Step::ReadTxn),
        4 => (1..6_usize).prop_map(Step::Sweep),
        2 => strategy::range().prop_map(Step::BeginScan),
        1 => strategy::read_txn().prop_map(Step::BeginTxnScan),
        1 => Just(Step::BeginHash),
        1 => Just(Step::BeginSnapshot),
        6 => (1..4_usize).prop_map(Step::GoOn),
    ]
}

/// A snapshot under way.
struct Export {
    cursor: SnapshotCursor,
    import: SnapshotImport,
    /// What it must come to.
    model: Model,
    hash: StoreHash,
    /// What was applied since, which a restored member would apply too.
    since: Vec<(u64, Command)>,
    index: u64,
}

/// All that is compared with the model.
struct World {
    model: Model,
    machine: Machine,
    /// Applies the same, and never compacts physically.
    hoarder: Machine,
    index: u64,
    scans: Vec<(RangeScan, RangeResponse)>,
    txns: Vec<(TxnScan, TxnResponse)>,
    answers: Vec<(Box<AnswerScan>, Response)>,
    hashes: Vec<(HashScan, StoreHash)>,
    exports: Vec<Export>,
    /// Machines restored from snapshots, which follow from then on.
    restored: Vec<Machine>,
}

impl World {
    fn new() -> Self {
        Self {
            model: Model::new(),
            machine: Machine::new(),
            hoarder: Machine::new(),
            index: 0,
            scans: Vec::new(),
            txns: Vec::new(),
            answers: Vec::new(),
            hashes: Vec::new(),
            exports: Vec::new(),
            restored: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(command) => self.apply(&command),
            Step::Read(request) => {
                let expected = self.model.range(&request);
                assert_eq!(self.machine.store().range(&request), expected, "{request:?}");
                for machine in &self.restored {
                    assert_eq!(machine.store().range(&request), expected, "{request:?}");
                }
            }
            Step::ReadTxn(request) => {
                let answer = self.machine.store().read_txn(&request);
                assert_eq!(answer, self.model.read_txn(&request), "{request:?}");
            }
            Step::Sweep(budget) => {
                self.machine.compact_step(budget);
                for machine in &mut self.restored {
                    machine.compact_step(budget);
                }
            }
            Step::BeginScan(request) => {
                let expected = self.model.range(&request);
                match RangeScan::new(request, self.machine.store()) {
                    Ok(scan) => self.scans.push((scan, expected.unwrap())),
                    Err(error) => assert_eq!(Err(error), expected),
                }
            }
            Step::BeginTxnScan(request) => {
                let expected = self.model.read_txn(&request);
                match TxnScan::new(request, self.machine.store()) {
                    Ok(scan) => self.txns.push((scan, expected.unwrap())),
                    Err(error) => assert_eq!(Err(error), expected),
                }
            }
            Step::BeginHash => {
                let scan = HashScan::new(0, self.machine.store()).unwrap();
                self.hashes.push((scan, self.hoarder.store().hash(0).unwrap()));
            }
            Step::BeginSnapshot => self.exports.push(Export {
                cursor: SnapshotCursor::new(self.machine.store()),
                import: SnapshotImport::new(),
                model: self.model.clone(),
                hash: self.hoarder.store().hash(0).unwrap(),
                since: Vec::new(),
                index: self.index,
            }),
            Step::GoOn(budget) => self.go_on(budget),
        }
    }

    fn apply(&mut self, command: &Command) {
        self.index += 1;
        let decoded = Command::decode(&command.encode()).unwrap();
        assert_eq!(&decoded, command);
        let expected = self.model.apply(command);
        match self.machine.answer_within(self.index, command, 1) {
            Ok(Answer::Ready(response)) => {
                assert_eq!(Ok(response.listed()), expected, "{command:?}");
            }
            Ok(Answer::Pending(scan)) => self.answers.push((scan, expected.clone().unwrap())),
            Err(error) => assert_eq!(Err(error), expected, "{command:?}"),
        }
        // No answer is awaited: the effect is the same.
        let outcome = self.hoarder.apply(self.index, decoded.clone());
        assert_eq!(outcome.err(), expected.as_ref().err().copied(), "{command:?}");
        for machine in &mut self.restored {
            let answer = machine.answer(self.index, decoded.clone());
            let response = answer.map(|answer| answer.read(machine.store()).unwrap());
            assert_eq!(response, expected, "{command:?}");
        }
        let machines = [&self.machine, &self.hoarder];
        for machine in machines.into_iter().chain(&self.restored) {
            assert_eq!(machine.store().revision(), self.model.revision());
            assert_eq!(machine.store().compacted_revision(), self.model.compacted);
        }
        for export in &mut self.exports {
            export.since.push((self.index, command.clone()));
        }
    }

    fn go_on(&mut self, budget: usize) {
        let store = self.machine.store();
        for (mut scan, expected) in std::mem::take(&mut self.scans) {
            if scan.step(store, budget).unwrap() {
                assert_eq!(scan.finish(), expected);
            } else {
                self.scans.push((scan, expected));
            }
        }
        for (mut scan, expected) in std::mem::take(&mut self.txns) {
            if scan.step(store, budget).unwrap() {
                assert_eq!(scan.finish(), expected);
            } else {
                self.txns.push((scan, expected));
            }
        }
        for (mut scan, expected) in std::mem::take(&mut self.answers) {
            if scan.step(store, budget).unwrap() {
                assert_eq!(scan.collect().listed(), expected);
            } else {
                self.answers.push((scan, expected));
            }
        }
        for (mut scan, expected) in std::mem::take(&mut self.hashes) {
            if scan.step(store, budget).unwrap() {
                assert_eq!(scan.finish(), expected);
            } else {
                self.hashes.push((scan, expected));
            }
        }
        for mut export in std::mem::take(&mut self.exports) {
            match export.cursor.next_chunk(store, budget * 40).unwrap() {
                Some(chunk) => {
                    export.import.chunk(&chunk).unwrap();
                    self.exports.push(export);
                }
                None => self.restored.push(restore(export)),
            }
        }
    }

    fn end(mut self) {
        while !(self.scans.is_empty()
            && self.txns.is_empty()
            && self.answers.is_empty()
            && self.hashes.is_empty()
            && self.exports.is_empty())
        {
            self.go_on(2);
        }
        let hash = self.hoarder.store().hash(0).unwrap();
        let machines = [&mut self.machine, &mut self.hoarder];
        for machine in machines.into_iter().chain(&mut self.restored) {
            compare(machine, &self.model);
            assert!(machine.compact_step(usize::MAX));
            assert!(!machine.store().compaction_pending());
            compare(machine, &self.model);
            assert_eq!(machine.store().hash(0).unwrap(), hash);
        }
        let sizes =
            |machine: &Machine| (machine.store().keys(), machine.store().size_in_use_bytes());
        let expected = sizes(&self.hoarder);
        assert_eq!(sizes(&self.machine), expected, "all that can be freed is freed");
        assert!(self.restored.iter().all(|machine| sizes(machine) == expected));
    }
}

fn restore(export: Export) -> Machine {
    let store = export.import.finish().unwrap();
    assert_eq!(store.hash(0).unwrap(), export.hash);
    let mut machine = Machine::restore(store, export.index);
    compare(&machine, &export.model);
    for (index, command) in export.since {
        let _ = machine.apply(index, command);
    }
    machine
}

/// Every key and every event at every revision.
fn compare(machine: &Machine, model: &Model) {
    let store = machine.store();
    assert_eq!(store.revision(), model.revision());
    assert_eq!(store.compacted_revision(), model.compacted);
    for revision in -1..=model.revision() + 1 {
        let request = RangeRequest { revision, ..super::everything() };
        assert_eq!(store.range(&request), model.range(&request), "at {revision}");
        let events: Vec<_> = store.events(revision).collect();
        assert_eq!(events, model.events(revision), "at {revision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}
