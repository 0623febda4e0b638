//! Commands: what stands in the log, and how.
//!
//! A command is a byte for the version of the format, a byte for its kind, and its fields in
//! order. Every member decodes the same bytes to the same command or to the same error. A new
//! kind gets a new number and a new field a new version, so that a member too old for a command
//! stops in front of it instead of applying half of it. Kinds from 5 on are for leases, users and
//! alarms.

use bytes::Bytes;

use super::codec::{self, DecodeError, Reader, put_bytes, put_i64};
use super::types::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};
use super::validate::TXN_DEPTH_MAX;

/// The only version so far.
const VERSION: u8 = 1;

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Writes a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// Does several things at one revision, under conditions.
    Txn(TxnRequest),
    /// Forgets history.
    Compact(CompactionRequest),
}

impl Command {
    /// The bytes for the log. Panics if transactions are nested beyond [`TXN_DEPTH_MAX`], which
    /// validation refuses: no member could decode what would stand in every log.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        out.push(VERSION);
        match self {
            Self::Put(request) => {
                out.push(1);
                put_put(&mut out, request);
            }
            Self::DeleteRange(request) => {
                out.push(2);
                put_delete(&mut out, request);
            }
            Self::Txn(request) => {
                out.push(3);
                put_txn(&mut out, request, TXN_DEPTH_MAX);
            }
            Self::Compact(request) => {
                out.push(4);
                put_i64(&mut out, request.revision);
            }
        }
        out.into()
    }

    /// The command that `bytes` are, sharing them. A member that meets an error in a committed
    /// entry must stop: to go on without the command would be to leave the other members.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("command")?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let command = match reader.u8("command")? {
            1 => Self::Put(read_put(&mut reader)?),
            2 => Self::DeleteRange(read_delete(&mut reader)?),
            3 => Self::Txn(read_txn(&mut reader, TXN_DEPTH_MAX)?),
            4 => Self::Compact(CompactionRequest { revision: reader.i64("revision")? }),
            kind => {
                return Err(DecodeError::Kind { what: "command", kind });
            }
        };
        reader.end()?;
        Ok(command)
    }

    /// What applying it could add to the data, as etcd counts it against the quota: of a
    /// transaction the dearer branch.
    pub fn cost_bytes(&self) -> u64 {
        match self {
            Self::Put(request) => put_cost(request),
            Self::Txn(request) => txn_cost(request),
            Self::DeleteRange(_) | Self::Compact(_) => 0,
        }
    }

    /// Whether it names every key that it looks at, one by one, so that applying it takes no longer
    /// than its size lets expect. Ranges, and forgetting history, can take as long as the store is
    /// large.
    pub fn names_its_keys(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::DeleteRange(request) => request.range_end.is_empty(),
            Self::Txn(request) => txn_names_its_keys(request),
            Self::Compact(_) => false,
        }
    }

    /// Enough for most commands' bytes.
    fn size_hint(&self) -> usize {
        match self {
            Self::Put(request) => 32 + request.key.len() + request.value.len(),
            Self::DeleteRange(request) => 32 + request.key.len() + request.range_end.len(),
            Self::Txn(_) => 512,
            Self::Compact(_) => 16,
        }
    }
}

fn txn_names_its_keys(request: &TxnRequest) -> bool {
    request.compare.iter().all(|compare| compare.range_end.is_empty())
        && request.success.iter().chain(&request.failure).all(|op| match op {
            RequestOp::Put(_) => true,
            RequestOp::Range(request) => request.range_end.is_empty(),
            RequestOp::DeleteRange(request) => request.range_end.is_empty(),
            RequestOp::Txn(inner) => txn_names_its_keys(inner),
        })
}

fn put_cost(request: &PutRequest) -> u64 {
    const OVERHEAD_BYTES: usize = 256;
    (OVERHEAD_BYTES + request.key.len() + request.value.len()) as u64
}

fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| {
        let costs = ops.iter().map(|op| match op {
            RequestOp::Put(request) => put_cost(request),
            RequestOp::Txn(inner) => txn_cost(inner),
            RequestOp::Range(_) | RequestOp::DeleteRange(_) => 0,
        });
        costs.sum::<u64>()
    };
    branch(&request.success).max(branch(&request.failure))
}

fn flags<const N: usize>(bits: [bool; N]) -> u8 {
    bits.iter().enumerate().map(|(place, bit)| u8::from(*bit) << place).sum()
}

fn read_flags<const N: usize>(reader: &mut Reader<'_>) -> Result<[bool; N], DecodeError> {
    let bits = reader.u8("flags")?;
    if u32::from(bits) >> N != 0 {
        return Err(DecodeError::Malformed("flags"));
    }
    Ok(std::array::from_fn(|place| bits >> place & 1 == 1))
}

fn put_put(out: &mut Vec<u8>, request: &PutRequest) {
    out.push(flags([request.prev_kv, request.ignore_value, request.ignore_lease]));
    put_bytes(out, &request.key);
    put_bytes(out, &request.value);
    put_i64(out, request.lease);
}

fn read_put(reader: &mut Reader<'_>) -> Result<PutRequest, DecodeError> {
    let [prev_kv, ignore_value, ignore_lease] = read_flags(reader)?;
    Ok(PutRequest {
        key: reader.bytes("key")?,
        value: reader.bytes("value")?,
        lease: reader.i64("lease")?,
        prev_kv,
        ignore_value,
        ignore_lease,
    })
}

fn put_delete(out: &mut Vec<u8>, request: &DeleteRangeRequest) {
    out.push(flags([request.prev_kv]));
    put_bytes(out, &request.key);
    put_bytes(out, &request.range_end);
}

