//! The promises of Raft and of the store (`docs/verification.md`), checked over a whole run as it
//! runs: nothing here costs more than what has just happened.
//!
//! The checker keeps books of its own: of each member, what its log must hold by what it was asked
//! to write, and how much of that its disk has confirmed; of the cluster, what is committed. A
//! member that comes back must remember exactly what its disk had confirmed, and of the rest any
//! beginning.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use bytes::Bytes;
use raft_node::kv::{Command, Machine, StoreHash};
use raft_node::node::Replica;
use raft_node::node::recovery::Recovered;
use raft_node::raft::{
    Body, Configuration, Entry, EntryId, HardState, Index, Message, NodeId, Payload, Persist,
    PersistSeq, RaftNode, Restored, Role, SnapshotMeta, SoftState, Term,
};
use raft_node::storage::testing::SimDisk;

use crate::configurations::{Configurations, decides};
use crate::simulator::Simulator;

/// The terms of a log: what its members agree on is named by them. And its configurations, for
/// those say who the members are.
#[derive(Clone, Debug, Default)]
struct Terms {
    /// What it begins after.
    base: EntryId,
    after: VecDeque<Term>,
    /// The membership as of the base.
    first: Rc<Configuration>,
    /// What came after it, ascending.
    configs: VecDeque<(Index, Rc<Configuration>)>,
}

impl Terms {
    fn last(&self) -> EntryId {
        let index = Index(self.base.index.0 + self.after.len() as u64);
        EntryId { index, term: self.after.back().copied().unwrap_or(self.base.term) }
    }

    /// The term at `index`, if it lies behind the base.
    fn at(&self, index: Index) -> Option<Term> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.after.get(place as usize).copied()
    }

    /// Whether it holds that entry; what lies at or before the base is covered by it.
    fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.index || self.at(id.index) == Some(id.term)
    }

    /// The membership as of `index`, and since when.
    fn config_at(&self, index: Index) -> (Index, &Rc<Configuration>) {
        let change = self.configs.iter().rev().find(|(since, _)| *since <= index);
        change.map_or((Index(0), &self.first), |(since, config)| (*since, config))
    }

    /// The membership that it tells of.
    fn config(&self) -> &Rc<Configuration> {
        self.configs.back().map_or(&self.first, |(_, config)| config)
    }

    /// Under that membership, and empty.
    fn under(first: Rc<Configuration>) -> Self {
        Self { first, ..Self::default() }
    }

    fn write(&mut self, batch: &Batch) {
        if let Some((base, config)) = &batch.snapshot {
            *self = Self { base: *base, ..Self::under(Rc::clone(config)) };
        }
        if batch.terms.is_empty() {
            return;
        }
        let kept = batch.first.0 - self.base.index.0 - 1;
        self.after.truncate(kept as usize);
        self.after.extend(&batch.terms);
        while self.configs.back().is_some_and(|(since, _)| *since >= batch.first) {
            self.configs.pop_back();
        }
        self.configs.extend(batch.configs.iter().cloned());
    }
}

/// One batch on its way to a disk.
#[derive(Clone, Debug)]
struct Batch {
    seq: PersistSeq,
    hard_state: HardState,
    snapshot: Option<(EntryId, Rc<Configuration>)>,
    first: Index,
    terms: Vec<Term>,
    configs: Vec<(Index, Rc<Configuration>)>,
}

/// What a disk holds, by what it was told.
#[derive(Clone, Debug, Default)]
struct Disk {
    hard_state: HardState,
    log: Terms,
}

impl Disk {
    fn write(&mut self, batch: &Batch) {
        self.log.write(batch);
        self.hard_state = batch.hard_state;
    }

    /// Whether that is what `restored` remembers.
    fn explains(&self, restored: &Restored) -> bool {
        let found = restored.hard_state;
        let last = restored.entries.last().map_or(restored.base.last, |entry| entry.id);
        (found.term, found.vote) == (self.hard_state.term, self.hard_state.vote)
            && self.log.last() == last
            && self.log.holds(restored.base.last)
            && restored.entries.iter().all(|entry| self.log.holds(entry.id))
            && self.log.config() == log_of(restored).config()
    }
}

