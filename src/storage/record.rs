//! The records in a group, byte by byte: fixed widths, little endian, a kind in front.
//!
//! Checksums belong to the frame around them. What is decoded here has passed it, so a malformed
//! record is either a bug of the writer or a wonder; it is reported all the same, never assumed.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::raft::types::{
    Attributes, Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, Proposal,
    RequestId, SnapshotMeta, Term,
};

use super::identity::Identity;

const KIND_START: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_ENTRY: u8 = 3;
const KIND_SNAPSHOT: u8 = 4;
const KIND_RELEASE: u8 = 5;

const PAYLOAD_NOOP: u8 = 0;
const PAYLOAD_COMMAND: u8 = 1;
const PAYLOAD_CONFIG: u8 = 2;

/// In place of a count: the configuration says more than who votes and who learns.
const FULL_CONFIG: u16 = u16::MAX;

/// What opens a segment: all that was known when it began, so that the ones before may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub identity: Identity,
    /// The length of this segment's file.
    pub segment_bytes: u64,
    /// Where the segment before ended.
    pub previous_end_bytes: u64,
    /// The first segment still needed.
    pub keep_from: u64,
    pub hard_state: HardState,
    pub base: SnapshotMeta,
    /// The last entry of the log.
    pub last: EntryId,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogRecord {
    Start(Start),
    HardState(HardState),
    Entry(Entry),
    /// The log restarts after a snapshot that another member sent; no earlier segment is needed.
    Snapshot(SnapshotMeta),
    /// A snapshot of our own covers the log up to `base`; no segment before `keep_from` is needed.
    Release {
        base: SnapshotMeta,
        keep_from: u64,
    },
}

/// Why bytes are no record.
pub(super) type Malformed = &'static str;

pub(super) fn put_start(out: &mut Vec<u8>, start: &Start) {
    out.push(KIND_START);
    put_u64(out, start.identity.cluster_id);
    put_u64(out, start.identity.node_id.get());
    put_u64(out, start.segment_bytes);
    put_u64(out, start.previous_end_bytes);
    put_u64(out, start.keep_from);
    put_u64(out, start.last.index.0);
    put_u64(out, start.last.term.0);
    put_hard_state_fields(out, start.hard_state);
    put_meta(out, &start.base);
}

pub(super) fn put_hard_state(out: &mut Vec<u8>, hard_state: HardState) {
    out.push(KIND_HARD_STATE);
    put_hard_state_fields(out, hard_state);
}

pub(super) fn put_snapshot(out: &mut Vec<u8>, base: &SnapshotMeta) {
    out.push(KIND_SNAPSHOT);
    put_meta(out, base);
}

pub(super) fn put_release(out: &mut Vec<u8>, base: &SnapshotMeta, keep_from: u64) {
    out.push(KIND_RELEASE);
    put_u64(out, keep_from);
    put_meta(out, base);
}

pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(KIND_ENTRY);
    put_u64(out, entry.id.index.0);
    put_u64(out, entry.id.term.0);
    match &entry.payload {
        Payload::Noop => out.push(PAYLOAD_NOOP),
        Payload::Command(proposal) => {
            out.push(PAYLOAD_COMMAND);
            put_u64(out, proposal.id.origin.get());
            put_u64(out, proposal.id.sequence);
            let bytes = u32::try_from(proposal.data.len()).expect("requests are a few MiB at most");
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&proposal.data);
        }
        Payload::Config(config) => {
            out.push(PAYLOAD_CONFIG);
            put_config(out, config);
        }
    }
}

fn put_hard_state_fields(out: &mut Vec<u8>, hard_state: HardState) {
    put_u64(out, hard_state.term.0);
    put_u64(out, hard_state.vote.map_or(0, NodeId::get));
    put_u64(out, hard_state.commit.0);
}

/// Also what a snapshot file's header holds.
pub(super) fn put_meta(out: &mut Vec<u8>, meta: &SnapshotMeta) {
    put_u64(out, meta.last.index.0);
    put_u64(out, meta.last.term.0);
    put_config(out, &meta.config);
}

fn put_config(out: &mut Vec<u8>, config: &Configuration) {
    let Configuration {
        voters,
        outgoing,
        learners,
        promoting,
        removed,
        removed_upto,
        addresses,
        attributes,
        request,
    } = config;
    let plain = promoting.is_empty() && removed.is_empty() && addresses.is_empty();
    let plain = plain && *removed_upto == 0 && attributes.is_empty() && request.is_none();
    if !plain {
        out.extend_from_slice(&FULL_CONFIG.to_le_bytes());
    }
    for set in [voters, outgoing, learners] {
        put_ids(out, set);
    }
    if plain {
        return;
    }
    put_count(out, promoting.len());
    for (id, replaced) in promoting {
        put_u64(out, id.get());
        put_u64(out, replaced.map_or(0, NodeId::get));
    }
    put_ids(out, removed);
    put_u64(out, *removed_upto);
    put_count(out, addresses.len());
    for (id, address) in addresses {
        put_u64(out, id.get());
        put_text(out, address);
    }
    put_count(out, attributes.len());
    for (id, Attributes { name, client_addr }) in attributes {
        put_u64(out, id.get());
        put_text(out, name);
        put_text(out, client_addr);
    }
    put_u64(out, request.map_or(0, |request| request.origin.get()));
    put_u64(out, request.map_or(0, |request| request.sequence));
}

