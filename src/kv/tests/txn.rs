//! Transactions.

use super::*;
use crate::kv::TxnScan;

fn op_put(key: &str, value: &str) -> RequestOp {
    RequestOp::Put(put(key, value))
}

fn op_get(key: &str) -> RequestOp {
    RequestOp::Range(get(key))
}

fn op_delete(key: &str, range_end: &str) -> RequestOp {
    RequestOp::DeleteRange(delete(key, range_end))
}

fn op_txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    RequestOp::Txn(TxnRequest { compare: Vec::new(), success, failure })
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

/// That never takes its first branch.
fn never() -> Compare {
    compare("no such key", CompareResult::Greater, CompareTarget::Version(0))
}

fn holds(node: &mut Node, compare: Compare) -> bool {
    let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    node.txn(request).unwrap().succeeded
}

#[test]
fn all_changes_of_a_transaction_have_one_revision() {
    let mut node = Node::with(&["a", "gone"]);
    let ops = vec![op_put("a", "1"), op_put("b", "2"), op_delete("gone", "")];
    let response = node.txn(txn(ops)).unwrap();
    assert_eq!((response.revision, response.succeeded, node.revision()), (4, true, 4));
    assert_eq!(node.get("a").unwrap().mod_revision, 4);
    assert_eq!(node.get("b").unwrap().mod_revision, 4);
    let events: Vec<_> = node.machine.store().events(4).map(|event| event.kv.key).collect();
    assert_eq!(events, ["a", "b", "gone"]);
}

#[test]
fn a_transaction_that_changes_nothing_is_no_revision() {
    let mut node = Node::with(&["a"]);
    let response = node.txn(txn(vec![op_get("a"), op_delete("b", "z")])).unwrap();
    assert_eq!((response.revision, node.revision()), (2, 2));
    assert_eq!(node.txn(TxnRequest::default()).unwrap().revision, 2);
}

#[test]
fn the_branch_follows_the_comparisons() {
    let mut node = Node::with(&["a"]);
    let request = TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Version(2))],
        success: vec![op_put("then", "")],
        failure: vec![op_put("else", "")],
    };
    assert!(!node.txn(request.clone()).unwrap().succeeded);
    assert!(node.get("else").is_some() && node.get("then").is_none());
    node.put("a", "x");
    assert!(node.txn(request).unwrap().succeeded);
    assert!(node.get("then").is_some());
}

#[test]
fn every_target_compares_in_every_way() {
    let mut node = Node::with(&["x", "a", "a", "a"]);
    // a: version 3, created at 3, modified at 5, value "a", lease 0.
    let value = |text| CompareTarget::Value(bytes(text));
    for (less, equal, greater) in [
        (CompareTarget::Version(4), CompareTarget::Version(3), CompareTarget::Version(2)),
        (CompareTarget::Create(4), CompareTarget::Create(3), CompareTarget::Create(2)),
        (CompareTarget::Mod(6), CompareTarget::Mod(5), CompareTarget::Mod(4)),
        (value("b"), value("a"), value("A")),
        (CompareTarget::Lease(1), CompareTarget::Lease(0), CompareTarget::Lease(-1)),
    ] {
        for (target, outcomes) in [
            (less, [true, false, false, true]),
            (equal, [false, true, false, false]),
            (greater, [false, false, true, true]),
        ] {
            let results = [
                CompareResult::Less,
                CompareResult::Equal,
                CompareResult::Greater,
                CompareResult::NotEqual,
            ];
            for (result, outcome) in results.into_iter().zip(outcomes) {
                let condition = compare("a", result, target.clone());
                assert_eq!(holds(&mut node, condition), outcome, "{result:?} {target:?}");
            }
        }
    }
}

#[test]
fn a_missing_key_compares_as_zeros_and_never_by_value() {
    let mut node = Node::with(&["gone"]);
    node.delete("gone", "");
    for key in ["gone", "never"] {
        for target in [
            CompareTarget::Version(0),
            CompareTarget::Create(0),
            CompareTarget::Mod(0),
            CompareTarget::Lease(0),
        ] {
            assert!(holds(&mut node, compare(key, CompareResult::Equal, target)));
        }
        let empty = CompareTarget::Value(Bytes::new());
        assert!(!holds(&mut node, compare(key, CompareResult::Equal, empty.clone())));
        assert!(!holds(&mut node, compare(key, CompareResult::NotEqual, empty.clone())));
        assert!(!holds(
            &mut node,
            compare(key, CompareResult::Less, CompareTarget::Value(bytes("x")))
        ));
    }
}

