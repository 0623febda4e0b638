//! Random requests over few keys and few revisions, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::kv::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// Keys that sort among each other in all ways, one too long to stand in the index.
const KEYS: [&[u8]; 8] =
    [b"a", b"a\0", b"b", b"bb", b"c", b"a key that is longer than most are", b"\0", b"\xff\xff"];

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        40 => (0..KEYS.len()).prop_map(|place| Bytes::from_static(KEYS[place])),
        1 => Just(Bytes::new()),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(b"\0")),
        4 => key(),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0..5_u8).prop_map(|byte| Bytes::from(vec![b'0' + byte])),
        1 => Just(Bytes::new()),
        1 => (0..300_usize).prop_map(|length| Bytes::from(vec![b'x'; length])),
    ]
}

/// A revision that often exists.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1..40_i64, 1 => -2..=1_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0), 1 => revision()]
}

prop_compose! {
    pub(super) fn range()(
        key in key(),
        range_end in range_end(),
        limit in prop_oneof![3 => Just(0), 3 => 1..5_i64, 1 => Just(-1), 1 => Just(i64::MAX)],
        revision in prop_oneof![3 => Just(0), 3 => revision()],
        sort_order in prop_oneof![
            2 => Just(SortOrder::None), 1 => Just(SortOrder::Ascend), 1 => Just(SortOrder::Descend)
        ],
        sort_target in prop_oneof![
            4 => Just(SortTarget::Key),
            1 => Just(SortTarget::Version),
            1 => Just(SortTarget::Create),
            1 => Just(SortTarget::Mod),
            1 => Just(SortTarget::Value),
        ],
        keys_only in prop::bool::weighted(0.2),
        count_only in prop::bool::weighted(0.2),
        bounds in [bound(), bound(), bound(), bound()],
    ) -> RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

prop_compose! {
    fn put()(
        key in key(),
        value in value(),
        lease in prop_oneof![30 => Just(0), 1 => Just(7)],
        prev_kv: bool,
        ignore_value in prop::bool::weighted(0.1),
        ignore_lease in prop::bool::weighted(0.02),
        empty: bool,
    ) -> PutRequest {
        let value = if ignore_value && empty { Bytes::new() } else { value };
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv: bool) -> DeleteRangeRequest {
        DeleteRangeRequest { key, range_end, prev_kv }
    }
}

prop_compose! {
    fn compare()(
        key in key(),
        range_end in range_end(),
        result in prop_oneof![
            Just(CompareResult::Equal), Just(CompareResult::Greater),
            Just(CompareResult::Less), Just(CompareResult::NotEqual),
        ],
        target in prop_oneof![
            (0..4_i64).prop_map(CompareTarget::Version),
            revision().prop_map(CompareTarget::Create),
            revision().prop_map(CompareTarget::Mod),
            value().prop_map(CompareTarget::Value),
            (0..2_i64).prop_map(CompareTarget::Lease),
        ],
    ) -> Compare {
        Compare { key, range_end, result, target }
    }
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let flat = || {
        let op = prop_oneof![
            range().prop_map(RequestOp::Range),
            put().prop_map(RequestOp::Put),
            delete().prop_map(RequestOp::DeleteRange),
        ];
        op.boxed()
    };
    let of = |op: BoxedStrategy<RequestOp>| {
        (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let inner = move |op| of(op).prop_map(RequestOp::Txn);
    let nested = prop_oneof![2 => flat(), 1 => inner(flat())].boxed();
    of(prop_oneof![3 => flat(), 1 => inner(nested)].boxed())
}

/// Any command.
pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => put().prop_map(Command::Put),
        2 => delete().prop_map(Command::DeleteRange),
        5 => txn().prop_map(Command::Txn),
        1 => revision().prop_map(|revision| Command::Compact(CompactionRequest { revision })),
    ]
}

/// A transaction of reads.
pub(super) fn read_txn() -> impl Strategy<Value = TxnRequest> {
    let op = || prop_oneof![range().prop_map(RequestOp::Range)];
    let inner = (vec(compare(), 0..2), vec(op(), 0..3), vec(op(), 0..3))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure });
    let nested = prop_oneof![3 => op(), 1 => inner.prop_map(RequestOp::Txn)].boxed();
    (vec(compare(), 0..2), vec(nested.clone(), 0..3), vec(nested, 0..3))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}
