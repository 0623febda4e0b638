//! What can be said of a request without looking at the store (etcd's `v3rpc/key.go`).
//!
//! The API calls this before it proposes, so that a bad request costs no log entry;
//! [`Machine::apply`](super::Machine::apply) calls it again, since it cannot know who proposed and
//! relies on it: a valid transaction that passes its checks cannot fail half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::error::Error;
use super::types::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Comparisons, or operations of a branch, that one transaction may have; one within another may
/// have what the outer leaves of it.
pub const TXN_OPS_MAX: usize = 128;

/// How deep transactions may be nested, the outermost counted: below what the gRPC layer decodes,
/// and little enough to recurse.
pub const TXN_DEPTH_MAX: usize = 64;

impl RangeRequest {
    /// Whether the request makes sense.
    pub fn validate(&self) -> Result<(), Error> {
        key_given(&self.key)
    }
}

impl PutRequest {
    /// Whether the request makes sense.
    ///
    /// `ignore_lease` is refused while there are no leases: etcd would keep the lease of the key,
    /// and as yet no key has one that could be found.
    pub fn validate(&self) -> Result<(), Error> {
        key_given(&self.key)?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(Error::ValueProvided);
        }
        if self.ignore_lease {
            return Err(if self.lease == 0 { Error::LeaseNotFound } else { Error::LeaseProvided });
        }
        Ok(())
    }
}

impl DeleteRangeRequest {
    /// Whether the request makes sense.
    pub fn validate(&self) -> Result<(), Error> {
        key_given(&self.key)
    }
}

impl TxnRequest {
    /// Whether the request makes sense, at every depth, on both branches.
    pub fn validate(&self) -> Result<(), Error> {
        check_txn(self, TXN_OPS_MAX, TXN_DEPTH_MAX)?;
        // After the limits, which keep this cheap.
        check_keys(&self.success)?;
        check_keys(&self.failure)?;
        Ok(())
    }
}

fn key_given(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn check_txn(txn: &TxnRequest, ops_max: usize, depth_max: usize) -> Result<(), Error> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if ops > ops_max || depth_max == 0 {
        return Err(Error::TooManyOps);
    }
    for compare in &txn.compare {
        key_given(&compare.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Range(request) => request.validate()?,
            RequestOp::Put(request) => request.validate()?,
            RequestOp::DeleteRange(request) => request.validate()?,
            RequestOp::Txn(inner) => check_txn(inner, ops_max - ops, depth_max - 1)?,
        }
    }
    Ok(())
}

/// What a list of operations may write, whichever branches are taken. A request of the largest
/// size holds some hundred thousand keys, so sets are joined by moving the smaller one.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

/// Refuses what could put one key twice, or put a key that was deleted, in one revision. What is
/// allowed besides: deleting twice, the same put on both branches, and deleting within a later
/// inner transaction what an earlier one has put.
fn check_keys(ops: &[RequestOp]) -> Result<Writes<'_>, Error> {
    let mut writes = Writes::default();
    for op in ops {
        match op {
            RequestOp::DeleteRange(delete) => writes.deletes.insert(delete),
            RequestOp::Range(_) | RequestOp::Put(_) | RequestOp::Txn(_) => {}
        }
    }
    for op in ops {
        match op {
            RequestOp::Txn(inner) => check_inner(&mut writes, inner)?,
            RequestOp::Range(_) | RequestOp::Put(_) | RequestOp::DeleteRange(_) => {}
        }
    }
    for op in ops {
        match op {
            RequestOp::Put(put) => {
                if writes.deletes.cover(&put.key) || !writes.puts.insert(&put.key) {
                    return Err(Error::DuplicateKey);
                }
            }
            RequestOp::Range(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_) => {}
        }
    }
    Ok(writes)
}

fn check_inner<'a>(writes: &mut Writes<'a>, inner: &'a TxnRequest) -> Result<(), Error> {
    let branches = [check_keys(&inner.success)?, check_keys(&inner.failure)?];
    // Each branch against what came before, not against the other: only one will be taken.
    for branch in &branches {
        if meet(&writes.puts, &branch.puts) || writes.deletes.cover_any(&branch.puts) {
            return Err(Error::DuplicateKey);
        }
    }
    for mut branch in branches {
        if branch.puts.len() > writes.puts.len() {
            std::mem::swap(&mut branch.puts, &mut writes.puts);
        }
        writes.puts.extend(branch.puts);
        writes.deletes.join(branch.deletes);
    }
    Ok(())
}

fn meet(a: &BTreeSet<&[u8]>, b: &BTreeSet<&[u8]>) -> bool {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    small.iter().any(|key| large.contains(key))
}

/// Deleted keys: single ones, and ranges that neither touch nor overlap.
#[derive(Default)]
struct Deletes<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// From where to where; none: no end.
    ranges: BTreeMap<&'a [u8], Option<&'a [u8]>>,
}

impl<'a> Deletes<'a> {
    fn insert(&mut self, delete: &'a DeleteRangeRequest) {
        match &delete.range_end[..] {
            [] => {
                self.keys.insert(&delete.key);
            }
            [0] => self.insert_range(&delete.key, None),
            end if end <= &delete.key[..] => {}
            end => self.insert_range(&delete.key, Some(end)),
        }
    }

    fn insert_range(&mut self, begin: &'a [u8], end: Option<&'a [u8]>) {
        let (mut begin, mut end) = (begin, end);
        // Takes in those that overlap or touch, from the last that begins not after the end.
        loop {
            let last = match end {
                Some(end) => self.ranges.range(..=end).next_back(),
                None => self.ranges.last_key_value(),
            };
            match last.map(|(from, to)| (*from, *to)) {
                Some((from, to)) if to.is_none_or(|to| to >= begin) => {
                    self.ranges.remove(from);
                    begin = begin.min(from);
                    end = match (end, to) {
                        (Some(a), Some(b)) => Some(a.max(b)),
                        (None, _) | (_, None) => None,
                    };
                }
                Some(_) | None => break,
            }
        }
        self.ranges.insert(begin, end);
    }

    fn join(&mut self, mut other: Self) {
        if other.keys.len() > self.keys.len() {
            std::mem::swap(&mut other.keys, &mut self.keys);
        }
        if other.ranges.len() > self.ranges.len() {
            std::mem::swap(&mut other.ranges, &mut self.ranges);
        }
        self.keys.extend(other.keys);
        for (begin, end) in other.ranges {
            self.insert_range(begin, end);
        }
    }

    fn cover(&self, key: &[u8]) -> bool {
        let range = self.ranges.range(..=key).next_back();
        self.keys.contains(key) || range.is_some_and(|(_, end)| end.is_none_or(|end| key < end))
    }

    fn cover_any(&self, keys: &BTreeSet<&[u8]>) -> bool {
        if keys.len() <= self.keys.len() + self.ranges.len() {
            return keys.iter().any(|key| self.cover(key));
        }
        let mut ranges = self.ranges.iter().map(|(begin, end)| {
            (Bound::Included(*begin), end.map_or(Bound::Unbounded, Bound::Excluded))
        });
        meet(&self.keys, keys) || ranges.any(|range| keys.range::<[u8], _>(range).next().is_some())
    }
}
