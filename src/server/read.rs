//! Reads of the store that may take long, in steps: writes wait for one step at most, and other
//! requests get their turn between two.

use tokio::sync::oneshot;

use crate::kv::{
    self, Answer, AnswerLost, AnswerScan, Command, Estimate, Found, RangeRequest, RangeResponse,
    RangeScan, Response, Store, TxnRequest, TxnResponse, TxnScan,
};
use crate::node::Handle;

use super::responses::{Grant, Responses, SMALL_BYTES};
use super::{ConnectionId, Error};

/// Keys looked at under one hold of the store's lock: some tens of microseconds.
pub(super) const STEP_KEYS: usize = 512;

/// What is read in steps, and grows by what it finds.
trait Scan: Sized + Send + 'static {
    type Failure: Into<Error>;
    type Collected: Send + 'static;

    /// Looks at some more keys; true when there are no more.
    fn step(&mut self, store: &Store) -> Result<bool, Self::Failure>;

    /// What it holds by now.
    fn held_bytes(&self) -> u64;

    /// Whether `collect` takes long.
    fn is_long_to_sort(&self) -> bool;

    /// What it has found.
    fn collect(self) -> Self::Collected;
}

impl Scan for RangeScan {
    type Failure = kv::Error;
    type Collected = RangeResponse<Found>;

    fn step(&mut self, store: &Store) -> Result<bool, kv::Error> {
        RangeScan::step(self, store, STEP_KEYS)
    }

    fn held_bytes(&self) -> u64 {
        RangeScan::held_bytes(self)
    }

    fn is_long_to_sort(&self) -> bool {
        RangeScan::is_long_to_sort(self)
    }

    fn collect(self) -> RangeResponse<Found> {
        RangeScan::collect(self)
    }
}

impl Scan for TxnScan {
    type Failure = kv::Error;
    type Collected = TxnResponse<Found>;

    fn step(&mut self, store: &Store) -> Result<bool, kv::Error> {
        TxnScan::step(self, store, STEP_KEYS)
    }

    fn held_bytes(&self) -> u64 {
        TxnScan::held_bytes(self)
    }

    fn is_long_to_sort(&self) -> bool {
        TxnScan::is_long_to_sort(self)
    }

    fn collect(self) -> TxnResponse<Found> {
        TxnScan::collect(self)
    }
}

impl Scan for AnswerScan {
    type Failure = AnswerLost;
    type Collected = Response<Found>;

    fn step(&mut self, store: &Store) -> Result<bool, AnswerLost> {
        AnswerScan::step(self, store, STEP_KEYS)
    }

    fn held_bytes(&self) -> u64 {
        AnswerScan::held_bytes(self)
    }

    fn is_long_to_sort(&self) -> bool {
        AnswerScan::is_long_to_sort(self)
    }

    fn collect(self) -> Response<Found> {
        AnswerScan::collect(self)
    }
}

/// For whom something is read: the node, and where the response goes.
pub(super) struct Reader<'a> {
    pub(super) handle: &'a Handle,
    pub(super) responses: &'a Responses,
    pub(super) client: Option<ConnectionId>,
}

