//! One file of the log: its name, and reading it group by group.
//!
//! A [`GroupReader`] verifies everything it hands out and holds one block of the file at a time.
//! Where the groups end it says whether nothing was ever written there or a write was torn; for
//! anything that no crash explains it reports damage. Whether an end is allowed *here* is for
//! recovery to judge, which sees the other segments.

use std::path::PathBuf;

use bytes::Bytes;

use crate::testpoints::{Mutant, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};
use super::frame::{self, ALIGN_BYTES, Body, HEADER_BYTES, Header, HeaderBytes, Place, VERSION};

const NAME_PREFIX: &str = "wal-";
const SPARE_PREFIX: &str = "spare-";
/// The file that becomes a segment when there is no room for any other.
pub(super) const RESERVE: &str = "reserve";
/// One read. Bounds what recovery holds, but for a group that is larger.
const BLOCK_BYTES: usize = 256 << 10;

/// The name of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("{NAME_PREFIX}{number:010}")
}

/// The number in a segment's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    parse(name, NAME_PREFIX)
}

/// The name of a file that will become a segment.
pub(super) fn spare_name(number: u64) -> String {
    format!("{SPARE_PREFIX}{number:010}")
}

/// The number in a spare's name.
pub(super) fn parse_spare_name(name: &str) -> Option<u64> {
    parse(name, SPARE_PREFIX)
}

fn parse(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    if digits.len() < 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A group that passed every check.
#[derive(Debug)]
pub(super) struct Group {
    pub header: Header,
    pub body: Bytes,
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(super) enum Next {
    Group(Group),
    /// No group: nothing was written here, or it did not arrive whole.
    End,
}

/// Reads a segment's groups in order.
pub(super) struct GroupReader<D: Disk> {
    disk: D,
    name: String,
    file: D::File,
    file_bytes: u64,
    place: Place,
    /// The highest offset that a group vouched for.
    durable_bytes: u64,
    block: Vec<u8>,
    block_at_bytes: u64,
}

impl<D: Disk> GroupReader<D> {
    /// Opens segment `number`, at its first group. Any previous link is taken for that one.
    pub(super) fn open(disk: &D, number: u64) -> Result<Self, Error> {
        let name = name(number);
        let path = || disk.path(&name);
        let file = disk.open(&name, Access::Read).context("open", path)?;
        let file_bytes = file.len_bytes().context("read", path)?;
        Ok(Self {
            disk: disk.clone(),
            file,
            file_bytes,
            name,
            place: Place { segment: number, offset_bytes: 0, previous: 0 },
            durable_bytes: 0,
            block: Vec::new(),
            block_at_bytes: 0,
        })
    }

    /// Where the next group is expected.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The highest offset that a group so far vouched to be durable.
    pub(super) fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(super) fn path(&self) -> PathBuf {
        self.disk.path(&self.name)
    }

    /// The group at the place, and on to the next; at an end, stays.
    pub(super) fn next(&mut self) -> Result<Next, Error> {
        let at = self.place.offset_bytes;
        if at + HEADER_BYTES as u64 > self.file_bytes {
            return Ok(Next::End);
        }
        let header = match self.header_at(at)? {
            HeaderBytes::Blank => return Ok(Next::End),
            HeaderBytes::Valid(header) => header,
            HeaderBytes::Future(version) => return Err(self.future(version)),
            HeaderBytes::Damaged => return Err(self.corrupt(at, "a header's checksum differs")),
        };
        // The first group's link is checked by the caller, which knows the segment before.
        let unchecked = at == 0 || mutant(Mutant::ChainUnchecked);
        let expected = Place {
            previous: if unchecked { header.place.previous } else { self.place.previous },
            ..self.place
        };
        if header.place != expected {
            return Err(self.corrupt(at, displaced(header.place, expected)));
        }
        if header.durable_bytes > at || header.end_bytes() > self.file_bytes {
            return Err(self.corrupt(at, "a header contradicts its file"));
        }
        let stored_bytes = header.stored_bytes() as usize;
        match frame::open_body(&header, self.bytes_at(at + HEADER_BYTES as u64, stored_bytes)?) {
            Body::Valid(body) => {
                self.durable_bytes = self.durable_bytes.max(header.durable_bytes);
                self.place.previous = header.link;
                self.place.offset_bytes = header.end_bytes();
                Ok(Next::Group(Group { header, body }))
            }
            Body::Torn => Ok(Next::End),
            Body::Damaged => Err(self.corrupt(at, "a group's checksum differs")),
        }
    }

    /// Judges what lies at and after the place, where the groups ended: `false` if all is blank,
    /// `true` if there are remains of writes that were never acknowledged. A group there that
    /// vouches for more than what was found proves that acknowledged data is gone.
    pub(super) fn examine_rest(&mut self) -> Result<bool, Error> {
        let end = self.place.offset_bytes;
        let mut at = end;
        let mut remains = false;
        while at < self.file_bytes {
            let bytes = (self.file_bytes - at).min(BLOCK_BYTES as u64) as usize;
            if frame::is_blank(self.bytes_at(at, bytes)?) {
                at += bytes as u64;
                continue;
            }
            remains = true;
            let block_end = at + bytes as u64;
            while at + HEADER_BYTES as u64 <= block_end {
                if let HeaderBytes::Valid(header) = self.header_at(at)?
                    && header.place.segment == self.place.segment
                    && header.place.offset_bytes == at
                    && header.durable_bytes > end
                    && !mutant(Mutant::VouchIgnored)
                {
                    let what = format!("the group at byte {at} proves that more was durable");
                    return Err(self.corrupt(end, what));
                }
                at += ALIGN_BYTES as u64;
            }
            at = block_end;
        }
        Ok(remains)
    }

    pub(super) fn corrupt(&self, at_bytes: u64, what: impl Into<String>) -> Error {
        Error::corrupt(self.path(), at_bytes, what)
    }

    fn future(&self, version: u16) -> Error {
        Error::Version { path: self.path(), found: version.into(), supported: VERSION.into() }
    }

    fn header_at(&mut self, at_bytes: u64) -> Result<HeaderBytes, Error> {
        let bytes = self.bytes_at(at_bytes, HEADER_BYTES)?;
        Ok(Header::decode(bytes.try_into().expect("a header's length was asked for")))
    }

    /// Exactly `bytes` bytes of the file, through the block.
    fn bytes_at(&mut self, at_bytes: u64, bytes: usize) -> Result<&[u8], Error> {
        let held = self.block_at_bytes..self.block_at_bytes + self.block.len() as u64;
        if at_bytes < held.start || at_bytes + bytes as u64 > held.end {
            let wanted = (self.file_bytes - at_bytes).min(BLOCK_BYTES.max(bytes) as u64) as usize;
            self.block.resize(wanted, 0);
            self.block_at_bytes = at_bytes;
            let count = self
                .file
                .read_at(&mut self.block, at_bytes)
                .context("read", || self.disk.path(&self.name))?;
            self.block.truncate(count);
        }
        let from = (at_bytes - self.block_at_bytes) as usize;
        match self.block.get(from..from + bytes) {
            Some(found) => Ok(found),
            None => Err(Error::corrupt(self.disk.path(&self.name), at_bytes, "the file shrank")),
        }
    }
}

fn displaced(found: Place, expected: Place) -> String {
    if (found.segment, found.offset_bytes) == (expected.segment, expected.offset_bytes) {
        return "a group does not continue the one before it".to_owned();
    }
    format!("here lies the group of segment {} byte {}", found.segment, found.offset_bytes)
}
