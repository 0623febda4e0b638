//! What a read has found, before it is copied anywhere: the states of the keys, whose bytes are
//! the store's own.
//!
//! A list of a million keys is held in pieces, so that to convert it, to encode it and to free it
//! can each be done a piece at a time.

use bytes::Bytes;

use super::key_index::Version;
use super::types::{
    DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, Response, ResponseOp, TxnResponse,
};

/// How many keys one piece has, about.
pub(super) const PIECE_KEYS: usize = 4096;

/// The keys of one answer, in order.
#[derive(Debug, Default)]
pub struct Found {
    pieces: Vec<Piece>,
    held_bytes: u64,
}

impl Found {
    /// Of `pieces`, none of them longer than a step of a scan may make it.
    pub(super) fn new(pieces: Vec<Vec<Version>>, held_bytes: u64) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Piece).collect();
        Self { pieces, held_bytes }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What it keeps in memory if the store should drop all of it meanwhile.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Its parts, in order.
    pub fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }

    /// All keys as values that stand by themselves. For a short list.
    pub fn to_list(&self) -> Vec<KeyValue> {
        let mut list = Vec::with_capacity(self.len());
        for piece in &self.pieces {
            list.extend(piece.0.iter().map(Version::to_key_value));
        }
        list
    }
}

/// Some keys in a row.
#[derive(Debug)]
pub struct Piece(Vec<Version>);

impl Piece {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    pub fn get(&self, place: usize) -> Option<KeyValueRef<'_>> {
        self.0.get(place).map(|version| KeyValueRef {
            key: version.key(),
            create_revision: version.create,
            mod_revision: version.main,
            version: version.version,
            value: version.value(),
            lease: version.lease,
        })
    }

    /// The value of one of them, sharing the bytes.
    pub fn value(&self, place: usize) -> Option<Bytes> {
        self.0.get(place).map(|version| version.to_key_value().value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = KeyValueRef<'_>> {
        (0..self.len()).filter_map(|place| self.get(place))
    }
}

/// A [`KeyValue`] whose bytes are the store's.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueRef<'a> {
    /// See [`KeyValue::key`].
    pub key: &'a [u8],
    /// See [`KeyValue::create_revision`].
    pub create_revision: i64,
    /// See [`KeyValue::mod_revision`].
    pub mod_revision: i64,
    /// See [`KeyValue::version`].
    pub version: i64,
    /// See [`KeyValue::value`].
    pub value: &'a [u8],
    /// See [`KeyValue::lease`].
    pub lease: i64,
}

impl KeyValueRef<'_> {
    /// What a found key like this holds in memory.
    pub fn held_bytes(&self) -> u64 {
        (size_of::<Version>() + self.key.len() + self.value.len()) as u64
    }
}

impl KeyValue {
    /// The same with its bytes borrowed.
    pub fn by_reference(&self) -> KeyValueRef<'_> {
        KeyValueRef {
            key: &self.key,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: &self.value,
            lease: self.lease,
        }
    }
}

impl RangeResponse<Found> {
    /// With a list that stands by itself.
    pub fn listed(self) -> RangeResponse {
        let Self { revision, kvs, more, count } = self;
        RangeResponse { revision, kvs: kvs.to_list(), more, count }
    }
}

impl PutResponse {
    fn held_bytes(&self) -> u64 {
        self.prev_kv.as_ref().map_or(0, |kv| kv.by_reference().held_bytes())
    }
}

impl DeleteRangeResponse<Found> {
    /// With a list that stands by itself.
    pub fn listed(self) -> DeleteRangeResponse {
        let Self { revision, deleted, prev_kvs } = self;
        DeleteRangeResponse { revision, deleted, prev_kvs: prev_kvs.to_list() }
    }
}

impl ResponseOp<Found> {
    fn held_bytes(&self) -> u64 {
        match self {
            Self::Range(range) => range.kvs.held_bytes(),
            Self::Put(put) => put.held_bytes(),
            Self::DeleteRange(deletion) => deletion.prev_kvs.held_bytes(),
            Self::Txn(txn) => txn.held_bytes(),
        }
    }

    fn listed(self) -> ResponseOp {
        match self {
            Self::Range(range) => ResponseOp::Range(range.listed()),
            Self::Put(put) => ResponseOp::Put(put),
            Self::DeleteRange(deletion) => ResponseOp::DeleteRange(deletion.listed()),
            Self::Txn(txn) => ResponseOp::Txn(txn.listed()),
        }
    }
}

impl TxnResponse<Found> {
    /// What its keys hold in memory.
    pub fn held_bytes(&self) -> u64 {
        self.responses.iter().map(ResponseOp::held_bytes).sum()
    }

    /// With lists that stand by themselves.
    pub fn listed(self) -> TxnResponse {
        let Self { revision, succeeded, responses } = self;
        let responses = responses.into_iter().map(ResponseOp::listed).collect();
        TxnResponse { revision, succeeded, responses }
    }
}

impl Response<Found> {
    /// What its keys hold in memory.
    pub fn held_bytes(&self) -> u64 {
        match self {
            Self::Put(put) => put.held_bytes(),
            Self::DeleteRange(deletion) => deletion.prev_kvs.held_bytes(),
            Self::Txn(txn) => txn.held_bytes(),
            Self::Compact(_) => 0,
        }
    }

    /// With lists that stand by themselves.
    pub fn listed(self) -> Response {
        match self {
            Self::Put(put) => Response::Put(put),
            Self::DeleteRange(deletion) => Response::DeleteRange(deletion.listed()),
            Self::Txn(txn) => Response::Txn(txn.listed()),
            Self::Compact(compaction) => Response::Compact(compaction),
        }
    }
}
