//! The generated code: messages, clients and servers of every service spoken here.
//!
//! Compiled from `proto/` by `build.rs`. Nothing but [`checked`] is written by hand, so the lints
//! that ask for documentation and taste look elsewhere. Meaning and checks live in
//! `transport::decode` for peers, and in `api` for clients.

pub mod checked;

/// `proto.NodeRegistration`, kept as first written.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod node {
    tonic::include_proto!("proto");
}

/// `raft.v1.Raft`: what members say to each other.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod raft {
    tonic::include_proto!("raft.v1");
}

/// etcd's v3 services.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's key-value records and events.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// etcd's users, roles and permissions.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// etcd's server-side locks.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// etcd's server-side elections.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The services of the peer port, encoded for reflection.
pub const PEER_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/peer_descriptors.bin"));

/// The services of the client port, encoded for reflection.
pub const CLIENT_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/client_descriptors.bin"));