impl Reader<'_> {
    /// Reads a range as of one revision.
    pub(super) async fn range(
        &self,
        request: RangeRequest,
    ) -> Result<(RangeResponse<Found>, Option<Grant>), Error> {
        if request.range_end.is_empty() {
            // Done under one hold, so nothing has to be pinned.
            let response = self.handle.with_store(|store| store.find(&request))?;
            let grant = self.grant_known(response.kvs.held_bytes()).await?;
            return Ok((response, grant));
        }
        let scan = self.handle.with_store(|store| RangeScan::new(request, store))?;
        let (scan, mut grant) = self.run(scan, None).await?;
        let response = self.collected(scan).await;
        shrink(&mut grant, response.kvs.held_bytes());
        Ok((response, grant))
    }

    /// Does a transaction that only reads, all of it as of one revision.
    pub(super) async fn txn(
        &self,
        request: TxnRequest,
    ) -> Result<(TxnResponse<Found>, Option<Grant>), Error> {
        let scan = self.handle.with_store(|store| TxnScan::new(request, store))?;
        let (scan, mut grant) = self.run(scan, None).await?;
        let response = self.collected(scan).await;
        shrink(&mut grant, response.held_bytes());
        Ok((response, grant))
    }

    /// Reads what the answer to a write that was applied has found, under the `grant` that was
    /// given before, if any.
    pub(super) async fn answer(
        &self,
        answer: Answer,
        grant: Option<Grant>,
    ) -> Result<(Response<Found>, Option<Grant>), Error> {
        let applied = |failure| match failure {
            Error::ResponseTooLarge | Error::TooManyResponses => Error::Unanswered,
            other => other,
        };
        let (response, mut grant) = match answer {
            Answer::Ready(response) => {
                let grant = match grant {
                    Some(grant) => Some(grant),
                    None => self.grant_known(response.held_bytes()).await.map_err(applied)?,
                };
                (response, grant)
            }
            Answer::Pending(scan) => {
                let (scan, grant) = self.run(*scan, grant).await.map_err(applied)?;
                (self.collected(scan).await, grant)
            }
        };
        shrink(&mut grant, response.held_bytes());
        Ok((response, grant))
    }

    /// Refuses a write whose answer would be too large, so far as that can be told before it is
    /// applied; if it would be large, waits for leave to hold it.
    pub(super) async fn prepare(&self, command: &Command) -> Result<Option<Grant>, Error> {
        if !Estimate::is_due(command) {
            return Ok(None);
        }
        let Some(mut estimate) = self.handle.with_store(|store| Estimate::new(command, store))
        else {
            return Ok(None);
        };
        while !self.handle.with_store(|store| estimate.step(store, STEP_KEYS)) {
            self.check(estimate.held_bytes())?;
            tokio::task::yield_now().await;
        }
        self.check(estimate.held_bytes())?;
        if estimate.held_bytes() <= SMALL_BYTES {
            return Ok(None);
        }
        // It may find more when it is applied.
        self.responses.grant(self.client, None).await.map(Some)
    }

    fn check(&self, held_bytes: u64) -> Result<(), Error> {
        if held_bytes > self.responses.bytes_max() {
            return Err(Error::ResponseTooLarge);
        }
        Ok(())
    }

    /// Leave for a response of which all is at hand.
    async fn grant_known(&self, held_bytes: u64) -> Result<Option<Grant>, Error> {
        self.check(held_bytes)?;
        if held_bytes <= SMALL_BYTES {
            return Ok(None);
        }
        self.responses.grant(self.client, Some(held_bytes)).await.map(Some)
    }

    /// Reads to the end, unless that is more than a response may hold.
    async fn run<S: Scan>(
        &self,
        scan: S,
        mut grant: Option<Grant>,
    ) -> Result<(S, Option<Grant>), Error> {
        let mut scan = Unfinished { scan: Some(scan), responses: self.responses };
        loop {
            let done = scan.step(self.handle).map_err(Into::into)?;
            let held_bytes = scan.held_bytes();
            self.check(held_bytes)?;
            if grant.is_none() && held_bytes > SMALL_BYTES {
                grant = Some(self.responses.grant(self.client, done.then_some(held_bytes)).await?);
            }
            if done {
                return Ok((scan.into_inner(), grant));
            }
            tokio::task::yield_now().await;
        }
    }

    /// What `scan` has found, sorted.
    async fn collected<S: Scan>(&self, scan: S) -> S::Collected {
        if !scan.is_long_to_sort() {
            return scan.collect();
        }
        let (done, sorted) = oneshot::channel();
        self.responses.elsewhere(Box::new(move || drop(done.send(scan.collect()))));
        sorted.await.expect("work that was taken is done")
    }
}

fn shrink(grant: &mut Option<Grant>, bytes: u64) {
    if let Some(grant) = grant {
        grant.shrink(bytes);
    }
}

/// A scan that may be dropped at any time with much that it has found.
struct Unfinished<'a, S: Scan> {
    scan: Option<S>,
    responses: &'a Responses,
}

impl<S: Scan> Unfinished<'_, S> {
    fn step(&mut self, handle: &Handle) -> Result<bool, S::Failure> {
        let scan = self.scan.as_mut().expect("it is here until it is taken");
        handle.with_store(|store| scan.step(store))
    }

    fn held_bytes(&self) -> u64 {
        self.scan.as_ref().map_or(0, Scan::held_bytes)
    }

    fn into_inner(mut self) -> S {
        self.scan.take().expect("it is here until it is taken")
    }
}

impl<S: Scan> Drop for Unfinished<'_, S> {
    fn drop(&mut self) {
        if let Some(scan) = self.scan.take().filter(|scan| scan.held_bytes() > SMALL_BYTES) {
            self.responses.elsewhere(Box::new(move || drop(scan)));
        }
    }
}
