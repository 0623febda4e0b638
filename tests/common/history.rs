//! What clients did and saw, and the referee who judges it.
//!
//! The store is multi-version: every acknowledged write has a revision of its own, and every read
//! says as of which revision it was answered. So the order of everything is known, and to judge a
//! history takes no search: the order must agree with real time, and every read with the order.
//!
//! A write without an answer may have happened, once, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A value, unique over all writes of a history.
pub type Value = String;

/// A write of one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// When it was sent.
    pub sent: Instant,
    /// When it was acknowledged and with which revision; `None`: no answer, or an error.
    pub acked: Option<(Instant, i64)>,
}

/// An answered linearizable read of one key.
#[derive(Clone, Debug)]
pub struct Read {
    /// The key.
    pub key: String,
    /// When it was sent.
    pub sent: Instant,
    /// When it was answered.
    pub answered: Instant,
    /// As of which revision it was answered.
    pub revision: i64,
    /// What the key held, and since which revision.
    pub found: Option<(Value, i64)>,
    /// The member that answered.
    pub member: u64,
}

/// Everything that some clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All writes, answered or not.
    pub writes: Vec<Write>,
    /// All answered reads.
    pub reads: Vec<Read>,
}

impl History {
    /// Acknowledged writes: value, key and revision.
    pub fn acked(&self) -> impl Iterator<Item = (&Write, i64)> {
        self.writes.iter().filter_map(|write| Some((write, write.acked?.1)))
    }

    /// The longest time between two acknowledgements of writes, one following the other.
    pub fn longest_gap(&self) -> Duration {
        let mut times: Vec<Instant> =
            self.writes.iter().filter_map(|write| Some(write.acked?.0)).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Everything that is wrong with this history. Empty: it is linearizable.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let registers = self.registers(&mut faults);
        self.check_real_time(&mut faults);
        self.check_reads(&registers, &mut faults);
        faults
    }

    /// Fails with every fault, unless there is none.
    pub fn assert_linearizable(&self) {
        let faults = self.faults();
        assert!(
            faults.is_empty(),
            "{} faults among {} writes and {} reads:\n{}",
            faults.len(),
            self.writes.len(),
            self.reads.len(),
            faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
        );
    }

    /// All that is known to have been written: by key, in the order of revisions. What has no
    /// acknowledgement is known by the reads that found it.
    fn registers(&self, faults: &mut Vec<String>) -> Registers {
        let mut registers = Registers::default();
        for (write, revision) in self.acked() {
            registers.learn(&write.key, revision, &write.value, faults);
        }
        let sent: BTreeMap<&str, &Write> =
            self.writes.iter().map(|write| (write.value.as_str(), write)).collect();
        assert_eq!(sent.len(), self.writes.len(), "every write has a value of its own");
        for read in &self.reads {
            let Some((value, revision)) = &read.found else {
                continue;
            };
            match sent.get(value.as_str()) {
                Some(write) if write.key == read.key && write.sent < read.answered => {
                    registers.learn(&read.key, *revision, value, faults);
                }
                _ => faults.push(format!("{read:?} found what nobody had written there")),
            }
        }
        registers
    }

    /// What was answered before something else was sent has no later revision.
    fn check_real_time(&self, faults: &mut Vec<String>) {
        // Ends (the revision reached) and beginnings (the revision shown later), by time.
        let mut events: Vec<(Instant, Event)> = Vec::new();
        for (write, revision) in self.acked() {
            let (answered, _) = write.acked.expect("acknowledged");
            events.push((answered, Event::Reached(revision)));
            events.push((write.sent, Event::WriteSent(revision, &write.value)));
        }
        for read in &self.reads {
            events.push((read.answered, Event::Reached(read.revision)));
            events.push((read.sent, Event::ReadSent(read)));
        }
        events.sort_by_key(|(when, _)| *when);
        let mut reached = 0;
        for (_, event) in events {
            match event {
                Event::Reached(revision) => reached = reached.max(revision),
                Event::WriteSent(revision, value) if revision <= reached => {
                    let what = format!("at {revision}, but {reached} was known before it was sent");
                    faults.push(format!("write of {value} went back in time: {what}"));
                }
                Event::ReadSent(read) if read.revision < reached => {
                    let what = format!("{reached} was known before it was sent");
                    faults.push(format!("stale read: {read:?}, but {what}"));
                }
                Event::WriteSent(..) | Event::ReadSent(_) => {}
            }
        }
    }

    /// A read as of a revision found the last value written up to it.
    fn check_reads(&self, registers: &Registers, faults: &mut Vec<String>) {
        for read in &self.reads {
            let last = registers.last(&read.key, read.revision);
            let found = read.found.as_ref().map(|(value, since)| (*since, value.as_str()));
            if found != last {
                faults.push(format!("{read:?}, but the key held {last:?}"));
            }
        }
    }
}

enum Event<'a> {
    Reached(i64),
    WriteSent(i64, &'a str),
    ReadSent(&'a Read),
}

/// Every key's values by revision.
#[derive(Default)]
struct Registers {
    keys: BTreeMap<String, BTreeMap<i64, Value>>,
    revisions: BTreeMap<i64, Value>,
    values: BTreeSet<(Value, i64)>,
}

impl Registers {
    fn learn(&mut self, key: &str, revision: i64, value: &str, faults: &mut Vec<String>) {
        let held = self.revisions.entry(revision).or_insert_with(|| value.to_owned());
        if held != value {
            faults.push(format!("revision {revision} is of both {held} and {value}"));
        }
        self.values.insert((value.to_owned(), revision));
        let first = self.values.range((value.to_owned(), 0)..).next().expect("just inserted");
        if first.1 != revision {
            faults.push(format!("{value} was written twice, at {} and at {revision}", first.1));
        }
        self.keys.entry(key.to_owned()).or_default().insert(revision, value.to_owned());
    }

    fn last(&self, key: &str, upto: i64) -> Option<(i64, &str)> {
        let (revision, value) = self.keys.get(key)?.range(..=upto).next_back()?;
        Some((*revision, value))
    }
}
