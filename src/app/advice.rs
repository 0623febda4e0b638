//! The way out of what ends a member at its data directory.
//!
//! An error of the storage names the file, the place and the evidence. The operator who reads it
//! also has to know what to do next, which depends on what this process was told: its id, its
//! directory, and where the other members are.

use std::path::PathBuf;

use crate::config::Config;
use crate::node::recovery;
use crate::raft::NodeId;
use crate::storage;

use super::start::{StartError, node_id};

/// Whose way out it is.
#[derive(Clone, Debug)]
pub(super) struct Advice {
    id: NodeId,
    directory: PathBuf,
    /// Peer addresses of other members, as far as the operator named them.
    others: Vec<String>,
}

impl Advice {
    pub(super) fn new(config: &Config) -> Self {
        let own = config.node_id;
        let peers = config.peers.iter().filter(|peer| peer.id != own).map(|peer| &peer.addr);
        let others = peers.chain(&config.join).cloned().collect();
        Self { id: node_id(config), directory: config.data_dir.clone(), others }
    }

    /// Why the node did not start, and what to do.
    pub(super) fn on_start(&self, error: &StartError) -> String {
        match error {
            StartError::Storage(error) => self.on_storage(error),
            StartError::Recovery(error) => self.on_recovery(error),
            StartError::Listen { .. }
            | StartError::NotTakenIn { .. }
            | StartError::System { .. } => error.to_string(),
        }
    }

    /// Why the state cannot be had from the disk, and what to do.
    pub(super) fn on_recovery(&self, error: &recovery::Error) -> String {
        match error {
            recovery::Error::Storage(error) => self.on_storage(error),
            recovery::Error::Snapshot { .. } => format!("{error}. {}", self.damaged()),
            recovery::Error::UnknownCommand { .. } => {
                format!("{error}. Start the release that wrote it, or a later one")
            }
        }
    }

    /// What is wrong with the disk, and what to do.
    pub(super) fn on_storage(&self, error: &storage::Error) -> String {
        let directory = self.directory.display();
        let what_to_do = match error {
            storage::Error::Corrupt { .. } => self.damaged(),
            storage::Error::Version { .. } => {
                "Start the release that wrote it, or a later one".to_owned()
            }
            storage::Error::ForeignDirectory { .. } => {
                "Give this member a RAFT_DATA_DIR of its own, or put RAFT_NODE_ID, \
                 RAFT_CLUSTER_TOKEN and the ids in RAFT_PEERS back to what they were when the \
                 directory was formed"
                    .to_owned()
            }
            storage::Error::Locked { .. } => {
                "Stop that process, or give this one a RAFT_DATA_DIR of its own".to_owned()
            }
            storage::Error::Io { .. }
            | storage::Error::NoRoom { .. }
            | storage::Error::Poisoned { .. }
                if error.is_full() =>
            {
                format!(
                    "Free space for {directory} and start the member again: what it has \
                     acknowledged is there"
                )
            }
            storage::Error::Io { .. }
            | storage::Error::NoRoom { .. }
            | storage::Error::Poisoned { .. } => format!(
                "Once the cause is gone, start the member again with the same directory; if the \
                 disk is lost, {}",
                self.replace()
            ),
        };
        format!("{error}. {what_to_do}")
    }

    /// What to do about a directory that is damaged. It is never repaired in place: what was cut
    /// out might have been acknowledged, and the member's votes with it.
    fn damaged(&self) -> String {
        format!(
            "Damage is not repaired in place: move {} away, and {}. The members without this one \
             must make a quorum; if they do not, only a whole copy of the directory brings its \
             data back",
            self.directory.display(),
            self.replace()
        )
    }

    /// How another member takes the place of this one.
    pub(super) fn replace(&self) -> String {
        let join = if self.others.is_empty() {
            "RAFT_JOIN with the peer addresses of the others".to_owned()
        } else {
            format!("RAFT_JOIN={}", self.others.join(","))
        };
        format!(
            "let a new member take its place: an empty directory, a RAFT_NODE_ID that was never \
             used, {join}, and RAFT_REPLACES={}",
            self.id
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::storage::Identity;

    fn advice(peers: &str) -> Advice {
        let environment = [
            ("RAFT_NODE_ID", "2"),
            ("RAFT_PEERS", peers),
            ("RAFT_DATA_DIR", "/data"),
            ("RAFT_CLUSTER_TOKEN", "token"),
        ];
        Advice::new(&Config::from_pairs(environment).expect("a valid configuration"))
    }

    #[test]
    fn every_failure_of_the_disk_names_a_way_out() {
        let path = || PathBuf::from("/data/wal-0000000001");
        let io = |kind: io::ErrorKind| storage::Error::Io {
            path: path(),
            op: "write",
            source: io::Error::from(kind),
        };
        let identity = |id| Identity { cluster_id: 7, node_id: NodeId::new(id).expect("positive") };
        let corrupt =
            storage::Error::Corrupt { path: path(), offset_bytes: 64, what: "rot".to_owned() };
        let foreign = storage::Error::ForeignDirectory {
            path: path(),
            found: identity(1),
            expected: identity(2),
        };
        let version = storage::Error::Version { path: path(), found: 9, supported: 1 };
        let table = [
            (corrupt, "RAFT_JOIN=node1:5001,node3:5001, and RAFT_REPLACES=2"),
            (version, "the release that wrote it"),
            (foreign, "RAFT_CLUSTER_TOKEN"),
            (storage::Error::Locked { path: path() }, "RAFT_DATA_DIR of its own"),
            (storage::Error::Poisoned { path: path() }, "start the member again"),
            (io(io::ErrorKind::StorageFull), "Free space for /data"),
            (io(io::ErrorKind::PermissionDenied), "RAFT_REPLACES=2"),
        ];
        let advice = advice("1=node1:5001,2=node2:5001,3=node3:5001");
        for (error, way_out) in table {
            let text = advice.on_storage(&error);
            assert!(text.starts_with(&error.to_string()) && text.contains(way_out), "{text}");
            assert!(!text.contains('\n'), "one line: {text}");
        }
    }

    #[test]
    fn a_member_that_knows_no_other_is_told_so() {
        let path = PathBuf::from("/data/wal-0000000001");
        let error = storage::Error::Corrupt { path, offset_bytes: 64, what: "rot".to_owned() };
        let text = advice("2=node2:5001").on_start(&StartError::Storage(error));
        assert!(text.contains("RAFT_JOIN with the peer addresses of the others"), "{text}");
        assert!(text.contains("only a whole copy of the directory"), "{text}");
    }
}
