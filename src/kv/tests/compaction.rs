//! Compaction, logical and physical.

use super::*;
use crate::kv::{HashScan, RangeScan};

#[test]
fn below_the_compacted_revision_nothing_can_be_read_and_at_it_all() {
    let mut node = Node::with(&["a", "a", "b", "a"]);
    node.compact(4).unwrap();
    for _ in 0..2 {
        assert_eq!(node.get_at("a", 3), Err(Error::Compacted));
        assert_eq!(node.get_at("a", 4).unwrap().unwrap().mod_revision, 3);
        assert_eq!(node.get_at("b", 4).unwrap().unwrap().mod_revision, 4);
        assert_eq!(node.get("a").unwrap().mod_revision, 5);
        node.sweep();
    }
}

#[test]
fn compaction_does_not_go_back_or_ahead_or_twice() {
    let mut node = Node::with(&["a", "b", "c"]);
    assert_eq!(node.compact(5), Err(Error::FutureRevision));
    node.compact(3).unwrap();
    assert_eq!(node.compact(3), Err(Error::Compacted));
    assert_eq!(node.compact(2), Err(Error::Compacted));
    node.compact(4).unwrap();
    assert_eq!(node.machine.store().compacted_revision(), 4);
    assert_eq!(node.revision(), 4, "a compaction is no revision");
}

#[test]
fn a_fresh_store_can_be_compacted_to_0_once() {
    let mut node = Node::new();
    assert_eq!(node.compact(-1), Err(Error::Compacted));
    assert!(node.compact(0).is_ok());
    assert_eq!(node.compact(0), Err(Error::Compacted));
    assert!(node.compact(1).is_ok());
    assert_eq!(node.compact(2), Err(Error::FutureRevision));
    node.sweep();
    assert_eq!(node.put("a", ""), 2);
}

#[test]
fn physical_compaction_frees_what_can_no_longer_be_read() {
    let mut node = Node::new();
    for round in 0..100 {
        node.put("a", &format!("{round:0100}"));
    }
    node.put("gone", "x");
    node.delete("gone", "");
    node.put("b", "");
    let full = node.machine.store().size_in_use_bytes();
    node.compact(node.revision()).unwrap();
    assert_eq!(node.machine.store().size_in_use_bytes(), full, "not before the steps");
    assert!(node.machine.store().compaction_pending());
    let mut steps = 0;
    while !node.machine.compact_step(10) {
        steps += 1;
    }
    assert_eq!(steps, 10, "some at a time");
    assert!(!node.machine.store().compaction_pending());
    assert_eq!(node.machine.store().keys(), 2);
    assert!(node.machine.store().size_in_use_bytes() < full / 50);
    assert!(node.machine.store().size_bytes() > node.machine.store().size_in_use_bytes());
    assert_eq!(node.get("a").unwrap().version, 100);
}

#[test]
fn a_tombstone_of_the_compacted_revision_stays_until_the_next() {
    // etcd #19179: a watcher from the compacted revision must hear of the deletion.
    let mut node = Node::with(&["a", "b"]);
    node.delete("a", "");
    node.compact(4).unwrap();
    node.sweep();
    let events: Vec<_> = node.machine.store().events(4).collect();
    assert_eq!((events.len(), events[0].kind), (1, EventKind::Delete));
    assert_eq!(events[0].prev_kv, None, "what was before is compacted");
    node.put("b", "");
    node.compact(5).unwrap();
    node.sweep();
    assert_eq!(node.machine.store().keys(), 1);
}

#[test]
fn events_below_the_compacted_revision_are_gone_and_from_it_on_whole() {
    let mut node = Node::with(&["a", "a", "a"]);
    node.compact(3).unwrap();
    for _ in 0..2 {
        let count = |revision| node.machine.store().events(revision).count();
        assert_eq!((count(2), count(3), count(4)), (0, 1, 1));
        let prev = node.machine.store().events(4).next().unwrap().prev_kv.unwrap();
        assert_eq!(prev.mod_revision, 3);
        node.sweep();
    }
}

#[test]
fn a_reader_keeps_what_it_reads_and_no_more() {
    let mut node = Node::with(&["a", "a", "a", "a", "a"]);
    let request = RangeRequest { revision: 4, ..get("a") };
    let mut scan = RangeScan::new(request, node.machine.store()).unwrap();
    node.compact(6).unwrap();
    node.sweep();
    assert!(node.machine.store().compaction_pending());
    assert_eq!(node.get_at("a", 4), Err(Error::Compacted), "new readers find it compacted");
    assert_eq!(scan.step(node.machine.store(), 1), Ok(true));
    assert_eq!(scan.finish().kvs[0].mod_revision, 4);
    node.sweep();
    assert!(!node.machine.store().compaction_pending());
}

#[test]
fn a_key_that_comes_back_survives_the_compaction_of_its_end() {
    let mut node = Node::with(&["a"]);
    node.delete("a", "");
    node.put("a", "again");
    node.delete("a", "");
    node.put("a", "and again");
    for revision in 2..=6 {
        node.compact(revision).unwrap();
        node.sweep();
        assert_eq!(node.get("a").unwrap().value, "and again");
    }
    assert_eq!(node.machine.store().keys(), 1);
}

