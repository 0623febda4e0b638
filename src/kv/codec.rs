//! The primitives of this room's two binary forms, commands and snapshots: bytes with a length,
//! numbers in as few bytes as they need. What is written has one form only, and only that form is
//! read back: anything else is an error, never a guess and never a panic.

use bytes::{BufMut, Bytes};

/// Why bytes are not a command, or not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version.
    #[error("format version {0} is unknown")]
    Version(u8),
    /// A kind of thing that this version does not know.
    #[error("{what} of kind {kind} is unknown")]
    Kind {
        /// What it should be.
        what: &'static str,
        /// What it says it is.
        kind: u8,
    },
    /// The bytes end too soon.
    #[error("bytes end within {0}")]
    Truncated(&'static str),
    /// More bytes than belong to it.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    /// Not in the one form that it can have.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Transactions within transactions beyond the limit.
    #[error("nested too deeply")]
    TooDeep,
}

/// Writes an unsigned number: seven bits a byte, the lowest first.
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a signed number, small ones of either sign in few bytes.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
}

/// Writes bytes with their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads what was written, from the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    place: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, place: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.place == self.bytes.len()
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let byte = self.bytes.get(self.place).ok_or(DecodeError::Truncated(what))?;
        self.place += 1;
        Ok(*byte)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero would be another form of the same number.
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(DecodeError::Malformed(what)) };
            }
        }
        Err(DecodeError::Malformed(what))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.u64(what)?).map_err(|_| DecodeError::Malformed(what))
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let folded = self.u64(what)?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// Bytes, sharing the buffer's.
    pub(super) fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let begin = self.skip(what)?;
        Ok(self.bytes.slice(begin..self.place))
    }

    /// Bytes, borrowed.
    pub(super) fn slice(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let begin = self.skip(what)?;
        Ok(&self.bytes[begin..self.place])
    }

    /// Goes past bytes with their length; where they begin.
    fn skip(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let length = self.u32(what)? as usize;
        let begin = self.place;
        if length > self.bytes.len() - begin {
            return Err(DecodeError::Truncated(what));
        }
        self.place += length;
        Ok(begin)
    }

    /// That nothing follows.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.place {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
