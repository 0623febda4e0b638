//! Between etcd's messages and the state machine's own types.
//!
//! Inward, what the types cannot hold is refused: unknown enum values and operations without
//! content; all other checks are the state machine's `validate`. Outward nothing can fail. Keys
//! and values are moved, never copied.

use tonic::Status;

use crate::kv;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::proto::etcdserverpb::response_op::Response as OpResponse;
use crate::proto::mvccpb;
use crate::server;

use super::error::to_status;

/// A read; whether it is serializable is the handler's business.
pub(super) fn range(request: pb::RangeRequest) -> Result<kv::RangeRequest, Status> {
    let invalid = |_| to_status(server::Error::InvalidSortOption);
    let sort_order = match SortOrder::try_from(request.sort_order).map_err(invalid)? {
        SortOrder::None => kv::SortOrder::None,
        SortOrder::Ascend => kv::SortOrder::Ascend,
        SortOrder::Descend => kv::SortOrder::Descend,
    };
    let sort_target = match SortTarget::try_from(request.sort_target).map_err(invalid)? {
        SortTarget::Key => kv::SortTarget::Key,
        SortTarget::Version => kv::SortTarget::Version,
        SortTarget::Create => kv::SortTarget::Create,
        SortTarget::Mod => kv::SortTarget::Mod,
        SortTarget::Value => kv::SortTarget::Value,
    };
    Ok(kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order,
        sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

/// A write.
pub(super) fn put(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A deletion.
pub(super) fn delete_range(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

/// A transaction, with those nested in it. Their depth is bounded by the decoder.
pub(super) fn txn(request: pb::TxnRequest) -> Result<kv::TxnRequest, Status> {
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(op).collect::<Result<_, _>>();
    Ok(kv::TxnRequest {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

/// Whether a transaction that only reads may be answered from this member's state, however old:
/// if each of its reads may. As in etcd, one that holds another transaction may not.
pub(super) fn is_serializable(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Op::RequestRange(range)) => range.serializable,
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_) | Op::RequestTxn(_)) | None => false,
    })
}

fn op(op: pb::RequestOp) -> Result<kv::RequestOp, Status> {
    match op.request {
        Some(Op::RequestRange(request)) => range(request).map(kv::RequestOp::Range),
        Some(Op::RequestPut(request)) => Ok(kv::RequestOp::Put(put(request))),
        Some(Op::RequestDeleteRange(request)) => {
            Ok(kv::RequestOp::DeleteRange(delete_range(request)))
        }
        Some(Op::RequestTxn(request)) => txn(request).map(kv::RequestOp::Txn),
        None => Err(to_status(kv::Error::KeyNotFound)),
    }
}

/// A condition. A target given without its value compares with zero or with nothing, and so does
/// one whose value is for another target.
fn compare(compare: pb::Compare) -> Result<kv::Compare, Status> {
    let unknown = |what, value| Status::invalid_argument(format!("unknown compare {what} {value}"));
    let result = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => kv::CompareResult::Equal,
        Ok(CompareResult::Greater) => kv::CompareResult::Greater,
        Ok(CompareResult::Less) => kv::CompareResult::Less,
        Ok(CompareResult::NotEqual) => kv::CompareResult::NotEqual,
        Err(_) => return Err(unknown("result", compare.result)),
    };
    let target = match (CompareTarget::try_from(compare.target), compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(version))) => {
            kv::CompareTarget::Version(version)
        }
        (Ok(CompareTarget::Version), _) => kv::CompareTarget::Version(0),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(revision))) => {
            kv::CompareTarget::Create(revision)
        }
        (Ok(CompareTarget::Create), _) => kv::CompareTarget::Create(0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(revision))) => {
            kv::CompareTarget::Mod(revision)
        }
        (Ok(CompareTarget::Mod), _) => kv::CompareTarget::Mod(0),
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => {
            kv::CompareTarget::Value(value)
        }
        (Ok(CompareTarget::Value), _) => kv::CompareTarget::Value(bytes::Bytes::new()),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(lease))) => {
            kv::CompareTarget::Lease(lease)
        }
        (Ok(CompareTarget::Lease), _) => kv::CompareTarget::Lease(0),
        (Err(_), _) => return Err(unknown("target", compare.target)),
    };
    Ok(kv::Compare { key: compare.key, range_end: compare.range_end, result, target })
}

/// The keys read, under `header`.
pub(super) fn range_response(
    header: pb::ResponseHeader,
    response: kv::RangeResponse,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: key_values(response.kvs),
        more: response.more,
        count: response.count,
    }
}

/// A key was written, under `header`.
pub(super) fn put_response(
    header: pb::ResponseHeader,
    response: kv::PutResponse,
) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev_kv.map(key_value) }
}

/// Keys were deleted, under `header`.
pub(super) fn delete_range_response(
    header: pb::ResponseHeader,
    response: kv::DeleteRangeResponse,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: response.deleted,
        prev_kvs: key_values(response.prev_kvs),
    }
}

/// A transaction was done, under `header`. The headers within hold a revision and nothing else.
pub(super) fn txn_response(
    header: pb::ResponseHeader,
    response: kv::TxnResponse,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(op_response).collect(),
    }
}

/// A header within a transaction.
pub(super) fn inner_header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..pb::ResponseHeader::default() }
}

