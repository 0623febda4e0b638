//! Whether the disk hangs.
//!
//! Judged by the batch that has waited longest, and by the bytes that it waits for: a disk that has
//! megabytes to write takes its time without anything being wrong with it, and a leader that handed
//! over for its own load would take the load with it. Ticks at which this member did not run say
//! nothing, for then it could not have heard of what became durable.

use std::collections::VecDeque;

use crate::raft::PersistSeq;

use super::super::persister::GROUP_BYTES_MAX;

/// Bytes for which a disk may take as long again as for a small batch: by default 3.5 MB/s.
const STEP_BYTES: u64 = 2 << 20;

/// The batches on their way to the disk.
#[derive(Debug, Default)]
pub struct DiskWatch {
    batches: VecDeque<Batch>,
    /// Their bytes.
    bytes: u64,
    /// Counts ticks.
    now: u64,
}

#[derive(Debug)]
struct Batch {
    seq: PersistSeq,
    bytes: u64,
    /// Bytes that were on their way when it was given, its own included.
    bytes_before: u64,
    since: u64,
}

impl DiskWatch {
    /// The disk was given a batch.
    pub fn given(&mut self, seq: PersistSeq, bytes: u64) {
        self.bytes += bytes;
        let (bytes_before, since) = (self.bytes, self.now);
        self.batches.push_back(Batch { seq, bytes, bytes_before, since });
    }

    /// Every batch up to `seq` is durable.
    pub fn done(&mut self, seq: PersistSeq) {
        while self.batches.front().is_some_and(|batch| batch.seq <= seq) {
            self.bytes -= self.batches.pop_front().map_or(0, |batch| batch.bytes);
        }
    }

    /// A tick passes.
    pub fn tick(&mut self) {
        self.now += 1;
    }

    /// Whether a batch has waited for too long, if a small one may wait for `small_ticks`.
    pub fn is_stalled(&self, small_ticks: u32) -> bool {
        self.batches.front().is_some_and(|batch| {
            // It becomes durable together with what came just after it.
            let behind = (self.bytes - batch.bytes).min(GROUP_BYTES_MAX as u64);
            let bytes = batch.bytes_before + behind;
            let ticks_max = u64::from(small_ticks) * (1 + bytes / STEP_BYTES);
            self.now - batch.since > ticks_max
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(watch: &mut DiskWatch, ticks: u32) -> bool {
        (0..ticks).for_each(|_| watch.tick());
        watch.is_stalled(100)
    }

    #[test]
    fn a_small_batch_that_does_not_become_durable_is_a_stall_and_progress_ends_it() {
        let mut watch = DiskWatch::default();
        assert!(!after(&mut watch, 1000), "nothing is asked of the disk");
        watch.given(PersistSeq(1), 300);
        assert!(!after(&mut watch, 60));
        watch.given(PersistSeq(2), 300);
        assert!(after(&mut watch, 41));
        watch.done(PersistSeq(1));
        assert!(!after(&mut watch, 50), "the second has waited for 91");
        assert!(after(&mut watch, 10));
        watch.done(PersistSeq(2));
        assert!(!watch.is_stalled(100));
    }

    #[test]
    fn a_disk_is_given_time_for_its_bytes_and_no_more() {
        let mut watch = DiskWatch::default();
        for seq in 1..=8 {
            watch.given(PersistSeq(seq), 1 << 20);
        }
        assert!(!after(&mut watch, 300), "the first is written with four megabytes after it");
        assert!(after(&mut watch, 1), "which is too long");
        watch.done(PersistSeq(5));
        assert!(!watch.is_stalled(100), "the sixth had to wait for five");
        assert!(after(&mut watch, 200));
    }
}
