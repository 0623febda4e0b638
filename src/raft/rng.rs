//! Randomness, as an argument: the one random stream of a node, fixed by its seed.
//!
//! Elections need randomness so that members do not campaign in step (§5.2). Drawing it from a
//! seeded stream makes a run repeatable bit for bit. The generator is `SplitMix64`: three lines,
//! one word of state, and good enough to spread timeouts. It guards no secret.

use std::hash::{Hash, Hasher};

/// The stream. Compared with the rest of a node's state, but absent from its hash: a model
/// checker that tries every timeout must not tell two states apart by draws yet to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Hash for Rng {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Rng {
    /// The stream that `seed` fixes. `salt` keeps members apart that were given the same seed.
    pub fn new(seed: u64, salt: u64) -> Self {
        let mut rng = Self { state: seed };
        rng.state ^= rng.draw().wrapping_add(salt.wrapping_mul(0xd134_2543_de82_ef95));
        rng
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        assert!(low <= high, "an empty range holds no number");
        let width = u64::from(high - low) + 1;
        // The high half of a 32 by 33 bit product: no bias worth a second draw.
        low + (((self.draw() >> 32) * width) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn draws_stay_in_range_and_reach_both_ends() {
        let mut rng = Rng::new(7, 1);
        let draws: Vec<u32> = (0..1000).map(|_| rng.between(3, 6)).collect();
        assert!(draws.iter().all(|draw| (3..=6).contains(draw)));
        assert!((3..=6).all(|number| draws.contains(&number)));
        assert_eq!(rng.between(5, 5), 5);
        assert!(rng.between(0, u32::MAX) > 0);
    }

    #[test]
    fn the_seed_fixes_the_stream_and_the_salt_parts_it() {
        let stream = |seed, salt| {
            let mut rng = Rng::new(seed, salt);
            [rng.draw(), rng.draw(), rng.draw()]
        };
        assert_eq!(stream(1, 1), stream(1, 1));
        assert_ne!(stream(1, 1), stream(1, 2));
        assert_ne!(stream(1, 1), stream(2, 1));
    }
}