fn op_response(response: kv::ResponseOp) -> pb::ResponseOp {
    let at = inner_header;
    let response = match response {
        kv::ResponseOp::Range(range) => {
            OpResponse::ResponseRange(range_response(at(range.revision), range))
        }
        kv::ResponseOp::Put(put) => OpResponse::ResponsePut(put_response(at(put.revision), put)),
        kv::ResponseOp::DeleteRange(deletion) => {
            OpResponse::ResponseDeleteRange(delete_range_response(at(deletion.revision), deletion))
        }
        kv::ResponseOp::Txn(txn) => OpResponse::ResponseTxn(txn_response(at(txn.revision), txn)),
    };
    pb::ResponseOp { response: Some(response) }
}

/// One change, with what was there before if that is wanted.
pub(super) fn event(event: &kv::Event, prev_kv: bool) -> mvccpb::Event {
    let kind = match event.kind {
        kv::EventKind::Put => mvccpb::event::EventType::Put,
        kv::EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let before = event.prev_kv.as_ref().filter(|_| prev_kv);
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(key_value(event.kv.clone())),
        prev_kv: before.cloned().map(key_value),
    }
}

fn key_values(kvs: Vec<kv::KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

fn key_value(kv: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tonic::Code;

    use super::*;

    fn read(serializable: bool) -> pb::RequestOp {
        let range = pb::RangeRequest { key: "k".into(), serializable, ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestRange(range)) }
    }

    fn condition(target: CompareTarget, value: Option<TargetUnion>) -> pb::Compare {
        pb::Compare {
            result: CompareResult::NotEqual.into(),
            target: target.into(),
            key: "k".into(),
            range_end: Bytes::new(),
            target_union: value,
        }
    }

    #[test]
    fn unknown_sort_options_are_refused_by_name() {
        for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5)] {
            let request = pb::RangeRequest { sort_order, sort_target, ..Default::default() };
            let status = range(request).expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.message(), "etcdserver: invalid sort option");
        }
    }

    #[test]
    fn an_operation_without_content_is_refused_at_any_depth() {
        let empty = || pb::RequestOp { request: None };
        let inner = pb::TxnRequest { failure: vec![empty()], ..Default::default() };
        let nested = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
        for op in [empty(), nested] {
            let request = pb::TxnRequest { success: vec![op], ..Default::default() };
            let status = txn(request).expect_err("refused");
            assert_eq!(status.message(), "etcdserver: key not found");
        }
    }

    #[test]
    fn a_condition_takes_its_value_from_its_own_target_alone() {
        let cases = [
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(7)), kv::CompareTarget::Mod(7)),
            (CompareTarget::Mod, Some(TargetUnion::Version(7)), kv::CompareTarget::Mod(0)),
            (CompareTarget::Create, None, kv::CompareTarget::Create(0)),
            (CompareTarget::Value, None, kv::CompareTarget::Value(Bytes::new())),
            (
                CompareTarget::Value,
                Some(TargetUnion::Value("v".into())),
                kv::CompareTarget::Value("v".into()),
            ),
        ];
        for (target, value, expected) in cases {
            let converted = compare(condition(target, value)).expect("converted");
            assert_eq!(converted.target, expected);
            assert_eq!(converted.result, kv::CompareResult::NotEqual);
        }
    }

    #[test]
    fn unknown_conditions_are_refused() {
        let mut unknown = condition(CompareTarget::Mod, None);
        unknown.target = 9;
        assert_eq!(compare(unknown).expect_err("refused").code(), Code::InvalidArgument);
        let mut unknown = condition(CompareTarget::Mod, None);
        unknown.result = 4;
        assert_eq!(compare(unknown).expect_err("refused").code(), Code::InvalidArgument);
    }

    #[test]
    fn a_transaction_is_serializable_if_each_of_its_reads_is() {
        let of =
            |success: Vec<_>, failure: Vec<_>| pb::TxnRequest { compare: vec![], success, failure };
        assert!(is_serializable(&of(vec![], vec![])));
        assert!(is_serializable(&of(vec![read(true)], vec![read(true)])));
        assert!(!is_serializable(&of(vec![read(true)], vec![read(false)])));
        let inner = pb::RequestOp { request: Some(Op::RequestTxn(of(vec![], vec![]))) };
        assert!(!is_serializable(&of(vec![inner], vec![])));
    }

    #[test]
    fn headers_inside_a_transaction_hold_a_revision_and_nothing_else() {
        let response = kv::TxnResponse {
            revision: 9,
            succeeded: true,
            responses: vec![
                kv::ResponseOp::Put(kv::PutResponse { revision: 9, prev_kv: None }),
                kv::ResponseOp::Txn(kv::TxnResponse::default()),
            ],
        };
        let outer = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 3 };
        let response = txn_response(outer, response);
        assert_eq!(response.header, Some(outer));
        let headers: Vec<_> = response
            .responses
            .into_iter()
            .map(|op| match op.response.expect("an outcome") {
                OpResponse::ResponsePut(put) => put.header.expect("present"),
                OpResponse::ResponseTxn(txn) => txn.header.expect("present, though empty"),
                OpResponse::ResponseRange(_) | OpResponse::ResponseDeleteRange(_) => {
                    unreachable!("not asked for")
                }
            })
            .collect();
        let at = |revision| pb::ResponseHeader { revision, ..Default::default() };
        assert_eq!(headers, [at(9), at(0)]);
    }
}
