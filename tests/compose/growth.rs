//! The cluster grows by the profile of the compose file, and shrinks again, under load.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;

use crate::cluster::Containers;
use crate::common::{eventually, within};
use crate::docker::compose;
use crate::traffic::Traffic;

/// Containers start, join and catch up within it.
const GROWN_WITHIN: Duration = Duration::from_mins(1);

/// Two more by one command; then each goes by two.
pub async fn to_five_and_back(containers: &Containers) {
    containers.settled().await;
    let traffic = Traffic::start(containers).await;
    let grow = ["--profile", "grow", "up", "-d", "--no-build", "node4", "node5"];
    compose(&grow).unwrap_or_else(|error| panic!("{error}"));
    voters(containers, &[1, 2, 3, 4, 5]).await;
    traffic.acknowledged(100).await;
    let client = containers.client(1);
    for (id, left) in [(5, &[1, 2, 3, 4][..]), (4, &[1, 2, 3])] {
        eventually(&format!("{id} to be removed"), async || {
            let request = pb::MemberRemoveRequest { id };
            match client.timely(client.members().member_remove(request)).await {
                Err(status) if status.code() != tonic::Code::NotFound => Err(status.to_string()),
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await;
        voters(containers, left).await;
        // Docker would start it again and again, to end again.
        let gone = ["--profile", "grow", "rm", "--stop", "--force", &format!("node{id}")];
        compose(&gone).unwrap_or_else(|error| panic!("{error}"));
        traffic.acknowledged(100).await;
    }
    containers.settled().await;
    traffic.judge(containers).await;
}

async fn voters(containers: &Containers, ids: &[u64]) {
    let client = containers.client(1);
    within(GROWN_WITHIN, &format!("{ids:?} to be the voters"), async || {
        let request = pb::MemberListRequest { linearizable: true };
        let list = client.timely(client.members().member_list(request)).await;
        let members = list.map_err(|status| status.to_string())?.members;
        let seen: Vec<_> = members.iter().map(|one| (one.id, one.is_learner)).collect();
        let wanted: Vec<_> = ids.iter().map(|id| (*id, false)).collect();
        if seen == wanted { Ok(()) } else { Err(format!("(id, learner): {seen:?}")) }
    })
    .await;
}
