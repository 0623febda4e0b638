//! Whose data this is: a small text file that an operator can read and a member checks first.
//!
//! It is the last thing that a first start makes durable, so its presence says that the log was
//! formed: a directory with an identity and no log has lost the log, and with it the votes.

use std::fmt;

use crate::raft::types::NodeId;

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};

pub(super) const FILE: &str = "identity";
const FILE_NEW: &str = "identity.tmp";
const VERSION: u32 = 1;
const TITLE: &str = "raft-node data directory";
/// More than any version is likely to need; a longer file is not ours.
const FILE_BYTES_MAX: usize = 4096;

/// One member of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub node_id: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {:016x}", self.node_id, self.cluster_id)
    }
}

impl Identity {
    pub(super) fn render(self) -> String {
        let body = format!(
            "{TITLE}\nversion {VERSION}\ncluster {:016x}\nnode {}\n",
            self.cluster_id, self.node_id
        );
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    /// Refuses `self` where `found` is somebody else.
    pub(super) fn check<D: Disk>(self, disk: &D, file: &str, found: Self) -> Result<(), Error> {
        if found == self {
            return Ok(());
        }
        Err(Error::ForeignDirectory { path: disk.path(file), found, expected: self })
    }
}

/// What the directory says of itself; `None` if it says nothing, as an empty one does.
pub fn read<D: Disk>(disk: &D) -> Result<Option<Identity>, Error> {
    let path = || disk.path(FILE);
    let file = match disk.open(FILE, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Io { path: path(), op: "open", source });
        }
    };
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let count = file.read_at(&mut bytes, 0).context("read", path)?;
    bytes.truncate(count);
    let damaged = |what| Error::corrupt(path(), 0, what);
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("the identity is not text"))?;
    let body_bytes =
        text.rfind("crc32c ").ok_or_else(|| damaged("the identity has no checksum"))?;
    let (body, sum) = text.split_at(body_bytes);
    if sum != format!("crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("the identity's checksum differs"));
    }
    let mut lines = body.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("this is not an identity"));
    }
    let mut field = |name: &str| {
        lines.next().and_then(|line| line.strip_prefix(name)).and_then(|s| s.strip_prefix(' '))
    };
    let version: Option<u32> = field("version").and_then(|value| value.parse().ok());
    match version {
        Some(VERSION) => {}
        Some(found) => {
            return Err(Error::Version { path: path(), found, supported: VERSION });
        }
        None => return Err(damaged("the identity has no version")),
    }
    let cluster = field("cluster").and_then(|value| u64::from_str_radix(value, 16).ok());
    let node = field("node").and_then(|value| value.parse().ok()).and_then(NodeId::new);
    match (cluster, node) {
        (Some(cluster_id), Some(node_id)) => Ok(Some(Identity { cluster_id, node_id })),
        _ => Err(damaged("the identity names no cluster or no node")),
    }
}

/// Makes the directory say that it is `identity`'s: all of it or nothing.
pub(super) fn write<D: Disk>(disk: &D, identity: Identity) -> Result<(), Error> {
    replace(disk, FILE, FILE_NEW, &identity.render())
}

/// Gives the small file `name` a new content by way of `temporary`: all of it or nothing, and
/// durable when this returns.
pub(super) fn replace<D: Disk>(
    disk: &D,
    name: &str,
    temporary: &str,
    content: &str,
) -> Result<(), Error> {
    let new = || disk.path(temporary);
    match disk.remove(temporary) {
        // What a crash here may have left.
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Io { path: new(), op: "remove", source });
        }
    }
    let file = disk.open(temporary, Access::Create).context("create", new)?;
    file.write_at(content.as_bytes(), 0).context("write", new)?;
    file.sync_data().context("sync", new)?;
    disk.rename(temporary, name).context("rename", new)?;
    disk.sync_dir().context("sync the directory", || disk.path(""))
}
