//! How a node stops: unready first, then leaderless, then silent.
//!
//! Clients of the stopping member lose nothing that was answered and little that was not:
//! leadership moves while requests still flow, requests under way are answered (the member
//! passes them to the new leader), and only then do the listeners close.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tracing::{info, warn};

use crate::raft::{NodeId, Role};

use super::start::Node;

/// How long the log line about a hand-over waits for the name of the next leader.
const NAMING_TIMEOUT: Duration = Duration::from_millis(500);

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

    /// Goes unready and lets another member lead, until `deadline`.
    fn hand_over(&self, deadline: Instant) {
        let mut status = self.handle().watch_status();
        let handle = self.handle().clone();
        let alone = handle.members().len() == 1;
        let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
        runtime.block_on(async move {
            let led = handle.status().role == Role::Leader;
            if handle.begin_stop().await.is_err() {
                return;
            }
            let parted = status
                .wait_for(|status| status.shutting_down && (alone || status.role != Role::Leader));
            match tokio::time::timeout_at(deadline.into(), parted).await {
                Ok(_) if alone => return,
                Ok(_) => {}
                Err(_) => {
                    return warn!("leadership could not be handed over in time: no voter took it");
                }
            }
            if led {
                // Which member leads next is known a message later. Only the log line waits.
                let named = status.wait_for(|status| status.leader.is_some());
                drop(tokio::time::timeout(NAMING_TIMEOUT, named).await);
            }
            match parting(led, handle.status().leader) {
                Ok(said) => info!("{said}"),
                Err(said) => warn!("{said}"),
            }
        });
    }
}

/// What became of leadership at this member, which `led` when it was told to stop and leads no
/// more; `Err` if the cluster may have no leader.
fn parting(led: bool, leader: Option<NodeId>) -> Result<String, String> {
    match (led, leader) {
        (true, Some(next)) => Ok(format!("leadership handed over to member {next}")),
        (false, Some(leader)) => Ok(format!("member {leader} leads: nothing to hand over")),
        (true, None) => {
            Err("leadership given up; no other leader is known here: is there a quorum?".to_owned())
        }
        (false, None) => {
            Err("no leader is known here: nothing to hand over; is there a quorum?".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_leadership_is_what_is_known() {
        let two = NodeId::new(2);
        let said = |led, leader| parting(led, leader).unwrap_or_else(|said| said);
        assert_eq!(said(true, two), "leadership handed over to member 2");
        assert_eq!(said(false, two), "member 2 leads: nothing to hand over");
        for led in [true, false] {
            assert!(parting(led, None).is_err(), "this is no ordinary end");
            assert!(said(led, None).contains("is there a quorum?"));
        }
    }
}
