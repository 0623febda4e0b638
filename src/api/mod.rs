//! gRPC: etcd's API for clients, and the services by which machines become members.
//!
//! A handler converts the request, calls an operation of [`server`](crate::server), maps the
//! error, and fills the header. What every call has in common (admission, limits, counts) is done
//! once, before any handler, in `entry`, `client_service` and `multiplex`. Nothing here holds
//! state.
//!
//! Absent: leases, locks, elections and users. A call of theirs is answered
//! `UNIMPLEMENTED` with the name of the service.

mod arrival;
mod client_service;
mod cluster;
mod convert;
mod counted;
mod encode;
mod entry;
mod error;
mod header;
mod health;
pub mod health_client;
mod kv;
mod maintenance;
mod membership;
mod methods;
mod multiplex;
mod registration;
mod stream;
#[cfg(test)]
mod tests;
mod underway;
mod watch;

use std::sync::Arc;

use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use crate::metrics::{RpcName, Rpcs};
use crate::node::Handle;
use crate::proto;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::node::node_registration_server::NodeRegistrationServer;
use crate::proto::raft::membership_server::MembershipServer;
use crate::server::{Membership, Server};
use multiplex::Multiplexer;

pub use client_service::{ClientService, ClientServiceFuture};
pub use entry::Names;
pub use multiplex::server;
pub use underway::Underway;

/// What a handler does with a request before it asks the node, for tests that throw bytes at it.
#[cfg(feature = "sim")]
pub mod bare {
    use tonic::Status;

    use super::convert;
    use super::error::to_status;
    use crate::kv;
    use crate::proto::etcdserverpb as pb;

    /// A read.
    pub fn range(request: pb::RangeRequest) -> Result<kv::RangeRequest, Status> {
        let request = convert::range(request)?;
        request.validate().map_err(to_status)?;
        Ok(request)
    }

    /// A write.
    pub fn put(request: pb::PutRequest) -> Result<kv::PutRequest, Status> {
        let request = convert::put(request);
        request.validate().map_err(to_status)?;
        Ok(request)
    }

    /// A deletion.
    pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<kv::DeleteRangeRequest, Status> {
        let request = convert::delete_range(request);
        request.validate().map_err(to_status)?;
        Ok(request)
    }

    /// A transaction.
    pub fn txn(request: pb::TxnRequest) -> Result<kv::TxnRequest, Status> {
        let request = convert::txn(request)?;
        request.validate().map_err(to_status)?;
        Ok(request)
    }
}

/// The etcd version whose behaviour this server has. Clients choose what they ask by it, so it is
/// a plain semantic version.
pub const VERSION: &str = "3.6.14";

/// The lowest version that every member of a cluster supports.
pub const CLUSTER_VERSION: &str = "3.6.0";

/// The version of the stored data.
pub const STORAGE_VERSION: &str = "3.6.0";

/// The largest answer: what gRPC in Go, and so an etcd client, can be sent.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
const HEALTH: &str = HealthServer::<health::HealthService>::NAME;

/// What the client port serves, by full name.
const CLIENT_SERVICES: &[&str] = &[
    KvServer::<kv::KvService>::NAME,
    WatchServer::<watch::WatchService>::NAME,
    ClusterServer::<cluster::ClusterService>::NAME,
    MaintenanceServer::<maintenance::MaintenanceService>::NAME,
    HEALTH,
    REFLECTION,
    REFLECTION_ALPHA,
];

/// What the peer port serves, by full name.
const PEER_SERVICES: &[&str] = &[
    "raft.v1.Raft",
    MembershipServer::<membership::MembershipService>::NAME,
    NodeRegistrationServer::<registration::Registration>::NAME,
    HEALTH,
    REFLECTION,
    REFLECTION_ALPHA,
];

/// Everything that the client port serves: etcd's services, health and reflection over gRPC, and
/// the routes of `http`. To be given to [`server`] with HTTP/1.1 accepted. Its calls are counted in
/// `rpcs`, which is made of [`rpc_names`]. Browsers may call it by `names`.
pub fn client_service(
    server: Server,
    http: axum::Router,
    rpcs: Arc<Rpcs>,
    names: Names,
) -> ClientService {
    let context = header::Context::new(server.clone());
    let handle = server.handle().clone();
    let services = Routes::new(cluster::ClusterService::server(context.clone()))
        .add_service(maintenance::MaintenanceService::server(context.clone()))
        .add_service(watch::WatchService::server(context.clone()))
        .add_service(health::HealthService::server(handle, CLIENT_SERVICES));
    let services = with_reflection(services, proto::CLIENT_DESCRIPTORS, CLIENT_SERVICES);
    let kv = kv::KvService::server(context);
    ClientService::new(Multiplexer::new(server, rpcs, kv, services, http), names)
}

/// The calls of the client port, in the order in which it counts them.
pub fn rpc_names() -> impl Iterator<Item = RpcName> {
    methods::METHODS.iter().map(|method| RpcName {
        service: method.service,
        method: method.name,
        kind: method.kind,
    })
}

/// What the peer port serves beside Raft itself, which is the transport's: to be added to it.
pub fn peer_routes(handle: Handle, services: Routes) -> Routes {
    let membership = Membership::new(handle.clone());
    let services = services
        .add_service(membership::MembershipService::server(membership.clone()))
        .add_service(registration::Registration::server(membership))
        .add_service(health::HealthService::server(handle, PEER_SERVICES));
    with_reflection(services, proto::PEER_DESCRIPTORS, PEER_SERVICES)
}

/// Adds reflection in both versions that clients speak; it names what is served, and nothing else.
fn with_reflection(services: Routes, descriptors: &'static [u8], served: &[&str]) -> Routes {
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The library adds the descriptor of the version that it builds, and both are served.
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            );
        served.iter().fold(builder, |builder, service| builder.with_service_name(*service))
    };
    services
        .add_service(
            builder()
                .build_v1()
                .expect("the descriptors were compiled with this code")
                .accept_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            builder()
                .build_v1alpha()
                .expect("the descriptors were compiled with this code")
                .accept_compressed(CompressionEncoding::Gzip),
        )
}
