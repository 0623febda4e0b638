//! The encoding of the members' own protocol: each message ends with a checksum of its bytes.
//!
//! TCP's checksum is 16 bits, and what a machine on the way does to a frame it covers anew. The
//! checksum is put where protobuf has the last field of a message, as number 15 and `fixed32`: a
//! reader that knows nothing of it passes over it. A message without one, or with another, is
//! refused, and its stream or call ends with it.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::testpoints::{Mutant, mutant};

/// Field 15, `fixed32`. No message uses it otherwise.
const TAG: u8 = 15 << 3 | 5;
/// The tag and the checksum.
const SEAL_BYTES: usize = 5;
/// A buffer larger than that is not kept for the next message.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Puts a message and its checksum behind what `bytes` holds.
pub fn seal(message: &impl Message, bytes: &mut Vec<u8>) {
    let from = bytes.len();
    bytes.reserve(message.encoded_len() + SEAL_BYTES);
    message.encode_raw(bytes);
    let sum = crc32c::crc32c(&bytes[from..]);
    bytes.put_u8(TAG);
    bytes.put_u32_le(sum);
}

/// The message that `bytes` hold, if they are as they left.
///
/// # Errors
///
/// What is wrong with them.
pub fn open<M: Message + Default>(mut bytes: Bytes) -> Result<M, String> {
    let length = bytes.len().checked_sub(SEAL_BYTES).ok_or("a message without its checksum")?;
    let mut seal = bytes.split_off(length);
    let (tag, sum) = (seal.get_u8(), seal.get_u32_le());
    if tag != TAG && !mutant(Mutant::ChecksumUnchecked) {
        return Err("a message without its checksum".to_owned());
    }
    if sum != crc32c::crc32c(&bytes) && !mutant(Mutant::ChecksumUnchecked) {
        return Err("a message that was damaged on its way".to_owned());
    }
    M::decode(bytes).map_err(|error| error.to_string())
}

/// The codec of the generated clients and servers.
#[derive(Clone, Debug)]
pub struct Checked<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Checked<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Checked<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Sealing<T>;
    type Decoder = Opening<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Sealing { scratch: Vec::new(), message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        Opening(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct Sealing<T> {
    scratch: Vec<u8>,
    message: PhantomData<T>,
}

impl<T: Message> Encoder for Sealing<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.scratch.clear();
        seal(&item, &mut self.scratch);
        buf.put_slice(&self.scratch);
        if self.scratch.capacity() > SCRATCH_BYTES_MAX {
            self.scratch = Vec::new();
        }
        Ok(())
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct Opening<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Opening<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        open(bytes).map(Some).map_err(Status::data_loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::raft::{AppendReply, Route, VoteReply};

    fn vote() -> VoteReply {
        let route = Some(Route { cluster: 7, from: 1, to: 2 });
        VoteReply { route, term: 9, granted: true, pre_vote: false, removed: false }
    }

    fn sealed(message: &impl Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        seal(message, &mut bytes);
        bytes
    }

    #[test]
    fn a_message_arrives_as_it_left() {
        assert_eq!(open(sealed(&vote()).into()), Ok(vote()));
        assert_eq!(open(sealed(&AppendReply::default()).into()), Ok(AppendReply::default()));
    }

    #[test]
    fn any_damage_is_noticed() {
        let whole = sealed(&vote());
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            open::<VoteReply>(damaged.into()).expect_err("a bit turned over");
        }
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            open::<VoteReply>(cut.into()).expect_err("cut short");
        }
        let bare = vote().encode_to_vec();
        open::<VoteReply>(bare.into()).expect_err("no checksum");
    }

    #[test]
    fn a_reader_that_knows_no_checksum_passes_over_it() {
        assert_eq!(VoteReply::decode(sealed(&vote()).as_slice()), Ok(vote()));
    }
}
