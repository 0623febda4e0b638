//! Variables that are set and have no effect, since the data directory or the log decides: each is
//! a warning, or an operator waits for what never comes.

use tracing::warn;

use crate::config::{Config, Peer};
use crate::raft::{Configuration, NodeId};

use super::start::node_id;

/// Logs them. `membership` is the one in force, as the log has it: empty in a node that has just
/// joined.
pub(super) fn warn_of(config: &Config, membership: &Configuration) {
    for (variable, why) in without_effect(config, membership) {
        warn!(variable, why, "a variable has no effect");
    }
}

fn without_effect(config: &Config, membership: &Configuration) -> Vec<(&'static str, String)> {
    let own = node_id(config);
    let mut found = Vec::new();
    let replaced = config.replaces.and_then(|id| NodeId::new(id.get()));
    // A learner may be about to take the place.
    if let Some(old) = replaced.filter(|old| membership.is_member(*old))
        && membership.is_voter(own)
    {
        found.push((
            "RAFT_REPLACES",
            format!(
                "node {own} is a member already, and {old} still is. A machine takes the place of \
                 another when it joins: with an id that was never used (RAFT_NODE_ID) and an empty \
                 data directory. `member remove` removes {old} without that"
            ),
        ));
    }
    let in_log = membership.addresses.get(&own);
    if let Some(address) = in_log.filter(|address| **address != config.peer_advertise) {
        found.push((
            "RAFT_PEER_ADVERTISE",
            format!(
                "the log says that node {own} is reached at {address}, and not at {}. `member \
                 update` changes that",
                config.peer_advertise
            ),
        ));
    }
    let overridden = |peer: &Peer| config.peer_overrides.iter().any(|other| other.id == peer.id);
    for peer in config.peers.iter().filter(|peer| !overridden(peer)) {
        let id = NodeId::new(peer.id.get()).filter(|id| *id != own);
        let in_log = id.and_then(|id| membership.addresses.get(&id));
        if let Some(address) = in_log.filter(|address| **address != peer.addr) {
            let (id, told) = (peer.id, &peer.addr);
            found.push((
                "RAFT_PEERS",
                format!("the log says that node {id} is reached at {address}, and not at {told}"),
            ));
        }
    }
    let is_empty = membership.members().is_empty();
    for peer in config.peer_overrides.iter().filter(|_| !is_empty) {
        let id = NodeId::new(peer.id.get());
        if id.is_some_and(|id| !membership.is_member(id)) {
            found.push(("RAFT_PEER_OVERRIDES", format!("node {} is no member", peer.id)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).expect("positive")
    }

    fn config_of(pairs: &[(&str, &str)]) -> Config {
        Config::from_pairs(pairs.iter().copied()).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn variables(config: &Config, membership: &Configuration) -> Vec<&'static str> {
        let found = without_effect(config, membership);
        found.into_iter().map(|(variable, _)| variable).collect()
    }

    #[test]
    fn a_member_replaces_nobody_any_more() {
        let config = config_of(&[
            ("RAFT_JOIN", "node1:5001"),
            ("RAFT_NODE_ID", "4"),
            ("RAFT_REPLACES", "2"),
        ]);
        let members = |ids: &[u64]| Configuration::of_voters(ids.iter().copied().map(id));
        assert_eq!(variables(&config, &members(&[1, 2, 3, 4])), ["RAFT_REPLACES"]);
        assert_eq!(variables(&config, &members(&[1, 3, 4])), [""; 0], "it has");
        assert_eq!(variables(&config, &members(&[])), [""; 0], "it has just joined");
        let mut learns = members(&[1, 2, 3]);
        learns.learners.insert(id(4));
        assert_eq!(variables(&config, &learns), [""; 0], "it is about to");
    }

    #[test]
    fn addresses_are_those_of_the_log() {
        let config = config_of(&[("RAFT_PEERS", "1=node1:5001,2=node2:5001")]);
        let mut membership = Configuration::of_voters([id(1), id(2)]);
        assert_eq!(variables(&config, &membership), [""; 0]);
        membership.addresses.insert(id(1), "node1:6001".to_owned());
        membership.addresses.insert(id(2), "node2:6001".to_owned());
        assert_eq!(variables(&config, &membership), ["RAFT_PEER_ADVERTISE", "RAFT_PEERS"]);
        membership.addresses.remove(&id(1));
        let overridden = config_of(&[
            ("RAFT_PEERS", "1=node1:5001,2=node2:5001"),
            ("RAFT_PEER_OVERRIDES", "2=node2:7001,9=node9:5001"),
        ]);
        assert_eq!(variables(&overridden, &membership), ["RAFT_PEER_OVERRIDES"], "of node 9");
    }
}
