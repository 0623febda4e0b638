//! The frame around a group of records: 64 bytes that say where the group belongs, what came
//! before it, and how much of the log was durable when it was written.
//!
//! Three properties let recovery tell a write that a crash tore from bytes that rotted:
//!
//! - Groups start at multiples of 64 bytes, so a header lies in one sector. A sector is written
//!   whole or not at all, hence a header that is neither blank nor valid has rotted.
//! - Segments are zeroed before use, and a stored group leaves no sector blank (see
//!   [`unblank`]). A body that fails its checksum was torn if one of its sectors is blank, and
//!   has rotted if none is.
//! - Each header carries the offset up to which a sync had succeeded. Damage below an offset that
//!   a later group vouches for is damage to acknowledged data, whatever it looks like.
//!
//! Each checksum covers the one before, the segment and the offset: a group from another place,
//! or from the past of this place, never passes for the one that belongs here.

use bytes::Bytes;

use crate::testpoints::{Mark, Mutant, mark, mutant};

/// What the disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Where groups start. Divides a sector, and is the size of a header.
pub(super) const ALIGN_BYTES: usize = 64;
/// The header of a group.
pub(super) const HEADER_BYTES: usize = 64;
/// The format of this program.
pub(super) const VERSION: u16 = 1;
/// The largest body: far above any batch, far below what a damaged length could claim.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"RWAL";
/// Fewer set bits than this, and a few flipped ones could make a sector look blank.
const SECTOR_BITS_MIN: u32 = 8;

const _: () = assert!(SECTOR_BYTES.is_multiple_of(ALIGN_BYTES) && ALIGN_BYTES == HEADER_BYTES);

/// Where the next group goes, and what it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the segment.
    pub segment: u64,
    /// The offset in it.
    pub offset_bytes: u64,
    /// The checksum of the header before.
    pub previous: u32,
}

/// The header of a group, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its own checksum: the link that the next group names.
    pub link: u32,
    pub place: Place,
    /// All of the segment below this offset, and all earlier segments, were durable.
    pub durable_bytes: u64,
    pub body_bytes: u32,
    pub body_crc: u32,
    pub mask: u32,
}

/// What the 64 bytes at a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderBytes {
    /// Nothing was written, or it never arrived.
    Blank,
    /// A header of this program's version.
    Valid(Header),
    /// A header with a good checksum, of a later version.
    Future(u16),
    /// Neither.
    Damaged,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> HeaderBytes {
        if is_blank(bytes) {
            return HeaderBytes::Blank;
        }
        let link = u32_at(bytes, 0);
        if bytes[4..8] != MAGIC || link != crc32c::crc32c(&bytes[4..]) {
            return HeaderBytes::Damaged;
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return HeaderBytes::Future(version);
        }
        HeaderBytes::Valid(Self {
            link,
            mask: u32_at(bytes, 12),
            place: Place {
                segment: u64_at(bytes, 16),
                offset_bytes: u64_at(bytes, 24),
                previous: u32_at(bytes, 40),
            },
            durable_bytes: u64_at(bytes, 48),
            body_bytes: u32_at(bytes, 32),
            body_crc: u32_at(bytes, 36),
        })
    }

    fn encode(&mut self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[4..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.mask.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.place.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.place.offset_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.place.previous.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.durable_bytes.to_le_bytes());
        self.link = crc32c::crc32c(&bytes[4..]);
        bytes[0..4].copy_from_slice(&self.link.to_le_bytes());
        bytes
    }

    /// The body with its padding, as it lies on the disk.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.body_bytes as usize).next_multiple_of(ALIGN_BYTES) as u64
    }

    /// Where the group ends and the next one starts.
    pub(super) fn end_bytes(&self) -> u64 {
        self.place.offset_bytes + HEADER_BYTES as u64 + self.stored_bytes()
    }
}

