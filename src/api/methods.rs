//! The calls of the client port by name: which of them a learner answers, and under which labels
//! each is counted.
//!
//! Both are decided by the path, in one place before any handler, so that no handler can forget
//! it.

use crate::metrics::RpcKind;

/// What a learner does with a call. It may be arbitrarily far behind, and counts in no quorum, so
/// as in etcd it answers only what claims neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtLearner {
    /// Serves it.
    Served,
    /// Serves it if the request says that it may be stale, which only the handler can see.
    IfSerializable,
    /// Refuses it.
    Refused,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: RpcKind,
    pub(super) at_learner: AtLearner,
}

const fn unary(service: &'static str, name: &'static str, at_learner: AtLearner) -> Method {
    Method { service, name, kind: RpcKind::Unary, at_learner }
}

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";

/// All of them, the most frequent first: [`find`] looks from the front.
pub(super) const METHODS: &[Method] = &[
    unary(KV, "Range", AtLearner::IfSerializable),
    unary(KV, "Put", AtLearner::Refused),
    unary(KV, "Txn", AtLearner::Refused),
    unary(KV, "DeleteRange", AtLearner::Refused),
    unary(KV, "Compact", AtLearner::Refused),
    Method { kind: RpcKind::ServerStream, ..unary(KV, "RangeStream", AtLearner::Refused) },
    Method { kind: RpcKind::BidiStream, ..unary(WATCH, "Watch", AtLearner::Refused) },
    unary(CLUSTER, "MemberAdd", AtLearner::Refused),
    unary(CLUSTER, "MemberRemove", AtLearner::Refused),
    unary(CLUSTER, "MemberUpdate", AtLearner::Refused),
    unary(CLUSTER, "MemberList", AtLearner::Refused),
    unary(CLUSTER, "MemberPromote", AtLearner::Refused),
    unary(MAINTENANCE, "Status", AtLearner::Served),
    unary(MAINTENANCE, "Alarm", AtLearner::Refused),
    unary(MAINTENANCE, "Defragment", AtLearner::Refused),
    unary(MAINTENANCE, "Hash", AtLearner::Refused),
    unary(MAINTENANCE, "HashKV", AtLearner::Refused),
    Method { kind: RpcKind::ServerStream, ..unary(MAINTENANCE, "Snapshot", AtLearner::Served) },
    unary(MAINTENANCE, "MoveLeader", AtLearner::Refused),
    unary(MAINTENANCE, "Downgrade", AtLearner::Refused),
    // What a probe or a person asks about the process is answered by every process.
    unary(super::HEALTH, "Check", AtLearner::Served),
    Method { kind: RpcKind::ServerStream, ..unary(super::HEALTH, "Watch", AtLearner::Served) },
    Method {
        kind: RpcKind::BidiStream,
        ..unary(super::REFLECTION, "ServerReflectionInfo", AtLearner::Served)
    },
    Method {
        kind: RpcKind::BidiStream,
        ..unary(super::REFLECTION_ALPHA, "ServerReflectionInfo", AtLearner::Served)
    },
];

/// Where the call of this path stands in [`METHODS`].
pub(super) fn find(path: &str) -> Option<usize> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    METHODS.iter().position(|method| method.name == name && method.service == service)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_call_of_every_service_of_the_client_port_is_listed() {
        let mut declared = BTreeSet::new();
        for descriptors in [
            crate::proto::CLIENT_DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            let files = FileDescriptorSet::decode(descriptors).expect("compiled in").file;
            for file in files {
                for service in &file.service {
                    let full_name = format!("{}.{}", file.package(), service.name());
                    if !super::super::CLIENT_SERVICES.contains(&full_name.as_str()) {
                        continue;
                    }
                    declared.extend(service.method.iter().map(|method| {
                        let kind = match (method.client_streaming(), method.server_streaming()) {
                            (false, false) => RpcKind::Unary,
                            (false, true) => RpcKind::ServerStream,
                            (true, _) => RpcKind::BidiStream,
                        };
                        (full_name.clone(), method.name().to_owned(), kind)
                    }));
                }
            }
        }
        let listed: BTreeSet<_> = METHODS
            .iter()
            .map(|method| (method.service.to_owned(), method.name.to_owned(), method.kind))
            .collect();
        assert_eq!(listed, declared);
        assert_eq!(listed.len(), METHODS.len(), "none is listed twice");
    }

    #[test]
    fn a_call_is_found_by_its_path_and_nothing_else_is() {
        for (at, method) in METHODS.iter().enumerate() {
            assert_eq!(find(&format!("/{}/{}", method.service, method.name)), Some(at));
        }
        for other in ["", "/", "/etcdserverpb.KV", "/etcdserverpb.KV/", "etcdserverpb.KV/Put"] {
            assert_eq!(find(other), None, "{other:?}");
        }
        assert_eq!(find("/etcdserverpb.KV/Put/"), None);
        assert_eq!(find("/etcdserverpb.Cluster/Put"), None);
    }
}
