//! `etcdserverpb.Maintenance`: what operators ask one member.
//!
//! No alarm exists yet, so `Alarm` lists none and has none to lift. There is nothing to
//! defragment: the store reuses its memory. Absent too: snapshots for backup, the hash over the
//! whole backend, and downgrades.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use crate::raft::NodeId;

use super::error::to_status;
use super::header::Context;
use super::{STORAGE_VERSION, VERSION};

/// The service over one node.
pub(super) struct MaintenanceService {
    context: Context,
}

impl MaintenanceService {
    pub(super) fn server(context: Context) -> MaintenanceServer<Self> {
        let decode_max = context.decode_bytes_max();
        MaintenanceServer::new(Self { context })
            .max_decoding_message_size(decode_max)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.context.server.status();
        let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.context.header(status.revision, status.term)),
            version: VERSION.to_owned(),
            db_size: signed(status.size_bytes),
            leader: status.leader.map_or(0, NodeId::get),
            raft_index: status.committed.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors: no_leader.into_iter().collect(),
            db_size_in_use: signed(status.size_in_use_bytes),
            is_learner: status.is_learner,
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: signed(status.quota_bytes),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = request.get_ref().revision;
        let hash = self.context.server.hash_kv(revision).await.map_err(to_status)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.context.header_now(hash.revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        match AlarmAction::try_from(request.get_ref().action) {
            Ok(AlarmAction::Get | AlarmAction::Deactivate) => {
                let header = Some(self.context.header_now(self.context.server.revision()));
                Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
            }
            Ok(AlarmAction::Activate) => Err(unsupported("raising alarms")),
            Err(_) => Err(Status::invalid_argument("unknown alarm action")),
        }
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = NodeId::new(request.get_ref().target_id);
        self.context.server.move_leader(target).await.map_err(to_status)?;
        // etcd sends no header here.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(unsupported("defragmentation (the store reuses its memory, nothing needs it)"))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        Err(unsupported("a hash of the whole backend (use HashKV)"))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(unsupported("streaming a snapshot to a client"))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(unsupported("downgrading"))
    }
}

fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported"))
}

/// Sizes are signed in etcd's messages; ours stay far below.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