#[test]
fn a_range_comparison_must_hold_for_every_key() {
    let mut node = Node::with(&["a", "b", "c", "c"]);
    let on = |begin: &str, end: &str, target| Compare {
        range_end: bytes(end),
        ..compare(begin, CompareResult::Equal, target)
    };
    assert!(holds(&mut node, on("a", "c", CompareTarget::Version(1))));
    assert!(!holds(&mut node, on("a", "\0", CompareTarget::Version(1))));
    assert!(holds(&mut node, on("x", "z", CompareTarget::Version(0))), "none: a missing key");
    assert!(holds(&mut node, on("z", "x", CompareTarget::Version(0))), "none: upside down");
    assert!(!holds(&mut node, on("x", "z", CompareTarget::Value(Bytes::new()))));
}

#[test]
fn all_comparisons_see_the_state_before_the_transaction() {
    let mut node = Node::new();
    let inner = TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Version(1))],
        success: vec![op_put("seen", "")],
        failure: vec![op_put("unseen", "")],
    };
    node.txn(txn(vec![op_put("a", "1"), RequestOp::Txn(inner)])).unwrap();
    assert!(node.get("unseen").is_some() && node.get("seen").is_none());
}

#[test]
fn operations_see_those_before_them() {
    let mut node = Node::with(&["a"]);
    let ops = vec![
        op_get("b"),
        op_put("b", "1"),
        RequestOp::Range(everything()),
        op_delete("a", ""),
        RequestOp::Range(everything()),
    ];
    let response = node.txn(txn(ops)).unwrap();
    let seen: Vec<_> = response
        .responses
        .iter()
        .filter_map(|response| match response {
            ResponseOp::Range(range) => Some((keys(range).concat(), range.revision)),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [(String::new(), 2), ("ab".into(), 3), ("b".into(), 3)]);
}

#[test]
fn inner_headers_are_empty_and_the_rest_have_the_revision() {
    let mut node = Node::new();
    let ops = vec![op_put("a", ""), op_txn(vec![op_put("b", "")], vec![]), op_delete("x", "")];
    let response = node.txn(txn(ops)).unwrap();
    assert_eq!(response.revision, 2);
    let [ResponseOp::Put(first), ResponseOp::Txn(inner), ResponseOp::DeleteRange(last)] =
        &response.responses[..]
    else {
        panic!("{response:?}")
    };
    assert_eq!((first.revision, inner.revision, last.revision), (2, 0, 2));
    assert!(matches!(&inner.responses[..], [ResponseOp::Put(put)] if put.revision == 2));
}

#[test]
fn one_operation_that_cannot_be_done_undoes_the_whole() {
    let mut node = Node::with(&["a", "a", "a"]);
    node.compact(3).unwrap();
    let at = |revision| RequestOp::Range(RangeRequest { revision, ..get("a") });
    let leased = RequestOp::Put(PutRequest { lease: 9, ..put("c", "") });
    let missing = RequestOp::Put(PutRequest { ignore_value: true, ..put("c", "") });
    for (op, error) in [
        (at(5), Error::FutureRevision),
        (at(2), Error::Compacted),
        (at(-1), Error::Compacted),
        (leased, Error::LeaseNotFound),
        (missing, Error::KeyNotFound),
    ] {
        let nested = op_txn(vec![op_get("x"), op.clone()], vec![]);
        for op in [op, nested] {
            let hash = node.hash();
            assert_eq!(node.txn(txn(vec![op_put("b", ""), op])), Err(error));
            assert_eq!((node.revision(), node.get("b"), node.hash()), (4, None, hash));
        }
    }
    assert!(node.txn(txn(vec![at(3), at(4), at(0)])).is_ok());
}

#[test]
fn what_is_not_on_the_path_is_not_checked() {
    let mut node = Node::with(&["a"]);
    let future = RequestOp::Range(RangeRequest { revision: 99, ..get("a") });
    let request = TxnRequest {
        compare: vec![never()],
        success: vec![future.clone()],
        failure: vec![op_put("b", "")],
    };
    assert!(node.txn(request).is_ok());
    let inner = TxnRequest { compare: vec![never()], success: vec![future], failure: vec![] };
    assert!(node.txn(txn(vec![RequestOp::Txn(inner)])).is_ok());
}

#[test]
fn a_put_in_a_transaction_can_keep_a_value_and_tell_the_previous_pair() {
    let mut node = Node::with(&["a"]);
    let request = PutRequest { ignore_value: true, prev_kv: true, ..put("a", "") };
    let response = node.txn(txn(vec![RequestOp::Put(request)])).unwrap();
    let [ResponseOp::Put(put)] = &response.responses[..] else { panic!() };
    assert_eq!(put.prev_kv.as_ref().unwrap().version, 1);
    assert_eq!(node.get("a").unwrap().value, "a");
}

#[test]
fn a_transaction_has_128_operations_a_level_and_the_inner_what_the_outer_leaves() {
    let gets = |count| vec![op_get("a"); count];
    assert_eq!(txn(gets(128)).validate(), Ok(()));
    assert_eq!(txn(gets(129)).validate(), Err(Error::TooManyOps));
    let failure = TxnRequest { failure: gets(129), ..TxnRequest::default() };
    assert_eq!(failure.validate(), Err(Error::TooManyOps));
    let compares = TxnRequest { compare: vec![never(); 129], ..TxnRequest::default() };
    assert_eq!(compares.validate(), Err(Error::TooManyOps));
    // The outer level uses 10, on whichever list is the longest.
    let outer = |inner: usize| TxnRequest {
        compare: vec![never(); 10],
        success: vec![op_txn(gets(inner), vec![])],
        failure: vec![op_txn(vec![], gets(inner))],
    };
    assert_eq!(outer(118).validate(), Ok(()));
    assert_eq!(outer(119).validate(), Err(Error::TooManyOps));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let mut request = TxnRequest::default();
        for _ in 1..depth {
            request = txn(vec![RequestOp::Txn(request)]);
        }
        request
    };
    assert_eq!(nested(crate::kv::TXN_DEPTH_MAX).validate(), Ok(()));
    let deeper = nested(crate::kv::TXN_DEPTH_MAX + 1);
    assert_eq!(deeper.validate(), Err(Error::TooManyOps));
    assert_eq!(Node::new().txn(deeper), Err(Error::TooManyOps));
}

