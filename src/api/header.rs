//! What every handler shares: the node, who answers, and the header that says so.

use crate::proto::etcdserverpb::ResponseHeader;
use crate::raft::Term;
use crate::server::Server;

/// The node behind the services of one port.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) server: Server,
    cluster_id: u64,
    member_id: u64,
}

impl Context {
    pub(super) fn new(server: Server) -> Self {
        let status = server.handle().status();
        let (cluster_id, member_id) = (status.cluster_id, status.node_id.get());
        Self { server, cluster_id, member_id }
    }

    /// The largest message that is decoded: the largest command, with room for its envelope. What
    /// lies between the two is refused by name, what is beyond by gRPC.
    pub(super) fn decode_bytes_max(&self) -> usize {
        const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
        self.server.handle().limits().request_bytes_max + ENVELOPE_BYTES_MAX
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
        self.header(revision, self.server.handle().status().term)
    }
}
