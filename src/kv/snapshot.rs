//! The whole store as bytes, and back.
//!
//! A cursor fixes a revision and hands the history up to it out in chunks, while writes and
//! compactions go on. The chunks depend on that state alone: not on the member, on the progress of
//! physical compaction or on what was written meanwhile. So where they are cut aside, two members
//! make the same snapshot of the same state.
//!
//! A chunk is one byte for its kind and then
//!
//! - head (1), the first: format version, revision, compacted revision;
//! - versions (2): by key and then by age, each `create`, `version`, `lease`, revision (`main`,
//!   `sub`), key and value, to the end of the chunk;
//! - tail (3), the last: how many versions there were, and their [hash](super::hash).
//!
//! Files, transfer and their checksums are other rooms' business, and so is the log index to which
//! the state belongs.

use std::ops::Bound;

use bytes::Bytes;

use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::codec::{DecodeError, Reader, put_bytes, put_i64, put_u64};
use super::compaction::Pin;
use super::hash::Hasher;
use super::key::Key;
use super::key_index::{Builder, Fields, Version};
use super::revision::Revision;
use super::revision_log::RevisionLog;
use super::store::Store;

/// The only version of the format so far.
const FORMAT: u8 = 1;

const HEAD: u8 = 1;
const VERSIONS: u8 = 2;
const TAIL: u8 = 3;

