//! The production store, asked one thing after the other, and a history of it as clients with
//! slow connections would tell it: calls overlap, answers are lost, reads come from a member that
//! is behind and at times starts from a snapshot.

use bytes::Bytes;
use raft_node::kv::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, Machine,
    PutRequest, RangeRequest, RangeScan, RequestOp, Response, SnapshotCursor, SnapshotError,
    SnapshotImport, SortOrder, SortTarget, TxnRequest,
};

use super::Rng;
use crate::linearizability::{
    Answer, ClientId, Freshness, History, Outcome, Request, Time, Verdict, register, revisions,
};

/// What is done in one world.
const STEPS: usize = 250;
const KEYS: [&str; 6] = ["a", "ab", "b", "c", "d", "e"];

/// A history with its log, of a store of this seed.
pub struct Told {
    /// What clients saw.
    pub history: History,
    /// What was applied, with the revision after it.
    pub log: Vec<(i64, Command)>,
}

/// Whether both checkers accept what the store of this seed did, and all its copies agree.
pub fn judge(seed: u64) -> Result<(), String> {
    let told = tell(seed)?;
    for verdict in
        [revisions::check(&told.history, Some(&told.log)), register::check(&told.history)]
    {
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Violation(what) | Verdict::Undecided(what) => return Err(what),
        }
    }
    Ok(())
}

/// Lets a store live and tells of it; an error if its copies differ.
pub fn tell(seed: u64) -> Result<Told, String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.end()
}

