//! By which number a member knows another again: a member by its first one, whatever else calls.

use std::collections::BTreeMap;

use raft_node::raft::NodeId;
use raft_node::storage::PeerIncarnations;
use raft_node::storage::testing::SimDisk;

use super::Rng;

/// One directory, and calls from members and from others, with restarts between them.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let open = || {
        disk.kill();
        PeerIncarnations::open(&disk.for_process(), 7).map_err(|error| error.to_string())
    };
    let mut instances = open()?;
    let mut met: BTreeMap<NodeId, u64> = BTreeMap::new();
    for _ in 0..40 {
        if rng.one_in(8) {
            instances = open()?;
        }
        let peer = NodeId::new(2 + rng.below(4)).expect("positive");
        let told = rng.of(&[None, Some(10), Some(11)]);
        let member = rng.one_in(3);
        let let_in = instances.meet(peer, told, member).map_err(|error| error.to_string())?;
        let due = met.get(&peer).is_none_or(|met| told == Some(*met));
        if let_in != due {
            let known = met.get(&peer);
            return Err(format!("{peer} as {told:?} was let in: {let_in}, known as {known:?}"));
        }
        if let (true, Some(told)) = (member, told) {
            met.entry(peer).or_insert(told);
        }
    }
    Ok(())
}
