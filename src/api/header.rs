//! What every handler shares: the node, who answers, and the header that says so.

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::node::Handle;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::raft::Term;

use super::error::{Failure, to_status};

/// The node behind the services of one port.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) handle: Handle,
    cluster_id: u64,
    member_id: u64,
}

impl Context {
    pub(super) fn new(handle: Handle) -> Self {
        let status = handle.status();
        let (cluster_id, member_id) = (status.cluster_id, status.node_id.get());
        Self { handle, cluster_id, member_id }
    }

    /// The largest message that is decoded: the largest command, with room for its envelope. What
    /// lies between the two is refused by name, what is beyond by gRPC.
    pub(super) fn decode_bytes_max(&self) -> usize {
        const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
        self.handle.limits().request_bytes_max + ENVELOPE_BYTES_MAX
    }

    /// The header of an answer that stands at `revision`, given in `term`.
    pub(super) fn header(&self, revision: i64, term: Term) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: term.0,
        }
    }

    /// The header of an answer that stands at `revision`, given now.
    pub(super) fn header_now(&self, revision: i64) -> ResponseHeader {
        self.header(revision, self.handle.status().term)
    }

    /// Refuses what a learner cannot answer, if this is one.
    pub(super) fn refuse_at_learner(&self) -> Result<(), Status> {
        if self.handle.status().learner { Err(to_status(Failure::Learner)) } else { Ok(()) }
    }

    /// Refuses at once what may only be served under a leader when there is none: clients ask for
    /// this with the metadata `hasleader: true`, so as to turn to another member soon.
    pub(super) fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let wants_leader = metadata.get("hasleader").is_some_and(|value| value == "true");
        if wants_leader && self.handle.status().leader.is_none() {
            return Err(to_status(crate::node::RequestError::NoLeader));
        }
        Ok(())
    }
}
