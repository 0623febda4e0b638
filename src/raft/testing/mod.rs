//! Tests of the room that need more than one of its parts.
//!
//! - `script` plays the golden scripts in `testdata`: stories, one behaviour each;
//! - `hostile` throws nonsense at a node.

mod checker;
mod hostile;
mod member;
mod script;
mod show;

use super::{Config, NodeId};

/// Member `raw`.
pub(super) fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("tests number members from 1")
}

/// Small limits, so that tests reach them.
pub(super) fn config(raw: u64, seed: u64) -> Config {
    Config {
        id: id(raw),
        heartbeat_ticks: 3,
        election_ticks_min: 10,
        election_ticks_max: 20,
        leader_lost_delay_ticks_max: 2,
        append_bytes_max: 512,
        inflight_messages_max: 4,
        inflight_bytes_max: 1024,
        uncommitted_bytes_max: 4096,
        reads_pending_max: 4,
        ready_bytes_max: 1024,
        addresses: std::collections::BTreeMap::new(),
        address_overrides: std::collections::BTreeMap::new(),
        seed,
    }
}