/// One member, as the books have it.
#[derive(Clone, Debug, Default)]
struct Book {
    durable: Disk,
    pending: VecDeque<Batch>,
    /// With everything that is pending.
    issued: Terms,
    term: Term,
    commit: Index,
    applied: Index,
    restarts: u64,
    /// Its disk was lost once, and with it votes that it gave.
    forgetful: bool,
    /// The last snapshot of its own that it said to be durable.
    snapshot: Index,
}

impl Book {
    /// Of a member that begins under `birth`.
    fn new(birth: Rc<Configuration>) -> Self {
        let log = Terms::under(birth);
        let durable = Disk { hard_state: HardState::default(), log: log.clone() };
        Self { durable, issued: log, ..Self::default() }
    }

    /// Whether it may have voted for `leader` in `term`, for all that its disk says.
    fn may_have_voted(&self, leader: NodeId, term: Term) -> bool {
        let disk = self.durable.hard_state;
        self.forgetful || disk.term > term || (disk.term == term && disk.vote == Some(leader))
    }
}

/// A committed entry: its term, and what it says once somebody has applied it.
#[derive(Clone, Debug)]
struct Committed {
    term: Term,
    content: Option<u64>,
    /// The command, if it is one.
    command: Option<Bytes>,
}

/// How a member came to remember what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All that was confirmed is there.
    Whole,
    /// Something that was confirmed is missing.
    Short,
}

/// All books.
pub struct Checker {
    /// Under which membership each begins: those who join, under none.
    births: Vec<Rc<Configuration>>,
    /// Who the members are.
    pub configurations: Configurations,
    leaders: BTreeMap<Term, usize>,
    /// Index 1 first.
    committed: Vec<Committed>,
    /// Every entry that was ever written: the term of the one before, and what it says.
    entries: HashMap<EntryId, (Term, u64)>,
    books: Vec<Book>,
    /// The state after an index, as somebody had it.
    states: BTreeMap<Index, StoreHash>,
    /// Elections won.
    pub elections: u64,
    /// States compared between members.
    pub states_compared: u64,
}

impl Checker {
    /// The books of so many machines, of which `first` are the first members.
    pub fn new(places: usize, first: &Configuration) -> Self {
        let first = Rc::new(first.clone());
        let births = (0..places).map(|at| {
            let is_first = first.is_member(Simulator::id(at));
            if is_first { Rc::clone(&first) } else { Rc::default() }
        });
        let births: Vec<Rc<Configuration>> = births.collect();
        let books = births.iter().map(|birth| Book::new(Rc::clone(birth)));
        Self {
            books: books.collect(),
            births,
            configurations: Configurations::new(first),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            entries: HashMap::new(),
            states: BTreeMap::new(),
            elections: 0,
            states_compared: 0,
        }
    }

    /// The last index that is committed anywhere.
    pub fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// Who led in the highest term that had a leader.
    pub fn latest_leader(&self) -> Option<(Term, usize)> {
        self.leaders.last_key_value().map(|(term, at)| (*term, *at))
    }

    /// Term and vote as the disk of a member has them.
    pub fn durable_vote(&self, at: usize) -> HardState {
        self.books[at].durable.hard_state
    }

    /// Whether the disk of a member holds everything up to `id`.
    pub fn durably_holds(&self, at: usize, id: EntryId) -> bool {
        self.books[at].durable.log.holds(id)
    }

    /// The last entry that a member has been asked to write.
    pub fn last_issued(&self, at: usize) -> EntryId {
        self.books[at].issued.last()
    }

    /// After any event at a member: what it knows never goes back, and every stage of the log lies
    /// within the one before.
    pub fn observe<T>(&mut self, at: usize, replica: &Replica<T>) {
        let raft = replica.raft();
        let (term, commit, applied) = (raft.term(), raft.committed(), replica.applied());
        let book = &mut self.books[at];
        assert!(term >= book.term, "member {at}: the term fell from {} to {term}", book.term);
        assert!(commit >= book.commit, "member {at}: the commit index fell to {commit}");
        assert!(applied >= book.applied, "member {at}: the applied index fell to {applied}");
        assert!(raft.first_index().prev() <= commit, "member {at}: forgot what is not committed");
        assert!(applied <= commit, "member {at}: applied {applied}, committed {commit}");
        assert!(commit <= raft.last_index(), "member {at}: committed what it does not have");
        let moved = commit > book.commit;
        (book.term, book.commit, book.applied) = (term, commit, applied);
        if moved && commit > self.committed() {
            self.first_committed(at, replica);
        }
    }

