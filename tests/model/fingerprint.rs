//! 128 bits that stand for a list of numbers.
//!
//! Two lanes of 64 bits, each a chain of multiplications and shifts with its own constants, so that
//! no single weakness makes both agree. Among 10^8 states, the chance that any two share their
//! fingerprint is about 10^-23. It guards against accident, not malice.

use std::hash::{BuildHasherDefault, Hasher};

/// What stands for a state, or a part of one.
pub type Fingerprint = u128;

const LANES: [(u64, u64); 2] = [
    (0x243f_6a88_85a3_08d3, 0x9fb2_1c65_1e98_df25),
    (0xa409_3822_299f_31d0, 0xd6e8_feb8_6659_fd93),
];

/// Of `numbers`, in their order.
pub fn of(numbers: &[u64]) -> Fingerprint {
    let [(seed_a, by_a), (seed_b, by_b)] = LANES;
    let (mut a, mut b) = (seed_a ^ numbers.len() as u64, seed_b);
    for number in numbers {
        a = (a ^ number).wrapping_mul(by_a);
        a ^= a >> 32;
        b = (b.rotate_left(23) ^ number).wrapping_mul(by_b);
        b ^= b >> 29;
    }
    u128::from(mix(a)) << 64 | u128::from(mix(b))
}

/// Spreads every bit over all.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fingerprints are as good as hashed: tables take them as they are.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are keys");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = (fingerprint >> 64) as u64 ^ fingerprint as u64;
    }
}

pub type Table<V> = std::collections::HashMap<Fingerprint, V, BuildHasherDefault<AsIs>>;
pub type Set = std::collections::HashSet<Fingerprint, BuildHasherDefault<AsIs>>;