struct World {
    rng: Rng,
    leader: Machine,
    follower: Machine,
    log: Vec<(i64, Command)>,
    history: History,
    /// The moment at which things take effect.
    now: u64,
    values: u64,
    scan: Option<(RangeScan, RangeRequest)>,
    export: Option<(SnapshotCursor, SnapshotImport, u64)>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            leader: Machine::new(),
            follower: Machine::new(),
            log: Vec::new(),
            history: History::new(),
            now: 1000,
            values: 0,
            scan: None,
            export: None,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1 + self.rng.below(20);
        match self.rng.below(20) {
            0..=7 => self.write(),
            8 => {
                // Sent, and lost on the way: it never happens.
                let command = self.command();
                let called = Time(self.now - self.rng.below(60));
                self.history.call(ClientId(1), called, Request::Write(command));
            }
            9 => {
                let command = self.command();
                let id = self.history.call(ClientId(1), Time(self.now), Request::Write(command));
                self.history.refused(id, Time(self.now + self.rng.below(60)));
            }
            10..=13 => self.read(Freshness::Linearizable),
            14 => self.read(Freshness::Serializable),
            15 => self.scan(),
            16 | 17 => {
                let upto = self.follower.applied() + self.rng.below(8);
                self.follow(upto);
            }
            18 => {
                let budget = self.rng.below(7) as usize;
                self.leader.compact_step(budget);
                self.follower.compact_step(budget);
            }
            _ => self.image()?,
        }
        Ok(())
    }

    fn write(&mut self) {
        let command = self.command();
        let encoded = Command::decode(&command.encode()).expect("what was encoded is decoded");
        let answer = self.leader.answer(self.log.len() as u64 + 1, encoded);
        let read = |answer: raft_node::kv::Answer| {
            answer.read(self.leader.store()).expect("the same store")
        };
        let result = answer.map(read);
        let revision = self.leader.store().revision();
        self.log.push((revision, command.clone()));
        let answer = match result {
            Ok(response) => Answer::Written(response),
            Err(error) => {
                let revision = (!self.rng.one_in(3)).then_some(revision);
                Answer::Refused { error, revision }
            }
        };
        self.record(Request::Write(command), answer);
    }

    fn read(&mut self, freshness: Freshness) {
        let store = match freshness {
            Freshness::Linearizable => self.leader.store(),
            Freshness::Serializable => self.follower.store(),
        };
        let revision = store.revision();
        let refused = |error| Answer::Refused { error, revision: Some(revision) };
        if self.rng.one_in(4) {
            let txn = TxnRequest {
                compare: vec![compare(&mut self.rng, revision, self.values)],
                success: vec![RequestOp::Range(range(&mut self.rng, revision))],
                failure: vec![RequestOp::Range(range(&mut self.rng, revision))],
            };
            let answer = store.read_txn(&txn).map_or_else(refused, Answer::ReadTxn);
            self.record(Request::ReadTxn(txn, freshness), answer);
        } else {
            let request = range(&mut self.rng, revision);
            let answer = store.range(&request).map_or_else(refused, Answer::Range);
            self.record(Request::Range(request, freshness), answer);
        }
    }

    /// A long read of the follower's, under way while the world goes on.
    fn scan(&mut self) {
        let store = self.follower.store();
        let Some((mut scan, request)) = self.scan.take() else {
            let request = RangeRequest { key: key("a"), range_end: key("z"), ..past(0) };
            self.scan = RangeScan::new(request.clone(), store).ok().map(|scan| (scan, request));
            return;
        };
        if scan.step(store, 2).expect("now can always be read") {
            let answer = Answer::Range(scan.finish());
            self.record(Request::Range(request, Freshness::Serializable), answer);
        } else {
            self.scan = Some((scan, request));
        }
    }

    fn follow(&mut self, upto: u64) {
        while self.follower.applied() < upto.min(self.log.len() as u64) {
            let index = self.follower.applied() + 1;
            let (_, command) = self.log[index as usize - 1].clone();
            // The answer is the leader's client's.
            let _ = self.follower.apply(index, command);
        }
    }

    /// A snapshot of the leader's or the follower's, taken in pieces; then the follower begins
    /// anew with it, unless it is further already.
    fn image(&mut self) -> Result<(), String> {
        let Some((mut cursor, mut import, applied)) = self.export.take() else {
            let cursor = SnapshotCursor::new(self.follower.store());
            self.export = Some((cursor, SnapshotImport::new(), self.follower.applied()));
            return Ok(());
        };
        loop {
            match cursor.next_chunk(self.follower.store(), 100) {
                Ok(Some(chunk)) => import.chunk(&chunk).map_err(|error| error.to_string())?,
                Ok(None) => break,
                // The follower began anew in the middle of it.
                Err(SnapshotError::Replaced) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
            if self.rng.one_in(3) {
                self.export = Some((cursor, import, applied));
                if self.rng.one_in(4) {
                    self.replace_follower()?;
                }
                return Ok(());
            }
        }
        let store = import.finish().map_err(|error| error.to_string())?;
        self.begin_anew(Machine::restore(store, applied));
        Ok(())
    }

    fn replace_follower(&mut self) -> Result<(), String> {
        let mut cursor = SnapshotCursor::new(self.leader.store());
        let mut import = SnapshotImport::new();
        while let Some(chunk) =
            cursor.next_chunk(self.leader.store(), 1000).map_err(|error| error.to_string())?
        {
            import.chunk(&chunk).map_err(|error| error.to_string())?;
        }
        let store = import.finish().map_err(|error| error.to_string())?;
        self.begin_anew(Machine::restore(store, self.leader.applied()));
        Ok(())
    }

    fn begin_anew(&mut self, machine: Machine) {
        if machine.applied() >= self.follower.applied() {
            self.follower = machine;
        }
    }

    fn record(&mut self, request: Request, answer: Answer) {
        let client = ClientId(self.rng.below(5));
        let called = Time(self.now - self.rng.below(60));
        let id = self.history.call(client, called, request);
        let at = Time(self.now + self.rng.below(60));
        if !self.rng.one_in(15) {
            self.history.returned(id, at, answer);
        }
    }

    fn end(mut self) -> Result<Told, String> {
        self.follow(u64::MAX);
        for machine in [&mut self.leader, &mut self.follower] {
            drop(self.scan.take());
            drop(self.export.take());
            assert!(machine.compact_step(usize::MAX), "nobody holds anything any more");
        }
        let hashes = [&self.leader, &self.follower].map(|machine| machine.store().hash(0));
        if hashes[0] != hashes[1] {
            return Err(format!("the copies differ: {hashes:?}"));
        }
        // What is left to be read, at every revision that can be.
        for revision in 0..=self.leader.store().revision() {
            let request = RangeRequest { key: key("a"), range_end: key("z"), ..past(revision) };
            let answer = match self.leader.store().range(&request) {
                Ok(response) => Answer::Range(response),
                Err(error) => Answer::Refused { error, revision: None },
            };
            self.now += 100;
            self.record(Request::Range(request, Freshness::Linearizable), answer);
        }
        Ok(Told { history: self.history, log: self.log })
    }

    fn command(&mut self) -> Command {
        let revision = self.leader.store().revision();
        match self.rng.below(20) {
            0..=7 => Command::Put(self.put()),
            8..=11 => Command::DeleteRange(delete(&mut self.rng)),
            12..=17 => Command::Txn(self.txn(2)),
            18 => Command::Txn(self.overwriting()),
            _ => {
                let few = if self.rng.one_in(2) { 2 } else { 12 };
                let back = i64::try_from(self.rng.below(few)).expect("small") - 1;
                Command::Compact(CompactionRequest { revision: revision - back })
            }
        }
    }

    fn put(&mut self) -> PutRequest {
        self.values += 1;
        let ignore_value = self.rng.one_in(12);
        let value = if ignore_value { Bytes::new() } else { value(self.values) };
        let prev_kv = self.rng.one_in(3);
        let key = key(self.rng.of(&KEYS));
        PutRequest { key, value, prev_kv, ignore_value, ..PutRequest::default() }
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let revision = self.leader.store().revision();
        let compares = self.rng.below(3);
        let compare =
            (0..compares).map(|_| compare(&mut self.rng, revision, self.values)).collect();
        let mut branch = || {
            let ops = self.rng.below(4);
            (0..ops).map(|_| self.op(depth)).collect()
        };
        TxnRequest { compare, success: branch(), failure: branch() }
    }

    /// Puts a key and deletes it again, at one revision.
    fn overwriting(&mut self) -> TxnRequest {
        let put = PutRequest { ignore_value: false, ..self.put() };
        let key = put.key.clone();
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let inner = |op| {
            let success = vec![op];
            RequestOp::Txn(TxnRequest { success, ..TxnRequest::default() })
        };
        let success = vec![inner(RequestOp::Put(put)), inner(RequestOp::DeleteRange(delete))];
        TxnRequest { success, ..TxnRequest::default() }
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        let revision = self.leader.store().revision();
        match self.rng.below(8) {
            0..=3 => RequestOp::Put(self.put()),
            4 => RequestOp::DeleteRange(delete(&mut self.rng)),
            5 | 6 => RequestOp::Range(range(&mut self.rng, revision)),
            _ if depth > 0 => RequestOp::Txn(self.txn(depth - 1)),
            _ => RequestOp::Put(self.put()),
        }
    }
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value {number}"))
}

