//! Watches: every change of a key from some revision on, once and in order (etcd's guarantees of
//! `Watch`).
//!
//! ```text
//!   applier ── revision ──▶ Hub ── events, matched by index ──▶ Queue ──▶ WatchStream
//!                            ▲                                    │            │
//!                            └─── joins, once it has read all ────┴─ if full ──┘
//! ```
//!
//! A watch is *synced* or *behind*. The [`Hub`] reads each new revision once and hands its events
//! to the synced watches that want them. A watch that begins in the past, or whose stream does not
//! take what is queued for it, is behind: its own stream reads history from the store, at the pace
//! at which its client takes it, until there is nothing left to read. So a client that does not
//! read costs a queue of bounded size, and delays nobody. If history is compacted meanwhile, the
//! watch is cancelled with the revision of the compaction.
//!
//! The hub pins what it has not read, so a synced watch misses nothing for a compaction. A store
//! that a snapshot replaces is one more store to follow: see [`Follower`](crate::kv::Follower).

mod hub;
mod queue;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::kv::{self, EventKind, KeySet};

pub use hub::{Hub, WatchCounts};
pub use stream::WatchStream;

/// The id in a response that concerns no watch of the stream.
pub const NO_WATCH: i64 = -1;

/// What a client wants to watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Which keys; none if there is no such key.
    pub keys: Option<KeySet>,
    /// The first revision; 0: the next one.
    pub start_revision: i64,
    /// The id of the watch; none: the next that is free.
    pub id: Option<i64>,
    /// Events carry what was there before.
    pub prev_kv: bool,
    /// Which kinds of events.
    pub kinds: Kinds,
    /// Tell the revision now and then while nothing happens.
    pub progress_notify: bool,
    /// A large response may be sent in parts.
    pub fragment: bool,
}

/// The kinds of events that a watch is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Puts.
    pub put: bool,
    /// Deletions.
    pub delete: bool,
}

impl WatchRequest {
    fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.kinds.put,
            EventKind::Delete => self.kinds.delete,
        }
    }
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum WatchResponse {
    /// A watch was made.
    Created {
        /// Its id.
        id: i64,
        /// The revision of the store.
        revision: i64,
    },
    /// A watch was not made.
    Rejected {
        /// The revision of the store.
        revision: i64,
        /// Why not.
        reason: &'static str,
    },
    /// A watch has ended.
    Canceled {
        /// Its id.
        id: i64,
        /// The revision of the store; 0 after a compaction.
        revision: i64,
        /// The oldest revision that can be read, if the watch ends since it begins before that.
        compact_revision: i64,
    },
    /// What happened.
    Events {
        /// The id of the watch.
        id: i64,
        /// The revision of the events, or of the store when they were read from history.
        revision: i64,
        /// The events, in order: never a part of a revision.
        events: Vec<Arc<kv::Event>>,
        /// The watch wants what was there before.
        prev_kv: bool,
        /// The response may be sent in parts.
        fragment: bool,
    },
    /// Everything up to a revision was told.
    Progress {
        /// The id of the watch, or [`NO_WATCH`] for all watches of the stream.
        id: i64,
        /// The revision.
        revision: i64,
    },
}
