//! Reads of the store that may take long, in steps: writes wait for one step at most, and other
//! requests get their turn between two.

use crate::kv::{Error, HashScan, RangeRequest, RangeResponse, RangeScan, StoreHash};
use crate::node::Handle;

/// Keys looked at under one hold of the store's lock: some tens of microseconds.
const STEP_KEYS: usize = 512;

/// Reads a range as of one revision.
pub(super) async fn range(handle: &Handle, request: RangeRequest) -> Result<RangeResponse, Error> {
    if request.range_end.is_empty() {
        return handle.with_store(|store| store.range(&request));
    }
    let (mut scan, mut done) = handle.with_store(|store| {
        let mut scan = RangeScan::new(request, store)?;
        let done = scan.step(store, STEP_KEYS)?;
        Ok((scan, done))
    })?;
    while !done {
        tokio::task::yield_now().await;
        done = handle.with_store(|store| scan.step(store, STEP_KEYS))?;
    }
    Ok(scan.finish())
}

/// Hashes the history up to `revision`; 0: all of it.
pub(super) async fn hash(handle: &Handle, revision: i64) -> Result<StoreHash, Error> {
    let mut scan = handle.with_store(|store| HashScan::new(revision, store))?;
    while !handle.with_store(|store| scan.step(store, STEP_KEYS))? {
        tokio::task::yield_now().await;
    }
    Ok(scan.finish())
}
