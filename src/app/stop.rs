//! How a node stops: unready first, then leaderless, then silent.
//!
//! Clients of the stopping member lose nothing that was answered and little that was not:
//! leadership moves while requests still flow, requests under way are answered (the member
//! passes them to the new leader), and only then do the listeners close.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tracing::{info, warn};

use crate::raft::Role;

use super::start::Node;

impl Node {
    /// Stops in order, within `grace`. Blocks.
    pub fn stop(self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.hand_over(Instant::now() + grace / 2);
        let Self { handle, clients, consensus, workers, .. } = self;
        // The driver ends when nobody can ask anything of it.
        drop(handle);
        if !clients.drain(deadline) {
            warn!("some clients were still waiting when the grace period ended");
        }
        consensus.end();
        workers.end();
    }

    /// Goes unready and lets somebody else lead, until `deadline`.
    fn hand_over(&self, deadline: Instant) {
        let mut status = self.handle().watch_status();
        let handle = self.handle().clone();
        let alone = handle.members().len() == 1;
        let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
        runtime.block_on(async move {
            if handle.begin_stop().await.is_err() {
                return;
            }
            let moved = status
                .wait_for(|status| status.shutting_down && (alone || status.role != Role::Leader));
            match tokio::time::timeout_at(deadline.into(), moved).await {
                Ok(_) if alone => {}
                Ok(_) => info!("leadership is elsewhere"),
                Err(_) => warn!("leadership could not be handed over in time"),
            }
        });
    }
}
