//! Ranges.

use super::*;
use crate::kv::{RangeScan, SortOrder, SortTarget};

/// Keys a to e, put in the order c, a, e, b, d (revisions 2 to 6), then a and c once more (7, 8).
fn node() -> Node {
    let mut node = Node::with(&["c", "a", "e", "b", "d"]);
    node.put("a", "z");
    node.put("c", "b");
    node
}

#[test]
fn an_empty_range_end_means_one_key() {
    let response = node().range(&get("b")).unwrap();
    assert_eq!((keys(&response), response.count, response.more), (vec!["b"], 1, false));
    assert_eq!(node().range(&get("bb")).unwrap().count, 0);
}

#[test]
fn a_range_ends_before_its_end() {
    assert_eq!(keys(&node().range(&between("b", "d")).unwrap()), ["b", "c"]);
}

#[test]
fn a_zero_byte_as_end_means_no_end() {
    assert_eq!(keys(&node().range(&between("c", "\0")).unwrap()), ["c", "d", "e"]);
    assert_eq!(node().range(&everything()).unwrap().count, 5);
}

#[test]
fn a_range_that_ends_before_it_begins_is_empty_and_no_error() {
    for (begin, end) in [("d", "b"), ("b", "b"), ("b\0", "b")] {
        let response = node().range(&between(begin, end)).unwrap();
        assert_eq!((response.count, response.kvs.len()), (0, 0));
    }
}

#[test]
fn the_header_has_the_current_revision_also_for_an_old_read() {
    let request = RangeRequest { revision: 3, ..everything() };
    let response = node().range(&request).unwrap();
    assert_eq!((response.revision, keys(&response)), (8, vec!["a", "c"]));
}

#[test]
fn zero_and_negative_revisions_mean_now() {
    for revision in [0, -1, i64::MIN] {
        let request = RangeRequest { revision, ..get("a") };
        assert_eq!(&node().range(&request).unwrap().kvs[0].value[..], b"z");
    }
}

#[test]
fn a_future_revision_is_refused() {
    assert_eq!(node().get_at("a", 9), Err(Error::FutureRevision));
    assert_eq!(node().get_at("a", i64::MAX), Err(Error::FutureRevision));
    assert!(node().get_at("a", 8).unwrap().is_some());
}

#[test]
fn a_key_is_read_as_of_any_revision() {
    let mut node = node();
    node.delete("a", "");
    assert_eq!(node.get_at("a", 2).unwrap(), None);
    assert_eq!(&node.get_at("a", 3).unwrap().unwrap().value[..], b"a");
    assert_eq!(&node.get_at("a", 6).unwrap().unwrap().value[..], b"a");
    assert_eq!(&node.get_at("a", 8).unwrap().unwrap().value[..], b"z");
    assert_eq!(node.get_at("a", 9).unwrap(), None);
}

#[test]
fn the_count_ignores_limit_and_filters() {
    let request = RangeRequest { limit: 2, ..everything() };
    let response = node().range(&request).unwrap();
    assert_eq!((keys(&response), response.count, response.more), (vec!["a", "b"], 5, true));
    let request = RangeRequest { min_mod_revision: 7, ..everything() };
    let response = node().range(&request).unwrap();
    assert_eq!((keys(&response), response.count, response.more), (vec!["a", "c"], 5, false));
}

#[test]
fn more_says_that_the_limit_cut_something_off() {
    for (limit, more) in [(4, true), (5, false), (6, false), (0, false), (-1, false)] {
        let request = RangeRequest { limit, ..everything() };
        assert_eq!(node().range(&request).unwrap().more, more, "limit {limit}");
    }
    // After the filters: two keys pass.
    let request = RangeRequest { limit: 2, min_mod_revision: 7, ..everything() };
    assert!(!node().range(&request).unwrap().more);
    let request = RangeRequest { limit: 1, ..request };
    assert!(node().range(&request).unwrap().more);
}

#[test]
fn count_only_ignores_the_limit() {
    let request = RangeRequest { count_only: true, limit: 2, ..everything() };
    let response = node().range(&request).unwrap();
    assert_eq!((response.count, response.more, response.kvs.len()), (5, false, 0));
    let request = RangeRequest { revision: 4, ..request };
    assert_eq!(node().range(&request).unwrap().count, 3);
}

#[test]
fn keys_only_leaves_the_value_out_and_nothing_else() {
    let request = RangeRequest { keys_only: true, ..get("a") };
    let kv = node().range(&request).unwrap().kvs.pop().unwrap();
    assert_eq!(kv, KeyValue { value: Bytes::new(), ..node().get("a").unwrap() });
}

#[test]
fn keys_only_still_sorts_by_value() {
    let request = RangeRequest {
        keys_only: true,
        sort_target: SortTarget::Value,
        sort_order: SortOrder::Descend,
        ..everything()
    };
    // Values: a=z, b=b, c=b, d=d, e=e.
    assert_eq!(keys(&node().range(&request).unwrap()), ["a", "e", "d", "b", "c"]);
}

#[test]
fn every_target_sorts_in_both_directions() {
    let sorted = |sort_target, sort_order| {
        let request = RangeRequest { sort_order, sort_target, ..everything() };
        keys(&node().range(&request).unwrap()).concat()
    };
    for (target, ascending, descending) in [
        (SortTarget::Key, "abcde", "edcba"),
        (SortTarget::Version, "bdeac", "acbde"),
        (SortTarget::Create, "caebd", "dbeac"),
        (SortTarget::Mod, "ebdac", "cadbe"),
        (SortTarget::Value, "bcdea", "aedbc"),
    ] {
        assert_eq!(sorted(target, SortOrder::Ascend), ascending, "{target:?}");
        assert_eq!(sorted(target, SortOrder::Descend), descending, "{target:?}");
        assert_eq!(sorted(target, SortOrder::None), ascending, "{target:?}");
    }
}

