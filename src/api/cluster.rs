//! `etcdserverpb.Cluster`: who the members are, and who is to be.
//!
//! Checks and texts are etcd's. What differs: a member that is added to vote is listed as a learner
//! until it has caught up, and is promoted by itself; an id is one more than any that ever was,
//! not a hash, so that it can be put into `RAFT_NODE_ID`.

use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::node::{Member, RequestError};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use crate::raft::{Aim, Change, ChangeError, Configuration, NodeId};

use super::error::{Failure, to_status};
use super::header::Context;
use super::membership;

/// Learners that stay learners until somebody asks for more; as in etcd.
const LEARNERS_MAX: usize = 1;

/// How often an id is sought: another member may give the same one away meanwhile.
const ID_TRIES: usize = 4;

/// The service over one node.
pub(super) struct ClusterService {
    context: Context,
}

impl ClusterService {
    pub(super) fn server(context: Context) -> ClusterServer<Self> {
        let decode_max = context.decode_bytes_max();
        ClusterServer::new(Self { context })
            .max_decoding_message_size(decode_max)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    /// Membership has no revision: etcd leaves it 0 here.
    fn header(&self) -> pb::ResponseHeader {
        self.context.header_now(0)
    }

    fn members(&self) -> Vec<pb::Member> {
        self.context.handle.members().into_iter().map(member).collect()
    }

    /// Changes the membership for a request that may be refused in etcd's words.
    async fn change(&self, change: Change) -> Result<(), Failure> {
        let outcome = membership::change_in_turn(&self.context.handle, change.clone()).await;
        match (outcome, &change) {
            (Err(RequestError::Change(ChangeError::Exists)), Change::Relocate { .. }) => {
                Err(Failure::PeerUrlsExist)
            }
            (Err(RequestError::Change(ChangeError::NoQuorum)), _) => Err(self.no_quorum(&change)),
            (outcome, _) => outcome.map_err(Failure::from),
        }
    }

    /// Why a change would leave no quorum. As in etcd, a quorum that cannot be had since members
    /// were never started is told from one whose members are out of touch, which may pass.
    fn no_quorum(&self, change: &Change) -> Failure {
        let config = self.context.handle.directory().configuration();
        let members = self.context.handle.members();
        let is_started = |id: NodeId| {
            members.iter().any(|member| member.id == id && !member.client_addrs.is_empty())
        };
        if too_few_started(&config, change, is_started) {
            Failure::NotEnoughStarted
        } else {
            Failure::Request(RequestError::Change(ChangeError::NoQuorum))
        }
    }

    /// Adds a member at `address`, under the next id.
    async fn add(&self, address: &str, aim: Aim) -> Result<NodeId, Failure> {
        let handle = &self.context.handle;
        let mut tries = 0;
        loop {
            tries += 1;
            handle.read_barrier().await?;
            let config = handle.directory().configuration();
            if handle.members().iter().any(|member| member.peer_addr == address) {
                return Err(Failure::PeerUrlsExist);
            }
            let staying = config.learners.len() - config.promoting.len();
            if aim == Aim::Learner && staying >= LEARNERS_MAX {
                return Err(Failure::TooManyLearners);
            }
            let id = next_id(&config).ok_or(ChangeError::TooMany).map_err(RequestError::Change)?;
            match self.change(Change::Add { id, address: address.to_owned(), aim }).await {
                Err(Failure::Request(RequestError::Change(ChangeError::Exists)))
                    if tries < ID_TRIES => {}
                outcome => return outcome.map(|()| id),
            }
        }
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
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = request.into_inner();
        let address = address_in(&request.peer_ur_ls).map_err(to_status)?;
        let aim = if request.is_learner { Aim::Learner } else { Aim::Voter { replaces: None } };
        let id = self.add(address, aim).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        let added = members.iter().find(|member| member.id == id.get()).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member: added, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.context.admit(request.metadata())?;
        let id = known_id(request.get_ref().id).map_err(to_status)?;
        self.change(Change::Remove(id)).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.context.admit(request.metadata())?;
        let request = request.into_inner();
        let address = address_in(&request.peer_ur_ls).map_err(to_status)?.to_owned();
        let id = known_id(request.id).map_err(to_status)?;
        self.change(Change::Relocate { id, address }).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.context.admit(request.metadata())?;
        let id = known_id(request.get_ref().id).map_err(to_status)?;
        self.change(Change::Promote(id)).await.map_err(to_status)?;
        let (header, members) = (Some(self.header()), self.members());
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

/// Zero stands for nobody.
fn known_id(raw: u64) -> Result<NodeId, Failure> {
    NodeId::new(raw).ok_or(Failure::Request(RequestError::Change(ChangeError::Unknown)))
}

/// Whether the voters after `change` would make no quorum though all that were ever started came.
fn too_few_started(
    config: &Configuration,
    change: &Change,
    is_started: impl Fn(NodeId) -> bool,
) -> bool {
    let mut voters = config.voters.clone();
    let mut promoted = None;
    match change {
        Change::Remove(id) => {
            voters.remove(id);
        }
        Change::Promote(id) => {
            voters.insert(*id);
            promoted = Some(*id);
        }
        Change::Add { .. } | Change::Relocate { .. } | Change::Publish { .. } => {}
    }
    // One that is to be promoted has answered the leader.
    let is_there = |id: &&NodeId| promoted == Some(**id) || is_started(**id);
    voters.iter().filter(is_there).count() < voters.len() / 2 + 1
}

/// The id after all that were ever given away; once that is not to be had, since an operator chose
/// the highest there is, the lowest that was not.
fn next_id(config: &Configuration) -> Option<NodeId> {
    let last = config.members().last().max(config.removed.last()).map_or(0, |id| id.get());
    let next = last.max(config.removed_upto).checked_add(1).and_then(NodeId::new);
    let free = |id: &NodeId| !config.is_member(*id) && !config.was_removed(*id);
    let taken = (config.members().len() + config.removed.len()) as u64;
    let lowest = || {
        let first = config.removed_upto.saturating_add(1);
        (first..=first.saturating_add(taken)).filter_map(NodeId::new).find(free)
    };
    next.or_else(lowest)
}

/// The address in the URLs of a request: a member is reached at one.
fn address_in(urls: &[String]) -> Result<&str, Failure> {
    let [url] = urls else { return Err(Failure::BadUrls) };
    let address = url.strip_prefix("http://").ok_or(Failure::BadUrls)?;
    let address = address.strip_suffix('/').unwrap_or(address);
    membership::check_address(address).map_err(|_| Failure::BadUrls)?;
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
            assert_eq!(address_in(&urls(bad)), Err(Failure::BadUrls), "{bad:?}");
        }
    }

    #[test]
    fn a_quorum_of_members_that_never_started_is_told_from_one_out_of_touch() {
        let id = |raw| NodeId::new(raw).expect("positive");
        let config = |voters: &[u64]| Configuration::of_voters(voters.iter().copied().map(id));
        let table: [(&[u64], Change, &[u64], bool); 6] = [
            // The last voter.
            (&[1], Change::Remove(id(1)), &[1], true),
            (&[1, 2, 3], Change::Remove(id(2)), &[1, 2, 3], false),
            (&[1, 2, 3], Change::Remove(id(1)), &[1, 2], true),
            (&[1, 2, 3], Change::Remove(id(3)), &[1, 2], false),
            (&[1], Change::Promote(id(2)), &[1], false),
            (&[1, 2], Change::Promote(id(3)), &[1], false),
        ];
        for (voters, change, started, expected) in table {
            let is_started = |id: NodeId| started.contains(&id.get());
            let told = too_few_started(&config(voters), &change, is_started);
            assert_eq!(told, expected, "{change:?} of {voters:?}, started {started:?}");
        }
    }

    #[test]
    fn an_id_is_never_given_away_twice() {
        let id = |raw| NodeId::new(raw).expect("positive");
        let mut config = Configuration::of_voters([id(1), id(3)]);
        assert_eq!(next_id(&config), Some(id(4)));
        config.removed.insert(id(8));
        assert_eq!(next_id(&config), Some(id(9)));
        config.learners.insert(id(u64::MAX));
        assert_eq!(next_id(&config), Some(id(2)), "ids do not run out");
        config.removed_upto = 7;
        assert_eq!(next_id(&config), Some(id(9)), "8 and all below were removed");
    }
}
