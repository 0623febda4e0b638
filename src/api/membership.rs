//! Machines that want to be members: what `NodeRegistration.RegisterNode` and `Membership.Join`
//! have in common, and the second of them.
//!
//! Both may be asked again and again: a caller that lost the answer asks once more, and a known id
//! at its own address is fine. At another address it is refused: the caller cannot show that it is
//! that member, and moving a healthy member to a newcomer's address would cut it off. Operators
//! move members by `member update`.

use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use crate::node::{Handle, RequestError};
use crate::proto::raft as wire;
use crate::proto::raft::membership_server::{Membership, MembershipServer};
use crate::raft::{Aim, Change, ChangeError, NodeId};

use super::error::to_status;

/// The longest address that a member may have; a DNS name has at most 253 bytes.
const ADDR_BYTES_MAX: usize = 260;

/// Two who ask for the same at once: the second finds it done.
const TRIES: usize = 2;

/// How long a change waits for its turn, and how often it looks.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
const TURN_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a registration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    /// Nothing had to be done.
    Already,
    /// A new member.
    Added,
}

/// Why a machine is not a member.
#[derive(Debug)]
pub(super) enum NotRegistered {
    /// Its id is that of a member elsewhere.
    IdInUse {
        /// The id.
        id: NodeId,
        /// Where that member is.
        address: String,
    },
    /// The membership could not be read or changed.
    Request(RequestError),
}

impl From<RequestError> for NotRegistered {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// Sees to it that `id` is a member at `address`, in the place of `replaces` if it is new.
pub(super) async fn register(
    handle: &Handle,
    id: NodeId,
    address: &str,
    replaces: Option<NodeId>,
) -> Result<Registered, NotRegistered> {
    let mut tries = 0;
    loop {
        tries += 1;
        handle.read_barrier().await?;
        let address = address.to_owned();
        let known = handle.members().into_iter().find(|member| member.id == id);
        if let Some(member) = known {
            if member.peer_addr == address {
                return Ok(Registered::Already);
            }
            return Err(NotRegistered::IdInUse { id, address: member.peer_addr });
        }
        // A member that was removed already needs no more replacing.
        let config = handle.directory().configuration();
        let replaces = replaces.filter(|replaced| !config.was_removed(*replaced));
        let change = Change::Add { id, address, aim: Aim::Voter { replaces } };
        match change_in_turn(handle, change).await {
            Err(RequestError::Change(ChangeError::Exists)) if tries < TRIES => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(Registered::Added),
        }
    }
}

/// Changes the membership, after a change that is under way or that a new leader has to settle
/// first: neither is for who asks to know, and members that start publish what they are called.
pub(super) async fn change_in_turn(handle: &Handle, change: Change) -> Result<(), RequestError> {
    let asked = Instant::now();
    loop {
        match handle.change_membership(vec![change.clone()]).await {
            Err(RequestError::Change(ChangeError::UnderWay | ChangeError::Unsettled))
                if asked.elapsed() < TURN_TIMEOUT =>
            {
                tokio::time::sleep(TURN_LOOK_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

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
        ChangeError::UnderWay | ChangeError::Unsettled => Status::unavailable(text),
        ChangeError::Exists => Status::already_exists(text),
        ChangeError::Unknown => Status::not_found(text),
        ChangeError::WasRemoved
        | ChangeError::NotLearner
        | ChangeError::NotCaughtUp
        | ChangeError::NoQuorum
        | ChangeError::TooMany
        | ChangeError::Nothing => Status::failed_precondition(text),
    }
}

/// The service over one node.
pub(super) struct MembershipService {
    handle: Handle,
}

impl MembershipService {
    pub(super) fn server(handle: Handle) -> MembershipServer<Self> {
        MembershipServer::new(Self { handle })
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
        register(&self.handle, id, &address, replaces).await.map_err(refusal)?;
        let members = self.handle.members().into_iter();
        let members = members
            .map(|member| wire::Address { id: member.id.get(), address: member.peer_addr })
            .collect();
        Ok(Response::new(wire::JoinReply { cluster: self.handle.status().cluster_id, members }))
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
