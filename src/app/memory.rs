//! Memory that came free goes back to the system while nothing else happens.
//!
//! The allocator purges pages some time after they came free, but looks for such pages only when a
//! thread gives one up. A member that has shrunk and is idle would stay as large as it was. So a
//! block that the allocator keeps for no thread is taken and given up once a second.

use std::hint::black_box;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_secs(1);

/// Beyond the largest block for which the allocator keeps pages (512 KiB). It is never written to,
/// and so takes no memory itself.
const BLOCK_BYTES: usize = 1 << 20;

/// Runs for as long as the process.
pub(super) async fn give_back() {
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(BLOCK_BYTES)));
    }
}
