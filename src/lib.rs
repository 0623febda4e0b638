//! `raft-node`: one member of a Raft cluster that replicates an etcd-compatible key-value store.
//!
//! The modules stand in reading order. Two rooms are pure and know nothing of each other: [`raft`]
//! decides agreement, [`kv`] decides meaning. [`storage`] keeps bytes. [`node`] is the engine room
//! that drives all three. [`server`] is what clients can do, free of protocols; [`api`] and
//! [`admin`] speak it over gRPC and HTTP, [`transport`] carries the members' messages, and [`app`]
//! is the one place where tasks, threads and channels are made.
//!
//! # The journey of a put
//!
//! `api::kv` converts the request, [`server::Server::put`] checks it and makes it a
//! [`kv::Command`]; [`node::Handle::propose`] puts it, bounded, before the [`node::driver`];
//! [`raft`] appends it. Its messages leave for the peers while the persister syncs the log. When a
//! quorum holds the entry it is committed, the applier changes the store and replies to the caller
//! that waits, and the response carries the revision. On a follower the proposal travels to the
//! leader while the one who waits stays home: the answer comes from the follower's own application
//! of the entry.
//!
//! # The journey of an append
//!
//! `transport::server` receives a frame, `transport::decode` lets nothing unchecked pass, the
//! driver hands it to [`raft`]: term check, prefix match, conflict cut. The persister makes it
//! durable, and only then does the reply leave.

pub mod raft;

pub mod kv;

pub mod storage;

pub mod node;

pub mod transport;

pub mod server;

pub mod api;

pub mod admin;

pub mod config;

pub mod metrics;

pub mod proto;

pub mod testpoints;

pub mod log_limit;

pub mod app;
