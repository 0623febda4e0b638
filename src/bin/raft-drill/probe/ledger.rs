//! What was promised: every acknowledged write with its time, and what reads and the read-back
//! must therefore show. Pure, so that its judgements can be tested.
//!
//! Every write has a key of its own, and its value follows from its key. So there is no question
//! of order between two writes: a key that was acknowledged is there, once, with its value, in
//! every linearizable read that begins later. A read is asked for the acknowledged write of the
//! highest revision: a state that is too old, by however little, lacks that one.

use bytes::Bytes;
use raft_node::proto::mvccpb::KeyValue;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Values are this long: the key, then filling.
const VALUE_BYTES: usize = 128;
/// So many examples of each violation are kept in words; all are counted.
const EXAMPLES_MAX: usize = 5;

/// One write: the member that it was sent to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId {
    /// Which member, by its place among the endpoints.
    pub member: usize,
    /// Counted from 0 for each member.
    pub number: u64,
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// When the answer arrived.
    pub at: Instant,
    /// Which write.
    pub id: WriteId,
    /// The revision that the answer named.
    pub revision: i64,
}

/// How often something happened, with a few examples in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Violations {
    /// How often.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

impl Violations {
    /// One more.
    pub fn add(&mut self, what: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

/// What one kind of request did at one member.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcomes {
    /// Begun.
    pub sent: u64,
    /// Answered with success.
    pub ok: u64,
    /// Not answered, or refused: by message.
    pub failed: BTreeMap<String, u64>,
}

impl Outcomes {
    /// All failures.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A stretch of time without an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before it.
    pub from: Instant,
    /// How long.
    pub length: Duration,
}

/// What the read-back after a run brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Findings {
    /// Acknowledged writes that were looked for.
    pub checked: u64,
    /// Acknowledged, but absent or with another value.
    pub lost: Violations,
    /// Present, but written twice or at another revision than acknowledged.
    pub duplicated: Violations,
    /// Present, but never sent.
    pub phantom: Violations,
}

impl Findings {
    /// Nothing to complain of.
    pub fn clean(&self) -> bool {
        self.lost.count + self.duplicated.count + self.phantom.count == 0
    }
}

/// Everything that was sent and promised in one run.
pub struct Ledger {
    prefix: String,
    /// Writes, by member.
    pub writes: Vec<Outcomes>,
    /// Linearizable reads, by member.
    pub reads: Vec<Outcomes>,
    /// Reads older than a write acknowledged before they began.
    pub stale: Violations,
    acks: Vec<Ack>,
    revisions: HashMap<WriteId, i64>,
    newest: Option<Ack>,
}

