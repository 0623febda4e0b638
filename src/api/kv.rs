//! `etcdserverpb.KV`: the calls that nearly all clients make nearly all the time.
//!
//! Writes go through the log. Reads, and transactions that cannot write, wait for a read barrier
//! instead, or for nothing if they are serializable.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::kv::{self, Found};
use crate::node::Applied;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};
use crate::raft::Term;

use super::convert;
use super::encode::Parts;
use super::error::to_status;
use super::header::Context;
use super::responses::{Grant, Responses};
use super::scan::Reader;
use super::stream::Handover;
use super::underway::{ConnectionId, Underway};

/// The largest answer: what gRPC in Go, and so an etcd client, can be sent.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

const OTHER_KIND: &str = "a command is answered in its kind";

/// How often, and how many times, a physical compaction looks whether the memory is free.
const SWEEP_LOOK_INTERVAL: Duration = Duration::from_millis(5);
const SWEEP_LOOKS_MAX: usize = 1000;

/// The service over one node.
pub struct KvService {
    context: Context,
    responses: Responses,
}

impl KvService {
    pub(super) fn server(context: Context, responses: Responses) -> KvServer<Self> {
        let decode_max = context.decode_bytes_max();
        KvServer::new(Self { context, responses })
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

    fn reader(&self, client: Option<ConnectionId>) -> Reader<'_> {
        Reader { handle: &self.context.handle, responses: &self.responses, client }
    }

    /// Replicates `command` for `client`; its answer, with leave to hold it if that is large, and
    /// the term in which it was given.
    async fn write(
        &self,
        client: Option<ConnectionId>,
        command: kv::Command,
    ) -> Result<(kv::Response<Found>, Option<Grant>, Term), Status> {
        let reader = self.reader(client);
        let grant = reader.prepare(&command).await.map_err(to_status)?;
        let applied = self.context.handle.propose(command).await.map_err(to_status)?;
        let Applied { answer, term, .. } = applied;
        let answer = answer.map_err(to_status)?;
        let (response, grant) = reader.answer(answer, grant).await.map_err(to_status)?;
        Ok((response, grant, term))
    }
}

/// On which connection `request` came, if it came on one that is counted.
fn connection<T>(request: &Request<T>) -> Option<ConnectionId> {
    request.extensions().get::<Underway>().map(Underway::connection)
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
        let client = connection(&request);
        let request = request.into_inner();
        let serializable = request.serializable;
        if !serializable {
            self.context.refuse_at_learner()?;
        }
        let request = convert::range(request)?;
        request.validate().map_err(to_status)?;
        self.barrier_unless(serializable).await?;
        let (found, grant) = self.reader(client).range(request).await.map_err(to_status)?;
        let header = self.context.header_now(found.revision);
        match grant {
            None => Ok(Response::new(convert::range_response(header, found.listed()))),
            Some(grant) => {
                let parts = Parts::range(header, found).await;
                Handover::response(&self.responses, grant, parts)
            }
        }
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.context.admit(request.metadata())?;
        let client = connection(&request);
        let request = convert::put(request.into_inner());
        request.validate().map_err(to_status)?;
        let (response, grant, term) = self.write(client, kv::Command::Put(request)).await?;
        let kv::Response::Put(put) = response else { unreachable!("{OTHER_KIND}") };
        let header = self.context.header(put.revision, term);
        match grant {
            None => Ok(Response::new(convert::put_response(header, put))),
            Some(grant) => Handover::response(&self.responses, grant, Parts::put(header, put)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.context.admit(request.metadata())?;
        let client = connection(&request);
        let request = convert::delete_range(request.into_inner());
        request.validate().map_err(to_status)?;
        let (response, grant, term) = self.write(client, kv::Command::DeleteRange(request)).await?;
        let kv::Response::DeleteRange(deletion) = response else { unreachable!("{OTHER_KIND}") };
        let header = self.context.header(deletion.revision, term);
        match grant {
            None => Ok(Response::new(convert::delete_range_response(header, deletion.listed()))),
            Some(grant) => {
                let parts = Parts::delete_range(header, deletion).await;
                Handover::response(&self.responses, grant, parts)
            }
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.context.admit(request.metadata())?;
        let client = connection(&request);
        let request = request.into_inner();
        let serializable = convert::is_serializable(&request);
        let request = convert::txn(request)?;
        request.validate().map_err(to_status)?;
        let (header, txn, grant) = if request.is_read_only() {
            self.barrier_unless(serializable).await?;
            let (txn, grant) = self.reader(client).txn(request).await.map_err(to_status)?;
            (self.context.header_now(txn.revision), txn, grant)
        } else {
            let (response, grant, term) = self.write(client, kv::Command::Txn(request)).await?;
            let kv::Response::Txn(txn) = response else { unreachable!("{OTHER_KIND}") };
            (self.context.header(txn.revision, term), txn, grant)
        };
        match grant {
            None => Ok(Response::new(convert::txn_response(header, txn.listed()))),
            Some(grant) => {
                let parts = Parts::txn(header, txn).await;
                Handover::response(&self.responses, grant, parts)
            }
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.context.admit(request.metadata())?;
        self.context.admit(request.metadata())?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let command = kv::Command::Compact(kv::CompactionRequest { revision });
        let (response, _, term) = self.write(None, command).await?;
        let kv::Response::Compact(done) = response else { unreachable!("{OTHER_KIND}") };
        let header = self.context.header(done.revision, term);
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
