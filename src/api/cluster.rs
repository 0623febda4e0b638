//! `etcdserverpb.Cluster`: who the members are, and who is to be.

use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::node::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use crate::raft::{ChangeError, NodeId, TargetRole};
use crate::server::{Error, Membership};

use super::error::to_status;
use super::header::Context;
use super::membership;

/// The service over one node.
pub(super) struct ClusterService {
    context: Context,
    membership: Membership,
}

impl ClusterService {
    pub(super) fn server(context: Context) -> ClusterServer<Self> {
        let decode_max = context.decode_bytes_max();
        let membership = Membership::new(context.server.handle().clone());
        ClusterServer::new(Self { context, membership })
            .max_decoding_message_size(decode_max)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    /// Membership has no revision: etcd leaves it 0 here.
    fn header(&self) -> pb::ResponseHeader {
        self.context.header_now(0)
    }

    fn members(&self) -> Vec<pb::Member> {
        self.membership.list().into_iter().map(member).collect()
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.membership.list_linearizable().await.map_err(to_status)?;
        }
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let address = address_in(&request.peer_ur_ls).map_err(to_status)?;
        let aim = if request.is_learner {
            TargetRole::Learner
        } else {
            TargetRole::Voter { replaces: None }
        };
        let id = self.membership.add(address, aim).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        let added = members.iter().find(|member| member.id == id.get()).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member: added, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = known_id(request.get_ref().id).map_err(to_status)?;
        self.membership.remove(id).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let address = address_in(&request.peer_ur_ls).map_err(to_status)?;
        let id = known_id(request.id).map_err(to_status)?;
        self.membership.update_address(id, address).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = known_id(request.get_ref().id).map_err(to_status)?;
        self.membership.promote(id).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

/// Zero stands for nobody.
fn known_id(raw: u64) -> Result<NodeId, Error> {
    NodeId::new(raw).ok_or(Error::from(ChangeError::Unknown))
}

/// The address in the URLs of a request: a member is reached at one.
fn address_in(urls: &[String]) -> Result<&str, Error> {
    let [url] = urls else { return Err(Error::BadUrls) };
    let address = url.strip_prefix("http://").ok_or(Error::BadUrls)?;
    let address = address.strip_suffix('/').unwrap_or(address);
    membership::check_address(address).map_err(|_| Error::BadUrls)?;
    Ok(address)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_one_plain_address() {
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert_eq!(address_in(&urls(&["http://node4:5001"])), Ok("node4:5001"));
        assert_eq!(address_in(&urls(&["http://[::1]:5001/"])), Ok("[::1]:5001"));
        for bad in [
            &[][..],
            &[""],
            &["node4:5001"],
            &["https://node4:5001"],
            &["http://node4"],
            &["http://node4:5001/path"],
            &["http://node4:5001", "http://node5:5001"],
        ] {
            assert_eq!(address_in(&urls(bad)), Err(Error::BadUrls), "{bad:?}");
        }
    }
}