impl Ledger {
    /// An empty one; every key of the run begins with `prefix`.
    pub fn new(prefix: String, members: usize) -> Self {
        Self {
            prefix,
            writes: vec![Outcomes::default(); members],
            reads: vec![Outcomes::default(); members],
            stale: Violations::default(),
            acks: Vec::new(),
            revisions: HashMap::new(),
            newest: None,
        }
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new write to `member`.
    pub fn begin_write(&mut self, member: usize) -> WriteId {
        let number = self.writes[member].sent;
        self.writes[member].sent += 1;
        WriteId { member, number }
    }

    /// The promise: from now on this write is there for ever.
    pub fn acknowledged(&mut self, id: WriteId, revision: i64, at: Instant) {
        let ack = Ack { at, id, revision };
        assert!(self.acks.last().is_none_or(|last| last.at <= at), "one thread, one clock");
        self.writes[id.member].ok += 1;
        self.acks.push(ack);
        let known = self.revisions.insert(id, revision);
        assert!(known.is_none(), "a write is answered once");
        if self.newest.is_none_or(|newest| newest.revision < revision) {
            self.newest = Some(ack);
        }
    }

    /// No promise: the write may or may not have happened.
    pub fn write_failed(&mut self, id: WriteId, why: String) {
        *self.writes[id.member].failed.entry(why).or_default() += 1;
    }

    /// A new read at `member`: what it must see, once there is anything to see.
    pub fn begin_read(&mut self, member: usize) -> Option<Ack> {
        if self.newest.is_some() {
            self.reads[member].sent += 1;
        }
        self.newest
    }

    /// Judges an answer to a read that began when `expected` was the newest promise.
    pub fn read_answered(
        &mut self,
        member: usize,
        expected: Ack,
        seen: Option<&KeyValue>,
        at: i64,
    ) {
        self.reads[member].ok += 1;
        let good = seen.is_some_and(|kv| {
            kv.value == value(&self.key(expected.id)) && kv.mod_revision == expected.revision
        });
        if !good || at < expected.revision {
            self.stale.add(format!(
                "member {} answered at revision {at}, {}, to a read that began after revision {} \
                 was acknowledged",
                member + 1,
                if good { "complete" } else { "without the write" },
                expected.revision
            ));
        }
    }

    /// The read brought no answer, which promises nothing.
    pub fn read_failed(&mut self, member: usize, why: String) {
        *self.reads[member].failed.entry(why).or_default() += 1;
    }

    /// Numbers of the writes begun so far, by member.
    pub fn sent(&self) -> Vec<u64> {
        self.writes.iter().map(|writes| writes.sent).collect()
    }

    /// The key of a write.
    pub fn key(&self, id: WriteId) -> Bytes {
        Bytes::from(format!("{}{}/{:010}", self.prefix, id.member, id.number))
    }

    /// The longest time within `window` in which no member (or not this one) acknowledged a write.
    /// The edges of the window count as acknowledgements.
    pub fn longest_gap(&self, window: &Range<Instant>, member: Option<usize>) -> Gap {
        let begin = self.acks.partition_point(|ack| ack.at < window.start);
        let end = self.acks.partition_point(|ack| ack.at < window.end);
        let acks = self.acks[begin..end.max(begin)].iter();
        let times = acks.filter(|ack| member.is_none_or(|member| ack.id.member == member));
        let mut longest = Gap { from: window.start, length: Duration::ZERO };
        let mut last = window.start;
        for at in times.map(|ack| ack.at).chain([window.end]) {
            let length = at.saturating_duration_since(last);
            if length > longest.length {
                longest = Gap { from: last, length };
            }
            last = at;
        }
        longest
    }

    /// The last acknowledgement that `member` gave.
    pub fn last_ack(&self, member: usize) -> Option<Instant> {
        self.acks.iter().rev().find(|ack| ack.id.member == member).map(|ack| ack.at)
    }

    /// The promises made so far about the writes `numbers` of `writer`: key and revision.
    ///
    /// To be asked before the read-back begins: what is acknowledged meanwhile, it need not see.
    pub fn promised(&self, writer: usize, numbers: Range<u64>) -> BTreeMap<Bytes, i64> {
        let ids = numbers.map(|number| WriteId { member: writer, number });
        ids.filter_map(|id| Some((self.key(id), *self.revisions.get(&id)?))).collect()
    }

    /// Judges what `reader` holds, `found`, by what had been `promised`.
    pub fn judge(
        &self,
        reader: usize,
        promised: BTreeMap<Bytes, i64>,
        found: &[KeyValue],
        findings: &mut Findings,
    ) {
        let reader = reader + 1;
        findings.checked += promised.len() as u64;
        let mut absent = promised;
        for kv in found {
            let key = String::from_utf8_lossy(&kv.key);
            let promised = absent.remove(&kv.key);
            if !self.was_sent(&key) {
                findings.phantom.add(format!("member {reader} holds {key}, which nobody wrote"));
            } else if kv.value != value(&kv.key) {
                findings.lost.add(format!("member {reader} holds another value at {key}"));
            } else if kv.version != 1 || promised.is_some_and(|promise| promise != kv.mod_revision)
            {
                findings.duplicated.add(format!(
                    "member {reader} has {key} at revision {}, version {}; \
                     acknowledged: {promised:?}",
                    kv.mod_revision, kv.version
                ));
            }
        }
        for (key, revision) in absent {
            findings.lost.add(format!(
                "member {reader} lacks {}, acknowledged at revision {revision}",
                String::from_utf8_lossy(&key)
            ));
        }
    }

    fn was_sent(&self, key: &str) -> bool {
        let rest = key.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('/'));
        let Some((member, number)) = rest else {
            return false;
        };
        let (Ok(member), Ok(number)) = (member.parse::<usize>(), number.parse::<u64>()) else {
            return false;
        };
        self.writes.get(member).is_some_and(|writes| number < writes.sent)
    }
}

