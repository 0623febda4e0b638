//! Large responses as protobuf, without a copy of them: their length is known before a byte of
//! them is written, and each part is written when it is to be sent.
//!
//! The fields of a message may come in any order. So what is small of a message is encoded by
//! `prost`, and its keys are written behind that, by hand; of each key its value comes last.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::kv::{self, Found, KeyValueRef, Piece, ResponseOp};
use crate::proto::etcdserverpb as pb;

use super::convert;

/// `kvs` of a `RangeResponse`, `prev_kvs` of a `DeleteRangeResponse`.
const KVS: u32 = 2;
const PREV_KVS: u32 = 3;
/// `prev_kv` of a `PutResponse`.
const PREV_KV: u32 = 2;
/// `responses` of a `TxnResponse`.
const RESPONSES: u32 = 3;

/// Keys measured between two turns of other work.
const KEYS_MEASURED: usize = 16 * 1024;

/// A part of a message.
#[derive(Debug)]
pub(super) enum Part {
    /// As it is.
    Encoded(Bytes),
    /// These keys, each a field of this number.
    Keys(u32, Piece),
    /// This key.
    Key(u32, kv::KeyValue),
}

/// A message to be written part by part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) parts: VecDeque<Part>,
    /// Of the whole message.
    pub(super) len: u64,
}

impl Parts {
    /// The keys read, under `header`.
    pub(super) async fn range(
        header: pb::ResponseHeader,
        response: kv::RangeResponse<Found>,
    ) -> Self {
        let mut parts = Self::default();
        parts.add_range(header, response, &mut Pace::default()).await;
        parts
    }

    /// Keys were deleted, under `header`.
    pub(super) async fn delete_range(
        header: pb::ResponseHeader,
        response: kv::DeleteRangeResponse<Found>,
    ) -> Self {
        let mut parts = Self::default();
        parts.add_deletion(header, response, &mut Pace::default()).await;
        parts
    }

    /// A key was written, under `header`.
    pub(super) fn put(header: pb::ResponseHeader, response: kv::PutResponse) -> Self {
        let mut parts = Self::default();
        parts.add_put(header, response);
        parts
    }

    /// A transaction was done, under `header`.
    pub(super) async fn txn(header: pb::ResponseHeader, response: kv::TxnResponse<Found>) -> Self {
        let mut parts = Self::default();
        parts.add_txn(header, response, &mut Pace::default()).await;
        parts
    }

    async fn add_range(
        &mut self,
        header: pb::ResponseHeader,
        response: kv::RangeResponse<Found>,
        pace: &mut Pace,
    ) {
        let kv::RangeResponse { kvs, more, count, .. } = response;
        let head = pb::RangeResponse { header: Some(header), kvs: Vec::new(), more, count };
        self.add_message(&head);
        self.add_keys(KVS, kvs, pace).await;
    }

    async fn add_deletion(
        &mut self,
        header: pb::ResponseHeader,
        response: kv::DeleteRangeResponse<Found>,
        pace: &mut Pace,
    ) {
        let kv::DeleteRangeResponse { deleted, prev_kvs, .. } = response;
        let head = pb::DeleteRangeResponse { header: Some(header), deleted, prev_kvs: Vec::new() };
        self.add_message(&head);
        self.add_keys(PREV_KVS, prev_kvs, pace).await;
    }

    fn add_put(&mut self, header: pb::ResponseHeader, response: kv::PutResponse) {
        self.add_message(&pb::PutResponse { header: Some(header), prev_kv: None });
        if let Some(kv) = response.prev_kv {
            self.len += field_len(PREV_KV, key_value_len(&kv.by_reference()));
            self.parts.push_back(Part::Key(PREV_KV, kv));
        }
    }

