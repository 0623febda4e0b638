//! `etcdserverpb.KV`: the calls that nearly all clients make nearly all the time.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::kv;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};
use crate::server::{Caller, Consistency, Outcome};

use super::encode::Parts;
use super::error::to_status;
use super::header::Context;
use super::stream::Handover;
use super::underway::Underway;
use super::{ANSWER_BYTES_MAX, convert};

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
}

fn caller<T>(request: &Request<T>) -> Caller {
    Caller { connection: request.extensions().get::<Underway>().map(Underway::connection) }
}

fn consistency(serializable: bool) -> Consistency {
    if serializable { Consistency::Serializable } else { Consistency::Linearizable }
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let consistency = consistency(request.serializable);
        let request = convert::range(request)?;
        let outcome = self.context.server.range(caller, request, consistency).await;
        let Outcome { response, term, grant } = outcome.map_err(to_status)?;
        let header = self.context.header(response.revision, term);
        match grant {
            None => Ok(Response::new(convert::range_response(header, response.listed()))),
            Some(grant) => {
                let parts = Parts::range(header, response).await;
                Handover::response(self.context.server.responses(), grant, parts)
            }
        }
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let caller = caller(&request);
        let request = convert::put(request.into_inner());
        let outcome = self.context.server.put(caller, request).await;
        let Outcome { response, term, grant } = outcome.map_err(to_status)?;
        let header = self.context.header(response.revision, term);
        match grant {
            None => Ok(Response::new(convert::put_response(header, response))),
            Some(grant) => {
                let parts = Parts::put(header, response);
                Handover::response(self.context.server.responses(), grant, parts)
            }
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = caller(&request);
        let request = convert::delete_range(request.into_inner());
        let outcome = self.context.server.delete_range(caller, request).await;
        let Outcome { response, term, grant } = outcome.map_err(to_status)?;
        let header = self.context.header(response.revision, term);
        match grant {
            None => Ok(Response::new(convert::delete_range_response(header, response.listed()))),
            Some(grant) => {
                let parts = Parts::delete_range(header, response).await;
                Handover::response(self.context.server.responses(), grant, parts)
            }
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let consistency = consistency(convert::is_serializable(&request));
        let request = convert::txn(request)?;
        let outcome = self.context.server.txn(caller, request, consistency).await;
        let Outcome { response, term, grant } = outcome.map_err(to_status)?;
        let header = self.context.header(response.revision, term);
        match grant {
            None => Ok(Response::new(convert::txn_response(header, response.listed()))),
            Some(grant) => {
                let parts = Parts::txn(header, response).await;
                Handover::response(self.context.server.responses(), grant, parts)
            }
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = caller(&request);
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let request = kv::CompactionRequest { revision };
        let outcome = self.context.server.compact(caller, request, physical).await;
        let Outcome { response, term, .. } = outcome.map_err(to_status)?;
        let header = Some(self.context.header(response.revision, term));
        Ok(Response::new(pb::CompactionResponse { header }))
    }

    /// An etcd 3.7 client turns to `Range` when it is told so.
    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("RangeStream is not supported: use Range"))
    }
}