    /// Somebody is the first to know these entries committed: a quorum of disks holds them.
    fn first_committed<T>(&mut self, at: usize, replica: &Replica<T>) {
        let raft = replica.raft();
        let (from, to) = (self.committed().next().0, raft.committed().0);
        for index in (from..=to).map(Index) {
            let term = raft.term_at(index).expect("nothing is forgotten that nobody applied");
            let id = EntryId { index, term };
            let holds = |voter: NodeId| self.books[Simulator::place(voter)].durable.log.holds(id);
            // A configuration decides on itself; of the rest, the one that the leader had in its
            // log when it last acted, or one that it wrote since.
            let (had, has) = (self.books[at].issued.config(), raft.membership());
            let held = match self.configurations.of_entry(id) {
                Some(own) => decides(own, holds),
                None => decides(had, holds) || decides(has, holds),
            };
            assert!(
                held,
                "{id} is committed by member {at}, but not durable on a quorum of {has:?}"
            );
            self.committed.push(Committed { term, content: None, command: None });
            self.configurations.commit(id);
        }
    }

    /// What a member did is written: the log that it has been asked to write tells the membership
    /// that it goes by.
    pub fn acted(&self, at: usize, raft: &RaftNode) {
        let told = self.books[at].issued.config();
        let goes_by = raft.membership();
        assert_eq!(&**told, goes_by, "member {at}: the log is the one source of the membership");
    }

    /// Whether some log, of a machine that still counts, holds a change that is not committed.
    pub fn unsettled(&self) -> bool {
        let committed = self.committed();
        let open = |book: &Book| book.issued.configs.back().is_some_and(|(at, _)| *at > committed);
        self.books.iter().any(open)
    }

    /// A member reports another role, term or leader.
    pub fn soft_state<T>(&mut self, at: usize, soft_state: SoftState, replica: &Replica<T>) {
        let SoftState { term, role, leader: _ } = soft_state;
        if role != Role::Leader || self.leaders.get(&term) == Some(&at) {
            return;
        }
        let other = self.leaders.insert(term, at);
        assert_eq!(other, None, "election safety: members {at} and {other:?} lead term {term}");
        self.elections += 1;
        // Nothing was written since the votes were counted.
        let (id, config) = (Simulator::id(at), Rc::clone(self.books[at].issued.config()));
        // Whom only an uncommitted entry leaves out may have to lead, to commit it (thesis §4.2.2).
        let committed = replica.raft().membership_at(replica.raft().committed());
        let may_lead = config.is_voter(id) || committed.is_voter(id);
        assert!(may_lead, "member {at} leads and is no voter: {config:?}");
        let votes = |voter: NodeId| self.books[Simulator::place(voter)].may_have_voted(id, term);
        assert!(decides(&config, votes), "member {at} leads {term} without a quorum of {config:?}");
        // With the last committed entry a log holds, by log matching, all before it.
        let last = self.committed();
        let Some(wanted) = self.committed.last() else { return };
        let raft = replica.raft();
        let held = last < raft.first_index() || raft.term_at(last) == Some(wanted.term);
        assert!(held, "leader completeness: member {at} leads term {term} without {last}");
    }

