//! What can be refused without looking at any state, in etcd's order: empty keys, contradictions
//! in a put, too many operations, keys written twice. Quadratic and plain on purpose.

use bytes::Bytes;
use raft_node::kv::{
    Command, DeleteRangeRequest, Error, PutRequest, RequestOp, TXN_DEPTH_MAX, TXN_OPS_MAX,
    TxnRequest,
};

/// Whether `key` lies between `begin` and `end` as etcd reads them.
pub(super) fn within(key: &[u8], begin: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == begin,
        [0] => key >= begin,
        _ => key >= begin && key < end,
    }
}

/// Whether a write makes sense by itself.
pub(super) fn check(command: &Command) -> Result<(), Error> {
    match command {
        Command::Put(put) => check_put(put),
        Command::DeleteRange(delete) => check_key(&delete.key),
        Command::Txn(txn) => check_txn(txn),
        Command::Compact(_) => Ok(()),
    }
}

/// Whether a transaction makes sense by itself, with all that is within it.
pub(super) fn check_txn(txn: &TxnRequest) -> Result<(), Error> {
    check_sizes(txn, TXN_OPS_MAX, TXN_DEPTH_MAX)?;
    Written::by(&txn.success)?;
    Written::by(&txn.failure)?;
    Ok(())
}

pub(super) fn check_key(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn check_put(put: &PutRequest) -> Result<(), Error> {
    check_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    match (put.ignore_lease, put.lease) {
        (false, _) => Ok(()),
        (true, 0) => Err(Error::LeaseNotFound),
        (true, _) => Err(Error::LeaseProvided),
    }
}

fn check_sizes(txn: &TxnRequest, ops_max: usize, depth_max: usize) -> Result<(), Error> {
    let ops = [txn.compare.len(), txn.success.len(), txn.failure.len()];
    let ops = ops.into_iter().max().expect("three of them");
    if ops > ops_max || depth_max == 0 {
        return Err(Error::TooManyOps);
    }
    for compare in &txn.compare {
        check_key(&compare.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Range(range) => check_key(&range.key)?,
            RequestOp::Put(put) => check_put(put)?,
            RequestOp::DeleteRange(delete) => check_key(&delete.key)?,
            RequestOp::Txn(inner) => check_sizes(inner, ops_max - ops, depth_max - 1)?,
        }
    }
    Ok(())
}

/// What a branch may write, whichever way the transactions within it go.
#[derive(Default)]
struct Written<'a> {
    puts: Vec<&'a Bytes>,
    deletes: Vec<&'a DeleteRangeRequest>,
}

impl<'a> Written<'a> {
    fn by(ops: &'a [RequestOp]) -> Result<Self, Error> {
        let mut written = Self::default();
        for op in ops {
            if let RequestOp::DeleteRange(delete) = op {
                written.deletes.push(delete);
            }
        }
        for op in ops {
            if let RequestOp::Txn(inner) = op {
                let branches = [Self::by(&inner.success)?, Self::by(&inner.failure)?];
                let puts = || branches.iter().flat_map(|branch| &branch.puts);
                if puts().any(|key| written.has(key)) {
                    return Err(Error::DuplicateKey);
                }
                for branch in branches {
                    written.puts.extend(branch.puts);
                    written.deletes.extend(branch.deletes);
                }
            }
        }
        for op in ops {
            if let RequestOp::Put(put) = op {
                if written.has(&put.key) {
                    return Err(Error::DuplicateKey);
                }
                written.puts.push(&put.key);
            }
        }
        Ok(written)
    }

    fn has(&self, key: &Bytes) -> bool {
        let deleted = |delete: &&DeleteRangeRequest| within(key, &delete.key, &delete.range_end);
        self.puts.contains(&key) || self.deletes.iter().any(deleted)
    }
}
