//! A new cluster, its confinement, and the oldest of its services.

use std::time::{Duration, Instant};

use raft_node::proto::node::{Empty, NodeInfo, RequestVoteArgs, Signal};

use crate::cluster::{Containers, name};
use crate::common::eventually;
use crate::docker::{compose, docker};
use crate::health;
use crate::traffic::Traffic;

/// From the start of the first container until docker calls all of them healthy.
const START_MAX: Duration = Duration::from_secs(5);

pub async fn within_five_seconds(containers: &mut Containers) {
    containers.create_anew().expect("new containers");
    let starting = tokio::task::spawn_blocking(|| compose(&["start"]));
    eventually("the first container to start", async || {
        let states: Vec<_> = containers.ids().into_iter().map(|id| containers.state(id)).collect();
        let starts = states.iter().any(|state| state == "running");
        if starts { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    let start = Instant::now();
    starting.await.expect("no panic").expect("they start");
    containers.docker_says(&containers.ids(), "healthy").await;
    let lead = containers.led(&containers.ids()).await;
    let took = start.elapsed();
    println!("    healthy under leader {} in {took:?}", lead.id);
    assert!(took < START_MAX, "all were healthy after {took:?}");
    health::all_probes_agree(containers).await;
    Traffic::start(containers).await.judge(containers).await;
}

pub async fn confined(containers: &Containers) {
    containers.settled().await;
    for id in containers.ids() {
        assert_eq!(containers.inspect(id, "{{.HostConfig.ReadonlyRootfs}}"), "true");
        assert_eq!(containers.inspect(id, "{{.HostConfig.CapDrop}}"), "[ALL]");
        let options = containers.inspect(id, "{{.HostConfig.SecurityOpt}}");
        assert_eq!(options, "[no-new-privileges:true]");
        let version = r#"{{index .Config.Labels "org.opencontainers.image.version"}}"#;
        assert_eq!(containers.inspect(id, version), env!("CARGO_PKG_VERSION"));
        let processes = docker(&["top", &name(id), "-eo", "pid,uid,args"]).expect("it runs");
        let processes: Vec<&str> = processes.lines().skip(1).map(str::trim).collect();
        let is_node = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some("65532") && words.next() == Some("/raft-node")
        };
        assert!(processes.iter().all(is_node), "member {id} runs {processes:?}");
        assert!(docker(&["exec", &name(id), "/bin/sh", "-c", "true"]).is_err(), "it has a shell");
    }
}

/// Clients generated from `proto/node.proto` get true answers.
pub async fn node_registration(containers: &Containers) {
    let lead = containers.settled().await;
    let members: Vec<NodeInfo> = containers
        .ids()
        .into_iter()
        .map(|id| NodeInfo { id: id.to_string(), addr: format!("node{id}.raft_peers:5001") })
        .collect();
    for id in containers.ids() {
        let client = containers.client(id);
        let nodes = client.timely(client.registration().get_nodes(Empty {})).await;
        assert_eq!(nodes.expect("an answer").nodes, members, "member {id}");
        for flag in [true, false] {
            let signal = Signal { flag };
            let beat = client.timely(client.registration().send_heart_beat(signal)).await;
            assert!(beat.expect("an answer").flag, "member {id} is in touch with a leader");
        }
        let next_term = i32::try_from(lead.term).expect("a young cluster") + 1;
        // Known and of a newer term, but there is a leader; stale; unknown.
        for (candidate, term) in [(id % 3 + 1, next_term), (id % 3 + 1, 0), (9, next_term)] {
            let args =
                RequestVoteArgs { candidate_id: candidate.to_string(), candidate_term: term };
            let reply = client.timely(client.registration().request_vote(args.clone())).await;
            assert!(!reply.expect("an answer").vote_granted, "member {id} granted {args:?}");
        }
    }
    assert_eq!(containers.led(&containers.ids()).await, lead, "none of it caused an election");
}