#[test]
fn room_of_forgotten_keys_is_used_again() {
    let mut node = Node::new();
    for round in 0..50 {
        for number in 0..100 {
            node.put(&format!("{round} {number}"), "x");
        }
        node.delete("\0", "\0");
        node.put("keep", "");
        node.compact(node.revision()).unwrap();
        node.sweep();
    }
    assert_eq!(node.machine.store().keys(), 1);
    let room = node.machine.store().size_bytes() - node.machine.store().size_in_use_bytes();
    assert!(room < 110 * 64 * 2, "{room}");
}

#[test]
fn the_hash_does_not_see_physical_compaction_but_sees_all_else() {
    let mut node = Node::with(&["a", "b", "a"]);
    node.delete("b", "");
    let hash_at = |node: &Node, revision| node.machine.store().hash(revision);
    let old = hash_at(&node, 4).unwrap();
    assert_eq!((old.revision, old.hash_revision, old.compact_revision), (5, 4, -1));
    node.put("c", "");
    assert_eq!(hash_at(&node, 4).unwrap().hash, old.hash, "the past does not change");
    assert_ne!(hash_at(&node, 5).unwrap().hash, old.hash);
    node.compact(5).unwrap();
    let compacted = hash_at(&node, 0).unwrap();
    node.sweep();
    assert_eq!(hash_at(&node, 0).unwrap(), compacted);
    assert_eq!((compacted.hash_revision, compacted.compact_revision), (6, 5));
    assert_eq!(hash_at(&node, 4), Err(Error::Compacted));
    assert_eq!(hash_at(&node, 7), Err(Error::FutureRevision));
}

#[test]
fn a_hash_in_steps_is_the_hash() {
    let mut node = Node::with(&["a", "b", "c", "d", "a", "b"]);
    let expected = node.machine.store().hash(0).unwrap();
    let mut scan = HashScan::new(0, node.machine.store()).unwrap();
    while !scan.step(node.machine.store(), 1).unwrap() {
        node.put("c", "changed");
        node.delete("d", "");
        node.compact(node.revision()).unwrap();
        node.sweep();
    }
    assert_eq!(scan.finish(), expected);
}

#[test]
fn a_hash_begins_anew_when_another_store_takes_the_place() {
    let (old, new) = (Node::with(&["a", "b", "c"]), Node::with(&["a", "x"]));
    let mut scan = HashScan::new(0, old.machine.store()).unwrap();
    assert_eq!(scan.step(old.machine.store(), 1), Ok(false));
    assert_eq!(scan.step(new.machine.store(), 9), Ok(true));
    assert_eq!(Ok(scan.finish()), new.machine.store().hash(0));
}

/// Where in memory each key's present state lies.
fn places(node: &Node, keys: usize) -> Vec<*const u8> {
    let store = node.machine.store();
    let place = |key: usize| store.current(format!("{key:06}").as_bytes()).unwrap().blob().as_ptr();
    (0..keys).map(place).collect()
}

#[test]
fn what_a_large_compaction_leaves_moves_together_and_reads_the_same() {
    const KEYS: usize = 2000;
    let mut node = Node::new();
    for round in 0..10 {
        for key in 0..KEYS {
            node.put(&format!("{:06}", key * 7 % KEYS), &format!("{round:0500}"));
        }
    }
    let revision = node.revision() - 1000;
    node.compact(revision).unwrap();
    let (hash, before) = (node.hash(), places(&node, KEYS));
    let (mut steps, mut halfway) = (0, None);
    while !node.machine.compact_step(500) {
        steps += 1;
        halfway.get_or_insert_with(|| node.hash());
    }
    assert!(steps > 4, "some at a time");
    let after = places(&node, KEYS);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "each has moved");
    assert_eq!((halfway, node.hash()), (Some(hash), hash));
    let last = format!("{:0500}", 9);
    for key in 0..KEYS {
        assert_eq!(node.get(&format!("{key:06}")).unwrap().value, last);
    }
    node.compact(node.revision()).unwrap();
    node.sweep();
    assert_eq!(places(&node, KEYS), after, "what frees little moves nothing");
}

#[test]
fn records_of_deleted_keys_take_no_memory_in_the_end() {
    let mut node = Node::new();
    for key in 0..20_000 {
        node.put(&format!("{key:06}"), &"x".repeat(200));
    }
    node.delete("000001", "\0");
    node.compact(node.revision()).unwrap();
    node.compact(node.revision()).unwrap_err();
    node.put("000000", "y");
    node.compact(node.revision()).unwrap();
    node.sweep();
    assert_eq!(node.machine.store().keys(), 1);
    let bytes = node.machine.store().size_bytes();
    assert!(bytes < 200_000, "{bytes} bytes for one key");
    for key in 0..20_000 {
        node.put(&format!("{key:06}"), "z");
    }
    assert_eq!(node.machine.store().keys(), 20_000);
    assert_eq!(node.get("019999").unwrap().value, "z");
}
