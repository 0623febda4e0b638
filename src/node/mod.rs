//! The engine room: one member, between its sockets and its disk.
//!
//! | part | is | knows |
//! |---|---|---|
//! | [`replica`] | a synchronous state machine: [`Event`]s in, [`Effect`]s out | no clock, no I/O |
//! | [`driver`] | the only event loop | the replica, and channels to all others |
//! | [`persister`] | a thread: group commit of the log | the write-ahead log |
//! | [`applier`] | a thread: owner of the state machine | the store's lock, those who wait |
//! | [`snapshotter`] | a thread: snapshots to disk, at leisure | the store, the snapshot files |
//! | [`room`] | what is known of the room on the disk | nothing |
//! | [`recovery`] | what the disk remembers, at start | storage, the state machine |
//! | [`handle`] | what the rest of the process uses | a bounded queue to the driver |
//!
//! The driver never waits for any of the others; each reports by an event. Transport is not
//! known here: messages leave through [`driver::Outbox`].

pub mod admission;
pub mod applier;
pub mod clock;
pub mod driver;
pub mod error;
pub mod event;
mod external_votes;
pub mod handle;
pub mod intake;
pub mod pending_proposals;
pub mod persister;
pub mod read_batcher;
pub mod reads;
pub mod received;
pub mod recovery;
pub mod replica;
mod report;
pub mod room;
pub mod snapshot_stream;
pub mod snapshotter;
pub mod status;
mod throttle;
mod timeouts;

#[cfg(test)]
mod tests;

pub use error::RequestError;
pub use event::{Effect, Event, PeerTable};
pub use handle::{Applied, Handle, Limits, Ticket};
pub use replica::{Replica, ReplicaConfig};
pub use room::Room;
pub use status::{Member, Members, Status};
