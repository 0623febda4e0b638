//! `proto.NodeRegistration` on the peer port: the service that this project began with.
//!
//! Its messages carry less than Raft's own (no term in a heartbeat, no log in a vote request), so
//! each call does as much as its message allows without loosening any rule of the protocol.
//! Registering makes a voter of a machine, whether it runs already or is yet to be started.

use tonic::{Request, Response, Status};

use crate::proto::node::node_registration_server::{NodeRegistration, NodeRegistrationServer};
use crate::proto::node::{
    Empty, NodeInfo, NodeList, RegisterResponse, RequestVoteArgs, RequestVoteReply, Signal,
};
use crate::raft::{NodeId, Term};
use crate::server::{Membership, Registered};

use super::error::to_status;
use super::membership;

/// The service over one node.
pub(super) struct Registration {
    membership: Membership,
}

impl Registration {
    pub(super) fn server(membership: Membership) -> NodeRegistrationServer<Self> {
        NodeRegistrationServer::new(Self { membership })
    }
}

#[tonic::async_trait]
impl NodeRegistration for Registration {
    async fn register_node(
        &self,
        request: Request<NodeInfo>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let info = request.into_inner();
        let id = parse_id(&info.id).ok_or_else(|| {
            Status::invalid_argument(format!("id {:?} is not a positive integer", info.id))
        })?;
        let addr = &info.addr;
        membership::check_address(addr)?;
        let registered = self.membership.register(id, addr, None);
        let message = match registered.await.map_err(membership::refusal)? {
            Registered::Already => format!("node {id} is a member already, at {addr}"),
            Registered::Added => {
                format!("node {id} is a member now, at {addr}: it votes once it has caught up")
            }
        };
        Ok(Response::new(RegisterResponse { message }))
    }

    async fn get_nodes(&self, _: Request<Empty>) -> Result<Response<NodeList>, Status> {
        let members = self.membership.list().into_iter();
        let nodes = members
            .map(|member| NodeInfo { id: member.id.to_string(), addr: member.peer_addr })
            .collect();
        Ok(Response::new(NodeList { nodes }))
    }

    /// Whether this node is in touch with a leader. A leader that no quorum hears is not.
    async fn send_heart_beat(&self, _: Request<Signal>) -> Result<Response<Signal>, Status> {
        let status = self.membership.handle().status();
        let flag = match status.leader {
            Some(leader) if leader == status.node_id => status.leader_confirmed,
            Some(_) => true,
            None => false,
        };
        Ok(Response::new(Signal { flag }))
    }

    /// A vote for a candidate whose log is empty. A candidate that cannot be a member, and a term
    /// that cannot be current, are refused like any other stranger or stale term.
    async fn request_vote(
        &self,
        request: Request<RequestVoteArgs>,
    ) -> Result<Response<RequestVoteReply>, Status> {
        let args = request.into_inner();
        let candidate = parse_id(&args.candidate_id);
        let term = u64::try_from(args.candidate_term).ok().map(Term);
        let vote_granted = match (candidate, term) {
            (Some(candidate), Some(term)) => {
                self.membership.handle().request_vote(candidate, term).await.map_err(to_status)?
            }
            (None, _) | (_, None) => false,
        };
        Ok(Response::new(RequestVoteReply { vote_granted }))
    }
}

/// A member's id as this service writes it: decimal digits, positive, nothing else.
fn parse_id(text: &str) -> Option<NodeId> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only { text.parse().ok().and_then(NodeId::new) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_decimal_numbers() {
        assert_eq!(parse_id("7").map(NodeId::get), Some(7));
        assert_eq!(parse_id(&u64::MAX.to_string()).map(NodeId::get), Some(u64::MAX));
        for bad in ["", "0", "-1", "+1", " 1", "node1", "0x1", "1.0", "18446744073709551616"] {
            assert_eq!(parse_id(bad), None, "{bad:?}");
        }
    }
}
