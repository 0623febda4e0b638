//! Snapshots, good and bad.

use super::*;
use crate::kv::{SnapshotCursor, SnapshotError, SnapshotImport, Store};

fn export(store: &Store, bytes_max: usize) -> Vec<Bytes> {
    let mut cursor = SnapshotCursor::new(store);
    std::iter::from_fn(|| cursor.next_chunk(store, bytes_max).unwrap()).collect()
}

fn import(chunks: &[Bytes]) -> Result<Store, SnapshotError> {
    let mut import = SnapshotImport::new();
    chunks.iter().try_for_each(|chunk| import.chunk(chunk))?;
    import.finish()
}

/// History, tombstones, and keys of all sizes, compacted half-way.
fn node() -> Node {
    let mut node = Node::new();
    for round in 0..5 {
        for number in 0..40_usize {
            node.put(&format!("{number:0width$}", width = 1 + number), &format!("{round}"));
        }
        node.delete("01", "05");
    }
    node.compact(150).unwrap();
    node
}

#[test]
fn a_restored_store_is_equal() {
    let node = node();
    let restored = import(&export(node.machine.store(), 1000)).unwrap();
    let store = node.machine.store();
    assert_eq!(restored.hash(0), store.hash(0));
    assert_eq!(restored.revision(), store.revision());
    assert_eq!(restored.compacted_revision(), 150);
    for revision in 149..=store.revision() + 1 {
        let request = RangeRequest { revision, ..everything() };
        assert_eq!(restored.range(&request), store.range(&request));
        assert!(restored.events(revision).eq(store.events(revision)));
    }
}

#[test]
fn an_empty_store_has_a_snapshot_too() {
    for compacted in [None, Some(0), Some(1)] {
        let mut node = Node::new();
        if let Some(revision) = compacted {
            node.compact(revision).unwrap();
        }
        let restored = import(&export(node.machine.store(), 10)).unwrap();
        assert_eq!(restored.revision(), 1);
        assert_eq!(restored.compacted_revision(), compacted.unwrap_or(-1));
        let mut machine = Machine::restore(restored, 7);
        let revision = machine.apply(8, Command::Put(put("a", ""))).unwrap();
        assert_eq!(revision, 2);
    }
}

#[test]
fn a_snapshot_shows_its_revision_whatever_is_written_meanwhile() {
    let mut node = node();
    let expected = export(node.machine.store(), 100);
    let mut cursor = SnapshotCursor::new(node.machine.store());
    let mut chunks = Vec::new();
    while let Some(chunk) = cursor.next_chunk(node.machine.store(), 100).unwrap() {
        chunks.push(chunk);
        node.put(&format!("{}", chunks.len()), "later");
        node.delete("3", "5");
        node.compact(node.revision()).unwrap();
        node.sweep();
    }
    assert_eq!(chunks, expected);
    assert_eq!(cursor.revision(), import(&chunks).unwrap().revision());
    drop(cursor);
    node.sweep();
    assert!(!node.machine.store().compaction_pending(), "the history is let go");
}

#[test]
fn members_make_the_same_snapshot_whatever_they_have_swept() {
    let (lazy, mut eager) = (node(), node());
    eager.sweep();
    assert_eq!(export(lazy.machine.store(), 500), export(eager.machine.store(), 500));
}

#[test]
fn chunks_are_of_the_size_asked_for() {
    let node = node();
    let chunks = export(node.machine.store(), 400);
    let largest = chunks.iter().map(Bytes::len).max().unwrap();
    assert!((400..600).contains(&largest), "{largest}");
    assert!(chunks.len() > 5, "{}", chunks.len());
    let restored = import(&export(node.machine.store(), usize::MAX)).unwrap();
    assert_eq!(restored.hash(0), node.machine.store().hash(0));
}

#[test]
fn a_restored_machine_goes_on_and_compacts() {
    let node = node();
    let store = import(&export(node.machine.store(), 1000)).unwrap();
    let mut restored = Node { machine: Machine::restore(store, node.index), index: node.index };
    let mut node = node;
    for node in [&mut node, &mut restored] {
        node.put("new", "x");
        node.delete("0", "02");
        node.compact(node.revision()).unwrap();
        node.sweep();
        node.put("newer", "x");
        node.compact(node.revision()).unwrap();
        node.sweep();
    }
    assert_eq!(node.hash(), restored.hash());
    assert_eq!(node.machine.store().keys(), restored.machine.store().keys());
    let sizes = [&node, &restored].map(|node| node.machine.store().size_in_use_bytes());
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn a_store_replaced_half_way_ends_its_snapshot() {
    let node = node();
    let mut cursor = SnapshotCursor::new(node.machine.store());
    cursor.next_chunk(node.machine.store(), 100).unwrap();
    let other = Node::new();
    let error = cursor.next_chunk(other.machine.store(), 100).unwrap_err();
    assert_eq!(error, SnapshotError::Replaced);
}

#[test]
fn a_chunk_lost_doubled_swapped_or_cut_is_found() {
    let chunks = export(node().machine.store(), 300);
    assert!(import(&chunks).is_ok());
    for place in 0..chunks.len() {
        let mut lost = chunks.clone();
        lost.remove(place);
        assert!(import(&lost).is_err(), "lost {place}");
        let mut doubled = chunks.clone();
        doubled.insert(place, chunks[place].clone());
        assert!(import(&doubled).is_err(), "doubled {place}");
        let mut cut = chunks.clone();
        cut[place].truncate(chunks[place].len() - 1);
        assert!(import(&cut).is_err(), "cut {place}");
        if place > 0 {
            let mut swapped = chunks.clone();
            swapped.swap(place, place - 1);
            assert!(import(&swapped).is_err(), "swapped {place}");
        }
    }
    assert!(import(&[]).is_err());
}

#[test]
fn no_flipped_bit_goes_unnoticed_or_panics() {
    let mut node = Node::with(&["a", "b", "a", "some longer key that is not in the index"]);
    node.delete("b", "");
    node.compact(4).unwrap();
    node.put("c", "value");
    let chunks = export(node.machine.store(), 60);
    for (place, chunk) in chunks.iter().enumerate() {
        for bit in 0..chunk.len() * 8 {
            let mut flipped = chunk.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut damaged = chunks.clone();
            damaged[place] = flipped.into();
            if let Ok(store) = import(&damaged) {
                // The head is under the file's checksum only.
                assert_eq!(place, 0);
                assert_ne!(store.hash(0), node.machine.store().hash(0));
            }
        }
    }
}