    /// A member wants a batch written.
    pub fn persist(&mut self, at: usize, persist: &Persist) {
        let first = persist.entries.first().map_or(Index(0), |entry| entry.id.index);
        let snapshot = |meta: &SnapshotMeta| (meta.last, Rc::new(meta.config.clone()));
        let batch = Batch {
            seq: persist.seq,
            hard_state: persist.hard_state,
            snapshot: persist.snapshot.as_ref().map(snapshot),
            first,
            terms: persist.entries.iter().map(|entry| entry.id.term).collect(),
            configs: configs_of(&persist.entries),
        };
        self.changes(at, &batch, &persist.entries);
        let book = &mut self.books[at];
        let leads = self.leaders.get(&persist.hard_state.term) == Some(&at);
        let appends = first.0 == 0 || first == book.issued.last().index.next();
        assert!(
            appends || !leads,
            "leader append-only: member {at} replaces {first} in its own term"
        );
        book.issued.write(&batch);
        let mut before = if first.0 == 0 {
            Term(0)
        } else if first.prev() == book.issued.base.index {
            book.issued.base.term
        } else {
            book.issued.at(first.prev()).expect("a batch continues the log")
        };
        book.pending.push_back(batch);
        for entry in &persist.entries {
            let written = (before, content(entry));
            let known = *self.entries.entry(entry.id).or_insert(written);
            assert_eq!(known, written, "log matching: {} is two entries", entry.id);
            before = entry.id.term;
        }
    }

    /// Looks at the configurations in a batch, each beside the one before it.
    fn changes(&mut self, at: usize, batch: &Batch, entries: &[Entry]) {
        let committed = self.committed();
        let before = match &batch.snapshot {
            Some((_, config)) => (Index(0), config),
            None => self.books[at].issued.config_at(batch.first.prev()),
        };
        let (mut since, mut before) = (before.0, Rc::clone(before.1));
        let configs = batch.configs.iter();
        for (index, config) in configs {
            let entry = &entries[(index.0 - batch.first.0) as usize];
            self.configurations.write(entry.id, config, (since, &before), committed);
            (since, before) = (*index, Rc::clone(config));
        }
    }

    /// The disk of a member holds every batch up to `seq`.
    pub fn durable(&mut self, at: usize, seq: PersistSeq) {
        let book = &mut self.books[at];
        while book.pending.front().is_some_and(|batch| batch.seq <= seq) {
            let batch = book.pending.pop_front().expect("the front was just seen");
            book.durable.write(&batch);
        }
    }

    /// A snapshot of a member's own is durable, and its log names it.
    pub fn saved(&mut self, at: usize, last: EntryId) {
        let committed = self.committed.get(last.index.0 as usize - 1);
        let known = committed.is_some_and(|committed| committed.term == last.term);
        assert!(known, "member {at} saved a snapshot of {last}, which is not committed");
        self.books[at].snapshot = self.books[at].snapshot.max(last.index);
    }

    /// A member hands an entry to its state machine.
    pub fn applies(&mut self, at: usize, entry: &Entry) {
        let place = entry.id.index.0 as usize - 1;
        let committed = self.committed.get_mut(place);
        let committed = committed.unwrap_or_else(|| {
            panic!("member {at} applies {}, which nobody has committed", entry.id)
        });
        assert_eq!(
            committed.term, entry.id.term,
            "state machine safety: member {at} applies {}",
            entry.id
        );
        let here = content(entry);
        let known = *committed.content.get_or_insert(here);
        assert_eq!(known, here, "state machine safety: {} says two things", entry.id);
        if let Payload::Command(proposal) = &entry.payload
            && committed.command.is_none()
        {
            committed.command = Some(proposal.data.clone());
        }
    }

    /// A member's state is as of `applied`: whoever had that state had the same.
    pub fn state(&mut self, at: usize, applied: Index, machine: &Machine) {
        let hash = machine.store().hash(0).expect("the present can be read");
        let known = *self.states.entry(applied).or_insert(hash);
        assert_eq!(known, hash, "member {at} has another state after {applied}");
        self.states_compared += 1;
    }

    /// What a message reveals is on its sender's disk.
    pub fn sends(&self, at: usize, message: &Message) {
        let disk = &self.books[at].durable;
        let HardState { term, vote, .. } = disk.hard_state;
        match &message.body {
            // The term of a pre-vote is an idea; nobody has entered it.
            Body::RequestVote { pre_vote: true, .. } => {
                assert!(message.term <= term.next(), "member {at}: {message:?} in {term}");
            }
            Body::Vote { granted: true, pre_vote: true } => {}
            _ => assert!(
                message.term <= term,
                "member {at} reveals a term before it is durable: {message:?}"
            ),
        }
        match &message.body {
            Body::Vote { granted: true, pre_vote: false } => assert!(
                term > message.term || vote == Some(message.to),
                "member {at} reveals a vote before it is durable: {message:?}"
            ),
            Body::RequestVote { pre_vote: false, .. } => assert!(
                term > message.term || vote == Some(message.from),
                "member {at} campaigns before its own vote is durable: {message:?}"
            ),
            Body::Appended { last } => assert!(
                disk.log.last().index >= *last || term > message.term,
                "member {at} confirms what is not durable: {message:?}"
            ),
            _ => {}
        }
    }

