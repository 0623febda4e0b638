//! Clusters of real processes on loopback, with real disks, through everything that happens to
//! such clusters. Each test ends with the same verdict: no acknowledged write is lost, no
//! linearizable read was stale, and all members hold the same.

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod crashes;
mod descriptors;
mod disks;
mod elections;
mod environment;
mod hostile;
mod large;
mod links;
mod membership;
mod memory;
mod reports;
mod snapshots;
mod stops;
mod unwritten;
mod watches;