fn past(revision: i64) -> RangeRequest {
    RangeRequest { revision, ..RangeRequest::default() }
}

fn delete(rng: &mut Rng) -> DeleteRangeRequest {
    let range_end = if rng.one_in(2) { key(rng.of(&KEYS)) } else { Bytes::new() };
    DeleteRangeRequest { key: key(rng.of(&KEYS)), range_end, prev_kv: rng.one_in(2) }
}

fn range(rng: &mut Rng, now: i64) -> RangeRequest {
    let back = i64::try_from(rng.below(12)).expect("small") - 1;
    RangeRequest {
        key: key(rng.of(&KEYS)),
        range_end: if rng.one_in(2) { Bytes::new() } else { key(rng.of(&["b", "e", "\0"])) },
        revision: if rng.one_in(2) { 0 } else { (now - back).max(0) },
        limit: if rng.one_in(4) { 2 } else { 0 },
        sort_order: rng.of(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]),
        sort_target: rng.of(&[SortTarget::Key, SortTarget::Mod, SortTarget::Value]),
        keys_only: rng.one_in(8),
        count_only: rng.one_in(8),
        min_mod_revision: if rng.one_in(8) { now - 5 } else { 0 },
        ..RangeRequest::default()
    }
}

fn compare(rng: &mut Rng, now: i64, values: u64) -> Compare {
    let target = match rng.below(4) {
        0 => CompareTarget::Version(i64::try_from(rng.below(3)).expect("small")),
        1 => CompareTarget::Create(0),
        2 => CompareTarget::Mod(now - 1),
        _ => CompareTarget::Value(value(values.saturating_sub(rng.below(10)))),
    };
    let results = [
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Less,
        CompareResult::Greater,
    ];
    let range_end = if rng.one_in(6) { key("d") } else { Bytes::new() };
    Compare { key: key(rng.of(&KEYS)), range_end, result: rng.of(&results), target }
}

/// Alters one answer of a history so that it cannot be explained any more; false if there is none
/// to alter.
pub fn spoil(told: &mut Told, seed: u64) -> bool {
    let mut rng = Rng::new(seed);
    let shows = |answer: &Answer| match answer {
        Answer::Range(response) => !response.kvs.is_empty(),
        Answer::Written(Response::Put(_)) => true,
        _ => false,
    };
    let operations = &mut told.history.operations;
    let answers: Vec<usize> = (0..operations.len())
        .filter(|at| operations[*at].returned().is_some_and(|(_, answer)| shows(answer)))
        .collect();
    if answers.is_empty() {
        return false;
    }
    let operation = &mut operations[rng.of(&answers)];
    let Outcome::Returned { answer, .. } = &mut operation.outcome else {
        unreachable!("only answers were chosen");
    };
    match answer {
        Answer::Range(response) => match rng.below(5) {
            0 => response.kvs[0].value = Bytes::from_static(b"never written"),
            1 => response.kvs[0].version += 1,
            2 => response.kvs[0].create_revision -= 1,
            3 => response.count += 1,
            _ => drop(response.kvs.remove(0)),
        },
        Answer::Written(Response::Put(response)) => response.revision += 1,
        other => unreachable!("{other:?} was not chosen"),
    }
    true
}