fn put_ids(out: &mut Vec<u8>, ids: &BTreeSet<NodeId>) {
    put_count(out, ids.len());
    for id in ids {
        put_u64(out, id.get());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("configurations are small");
    assert!(count < FULL_CONFIG, "configurations are small");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Takes records off the front of a group's body; the data of entries are slices of it.
pub(super) struct RecordReader {
    body: Bytes,
    at: usize,
}

impl RecordReader {
    pub(super) fn new(body: Bytes) -> Self {
        Self { body, at: 0 }
    }

    /// How far it has come.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next record, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<LogRecord>, Malformed> {
        if self.at == self.body.len() {
            return Ok(None);
        }
        let record = match self.u8()? {
            KIND_START => LogRecord::Start(self.start()?),
            KIND_HARD_STATE => LogRecord::HardState(self.hard_state()?),
            KIND_ENTRY => LogRecord::Entry(self.entry()?),
            KIND_SNAPSHOT => LogRecord::Snapshot(self.meta()?),
            KIND_RELEASE => {
                let keep_from = self.u64()?;
                LogRecord::Release { base: self.meta()?, keep_from }
            }
            _ => return Err("a record is of no known kind"),
        };
        Ok(Some(record))
    }

    fn start(&mut self) -> Result<Start, Malformed> {
        Ok(Start {
            identity: Identity { cluster_id: self.u64()?, node_id: self.node_id()? },
            segment_bytes: self.u64()?,
            previous_end_bytes: self.u64()?,
            keep_from: self.u64()?,
            last: self.entry_id()?,
            hard_state: self.hard_state()?,
            base: self.meta()?,
        })
    }

    fn hard_state(&mut self) -> Result<HardState, Malformed> {
        Ok(HardState {
            term: Term(self.u64()?),
            vote: NodeId::new(self.u64()?),
            commit: Index(self.u64()?),
        })
    }

    fn entry(&mut self) -> Result<Entry, Malformed> {
        let id = self.entry_id()?;
        let payload = match self.u8()? {
            PAYLOAD_NOOP => Payload::Noop,
            PAYLOAD_COMMAND => {
                let id = RequestId { origin: self.node_id()?, sequence: self.u64()? };
                let bytes = u32::from_le_bytes(self.array()?) as usize;
                let end = self.at.checked_add(bytes).filter(|end| *end <= self.body.len());
                let end = end.ok_or("an entry is longer than its group")?;
                let data = self.body.slice(self.at..end);
                self.at = end;
                Payload::Command(Proposal { id, data })
            }
            PAYLOAD_CONFIG => Payload::Config(self.config()?),
            _ => return Err("an entry is of no known kind"),
        };
        Ok(Entry { id, payload })
    }

    pub(super) fn meta(&mut self) -> Result<SnapshotMeta, Malformed> {
        Ok(SnapshotMeta { last: self.entry_id()?, config: self.config()? })
    }

    fn config(&mut self) -> Result<Configuration, Malformed> {
        let plain = self.body.get(self.at..self.at + 2) != Some(&FULL_CONFIG.to_le_bytes()[..]);
        self.at += if plain { 0 } else { 2 };
        let mut config = Configuration {
            voters: self.members()?,
            outgoing: self.members()?,
            learners: self.members()?,
            ..Configuration::default()
        };
        if plain {
            return Ok(config);
        }
        for _ in 0..self.count()? {
            let (id, replaced) = (self.node_id()?, NodeId::new(self.u64()?));
            if config.promoting.insert(id, replaced).is_some() {
                return Err("a configuration names a member twice");
            }
        }
        config.removed = self.members()?;
        config.removed_upto = self.u64()?;
        for _ in 0..self.count()? {
            let (id, address) = (self.node_id()?, self.text()?);
            if config.addresses.insert(id, address).is_some() {
                return Err("a configuration names a member twice");
            }
        }
        for _ in 0..self.count()? {
            let id = self.node_id()?;
            let attributes = Attributes { name: self.text()?, client_addr: self.text()? };
            if config.attributes.insert(id, attributes).is_some() {
                return Err("a configuration names a member twice");
            }
        }
        let (origin, sequence) = (NodeId::new(self.u64()?), self.u64()?);
        config.request = origin.map(|origin| RequestId { origin, sequence });
        Ok(config)
    }

    fn count(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.count()?);
        let end = self.at + length;
        let bytes = self.body.get(self.at..end).ok_or("a record ends early")?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a name or address is no text")?;
        let text = text.to_owned();
        self.at = end;
        Ok(text)
    }

    fn members(&mut self) -> Result<BTreeSet<NodeId>, Malformed> {
        let count = self.count()?;
        let mut members = BTreeSet::new();
        for _ in 0..count {
            if !members.insert(self.node_id()?) {
                return Err("a configuration names a member twice");
            }
        }
        Ok(members)
    }

    fn entry_id(&mut self) -> Result<EntryId, Malformed> {
        let index = Index(self.u64()?);
        Ok(EntryId { index, term: Term(self.u64()?) })
    }

    fn node_id(&mut self) -> Result<NodeId, Malformed> {
        NodeId::new(self.u64()?).ok_or("a member has the id 0")
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.body.get(self.at..self.at + N).ok_or("a record ends early")?;
        self.at += N;
        Ok(bytes.try_into().expect("N bytes were taken"))
    }
}
