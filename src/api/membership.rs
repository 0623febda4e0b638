//! Machines that want to be members: `Membership.Join`, and what it has in common with
//! `NodeRegistration.RegisterNode`.

use tonic::{Request, Response, Status};

use crate::node::RequestError;
use crate::proto::raft as wire;
use crate::proto::raft::membership_server::{Membership, MembershipServer};
use crate::raft::{ChangeError, NodeId};
use crate::server::{self, NotRegistered};

use super::error::to_status;

/// The longest address that a member may have; a DNS name has at most 253 bytes.
const ADDR_BYTES_MAX: usize = 260;

/// A failure as it is told on the peer port: in our own words, with a code that says whether to
/// ask again.
pub(super) fn refusal(error: NotRegistered) -> Status {
    let why = match error {
        NotRegistered::IdInUse { id, address } => {
            return Status::already_exists(format!(
                "node {id} is a member already, at {address}: a new machine needs an id that was \
                 never used; `etcdctl member update` moves a member to another address"
            ));
        }
        NotRegistered::Request(RequestError::Change(why)) => why,
        NotRegistered::Request(error) => return to_status(error),
    };
    let text = why.to_string();
    match why {
        ChangeError::InProgress | ChangeError::LeaderNotReady => Status::unavailable(text),
        ChangeError::Exists => Status::already_exists(text),
        ChangeError::Unknown => Status::not_found(text),
        ChangeError::WasRemoved
        | ChangeError::NotLearner
        | ChangeError::NotCaughtUp
        | ChangeError::NoQuorum
        | ChangeError::TooMany
        | ChangeError::NoChange => Status::failed_precondition(text),
    }
}

/// The service over one node.
pub(super) struct MembershipService {
    membership: server::Membership,
}

impl MembershipService {
    pub(super) fn server(membership: server::Membership) -> MembershipServer<Self> {
        MembershipServer::new(Self { membership })
    }
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinReply>, Status> {
        let wire::JoinRequest { id, address, replaces } = request.into_inner();
        let id = NodeId::new(id).ok_or_else(|| Status::invalid_argument("id is 0"))?;
        let replaces = NodeId::new(replaces);
        if replaces == Some(id) {
            return Err(Status::invalid_argument(format!("node {id} cannot replace itself")));
        }
        check_address(&address)?;
        self.membership.register(id, &address, replaces).await.map_err(refusal)?;
        let members = self.membership.list().into_iter();
        let members = members
            .map(|member| wire::Address { id: member.id.get(), address: member.peer_addr })
            .collect();
        Ok(Response::new(wire::JoinReply {
            cluster: self.membership.handle().status().cluster_id,
            members,
        }))
    }
}

/// Accepts `host:port`, with an IPv6 host in brackets.
pub(super) fn check_address(addr: &str) -> Result<(), Status> {
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

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["node1:5001", "127.0.0.1:1", "[::1]:65535", "a.b-c.d_e:80", "rooted.:80"] {
            assert!(check_address(good).is_ok(), "{good:?}");
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
            let status = check_address(bad).expect_err(bad);
            assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
        }
    }
}
