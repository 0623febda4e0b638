//! Random numbers from a seed: the same seed, the same numbers (`SplitMix64`).

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Rng(u64);

impl Rng {
    pub(in crate::storage) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::storage) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(in crate::storage) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(in crate::storage) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