/// The value that belongs to a key.
pub fn value(key: &[u8]) -> Bytes {
    let mut value = key.to_vec();
    value.resize(VALUE_BYTES.max(key.len()), b'.');
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "drill/test/";

    fn stored(ledger: &Ledger, id: WriteId, revision: i64) -> KeyValue {
        let key = ledger.key(id);
        KeyValue {
            value: value(&key),
            key,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        }
    }

    /// Three acknowledged writes of member 0, 10 ms apart, at revisions 2, 3 and 4.
    fn three_acks() -> (Ledger, Instant, Vec<KeyValue>) {
        let mut ledger = Ledger::new(PREFIX.to_owned(), 2);
        let start = Instant::now();
        let mut stored_now = Vec::new();
        for step in 0..3_u32 {
            let id = ledger.begin_write(0);
            let revision = i64::from(step) + 2;
            ledger.acknowledged(id, revision, start + Duration::from_millis(10) * step);
            stored_now.push(stored(&ledger, id, revision));
        }
        (ledger, start, stored_now)
    }

    #[test]
    fn gap_counts_the_edges_and_only_the_member_asked_for() {
        let (mut ledger, start, _) = three_acks();
        let at = |ms| start + Duration::from_millis(ms);
        let id = ledger.begin_write(1);
        ledger.acknowledged(id, 5, at(70));
        let all = ledger.longest_gap(&(start..at(75)), None);
        assert_eq!(all, Gap { from: at(20), length: Duration::from_millis(50) });
        let tail = ledger.longest_gap(&(start..at(200)), None);
        assert_eq!(tail, Gap { from: at(70), length: Duration::from_millis(130) });
        let other = ledger.longest_gap(&(start..at(75)), Some(1));
        assert_eq!(other.length, Duration::from_millis(70));
        let nothing = ledger.longest_gap(&(at(80)..at(90)), None);
        assert_eq!(nothing.length, Duration::from_millis(10));
    }

    #[test]
    fn read_back_finds_nothing_wrong_when_nothing_is() {
        let (ledger, _, found) = three_acks();
        let mut findings = Findings::default();
        ledger.judge(1, ledger.promised(0, 0..3), &found, &mut findings);
        assert!(findings.clean());
        assert_eq!(findings.checked, 3);
    }

    #[test]
    fn read_back_finds_what_was_lost_changed_doubled_or_invented() {
        let (ledger, _, found) = three_acks();
        let judged = |found: &[KeyValue]| {
            let mut findings = Findings::default();
            ledger.judge(0, ledger.promised(0, 0..3), found, &mut findings);
            findings
        };
        assert_eq!(judged(&found[..2]).lost.count, 1);

        let mut changed = found.clone();
        changed[1].value = Bytes::from_static(b"other");
        assert_eq!(judged(&changed).lost.count, 1);

        let mut doubled = found.clone();
        doubled[2].version = 2;
        doubled[2].mod_revision = 9;
        assert_eq!(judged(&doubled).duplicated.count, 1);

        let mut invented = found.clone();
        invented.push(stored(&ledger, WriteId { member: 0, number: 3 }, 5));
        assert_eq!(judged(&invented).phantom.count, 1);
    }

    #[test]
    fn write_acknowledged_during_the_read_back_may_be_missing_from_it() {
        let (mut ledger, start, found) = three_acks();
        let promised = ledger.promised(0, 0..4);
        let id = ledger.begin_write(0);
        ledger.acknowledged(id, 5, start + Duration::from_secs(1));
        let mut findings = Findings::default();
        ledger.judge(0, promised, &found, &mut findings);
        assert!(findings.clean());
        ledger.judge(0, ledger.promised(0, 0..4), &found, &mut findings);
        assert_eq!(findings.lost.count, 1);
    }

    #[test]
    fn unacknowledged_write_may_be_there_or_not() {
        let (mut ledger, _, mut found) = three_acks();
        let id = ledger.begin_write(0);
        ledger.write_failed(id, "no answer".to_owned());
        let mut findings = Findings::default();
        ledger.judge(0, ledger.promised(0, 0..4), &found, &mut findings);
        found.push(stored(&ledger, id, 5));
        ledger.judge(0, ledger.promised(0, 0..4), &found, &mut findings);
        assert!(findings.clean());
    }

    #[test]
    fn read_must_hold_the_newest_promise_from_before_it_began() {
        let (mut ledger, start, found) = three_acks();
        let expected = ledger.begin_read(1).unwrap();
        assert_eq!(expected.revision, 4);
        // Acknowledged while the read is under way: it need not see that.
        let id = ledger.begin_write(1);
        ledger.acknowledged(id, 5, start + Duration::from_secs(1));
        ledger.read_answered(1, expected, Some(&found[2]), 4);
        assert_eq!(ledger.stale.count, 0);
        ledger.read_answered(1, expected, None, 3);
        assert_eq!(ledger.stale.count, 1);
        ledger.read_answered(1, expected, Some(&found[2]), 3);
        assert_eq!(ledger.stale.count, 2);
    }
}