/// Why a snapshot cannot be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// While it was made, another snapshot replaced the store.
    #[error("the store was replaced while its snapshot was made")]
    Replaced,
    /// A chunk is not what it should be.
    #[error("snapshot chunk: {0}")]
    Decode(#[from] DecodeError),
    /// The chunks do not make a store.
    #[error("snapshot: {0}")]
    Invalid(&'static str),
    /// Something was lost or changed.
    #[error("snapshot has {versions} versions with hash {hash:#010x}, not what its tail says")]
    Mismatch {
        /// How many there are.
        versions: u64,
        /// What they come to.
        hash: u32,
    },
}

/// A snapshot being made.
#[derive(Debug)]
pub struct SnapshotCursor {
    revision: i64,
    compacted: i64,
    /// Holds all the history, which begins at `compacted`.
    pin: Pin,
    stage: Stage,
    versions: u64,
    hasher: Hasher,
}

#[derive(Debug)]
enum Stage {
    Head,
    /// Go on behind this version, or from the start.
    Versions(Option<(Key, Revision)>),
    Tail,
    Done,
}

impl SnapshotCursor {
    /// Begins a snapshot of `store` as it is now.
    pub fn new(store: &Store) -> Self {
        Self {
            revision: store.revision,
            compacted: store.compacted,
            pin: store.pins.pin(store.compacted),
            stage: Stage::Head,
            versions: 0,
            hasher: Hasher::default(),
        }
    }

    /// The revision that it shows.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The next chunk, of not much more than `bytes_max` unless a single version is larger; none
    /// after the last.
    pub fn next_chunk(
        &mut self,
        store: &Store,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, SnapshotError> {
        if !self.pin.holds(store) {
            mark(Mark::ImageAbandoned);
            return Err(SnapshotError::Replaced);
        }
        let mut out = Vec::with_capacity(64);
        if matches!(self.stage, Stage::Head) {
            out.extend([HEAD, FORMAT]);
            put_i64(&mut out, self.revision);
            put_i64(&mut out, self.compacted);
            self.stage = Stage::Versions(None);
            return Ok(Some(out.into()));
        }
        if let Stage::Versions(after) = &mut self.stage {
            let after = after.take();
            out.reserve_exact(bytes_max.min(1 << 20) + 1024);
            out.push(VERSIONS);
            let last = self.fill(store, after.as_ref(), &mut out, bytes_max);
            self.stage = last.map_or(Stage::Tail, |last| Stage::Versions(Some(last)));
            if out.len() > 1 {
                return Ok(Some(out.into()));
            }
            out.clear();
        }
        if matches!(self.stage, Stage::Tail) {
            out.push(TAIL);
            put_u64(&mut out, self.versions);
            put_u64(&mut out, u64::from(self.hasher.clone().finish()));
            self.stage = Stage::Done;
            return Ok(Some(out.into()));
        }
        Ok(None)
    }

    /// Writes versions until there is enough; the last one written, or none if it was the last of
    /// all.
    fn fill(
        &mut self,
        store: &Store,
        after: Option<&(Key, Revision)>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Option<(Key, Revision)> {
        let begin = match after {
            Some((key, _)) => Bound::Included(key.as_slice()),
            None => Bound::Unbounded,
        };
        for (key, slot) in store.index.range((begin, Bound::Unbounded)) {
            let record = store.index.record(*slot);
            for version in record.retained(self.compacted, self.revision) {
                let written =
                    after.is_some_and(|(last, at)| last == key && version.revision() <= *at);
                if written {
                    continue;
                }
                put_version(out, version);
                self.versions += 1;
                self.hasher.add(version);
                if out.len() >= bytes_max {
                    return Some((key.clone(), version.revision()));
                }
            }
        }
        None
    }
}

fn put_version(out: &mut Vec<u8>, version: &Version) {
    put_i64(out, version.create);
    put_i64(out, version.version);
    put_i64(out, version.lease);
    put_i64(out, version.main);
    put_u64(out, u64::from(version.sub));
    put_bytes(out, version.key());
    put_bytes(out, version.value());
}

/// A store being built from the chunks of a snapshot. No bytes make it panic: what does not make
/// a sound store is an error.
#[derive(Debug, Default)]
pub struct SnapshotImport {
    head: Option<(i64, i64)>,
    builder: Builder,
    /// Which record changed when, of what is not yet compacted.
    changes: Vec<(Revision, u32)>,
    versions: u64,
    hasher: Hasher,
    done: bool,
}

impl SnapshotImport {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk.
    pub fn chunk(&mut self, bytes: &Bytes) -> Result<(), SnapshotError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("chunk")?;
        if self.done {
            return Err(SnapshotError::Invalid("a chunk follows the tail"));
        }
        match (kind, self.head) {
            (HEAD, None) => self.head(reader),
            (VERSIONS, Some((revision, compacted))) => {
                while !reader.is_empty() {
                    self.version(&mut reader, revision, compacted)?;
                }
                Ok(())
            }
            (TAIL, Some(_)) => self.tail(reader),
            (HEAD, Some(_)) => Err(SnapshotError::Invalid("a second head")),
            (VERSIONS | TAIL, None) => Err(SnapshotError::Invalid("no head in front")),
            (kind, _) => Err(DecodeError::Kind { what: "chunk", kind }.into()),
        }
    }

    /// The store, when all chunks have been taken.
    pub fn finish(mut self) -> Result<Store, SnapshotError> {
        let Some((revision, compacted)) = self.head.filter(|_| self.done) else {
            return Err(SnapshotError::Invalid("it ends before its tail"));
        };
        // Revisions begin after that of the empty store, and history with the compacted one.
        let first = compacted.max(Revision::EMPTY_MAIN + 1);
        self.changes.sort_unstable();
        let changes = RevisionLog::restore(first, revision, self.changes.into_iter());
        let mut store = Store::new();
        store.changes = changes.ok_or(SnapshotError::Invalid("changes are missing"))?;
        store.index = self.builder.finish();
        store.revision = revision;
        store.compacted = compacted;
        if mutant(Mutant::ImportForgetsCompaction) {
            store.compacted = Revision::NEVER_COMPACTED;
        }
        Ok(store)
    }

    fn head(&mut self, mut reader: Reader<'_>) -> Result<(), SnapshotError> {
        let format = reader.u8("format")?;
        if format != FORMAT {
            return Err(DecodeError::Version(format).into());
        }
        let (revision, compacted) = (reader.i64("revision")?, reader.i64("compacted revision")?);
        reader.end()?;
        let sound = revision >= Revision::EMPTY_MAIN
            && (Revision::NEVER_COMPACTED..=revision).contains(&compacted)
            && revision < i64::MAX;
        if !sound {
            return Err(SnapshotError::Invalid("impossible revisions"));
        }
        self.head = Some((revision, compacted));
        Ok(())
    }

    fn version(
        &mut self,
        reader: &mut Reader<'_>,
        revision: i64,
        compacted: i64,
    ) -> Result<(), SnapshotError> {
        let (create, version) = (reader.i64("creation")?, reader.i64("version")?);
        let lease = reader.i64("lease")?;
        let at = Revision { main: reader.i64("revision")?, sub: reader.u32("revision")? };
        let (key, value) = (reader.slice("key")?, reader.slice("value")?);
        let within = at.main > Revision::EMPTY_MAIN && at.main <= revision && at.sub < u32::MAX;
        let kind = if version == 0 {
            create == 0 && lease == 0 && value.is_empty() && at.main >= compacted
        } else {
            version > 0 && create > Revision::EMPTY_MAIN && create <= at.main
        };
        if key.is_empty() || !within || !kind {
            return Err(SnapshotError::Invalid("an impossible version"));
        }
        let fields = Fields { at, create, version, lease };
        let number = self.builder.push(key, value, &fields);
        let number = number.ok_or(SnapshotError::Invalid("versions out of order"))?;
        let record = self.builder.last().expect("one was just added");
        // Of what was compacted a key has one version at most: the one it had then.
        if record.retained(compacted, compacted).count() != record.upto(compacted) {
            return Err(SnapshotError::Invalid("compacted versions"));
        }
        if at.main >= compacted {
            self.changes.push((at, number));
        }
        self.versions += 1;
        self.hasher.add(record.head());
        Ok(())
    }

    fn tail(&mut self, mut reader: Reader<'_>) -> Result<(), SnapshotError> {
        let expected = (reader.u64("count")?, reader.u32("hash")?);
        reader.end()?;
        let (versions, hash) = (self.versions, self.hasher.clone().finish());
        if (versions, hash) != expected {
            return Err(SnapshotError::Mismatch { versions, hash });
        }
        self.done = true;
        Ok(())
    }
}
