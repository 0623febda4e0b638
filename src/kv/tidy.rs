//! Moving together what a compaction left, so that the pages it lay scattered over can go back to
//! the system.
//!
//! Versions are allocated in the order of writes; those that survive are spread over all pages, a
//! few on each, and not one page would be free. A copy of each survivor goes, with any allocator
//! that fills a page before it begins another, onto a few pages, and the rest come free. That costs
//! one copy of what is left, for a compaction that freed at least half as much.
//!
//! Like the sweep this is a matter of memory alone: nothing of it can be seen, and its progress
//! differs between members.

use super::store::Store;

/// Less than this is not worth any copying.
const FREED_BYTES_MIN: u64 = 4 << 20;

/// Bytes copied in one step, at most, but for the last record of it: tens of microseconds.
const STEP_BYTES: usize = 256 << 10;

/// Where the moving stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tidy {
    /// What compactions freed since it was last done.
    freed_bytes: u64,
    /// The next record to move, while it is under way.
    next: Option<u32>,
}

impl Store {
    /// A step of a compaction freed so much.
    pub(super) fn note_freed(&mut self, bytes: u64) {
        self.tidy.freed_bytes += bytes;
    }

    /// Looks at up to `budget` records. True if there is nothing left to move.
    pub(super) fn tidy_step(&mut self, budget: usize) -> bool {
        let (used_bytes, _) = self.index.size_bytes();
        let freed_bytes = self.tidy.freed_bytes;
        let worthwhile = freed_bytes >= FREED_BYTES_MIN && freed_bytes > used_bytes / 2;
        if self.tidy.next.is_none() && !worthwhile {
            return true;
        }
        let begin = self.tidy.next.unwrap_or_else(|| {
            self.tidy.freed_bytes = 0;
            0
        });
        let end = self.index.numbers_end();
        let mut copied_bytes = 0;
        let mut next = begin;
        for _ in 0..budget {
            if next >= end || copied_bytes >= STEP_BYTES {
                break;
            }
            copied_bytes += self.index.relocate(next);
            next += 1;
        }
        if next < end {
            self.tidy.next = Some(next);
            return false;
        }
        self.index.give_back();
        self.tidy.next = None;
        true
    }
}