    async fn add_txn(
        &mut self,
        header: pb::ResponseHeader,
        response: kv::TxnResponse<Found>,
        pace: &mut Pace,
    ) {
        let kv::TxnResponse { succeeded, responses, .. } = response;
        let head = pb::TxnResponse { header: Some(header), succeeded, responses: Vec::new() };
        self.add_message(&head);
        for response in responses {
            let (number, outcome) = Box::pin(Self::of_op(response, pace)).await;
            let op_len = field_len(number, outcome.len);
            let mut heads = Vec::new();
            encode_head(RESPONSES, op_len, &mut heads);
            encode_head(number, outcome.len, &mut heads);
            self.len += heads.len() as u64 + outcome.len;
            self.add_encoded(heads);
            self.append(outcome.parts);
        }
    }

    /// The outcome of one operation, and which field of a `ResponseOp` it is. The headers within a
    /// transaction hold a revision and nothing else.
    async fn of_op(response: ResponseOp<Found>, pace: &mut Pace) -> (u32, Self) {
        let mut parts = Self::default();
        let number = match response {
            ResponseOp::Range(range) => {
                parts.add_range(convert::inner_header(range.revision), range, pace).await;
                1
            }
            ResponseOp::Put(put) => {
                parts.add_put(convert::inner_header(put.revision), put);
                2
            }
            ResponseOp::DeleteRange(deletion) => {
                let header = convert::inner_header(deletion.revision);
                parts.add_deletion(header, deletion, pace).await;
                3
            }
            ResponseOp::Txn(txn) => {
                parts.add_txn(convert::inner_header(txn.revision), txn, pace).await;
                4
            }
        };
        (number, parts)
    }

    fn add_message(&mut self, message: &impl Message) {
        let encoded = message.encode_to_vec();
        self.len += encoded.len() as u64;
        self.add_encoded(encoded);
    }

    async fn add_keys(&mut self, number: u32, found: Found, pace: &mut Pace) {
        for piece in found.into_pieces() {
            self.len += piece.iter().map(|kv| field_len(number, key_value_len(&kv))).sum::<u64>();
            pace.measured(piece.len()).await;
            self.parts.push_back(Part::Keys(number, piece));
        }
    }

    fn add_encoded(&mut self, bytes: Vec<u8>) {
        self.parts.push_back(Part::Encoded(bytes.into()));
    }

    fn append(&mut self, mut parts: VecDeque<Part>) {
        self.parts.append(&mut parts);
    }
}

/// Lets other work have its turn.
#[derive(Default)]
struct Pace {
    keys: usize,
}

impl Pace {
    async fn measured(&mut self, keys: usize) {
        self.keys += keys;
        if self.keys >= KEYS_MEASURED {
            self.keys = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Writes a key as field `number`, but for the bytes of its value, which come next.
pub(super) fn encode_key_value(number: u32, kv: &KeyValueRef<'_>, out: &mut Vec<u8>) {
    encode_head(number, key_value_len(kv), out);
    if !kv.key.is_empty() {
        encode_head(1, kv.key.len() as u64, out);
        out.put_slice(kv.key);
    }
    for (number, value) in numbers(kv) {
        if value != 0 {
            encode_key(number, WireType::Varint, out);
            encode_varint(value.cast_unsigned(), out);
        }
    }
    if !kv.value.is_empty() {
        encode_head(5, kv.value.len() as u64, out);
    }
}

fn numbers(kv: &KeyValueRef<'_>) -> [(u32, i64); 4] {
    [(2, kv.create_revision), (3, kv.mod_revision), (4, kv.version), (6, kv.lease)]
}

fn key_value_len(kv: &KeyValueRef<'_>) -> u64 {
    let bytes = |number, bytes: &[u8]| match bytes.len() as u64 {
        0 => 0,
        len => field_len(number, len),
    };
    let integers = numbers(kv).into_iter().filter(|(_, value)| *value != 0);
    let integers = integers.map(|(_, value)| 1 + encoded_len_varint(value.cast_unsigned()) as u64);
    bytes(1, kv.key) + bytes(5, kv.value) + integers.sum::<u64>()
}

/// Of a field with a length, number and length included. All numbers here are below 16.
fn field_len(number: u32, len: u64) -> u64 {
    debug_assert!(number < 16);
    1 + encoded_len_varint(len) as u64 + len
}

fn encode_head(number: u32, len: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len, out);
}
