//! `etcdserverpb.Cluster`: who the members are. Changing them is not supported yet.

use tonic::{Request, Response, Status};

use crate::node::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::{Cluster, ClusterServer};

use super::error::to_status;
use super::header::Context;

/// The service over one node.
pub(super) struct ClusterService {
    context: Context,
}

impl ClusterService {
    pub(super) fn server(context: Context) -> ClusterServer<Self> {
        let decode_max = context.decode_bytes_max();
        ClusterServer::new(Self { context }).max_decoding_message_size(decode_max)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.context.admit(request.metadata())?;
        if request.get_ref().linearizable {
            self.context.handle.read_barrier().await.map_err(to_status)?;
        }
        let members = self.context.handle.members().into_iter().map(member).collect();
        // Membership has no revision: etcd leaves it 0 here.
        let header = Some(self.context.header_now(0));
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(unsupported())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(unsupported())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(unsupported())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(unsupported())
    }
}

fn unsupported() -> Status {
    Status::unimplemented("membership changes are not supported yet")
}

fn member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id.get(),
        name: member.name,
        peer_ur_ls: vec![url(&member.peer_addr)],
        client_ur_ls: member.client_addrs.iter().map(|addr| url(addr)).collect(),
        is_learner: member.learner,
    }
}

fn url(addr: &str) -> String {
    format!("http://{addr}")
}
