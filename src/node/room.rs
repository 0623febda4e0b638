//! Whether the disk has room to grow into: asked once a second, and told by what the log writer
//! meets.
//!
//! While it is short, clients are refused what would add data, at this member; deletions,
//! compactions and all that consensus needs go on, and make room again. Nothing has to be reset by
//! hand. It is short while little is free, and from when there is no room for the log's next
//! segment: the one before has just been begun then, and takes what is under way and much more.
//! Room as the system counts it may not be room that this process may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{info, warn};

/// Of a real disk, so much is left for a snapshot of what deletions leave.
pub const LEFT_BYTES: u64 = 8 << 20;

/// Shared by those who look and those who ask. Without anybody who looks, there is room.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<State>);

#[derive(Debug, Default)]
struct State {
    free_bytes: AtomicU64,
    /// Little is free.
    low: AtomicBool,
    /// There is no room for the log's next segment, or for its reserve.
    no_blank: AtomicBool,
    /// Writes of the log wait for room.
    waiting: AtomicBool,
    /// As last logged.
    told_short: AtomicBool,
}

impl Room {
    /// Whether what adds data is to be refused.
    pub fn is_short(&self) -> bool {
        self.is_low() || self.0.no_blank.load(Ordering::Relaxed) || self.is_waited_for()
    }

    /// Whether little is free.
    pub fn is_low(&self) -> bool {
        self.0.low.load(Ordering::Relaxed)
    }

    /// Whether the log waits for room.
    pub fn is_waited_for(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Bytes that were free when somebody last looked.
    pub fn free_bytes(&self) -> u64 {
        self.0.free_bytes.load(Ordering::Relaxed)
    }

    /// So much is free now. It counts as low until twice as much is free as makes it so.
    pub fn see(&self, free_bytes: u64) {
        let least_bytes = if self.is_low() { 2 * LEFT_BYTES } else { LEFT_BYTES };
        self.0.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.0.low.store(free_bytes < least_bytes, Ordering::Relaxed);
    }

    /// What the log writer knows: whether there was no room for a segment ahead of need, and
    /// whether it waits.
    pub fn set_log(&self, no_blank: bool, waiting: bool) {
        self.0.no_blank.store(no_blank, Ordering::Relaxed);
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Logs what has changed since the last call.
    pub fn tell(&self) {
        let short = self.is_short();
        if self.0.told_short.swap(short, Ordering::Relaxed) == short {
            return;
        }
        let free_bytes = self.free_bytes();
        if short {
            warn!(free_bytes, "the disk is full: only what adds no data is taken from clients");
        } else {
            info!(free_bytes, "the disk has room again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_short_until_there_is_clearly_more() {
        let room = Room::default();
        assert!(!room.is_short(), "nobody has looked");
        room.see(LEFT_BYTES);
        assert!(!room.is_short());
        room.see(LEFT_BYTES - 1);
        assert!(room.is_short() && room.is_low());
        room.see(2 * LEFT_BYTES - 1);
        assert!(room.is_short(), "too little to go on for long");
        room.see(2 * LEFT_BYTES);
        assert!(!room.is_short());
    }

    #[test]
    fn room_is_short_while_the_log_lacks_some_whatever_the_system_says() {
        let room = Room::default();
        room.see(1 << 40);
        room.set_log(true, false);
        assert!(room.is_short() && !room.is_low() && !room.is_waited_for());
        room.set_log(true, true);
        assert!(room.is_short() && room.is_waited_for());
        room.set_log(false, false);
        assert!(!room.is_short());
    }
}