    /// A member came back and remembers this. It may remember too little only if its disk was
    /// made to lie, which the caller judges.
    pub fn recovered(&mut self, at: usize, recovered: &Recovered<SimDisk>) -> Memory {
        let committed = self.committed();
        let Recovered { restored, applied, machine, restarts, latest_snapshot, .. } = recovered;
        let book = &mut self.books[at];
        assert!(*restarts > book.restarts, "member {at}: opening {restarts} is not its first");
        book.restarts = *restarts;
        let mut disk = book.durable.clone();
        let mut explained = disk.explains(restored);
        for batch in &book.pending {
            if explained {
                break;
            }
            disk.write(batch);
            explained = disk.explains(restored);
        }
        let memory = if explained && *latest_snapshot >= book.snapshot {
            Memory::Whole
        } else {
            Memory::Short
        };
        assert!(
            applied.index <= committed,
            "member {at} applied {applied} at its start, but only {committed} is committed"
        );
        assert!(restored.hard_state.commit <= committed, "member {at}: a commit from nowhere");
        let log = log_of(restored);
        *book = Book {
            issued: log.clone(),
            durable: Disk { hard_state: restored.hard_state, log },
            term: restored.hard_state.term,
            commit: applied.index,
            applied: applied.index,
            restarts: *restarts,
            snapshot: *latest_snapshot,
            pending: VecDeque::new(),
            forgetful: book.forgetful,
        };
        for entry in &restored.entries {
            let known = self.entries.get(&entry.id).map(|(_, content)| *content);
            assert_eq!(known, Some(content(entry)), "member {at} remembers another {}", entry.id);
        }
        if memory == Memory::Whole {
            self.state(at, applied.index, machine);
        }
        memory
    }

    /// All committed commands, each with the revision of the store after it; `None` if somebody
    /// committed an entry and took what it says with them.
    pub fn log(&self) -> Option<Vec<(i64, Command)>> {
        let mut machine = Machine::new();
        let mut log = Vec::new();
        for (index, committed) in (1..).zip(&self.committed) {
            committed.content?;
            let Some(data) = &committed.command else { continue };
            let command = Command::decode(data).expect("the members understood it");
            // A refusal is an outcome.
            let _ = machine.apply(index, command.clone());
            log.push((machine.store().revision(), command));
        }
        Some(log)
    }

    /// What a member last acknowledged, for a report.
    pub fn acknowledged(&self, at: usize) -> String {
        let Disk { hard_state, log } = &self.books[at].durable;
        format!("{hard_state:?}, log up to {}", log.last())
    }

    /// A member is gone for good, with all that it had.
    pub fn forget(&mut self, at: usize) {
        self.books[at] = Book { forgetful: true, ..Book::new(Rc::clone(&self.births[at])) };
    }
}

/// The log in memory of a member that has just come back.
fn log_of(restored: &Restored) -> Terms {
    Terms {
        base: restored.base.last,
        after: restored.entries.iter().map(|entry| entry.id.term).collect(),
        first: Rc::new(restored.base.config.clone()),
        configs: configs_of(&restored.entries).into(),
    }
}

/// The configurations among `entries`.
fn configs_of(entries: &[Entry]) -> Vec<(Index, Rc<Configuration>)> {
    let config = |entry: &Entry| match &entry.payload {
        Payload::Config(config) => Some((entry.id.index, Rc::new(config.clone()))),
        Payload::Noop | Payload::Command(_) => None,
    };
    entries.iter().filter_map(config).collect()
}

/// What an entry says, in one number.
fn content(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.payload.hash(&mut hasher);
    hasher.finish()
}
