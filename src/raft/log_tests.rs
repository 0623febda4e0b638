//! Tests of the log's cursors. The storms of `testing` go through all of it; here stand the
//! cases that are easier to read one by one.

use super::*;
use crate::raft::types::Payload;

fn id(index: u64, term: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { id: id(index, term), payload: Payload::Noop }
}

/// A durable log with the given terms, from index 1.
fn log(terms: &[u64]) -> Log {
    let entries = terms.iter().zip(1..).map(|(term, index)| entry(index, *term));
    Log::new(EntryId::default(), entries.collect(), Index(0), Index(0))
}

fn begin(log: &mut Log, seq: u64) -> Vec<EntryId> {
    log.begin_batch(PersistSeq(seq), usize::MAX).1.iter().map(|entry| entry.id).collect()
}

#[test]
fn the_highest_possible_entry_skips_whole_terms() {
    let log = log(&[1, 1, 4, 4, 5, 5, 6]);
    // Given what the other log has at `limit`, the highest entry here that both could share.
    let table = [
        (id(7, 6), id(7, 6)),
        (id(9, 9), id(7, 6)),
        (id(5, 6), id(5, 5)),
        (id(7, 5), id(6, 5)),
        (id(7, 3), id(2, 1)),
        (id(3, 4), id(3, 4)),
        (id(3, 1), id(2, 1)),
        (id(1, 1), id(1, 1)),
        (id(4, 0), id(0, 0)),
        (id(0, 0), id(0, 0)),
    ];
    for (limit, want) in table {
        assert_eq!(log.highest_possible(limit), want, "given {limit}");
    }
}

#[test]
fn beyond_memory_nothing_is_possible() {
    let log = Log::new(id(5, 3), vec![entry(6, 4)], Index(5), Index(5));
    assert_eq!(log.highest_possible(id(6, 4)), id(6, 4));
    assert_eq!(log.highest_possible(id(6, 3)), id(5, 3));
    assert_eq!(log.highest_possible(id(6, 2)), EntryId::default());
    assert_eq!(log.highest_possible(id(4, 3)), EntryId::default());
    assert_eq!(log.term_at(Index(5)), Some(Term(3)));
    assert_eq!(log.term_at(Index(4)), None);
    assert_eq!(log.term_at(Index(7)), None);
}

#[test]
fn slices_are_bounded_but_never_empty_handed() {
    let log = log(&[1; 6]);
    let size = entry(1, 1).size_bytes();
    assert_eq!(log.slice(Index(2), Index(6), 0).len(), 1);
    assert_eq!(log.slice(Index(2), Index(6), 3 * size).len(), 3);
    assert_eq!(log.slice(Index(2), Index(3), usize::MAX).len(), 2);
    assert!(log.slice(Index(7), Index(9), usize::MAX).is_empty());
    assert!(log.slice(Index(0), Index(9), usize::MAX).is_empty());
}

#[test]
fn a_write_that_was_overtaken_vouches_only_for_what_is_left() {
    let mut log = log(&[]);
    (1..=3).for_each(|index| log.append(entry(index, 1)));
    assert_eq!(begin(&mut log, 1), [id(1, 1), id(2, 1), id(3, 1)]);
    log.truncate(Index(2));
    log.append(entry(2, 2));
    log.append(entry(3, 2));
    assert_eq!(begin(&mut log, 2), [id(2, 2), id(3, 2)]);
    log.batches_done(PersistSeq(1));
    assert_eq!(log.persisted(), Index(1));
    log.batches_done(PersistSeq(2));
    assert_eq!(log.persisted(), Index(3));
}

#[test]
fn a_batch_is_bounded_and_the_rest_is_for_the_next() {
    let mut log = log(&[1]);
    (2..=6).for_each(|index| log.append(entry(index, 1)));
    let two = 2 * entry(2, 1).size_bytes();
    let (_, first) = log.begin_batch(PersistSeq(1), two);
    assert_eq!(first, [entry(2, 1), entry(3, 1)]);
    assert!(log.needs_batch());
    let (_, second) = log.begin_batch(PersistSeq(2), 1);
    assert_eq!(second, [entry(4, 1)], "a single larger entry still goes");
    log.batches_done(PersistSeq(1));
    assert_eq!(log.persisted(), Index(3));
    assert_eq!(begin(&mut log, 3), [id(5, 1), id(6, 1)]);
    assert!(!log.needs_batch());
    log.batches_done(PersistSeq(3));
    assert_eq!(log.persisted(), Index(6));
}

#[test]
fn a_snapshot_is_durable_when_its_own_batch_is() {
    let mut log = log(&[1, 1]);
    (3..=9).for_each(|index| log.append(entry(index, 1)));
    begin(&mut log, 1);
    log.restore(id(7, 2));
    log.append(entry(8, 2));
    assert_eq!(log.persisted(), Index(0), "nothing was committed that the disk could hold");
    let (restart, entries) = log.begin_batch(PersistSeq(2), usize::MAX);
    assert!(restart);
    assert_eq!(entries, [entry(8, 2)]);
    log.batches_done(PersistSeq(1));
    assert_eq!(log.persisted(), Index(0));
    log.batches_done(PersistSeq(2));
    assert_eq!(log.persisted(), Index(8));
    log.commit_to(Index(8));
    assert!(log.take_committed(1000).is_empty(), "the snapshot is not in the state machine yet");
    log.applied_to(Index(7));
    assert_eq!(log.take_committed(1000), [entry(8, 2)]);
}

#[test]
fn apply_is_handed_what_is_committed_and_durable_at_its_own_pace() {
    let mut log = log(&[1, 1, 1, 1]);
    let size = entry(1, 1).size_bytes();
    log.append(entry(5, 1));
    log.commit_to(Index(5));
    assert_eq!(log.take_committed(2 * size), [entry(1, 1), entry(2, 1)]);
    assert!(log.take_committed(2 * size).is_empty(), "enough is on its way");
    log.applied_to(Index(1));
    assert_eq!(log.take_committed(2 * size), [entry(3, 1), entry(4, 1)]);
    log.applied_to(Index(4));
    assert!(log.take_committed(2 * size).is_empty(), "entry 5 is not durable");
    begin(&mut log, 1);
    log.batches_done(PersistSeq(1));
    assert_eq!(log.take_committed(2 * size), [entry(5, 1)]);
    log.applied_to(Index(5));
    assert_eq!(log.unapplied_bytes(), 0);
}

#[test]
fn compaction_forgets_what_is_applied() {
    let mut log = log(&[1, 1, 2, 2]);
    log.commit_to(Index(3));
    log.take_committed(1000);
    log.applied_to(Index(3));
    log.compact(Index(2));
    assert_eq!(log.base(), id(2, 1));
    assert_eq!(log.last(), id(4, 2));
    log.compact(Index(1));
    assert_eq!(log.base(), id(2, 1), "what is gone is gone");
    log.compact(Index(3));
    assert_eq!(log.base(), id(3, 2));
    log.assert_invariants();
}

#[test]
#[should_panic(expected = "a committed entry never changes")]
fn what_is_committed_cannot_be_cut() {
    let mut log = log(&[1, 1]);
    log.commit_to(Index(2));
    log.truncate(Index(2));
}

#[test]
fn a_commit_hint_beyond_a_torn_log_counts_up_to_its_end() {
    let log = Log::new(EntryId::default(), vec![entry(1, 1)], Index(7), Index(0));
    assert_eq!(log.committed(), Index(1));
}
