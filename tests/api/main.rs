//! The client surface of one member, as its users see it: over real sockets, from a real process.
//!
//! What etcd answers is pinned in detail by the tests beside `kv` and `api`; these show that it
//! arrives at the other end of the wire.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod connections;
mod doors;
mod kv;
mod members;
mod pages;
mod responses;
mod sites;
