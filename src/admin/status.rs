//! `/status`: what this member knows, as JSON. The page at `/` draws it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::node::{Handle, Member};

use super::{Admin, Versions};

/// One member as this one sees it.
#[derive(Debug, Serialize)]
struct MemberView {
    id: u64,
    name: String,
    peer_addr: String,
    client_addrs: Vec<String>,
    learner: bool,
    leader: bool,
    this: bool,
}

/// Everything on the page.
#[expect(clippy::struct_excessive_bools, reason = "the page wants each by its name")]
#[derive(Debug, Serialize)]
struct StatusView {
    name: String,
    node_id: u64,
    /// Hexadecimal, as etcd prints it: JSON readers round numbers of this size.
    cluster_id: String,
    /// Of the API that is served.
    version: &'static str,
    /// Of this program.
    node_version: &'static str,
    role: &'static str,
    term: u64,
    leader: Option<u64>,
    commit_index: u64,
    applied_index: u64,
    last_index: u64,
    revision: i64,
    compact_revision: i64,
    db_size_bytes: u64,
    proposals_pending: usize,
    alive: bool,
    ready: bool,
    applied_at_start: bool,
    disk_stalled: bool,
    leader_confirmed: bool,
    shutting_down: bool,
    members: Vec<MemberView>,
}

pub(super) async fn show(State(admin): State<Admin>) -> Response {
    const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
    let view = view(admin.server.handle(), admin.versions);
    ([(header::CACHE_CONTROL, NO_STORE)], Json(view)).into_response()
}

fn view(handle: &Handle, versions: Versions) -> StatusView {
    let status = handle.status();
    let (revision, compact_revision, db_size_bytes) = handle
        .with_store(|store| (store.revision(), store.compacted_revision(), store.size_bytes()));
    let member_view = |member: Member| MemberView {
        leader: status.leader == Some(member.id),
        this: member.id == status.node_id,
        id: member.id.get(),
        name: member.name,
        peer_addr: member.peer_addr,
        client_addrs: member.client_addrs,
        learner: member.learner,
    };
    StatusView {
        name: status.name.to_string(),
        node_id: status.node_id.get(),
        cluster_id: format!("{:x}", status.cluster_id),
        version: versions.server,
        node_version: versions.node,
        role: status.role.as_str(),
        term: status.term.0,
        leader: status.leader.map(crate::raft::NodeId::get),
        commit_index: status.commit.0,
        applied_index: status.applied.0,
        last_index: status.last_index.0,
        revision,
        compact_revision,
        db_size_bytes,
        proposals_pending: status.proposals_pending,
        alive: status.alive,
        ready: status.ready,
        applied_at_start: status.applied_at_start,
        disk_stalled: status.disk_stalled,
        leader_confirmed: status.leader_confirmed,
        shutting_down: status.shutting_down,
        members: handle.members().into_iter().map(member_view).collect(),
    }
}
