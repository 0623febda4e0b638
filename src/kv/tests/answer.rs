//! Answers: collected after the command was applied, as if they had been collected with it.

use super::*;
use crate::kv::{Answer, AnswerLost, AnswerScan, Estimate, SnapshotCursor, SnapshotImport};

fn op(request: RangeRequest) -> RequestOp {
    RequestOp::Range(request)
}

fn delete_listed(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { prev_kv: true, ..delete(key, range_end) }
}

/// Reads everything before, between and after its changes, as of now and as of the past.
fn busy_txn() -> Command {
    let counted = RangeRequest { count_only: true, ..everything() };
    let past = RangeRequest { revision: 20, ..everything() };
    let newest = RangeRequest {
        sort_order: crate::kv::SortOrder::Descend,
        sort_target: crate::kv::SortTarget::Mod,
        limit: 3,
        ..everything()
    };
    let inner = TxnRequest {
        success: vec![op(everything()), RequestOp::Put(put("k05", "inner")), op(everything())],
        ..TxnRequest::default()
    };
    Command::Txn(TxnRequest {
        success: vec![
            op(everything()),
            RequestOp::Put(PutRequest { prev_kv: true, ..put("k00", "first") }),
            op(newest),
            RequestOp::DeleteRange(delete_listed("k10", "k20")),
            op(everything()),
            op(counted),
            RequestOp::Txn(inner),
            RequestOp::DeleteRange(delete_listed("k06", "l")),
            op(past),
            op(everything()),
        ],
        ..TxnRequest::default()
    })
}

fn thirty_keys() -> Node {
    let mut node = Node::new();
    for number in 0..30 {
        node.put(&format!("k{number:02}"), "old");
    }
    node
}

/// Applies `command` and leaves the whole answer to be read later.
fn pending(node: &mut Node, command: &Command) -> AnswerScan {
    node.index += 1;
    match node.machine.answer_within(node.index, command, 1).unwrap() {
        Answer::Pending(scan) => *scan,
        Answer::Ready(response) => panic!("it was read at once: {response:?}"),
    }
}

fn finish(mut scan: AnswerScan, node: &Node) -> Response {
    while !scan.step(node.machine.store(), 7).unwrap() {}
    scan.collect().listed()
}

#[test]
fn an_answer_read_late_is_that_of_the_moment() {
    let (mut late, mut prompt) = (thirty_keys(), thirty_keys());
    let expected = prompt.apply(busy_txn()).unwrap();
    let mut scan = pending(&mut late, &busy_txn());
    for number in 0.. {
        late.put("k07", &number.to_string());
        late.delete("k2", "k3");
        let revision = late.revision();
        late.compact(revision).unwrap();
        late.machine.compact_step(usize::MAX);
        if scan.step(late.machine.store(), 7).unwrap() {
            break;
        }
    }
    assert_eq!(scan.collect().listed(), expected);
}

#[test]
fn a_deletion_lists_what_was_there() {
    let mut node = thirty_keys();
    let scan = pending(&mut node, &Command::DeleteRange(delete_listed("k", "l")));
    node.put("k03", "new");
    let Response::DeleteRange(response) = finish(scan, &node) else { panic!("another kind") };
    assert_eq!((response.deleted, response.prev_kvs.len()), (30, 30));
    assert!(response.prev_kvs.iter().all(|kv| kv.value == "old"));
}

#[test]
fn history_is_held_until_an_answer_is_read_and_no_longer() {
    let mut node = thirty_keys();
    let scan = pending(&mut node, &busy_txn());
    let revision = node.revision();
    node.compact(revision).unwrap();
    node.machine.compact_step(usize::MAX);
    assert!(node.machine.store().compaction_pending(), "the answer needs what came before");
    drop(scan);
    node.sweep();
    assert!(!node.machine.store().compaction_pending());
}

#[test]
fn nothing_is_held_where_no_answer_is_awaited() {
    let (mut told, mut silent) = (thirty_keys(), thirty_keys());
    told.apply(busy_txn()).unwrap();
    silent.index += 1;
    let revision = silent.machine.apply(silent.index, busy_txn()).unwrap();
    assert_eq!((revision, silent.hash()), (told.revision(), told.hash()));
    silent.compact(revision).unwrap();
    silent.sweep();
    assert!(!silent.machine.store().compaction_pending());
}

#[test]
fn refusals_are_the_same_whether_awaited_or_not() {
    let refused = [
        Command::Put(PutRequest { ignore_value: true, ..put("missing", "") }),
        Command::Put(PutRequest { lease: 7, ..put("a", "") }),
        Command::DeleteRange(delete("", "")),
        Command::Txn(TxnRequest {
            success: vec![
                RequestOp::Put(put("a", "b")),
                op(RangeRequest { revision: 99, ..everything() }),
            ],
            ..TxnRequest::default()
        }),
        Command::Compact(CompactionRequest { revision: 99 }),
    ];
    for command in refused {
        let (mut told, mut silent) = (thirty_keys(), thirty_keys());
        let error = told.apply(command.clone()).expect_err("refused");
        assert_eq!(silent.machine.apply(99, command), Err(error));
        assert_eq!((told.hash(), told.revision()), (silent.hash(), silent.revision()));
    }
}

#[test]
fn a_snapshot_that_replaces_the_store_takes_the_rest_of_an_answer_with_it() {
    let mut node = thirty_keys();
    let mut scan = pending(&mut node, &busy_txn());
    let mut cursor = SnapshotCursor::new(node.machine.store());
    let mut import = SnapshotImport::new();
    while let Some(chunk) = cursor.next_chunk(node.machine.store(), 1000).unwrap() {
        import.chunk(&chunk).unwrap();
    }
    node.machine = Machine::restore(import.finish().unwrap(), node.index);
    assert_eq!(scan.step(node.machine.store(), usize::MAX), Err(AnswerLost));
}

#[test]
fn an_estimate_is_what_the_answer_would_hold() {
    let mut node = thirty_keys();
    let reads = |request: RangeRequest| {
        Command::Txn(TxnRequest {
            success: vec![op(request), RequestOp::Put(put("x", ""))],
            ..TxnRequest::default()
        })
    };
    for command in [
        reads(everything()),
        reads(RangeRequest { limit: 5, ..everything() }),
        Command::DeleteRange(delete_listed("k", "l")),
    ] {
        assert!(Estimate::is_due(&command));
        let mut estimate = Estimate::new(&command, node.machine.store()).expect("it reads");
        while !estimate.step(node.machine.store(), 7) {}
        let mut scan = pending(&mut node, &command);
        while !scan.step(node.machine.store(), 7).unwrap() {}
        assert_eq!(estimate.held_bytes(), scan.collect().held_bytes(), "{command:?}");
    }
}

#[test]
fn what_names_its_keys_needs_no_estimate() {
    for command in [
        Command::Put(put("a", "")),
        Command::DeleteRange(delete_listed("a", "")),
        Command::DeleteRange(delete("a", "z")),
        Command::Txn(TxnRequest {
            success: vec![
                op(get("a")),
                op(RangeRequest { count_only: true, ..everything() }),
                RequestOp::Put(put("a", "")),
            ],
            ..TxnRequest::default()
        }),
    ] {
        assert!(!Estimate::is_due(&command), "{command:?}");
    }
}
