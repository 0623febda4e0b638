//! Reads and writes of keys.
//!
//! Writes go through the log. Reads, and transactions that cannot write, wait for a read index
//! instead, or for nothing if they are serializable.

use std::time::Duration;

use crate::kv::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, Found,
    PutRequest, PutResponse, RangeRequest, RangeResponse, Store, TxnRequest, TxnResponse,
    WriteRequest,
};
use crate::node::Applied;

use super::read::Reader;
use super::{Caller, Consistency, Error, Outcome, Server};

/// How often, and how many times, a physical compaction looks whether the memory is free.
const SWEEP_LOOK_INTERVAL: Duration = Duration::from_millis(5);
const SWEEP_LOOKS_MAX: usize = 1000;

impl Server {
    /// Reads keys.
    ///
    /// # Errors
    ///
    /// [`Error`]; a read has no effect.
    pub async fn range(
        &self,
        caller: Caller,
        request: RangeRequest,
        consistency: Consistency,
    ) -> Result<Outcome<RangeResponse<Found>>, Error> {
        if consistency == Consistency::Linearizable {
            self.refuse_at_learner()?;
        }
        request.validate()?;
        self.wait_for(consistency).await?;
        let (response, grant) = self.reader(caller).range(request).await?;
        Ok(Outcome { response, term: self.handle.status().term, grant })
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// [`Error`]; so for each write below.
    pub async fn put(
        &self,
        caller: Caller,
        request: PutRequest,
    ) -> Result<Outcome<PutResponse>, Error> {
        request.validate()?;
        self.write(caller, request).await
    }

    /// Deletes keys.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn delete_range(
        &self,
        caller: Caller,
        request: DeleteRangeRequest,
    ) -> Result<Outcome<DeleteRangeResponse<Found>>, Error> {
        request.validate()?;
        self.write(caller, request).await
    }

    /// Does a transaction. One that only reads is as recent as `consistency` says; one that
    /// writes is always linearizable.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn txn(
        &self,
        caller: Caller,
        request: TxnRequest,
        consistency: Consistency,
    ) -> Result<Outcome<TxnResponse<Found>>, Error> {
        request.validate()?;
        if !request.is_read_only() {
            return self.write(caller, request).await;
        }
        self.wait_for(consistency).await?;
        let (response, grant) = self.reader(caller).txn(request).await?;
        Ok(Outcome { response, term: self.handle.status().term, grant })
    }

    /// Forgets history. If it is `physical`, waits until that has left this member's memory. A
    /// reader that still needs it may keep it there; the wait is bounded, since the compaction
    /// itself is done.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn compact(
        &self,
        caller: Caller,
        request: CompactionRequest,
        physical: bool,
    ) -> Result<Outcome<CompactionResponse>, Error> {
        let outcome = self.write(caller, request).await?;
        for _ in 0..SWEEP_LOOKS_MAX {
            if !physical || !self.handle.with_store(Store::compaction_pending) {
                break;
            }
            tokio::time::sleep(SWEEP_LOOK_INTERVAL).await;
        }
        Ok(outcome)
    }

    fn reader(&self, caller: Caller) -> Reader<'_> {
        Reader { handle: &self.handle, responses: &self.responses, client: caller.connection }
    }

    /// Replicates a request and collects its response.
    async fn write<R: WriteRequest>(
        &self,
        caller: Caller,
        request: R,
    ) -> Result<Outcome<R::Response>, Error> {
        let command = request.into();
        let reader = self.reader(caller);
        let grant = reader.prepare(&command).await?;
        let Applied { answer, term, .. } = self.handle.propose(command).await?;
        let (response, grant) = reader.answer(answer?, grant).await?;
        Ok(Outcome { response: R::from_response(response), term, grant })
    }
}
