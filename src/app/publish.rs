//! Tells the cluster how this member is called and where its clients reach it.
//!
//! Through the log, as in etcd: so every member knows it of every other, of one that is down too,
//! and after a restart. It is asked for once after each start; if nothing would be different, the
//! leader says so and appends nothing.

use std::time::Duration;

use tracing::{debug, info};

use crate::config::Config;
use crate::node::{Handle, RequestError};
use crate::raft::{Attributes, Change, ChangeError};

/// The wait after a refusal: doubles from the one to the other, jittered by half, since members
/// that start together ask together and only one change can be under way.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What this member says of itself.
pub(super) fn attributes(config: &Config) -> Attributes {
    let (name, client_addr) = (config.node_name.clone(), config.client_advertise.clone());
    Attributes { name, client_addr }
}

/// Ends when it is known, or when the member ends.
pub(super) async fn publish(handle: Handle, attributes: Attributes) {
    let mut status = handle.watch_status();
    let id = handle.status().node_id;
    let mut pause = PAUSE_MIN;
    loop {
        let turned = status.wait_for(|status| {
            status.shutting_down
                || status.removed
                || status.leader.is_some() && status.applied_at_start
        });
        match turned.await {
            Ok(status) if !status.shutting_down && !status.removed => {}
            Ok(_) | Err(_) => return,
        }
        let change = Change::Publish { id, attributes: attributes.clone() };
        match handle.change_membership(vec![change]).await {
            Ok(()) => {
                let Attributes { name, client_addr } = &attributes;
                return info!(name, client_addr, "published");
            }
            Err(RequestError::Change(ChangeError::NoChange) | RequestError::Stopped) => return,
            Err(why) => debug!(%why, "not published yet"),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