fn read_delete(reader: &mut Reader<'_>) -> Result<DeleteRangeRequest, DecodeError> {
    let [prev_kv] = read_flags(reader)?;
    let (key, range_end) = (reader.bytes("key")?, reader.bytes("range end")?);
    Ok(DeleteRangeRequest { key, range_end, prev_kv })
}

fn put_range(out: &mut Vec<u8>, request: &RangeRequest) {
    out.push(flags([request.keys_only, request.count_only]));
    out.push(match request.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    out.push(match request.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    put_bytes(out, &request.key);
    put_bytes(out, &request.range_end);
    for number in [
        request.limit,
        request.revision,
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ] {
        put_i64(out, number);
    }
}

fn read_range(reader: &mut Reader<'_>) -> Result<RangeRequest, DecodeError> {
    let [keys_only, count_only] = read_flags(reader)?;
    let sort_order = match reader.u8("sort order")? {
        0 => SortOrder::None,
        1 => SortOrder::Ascend,
        2 => SortOrder::Descend,
        kind => {
            return Err(DecodeError::Kind { what: "sort order", kind });
        }
    };
    let sort_target = match reader.u8("sort target")? {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        kind => {
            return Err(DecodeError::Kind { what: "sort target", kind });
        }
    };
    Ok(RangeRequest {
        key: reader.bytes("key")?,
        range_end: reader.bytes("range end")?,
        limit: reader.i64("limit")?,
        revision: reader.i64("revision")?,
        sort_order,
        sort_target,
        keys_only,
        count_only,
        min_mod_revision: reader.i64("revision bound")?,
        max_mod_revision: reader.i64("revision bound")?,
        min_create_revision: reader.i64("revision bound")?,
        max_create_revision: reader.i64("revision bound")?,
    })
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    out.push(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    });
    let (kind, number) = match &compare.target {
        CompareTarget::Version(number) => (0, *number),
        CompareTarget::Create(number) => (1, *number),
        CompareTarget::Mod(number) => (2, *number),
        CompareTarget::Value(_) => (3, 0),
        CompareTarget::Lease(number) => (4, *number),
    };
    out.push(kind);
    match &compare.target {
        CompareTarget::Value(value) => put_bytes(out, value),
        CompareTarget::Version(_)
        | CompareTarget::Create(_)
        | CompareTarget::Mod(_)
        | CompareTarget::Lease(_) => put_i64(out, number),
    }
    put_bytes(out, &compare.key);
    put_bytes(out, &compare.range_end);
}

fn read_compare(reader: &mut Reader<'_>) -> Result<Compare, DecodeError> {
    let result = match reader.u8("comparison")? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        kind => {
            return Err(DecodeError::Kind { what: "comparison", kind });
        }
    };
    let target = match reader.u8("comparison target")? {
        0 => CompareTarget::Version(reader.i64("version")?),
        1 => CompareTarget::Create(reader.i64("revision")?),
        2 => CompareTarget::Mod(reader.i64("revision")?),
        3 => CompareTarget::Value(reader.bytes("value")?),
        4 => CompareTarget::Lease(reader.i64("lease")?),
        kind => {
            return Err(DecodeError::Kind { what: "comparison target", kind });
        }
    };
    let (key, range_end) = (reader.bytes("key")?, reader.bytes("range end")?);
    Ok(Compare { key, range_end, result, target })
}

fn put_txn(out: &mut Vec<u8>, request: &TxnRequest, depth_max: usize) {
    assert!(depth_max > 0, "a transaction is validated before it is encoded");
    codec::put_u64(out, request.compare.len() as u64);
    for compare in &request.compare {
        put_compare(out, compare);
    }
    for ops in [&request.success, &request.failure] {
        codec::put_u64(out, ops.len() as u64);
        for op in ops {
            put_op(out, op, depth_max);
        }
    }
}

fn put_op(out: &mut Vec<u8>, op: &RequestOp, depth_max: usize) {
    match op {
        RequestOp::Range(request) => {
            out.push(0);
            put_range(out, request);
        }
        RequestOp::Put(request) => {
            out.push(1);
            put_put(out, request);
        }
        RequestOp::DeleteRange(request) => {
            out.push(2);
            put_delete(out, request);
        }
        RequestOp::Txn(request) => {
            out.push(3);
            put_txn(out, request, depth_max - 1);
        }
    }
}

fn read_txn(reader: &mut Reader<'_>, depth_max: usize) -> Result<TxnRequest, DecodeError> {
    if depth_max == 0 {
        return Err(DecodeError::TooDeep);
    }
    let compare = read_list(reader, read_compare)?;
    let success = read_list(reader, |reader| read_op(reader, depth_max))?;
    let failure = read_list(reader, |reader| read_op(reader, depth_max))?;
    Ok(TxnRequest { compare, success, failure })
}

fn read_op(reader: &mut Reader<'_>, depth_max: usize) -> Result<RequestOp, DecodeError> {
    match reader.u8("operation")? {
        0 => Ok(RequestOp::Range(read_range(reader)?)),
        1 => Ok(RequestOp::Put(read_put(reader)?)),
        2 => Ok(RequestOp::DeleteRange(read_delete(reader)?)),
        3 => Ok(RequestOp::Txn(read_txn(reader, depth_max - 1)?)),
        kind => Err(DecodeError::Kind { what: "operation", kind }),
    }
}

/// Reads a list. Its length is not believed: memory is taken as items turn out to be there.
fn read_list<T>(
    reader: &mut Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u64("list")?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
