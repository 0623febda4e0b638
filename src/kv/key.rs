//! A key as the index holds it. Short keys stand in the tree itself: no allocation, and a search
//! compares them without leaving the node.

use std::borrow::Borrow;
use std::fmt;

/// The longest key that needs no allocation: what fits beside tag and length into 24 bytes.
const INLINE_BYTES: usize = 22;

/// An owned key, ordered by its bytes.
#[derive(Clone)]
pub(super) enum Key {
    /// Short: here.
    Inline {
        /// How many of `bytes` count.
        length: u8,
        /// The key, then zeros.
        bytes: [u8; INLINE_BYTES],
    },
    /// Long: elsewhere.
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24, "an index entry is to stay small");

impl Key {
    /// A copy of `key`.
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() > INLINE_BYTES {
            return Self::Heap(key.into());
        }
        let mut bytes = [0; INLINE_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline { length: key.len() as u8, bytes }
    }

    /// The bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_keys_are_ordered_by_their_bytes() {
        let long = [b'a'; INLINE_BYTES + 1];
        let mut keys = [
            Key::new(b"b"),
            Key::new(&long),
            Key::new(&long[1..]),
            Key::new(b""),
            Key::new(b"a\0"),
            Key::new(b"a"),
        ];
        keys.sort();
        let sorted: Vec<&[u8]> = keys.iter().map(Key::as_slice).collect();
        let expected: [&[u8]; 6] = [b"", b"a", b"a\0", &long[1..], &long, b"b"];
        assert_eq!(sorted, expected);
        assert!(matches!(keys[3], Key::Inline { .. }));
        assert!(matches!(keys[4], Key::Heap(_)));
    }
}