#[test]
fn a_bad_operation_is_refused_on_either_branch_at_any_depth() {
    let keep = PutRequest { ignore_value: true, ..put("a", "x") };
    for (op, error) in [
        (op_get(""), Error::EmptyKey),
        (op_put("", ""), Error::EmptyKey),
        (op_delete("", ""), Error::EmptyKey),
        (RequestOp::Put(keep), Error::ValueProvided),
    ] {
        let failure = TxnRequest { failure: vec![op.clone()], ..TxnRequest::default() };
        assert_eq!(failure.validate(), Err(error));
        assert_eq!(txn(vec![op_txn(vec![], vec![op])]).validate(), Err(error));
    }
    let compares = TxnRequest {
        compare: vec![compare("", CompareResult::Equal, CompareTarget::Version(0))],
        ..TxnRequest::default()
    };
    assert_eq!(compares.validate(), Err(Error::EmptyKey));
}

#[test]
fn one_key_may_not_be_put_twice_or_put_and_deleted() {
    for ops in [
        vec![op_put("a", ""), op_put("a", "")],
        vec![op_put("b", ""), op_delete("a", "c")],
        vec![op_delete("a", "\0"), op_put("b", "")],
        vec![op_delete("b", ""), op_put("b", "")],
        vec![op_put("a", ""), op_txn(vec![op_put("a", "")], vec![])],
        vec![op_put("a", ""), op_txn(vec![], vec![op_put("a", "")])],
        vec![op_delete("a", "c"), op_txn(vec![op_put("b", "")], vec![])],
        vec![op_put("b", ""), op_txn(vec![op_delete("a", "c")], vec![])],
        vec![op_txn(vec![op_put("a", "")], vec![]), op_txn(vec![], vec![op_put("a", "")])],
        vec![op_txn(vec![op_delete("a", "c")], vec![]), op_txn(vec![op_put("b", "")], vec![])],
    ] {
        assert_eq!(txn(ops.clone()).validate(), Err(Error::DuplicateKey), "{ops:?}");
        let failure = TxnRequest { failure: ops.clone(), ..TxnRequest::default() };
        assert_eq!(failure.validate(), Err(Error::DuplicateKey), "both branches: {ops:?}");
        assert_eq!(Node::new().txn(txn(ops)), Err(Error::DuplicateKey));
    }
}