/// What the bytes of a body are.
#[derive(Debug)]
pub(super) enum Body {
    /// As written.
    Valid(Bytes),
    /// A sector of it never arrived.
    Torn,
    /// All of it arrived, and is not what was written.
    Damaged,
}

/// Checks and unmasks the `stored` body of `header`.
pub(super) fn open_body(header: &Header, stored: &[u8]) -> Body {
    assert_eq!(stored.len() as u64, header.stored_bytes(), "the caller reads the whole body");
    if crc32c::crc32c(stored) == header.body_crc {
        let mut body = stored[..header.body_bytes as usize].to_vec();
        if header.mask != 0 {
            apply_mask(&mut body, header.mask);
        }
        return Body::Valid(Bytes::from(body));
    }
    // The part beside the header arrived with it; only the sectors after it can be missing.
    let torn = later_sectors(header.place.offset_bytes, stored).any(is_blank);
    if torn || mutant(Mutant::DamageTakenForTear) { Body::Torn } else { Body::Damaged }
}

/// Finishes the group in `buffer`, which holds room for the header and then the body: pads it,
/// leaves no sector blank, and fills in the header. Returns the link for the next group.
pub(super) fn seal(buffer: &mut Vec<u8>, place: Place, durable_bytes: u64) -> u32 {
    let body_bytes = buffer.len() - HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX, "batches are bounded far below a gigabyte");
    assert!(place.offset_bytes.is_multiple_of(ALIGN_BYTES as u64), "groups are aligned");
    assert!(durable_bytes <= place.offset_bytes, "nothing is durable before it is written");
    buffer.resize(buffer.len().next_multiple_of(ALIGN_BYTES), 0);
    let mask = unblank(place.offset_bytes, &mut buffer[HEADER_BYTES..]);
    let mut header = Header {
        link: 0,
        place,
        durable_bytes,
        body_bytes: body_bytes as u32,
        body_crc: crc32c::crc32c(&buffer[HEADER_BYTES..]),
        mask,
    };
    buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
    header.link
}

/// How many bytes a body takes with its header.
pub(super) fn group_bytes(body_bytes: usize) -> u64 {
    (HEADER_BYTES + body_bytes.next_multiple_of(ALIGN_BYTES)) as u64
}

pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |sum, byte| sum | byte) == 0
}

/// Masks the body if one of its sectors would be blank, or nearly; returns the mask, 0 for none.
fn unblank(offset_bytes: u64, stored: &mut [u8]) -> u32 {
    if !later_sectors(offset_bytes, stored).any(is_nearly_blank) {
        return 0;
    }
    for mask in 1..=u32::MAX {
        apply_mask(stored, mask);
        if !later_sectors(offset_bytes, stored).any(is_nearly_blank) {
            mark(Mark::GroupMasked);
            return mask;
        }
        apply_mask(stored, mask);
    }
    unreachable!("a pseudo-random mask leaves 64 bytes nearly blank once in 2^400")
}

/// The parts of a body in sectors after the header's own.
fn later_sectors(offset_bytes: u64, stored: &[u8]) -> std::slice::Chunks<'_, u8> {
    let beside_header_bytes =
        SECTOR_BYTES - (offset_bytes + HEADER_BYTES as u64 - 1) as usize % SECTOR_BYTES - 1;
    stored[beside_header_bytes.min(stored.len())..].chunks(SECTOR_BYTES)
}

fn is_nearly_blank(part: &[u8]) -> bool {
    let mut bits = 0;
    for byte in part {
        bits += byte.count_ones();
        if bits >= SECTOR_BITS_MIN {
            return false;
        }
    }
    true
}

/// XORs a fixed pseudo-random stream (`SplitMix64`, seeded by the mask) over `bytes`; its own
/// inverse.
fn apply_mask(bytes: &mut [u8], mask: u32) {
    let mut state = u64::from(mask);
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        for (byte, key) in chunk.iter_mut().zip(word.to_le_bytes()) {
            *byte ^= key;
        }
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
