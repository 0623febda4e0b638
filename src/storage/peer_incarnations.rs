//! Which life of each member is met: a small text file with this directory's own number, and the
//! number of every peer as it was when it was first heard of.
//!
//! A member that comes back under its old id with an empty directory has forgotten what it
//! promised. Its new directory has another number, by which those who met the old one know it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::raft::types::NodeId;
use crate::testpoints::{Mutant, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};
use super::identity;

const FILE: &str = "instances";
const FILE_NEW: &str = "instances.tmp";
/// Room for thousands of members that ever were.
const FILE_BYTES_MAX: usize = 1 << 20;

/// By which number each peer is known.
type Met = BTreeMap<NodeId, u64>;

/// The numbers, in memory and on disk.
#[derive(Debug)]
pub struct PeerIncarnations<D: Disk> {
    disk: D,
    own: u64,
    met: Met,
}

impl<D: Disk> PeerIncarnations<D> {
    /// What the directory remembers. If that is nothing, it is `fresh` from now on, which is not
    /// zero and drawn at random.
    pub fn open(disk: &D, fresh: u64) -> Result<Self, Error> {
        assert!(fresh != 0, "zero stands for a number that is not told");
        let disk = disk.clone();
        if let Some((own, met)) = read(&disk)? {
            return Ok(Self { disk, own, met });
        }
        let instances = Self { disk, own: fresh, met: BTreeMap::new() };
        instances.write()?;
        Ok(instances)
    }

    /// This directory's own number.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Whether `peer` is the one that was met under its id. A `member` that is met for the first
    /// time, and says who it is, is remembered, durably when this returns. Nobody else is: whoever
    /// reaches a port could fill the disk with ids that it made up, or take the place of a member
    /// that is yet to come.
    pub fn meet(
        &mut self,
        peer: NodeId,
        instance: Option<u64>,
        member: bool,
    ) -> Result<bool, Error> {
        if let Some(met) = self.met.get(&peer) {
            return Ok(instance == Some(*met));
        }
        if let Some(instance) = instance
            && (member || mutant(Mutant::GuestRemembered))
        {
            self.met.insert(peer, instance);
            self.write()?;
        }
        Ok(true)
    }

    fn write(&self) -> Result<(), Error> {
        identity::replace(&self.disk, FILE, FILE_NEW, &render(self.own, &self.met))
    }
}

fn render(own: u64, met: &Met) -> String {
    let mut body = format!("own {own:016x}\n");
    for (peer, instance) in met {
        writeln!(body, "node {peer} {instance:016x}").expect("a string takes everything");
    }
    format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn read<D: Disk>(disk: &D) -> Result<Option<(u64, Met)>, Error> {
    let path = || disk.path(FILE);
    let file = match disk.open(FILE, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path(), op: "open", source }),
    };
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0).context("read", path)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    parse(&text)
        .filter(|(own, met)| text == render(*own, met))
        .map(Some)
        .ok_or_else(|| Error::corrupt(path(), 0, "the instance numbers are not what was written"))
}

fn parse(text: &str) -> Option<(u64, Met)> {
    let number = |raw: &str| u64::from_str_radix(raw, 16).ok();
    let mut lines = text.lines();
    let own = number(lines.next()?.strip_prefix("own ")?)?;
    let peers = lines.filter_map(|line| line.strip_prefix("node ")).map(|line| {
        let (peer, instance) = line.split_once(' ')?;
        Some((NodeId::new(peer.parse().ok()?)?, number(instance)?))
    });
    Some((own, peers.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::RealDisk;

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).expect("positive")
    }

    #[test]
    fn the_first_that_is_met_is_the_only_one_across_restarts() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("a disk");
        let mut instances = PeerIncarnations::open(&disk, 7).expect("opens");
        assert!(instances.meet(id(2), Some(20), true).expect("writes"));
        assert!(instances.meet(id(3), Some(u64::MAX), true).expect("writes"));
        assert!(!instances.meet(id(2), Some(21), true).expect("reads"));
        let mut again = PeerIncarnations::open(&disk, 8).expect("opens");
        assert_eq!(again.own(), 7, "a directory keeps its number");
        assert!(again.meet(id(2), Some(20), true).expect("reads"));
        assert!(again.meet(id(3), Some(u64::MAX), true).expect("reads"));
        assert!(!again.meet(id(3), Some(1), true).expect("reads"));
        assert!(!again.meet(id(3), Some(1), false).expect("reads"), "nor as a guest");
        assert!(!again.meet(id(3), None, true).expect("reads"), "it has to say who it is");
    }

    #[test]
    fn who_is_no_member_is_not_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("a disk");
        let mut instances = PeerIncarnations::open(&disk, 7).expect("opens");
        let whole = std::fs::read(directory.path().join(FILE)).expect("reads");
        for made_up in 1..100 {
            assert!(instances.meet(id(made_up), Some(made_up), false).expect("nothing fails"));
            assert!(instances.meet(id(made_up), None, true).expect("nothing fails"));
        }
        assert_eq!(std::fs::read(directory.path().join(FILE)).expect("reads"), whole);
        assert!(instances.meet(id(4), Some(40), true).expect("writes"), "no place is taken");
    }

    #[test]
    fn damage_is_told_and_not_guessed() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("a disk");
        PeerIncarnations::open(&disk, 7)
            .expect("opens")
            .meet(id(2), Some(20), true)
            .expect("writes");
        let whole = std::fs::read(directory.path().join(FILE)).expect("reads");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(directory.path().join(FILE), damaged).expect("writes");
            let error = PeerIncarnations::open(&disk, 8).expect_err("damaged");
            assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}");
        }
    }
}