#[test]
fn a_sorted_range_is_cut_after_the_sort() {
    let request = RangeRequest {
        sort_target: SortTarget::Mod,
        sort_order: SortOrder::Descend,
        limit: 2,
        ..everything()
    };
    let response = node().range(&request).unwrap();
    assert_eq!((keys(&response), response.more), (vec!["c", "a"], true));
}

#[test]
fn a_target_without_an_order_sorts_only_what_the_limit_let_in() {
    // etcd fetches one key past the limit, a, b and c, and sorts those by revision.
    let request = RangeRequest { sort_target: SortTarget::Mod, limit: 2, ..everything() };
    let response = node().range(&request).unwrap();
    assert_eq!((keys(&response), response.more), (vec!["b", "a"], true));
}

#[test]
fn filters_bound_modification_and_creation_inclusively() {
    let filtered = |request: RangeRequest| keys(&node().range(&request).unwrap()).concat();
    assert_eq!(filtered(RangeRequest { min_mod_revision: 6, ..everything() }), "acd");
    assert_eq!(filtered(RangeRequest { max_mod_revision: 6, ..everything() }), "bde");
    assert_eq!(filtered(RangeRequest { min_create_revision: 4, ..everything() }), "bde");
    assert_eq!(filtered(RangeRequest { max_create_revision: 3, ..everything() }), "ac");
    let both = RangeRequest { min_mod_revision: 5, max_mod_revision: 6, ..everything() };
    assert_eq!(filtered(both), "bd");
}

#[test]
fn a_large_sorted_and_limited_range_keeps_the_right_few() {
    let mut node = Node::new();
    for number in 0..5000_u32 {
        node.put(&format!("{number:04}"), &format!("{:04}", number * 7919 % 5000));
    }
    let request = RangeRequest {
        sort_target: SortTarget::Value,
        sort_order: SortOrder::Descend,
        limit: 3,
        ..everything()
    };
    let response = node.range(&request).unwrap();
    let values: Vec<_> = response.kvs.iter().map(|kv| kv.value.clone()).collect();
    assert_eq!(values, ["4999", "4998", "4997"]);
    assert_eq!((response.count, response.more), (5000, true));
}

#[test]
fn a_sorted_range_says_more_however_much_was_dropped_early() {
    // Around the number at which a sorted and limited read drops what it need not keep.
    for count in 1024..1040_u32 {
        let mut node = Node::new();
        for number in 0..count {
            node.put(&format!("{number:04}"), "");
        }
        let request = RangeRequest {
            sort_target: SortTarget::Mod,
            sort_order: SortOrder::Descend,
            limit: 3,
            ..everything()
        };
        let response = node.range(&request).unwrap();
        assert!(response.more && response.kvs.len() == 3, "of {count}");
    }
}

#[test]
fn a_large_limit_holds_across_steps() {
    let mut node = Node::new();
    for number in 0..10_000 {
        node.put(&format!("{number:05}"), "");
    }
    let request = RangeRequest { limit: 6000, ..everything() };
    let mut scan = RangeScan::new(request.clone(), node.machine.store()).unwrap();
    while !scan.step(node.machine.store(), 700).unwrap() {}
    let response = scan.finish();
    assert_eq!((response.kvs.len(), response.more, response.count), (6000, true, 10_000));
    assert_eq!(response, node.range(&request).unwrap());
}

#[test]
fn a_long_range_in_steps_is_one_range_at_one_revision() {
    let mut node = Node::new();
    for number in 0..10_000 {
        node.put(&format!("{number:05}"), "old");
    }
    let expected = node.range(&everything()).unwrap();
    let mut scan = RangeScan::new(everything(), node.machine.store()).unwrap();
    let mut steps = 0;
    while !scan.step(node.machine.store(), 700).unwrap() {
        // Each of these would show if the revision did not hold: ahead of the scan and behind.
        node.put("09999", "new");
        node.put(&format!("{:05}", 10_000 + steps), "new");
        node.delete(&format!("{:05}", 9_000 + steps), "");
        node.compact(node.revision()).unwrap();
        node.sweep();
        steps += 1;
    }
    assert_eq!(steps, 14);
    assert_eq!(scan.finish(), expected);
    node.sweep();
    assert!(!node.machine.store().compaction_pending(), "the scan has let its revision go");
}

#[test]
fn a_small_range_is_done_in_one_step() {
    let node = node();
    let mut scan = RangeScan::new(everything(), node.machine.store()).unwrap();
    assert_eq!(scan.step(node.machine.store(), 5), Ok(true));
}

#[test]
fn a_scan_begins_anew_when_another_store_takes_the_place() {
    let old = Node::with(&["a", "b", "c"]);
    let new = Node::with(&["x"]);
    let mut scan = RangeScan::new(everything(), old.machine.store()).unwrap();
    assert_eq!(scan.step(old.machine.store(), 1), Ok(false));
    assert_eq!(scan.step(new.machine.store(), 9), Ok(true));
    assert_eq!(scan.finish(), new.range(&everything()).unwrap());
    let asked = RangeRequest { revision: 4, ..everything() };
    let mut scan = RangeScan::new(asked, old.machine.store()).unwrap();
    assert_eq!(scan.step(new.machine.store(), 1), Err(Error::FutureRevision));
}