#[test]
fn what_cannot_collide_is_allowed() {
    for ops in [
        vec![op_delete("a", "c"), op_delete("b", "")],
        vec![op_delete("a", "c"), op_put("c", "")],
        vec![op_delete("z", "a"), op_put("b", "")],
        vec![op_txn(vec![op_put("a", "")], vec![op_put("a", "")])],
        vec![op_put("a", ""), op_get("a")],
    ] {
        assert_eq!(txn(ops.clone()).validate(), Ok(()), "{ops:?}");
        assert!(Node::new().txn(txn(ops)).is_ok());
    }
}

#[test]
fn an_inner_deletion_may_follow_an_earlier_inner_put() {
    // etcd allows this one: two changes of one key at one revision.
    let mut node = Node::with(&["b"]);
    let ops = vec![
        op_txn(vec![op_put("a", "1"), op_put("c", "1")], vec![]),
        op_txn(vec![op_delete("a", "b")], vec![]),
    ];
    node.txn(txn(ops)).unwrap();
    assert_eq!(node.get("a"), None);
    assert_eq!(node.machine.store().events(3).count(), 3);
    node.compact(3).unwrap();
    node.sweep();
    assert_eq!(node.machine.store().events(3).count(), 2, "of a key only its last state");
    node.put("c", "2");
    node.compact(4).unwrap();
    node.sweep();
    assert_eq!(node.machine.store().keys(), 2, "nothing is left of the deleted key");
}

#[test]
fn a_huge_transaction_is_validated_in_a_moment() {
    // 41 * 42 * 43 operations of three bytes each: what fits into one request.
    let mut request = txn(Vec::new());
    for outer in 0..41_u32 {
        let mut middle = Vec::new();
        for inner in 0..42_u32 {
            let leaf = (0..43_u32).map(|leaf| {
                let key = format!("{outer} {inner} {leaf}");
                if leaf % 2 == 0 { op_put(&key, "") } else { op_delete(&key, &format!("{key}!")) }
            });
            middle.push(op_txn(leaf.collect(), vec![]));
        }
        request.success.push(op_txn(middle, vec![]));
    }
    assert_eq!(request.validate(), Ok(()));
}

#[test]
fn only_a_transaction_without_writes_on_any_branch_is_read_only() {
    assert!(TxnRequest::default().is_read_only());
    assert!(txn(vec![op_get("a"), op_txn(vec![op_get("b")], vec![])]).is_read_only());
    assert!(!txn(vec![op_txn(vec![], vec![op_put("a", "")])]).is_read_only());
    assert!(!txn(vec![op_delete("a", "")]).is_read_only());
}

#[test]
fn a_read_only_transaction_needs_no_log() {
    let node = Node::with(&["a"]);
    let request = TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Mod(2))],
        success: vec![op_get("a")],
        failure: vec![],
    };
    let response = node.machine.store().read_txn(&request).unwrap();
    assert_eq!((response.revision, response.succeeded, response.responses.len()), (2, true, 1));
    let future = RequestOp::Range(RangeRequest { revision: 3, ..get("a") });
    assert_eq!(node.machine.store().read_txn(&txn(vec![future])), Err(Error::FutureRevision));
}

#[test]
fn a_long_read_only_transaction_in_steps_answers_from_one_state() {
    let mut node = Node::with(&["a", "b", "c", "a"]);
    let old = RangeRequest { revision: 2, ..everything() };
    let inner = TxnRequest {
        compare: vec![compare("b", CompareResult::Equal, CompareTarget::Version(1))],
        success: vec![RequestOp::Range(old), op_get("b")],
        failure: vec![],
    };
    let request =
        txn(vec![RequestOp::Range(everything()), RequestOp::Txn(inner), op_get("c"), op_get("x")]);
    let expected = node.machine.store().read_txn(&request).unwrap();
    let mut scan = TxnScan::new(request.clone(), node.machine.store()).unwrap();
    let mut steps = 1;
    while !scan.step(node.machine.store(), 1).unwrap() {
        node.put("b", "later");
        node.delete("c", "");
        node.compact(node.revision()).unwrap();
        node.sweep();
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(scan.finish(), expected);
    node.sweep();
    assert!(!node.machine.store().compaction_pending(), "the history is let go");
    let other = Node::with(&["b"]);
    let mut scan = TxnScan::new(txn(vec![op_get("a")]), node.machine.store()).unwrap();
    assert_eq!(scan.step(other.machine.store(), 9), Ok(true));
    assert_eq!(scan.finish(), other.machine.store().read_txn(&txn(vec![op_get("a")])).unwrap());
}

#[test]
#[should_panic(expected = "goes through the log")]
fn a_transaction_that_may_write_is_not_read() {
    let _ = Node::new().machine.store().read_txn(&txn(vec![op_put("a", "")]));
}
