//! `etcdserverpb.KV`: the calls that nearly all clients make nearly all the time.
//!
//! Writes go through the log. Reads, and transactions that cannot write, wait for a read barrier
//! instead, or for nothing if they are serializable.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::kv;
use crate::node::Applied;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};

use super::error::to_status;
use super::header::Context;
use super::{convert, scan};

/// The largest answer: what gRPC in Go, and so an etcd client, can be sent.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// How often, and how many times, a physical compaction looks whether the memory is free.
const SWEEP_LOOK_INTERVAL: Duration = Duration::from_millis(5);
const SWEEP_LOOKS_MAX: usize = 1000;

/// The service over one node.
pub struct KvService {
    context: Context,
}

impl KvService {
    pub(super) fn server(context: Context) -> KvServer<Self> {
        let decode_max = context.decode_bytes_max();
        KvServer::new(Self { context })
            .max_decoding_message_size(decode_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }

    async fn barrier_unless(&self, serializable: bool) -> Result<(), Status> {
        if serializable {
            return Ok(());
        }
        self.context.handle.read_barrier().await.map_err(to_status)
    }

    /// Replicates `command`; its answer, and the header of that answer's revision.
    async fn write<R>(
        &self,
        command: kv::Command,
        answer: impl FnOnce(kv::Response) -> Option<(i64, R)>,
    ) -> Result<(pb::ResponseHeader, R), Status> {
        let applied = self.context.handle.propose(command).await.map_err(to_status)?;
        let Applied { response, term, .. } = applied;
        let response = response.map_err(to_status)?;
        let (revision, response) = answer(response).expect("a command is answered in its kind");
        Ok((self.context.header(revision, term), response))
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = request.into_inner();
        let serializable = request.serializable;
        if !serializable {
            self.context.refuse_at_learner()?;
        }
        let request = convert::range(request)?;
        request.validate().map_err(to_status)?;
        self.barrier_unless(serializable).await?;
        let response = scan::range(&self.context.handle, request).await.map_err(to_status)?;
        let header = self.context.header_now(response.revision);
        Ok(Response::new(convert::range_response(header, response)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = convert::put(request.into_inner());
        request.validate().map_err(to_status)?;
        let answer = |response| match response {
            kv::Response::Put(put) => Some((put.revision, put)),
            kv::Response::DeleteRange(_) | kv::Response::Txn(_) | kv::Response::Compact(_) => None,
        };
        let (header, response) = self.write(kv::Command::Put(request), answer).await?;
        Ok(Response::new(convert::put_response(header, response)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = convert::delete_range(request.into_inner());
        request.validate().map_err(to_status)?;
        let answer = |response| match response {
            kv::Response::DeleteRange(deletion) => Some((deletion.revision, deletion)),
            kv::Response::Put(_) | kv::Response::Txn(_) | kv::Response::Compact(_) => None,
        };
        let (header, response) = self.write(kv::Command::DeleteRange(request), answer).await?;
        Ok(Response::new(convert::delete_range_response(header, response)))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = request.into_inner();
        let serializable = convert::is_serializable(&request);
        let request = convert::txn(request)?;
        request.validate().map_err(to_status)?;
        if request.is_read_only() {
            self.barrier_unless(serializable).await?;
            let handle = &self.context.handle;
            let read = handle.with_store(|store| store.read_txn(&request));
            let response = read.map_err(to_status)?;
            let header = self.context.header_now(response.revision);
            return Ok(Response::new(convert::txn_response(header, response)));
        }
        let answer = |response| match response {
            kv::Response::Txn(txn) => Some((txn.revision, txn)),
            kv::Response::Put(_) | kv::Response::DeleteRange(_) | kv::Response::Compact(_) => None,
        };
        let (header, response) = self.write(kv::Command::Txn(request), answer).await?;
        Ok(Response::new(convert::txn_response(header, response)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.context.admit(request.metadata())?;
        self.context.admit(request.metadata())?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let command = kv::Command::Compact(kv::CompactionRequest { revision });
        let answer = |response| match response {
            kv::Response::Compact(done) => Some((done.revision, ())),
            kv::Response::Put(_) | kv::Response::DeleteRange(_) | kv::Response::Txn(_) => None,
        };
        let (header, ()) = self.write(command, answer).await?;
        if physical {
            self.swept().await;
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(header) }))
    }

    /// An etcd 3.7 client turns to `Range` when it is told so.
    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("RangeStream is not supported: use Range"))
    }
}

impl KvService {
    /// Waits until compacted history has left this member's memory. A reader that still needs it
    /// may keep it there; the wait is bounded, since the compaction itself is done.
    async fn swept(&self) {
        for _ in 0..SWEEP_LOOKS_MAX {
            if !self.context.handle.with_store(kv::Store::compaction_pending) {
                return;
            }
            tokio::time::sleep(SWEEP_LOOK_INTERVAL).await;
        }
    }
}
