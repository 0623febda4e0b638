//! `proto.NodeRegistration` on the peer port: the service that this project began with.
//!
//! Its messages carry less than Raft's own (no term in a heartbeat, no log in a vote request), so
//! each call does as much as its message allows without loosening any rule of the protocol.
//! Membership cannot change yet: `RegisterNode` knows the members, and refuses the rest.

use tonic::{Request, Response, Status};

use crate::node::{Handle, Member};
use crate::proto::node::node_registration_server::{NodeRegistration, NodeRegistrationServer};
use crate::proto::node::{
    Empty, NodeInfo, NodeList, RegisterResponse, RequestVoteArgs, RequestVoteReply, Signal,
};
use crate::raft::{NodeId, Term};

use super::error::to_status;

/// The longest address that a member may have; a DNS name has at most 253 bytes.
const ADDR_BYTES_MAX: usize = 260;

/// The service over one node.
pub(super) struct Registration {
    handle: Handle,
}

impl Registration {
    pub(super) fn server(handle: Handle) -> NodeRegistrationServer<Self> {
        NodeRegistrationServer::new(Self { handle })
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
        check_addr(&info.addr)?;
        let message = register(&self.handle.members(), id, &info.addr)?;
        Ok(Response::new(RegisterResponse { message }))
    }

    async fn get_nodes(&self, _: Request<Empty>) -> Result<Response<NodeList>, Status> {
        let members = self.handle.members().into_iter();
        let nodes = members
            .map(|member| NodeInfo { id: member.id.to_string(), addr: member.peer_addr })
            .collect();
        Ok(Response::new(NodeList { nodes }))
    }

    /// Whether this node is in touch with a leader. A leader that no quorum hears is not.
    async fn send_heart_beat(&self, _: Request<Signal>) -> Result<Response<Signal>, Status> {
        let status = self.handle.status();
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
                self.handle.request_vote(candidate, term).await.map_err(to_status)?
            }
            (None, _) | (_, None) => false,
        };
        Ok(Response::new(RequestVoteReply { vote_granted }))
    }
}

/// What registering `id` at `addr` comes to among `members`.
fn register(members: &[Member], id: NodeId, addr: &str) -> Result<String, Status> {
    match members.iter().find(|member| member.id == id) {
        Some(member) if member.peer_addr == addr => {
            Ok(format!("node {id} is a member already, at {addr}"))
        }
        Some(member) => Err(Status::unimplemented(format!(
            "membership changes are not supported yet: node {id} is a member at {}, and cannot \
             move to {addr}",
            member.peer_addr
        ))),
        None => Err(Status::unimplemented(format!(
            "membership changes are not supported yet: node {id} at {addr} is no member, and \
             cannot be added"
        ))),
    }
}

/// A member's id as this service writes it: decimal digits, positive, nothing else.
fn parse_id(text: &str) -> Option<NodeId> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only { text.parse().ok().and_then(NodeId::new) } else { None }
}

/// Accepts `host:port`, with an IPv6 host in brackets.
fn check_addr(addr: &str) -> Result<(), Status> {
    let refuse = |what| Err(Status::invalid_argument(format!("addr {addr:?} {what}")));
    if addr.len() > ADDR_BYTES_MAX {
        return Err(Status::invalid_argument(format!("addr exceeds {ADDR_BYTES_MAX} bytes")));
    }
    let Some((host, port)) = addr.rsplit_once(':') else {
        return refuse("has no port: expected host:port");
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().unwrap_or(0) == 0 {
        return refuse("has no port from 1 to 65535");
    }
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match in_brackets {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if valid { Ok(()) } else { refuse("has no host that is a name or an IP address") }
}

/// Letters, digits, `-`, `_` and `.`, with no empty label but the root's.
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.len() <= 253
        && name
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn members() -> Vec<Member> {
        [(1, "node1:5001"), (2, "node2:5001")]
            .map(|(id, addr)| Member {
                id: NodeId::new(id).expect("positive"),
                name: format!("node{id}"),
                peer_addr: addr.to_owned(),
                client_addrs: vec![],
                learner: false,
            })
            .to_vec()
    }

    #[test]
    fn a_known_node_at_its_own_address_is_told_so() {
        let id = NodeId::new(2).expect("positive");
        let message = register(&members(), id, "node2:5001").expect("accepted");
        assert_eq!(message, "node 2 is a member already, at node2:5001");
    }

    #[test]
    fn strangers_and_moves_are_not_implemented() {
        for (id, addr) in [(3, "node3:5001"), (2, "elsewhere:5001")] {
            let id = NodeId::new(id).expect("positive");
            let status = register(&members(), id, addr).expect_err("refused");
            assert_eq!(status.code(), Code::Unimplemented);
            assert!(status.message().starts_with("membership changes are not supported yet"));
        }
    }

    #[test]
    fn ids_are_positive_decimal_numbers() {
        assert_eq!(parse_id("7").map(NodeId::get), Some(7));
        assert_eq!(parse_id(&u64::MAX.to_string()).map(NodeId::get), Some(u64::MAX));
        for bad in ["", "0", "-1", "+1", " 1", "node1", "0x1", "1.0", "18446744073709551616"] {
            assert_eq!(parse_id(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["node1:5001", "127.0.0.1:1", "[::1]:65535", "a.b-c.d_e:80", "rooted.:80"] {
            assert!(check_addr(good).is_ok(), "{good:?}");
        }
        let long = format!("{}:1", "a".repeat(300));
        for bad in [
            "",
            "node1",
            "node1:",
            ":5001",
            "node1:0",
            "node1:65536",
            "node1:+1",
            "no de:1",
            "::1:5001",
            "[::1]",
            "[nonsense]:1",
            "a..b:1",
            "http://a:1",
            long.as_str(),
        ] {
            let status = check_addr(bad).expect_err(bad);
            assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
        }
    }
}
