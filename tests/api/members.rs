//! Who the members are, and how each is: etcd's services, and the project's first one.

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::node::{Empty, NodeInfo, RequestVoteArgs};
use tonic::Code;

use crate::common::{Cluster, Options, PATIENCE, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_etcdctl_shows() {
    let cluster = Cluster::start(Options::single().env("RAFT_QUOTA_BYTES", "64MiB")).await;
    let client = cluster.client(1);
    let before = client.status().await.expect("the status");
    client.put("k", vec![0; 100_000]).await.expect("a write");
    let status = client.status().await.expect("the status");
    assert_eq!((status.leader, status.is_learner, status.errors.len()), (1, false, 0));
    assert!(status.version.starts_with("3.6."), "{}", status.version);
    assert!(status.raft_term > 0 && status.raft_index >= status.raft_applied_index);
    assert!(status.raft_applied_index > before.raft_applied_index);
    assert!(status.db_size >= before.db_size + 100_000, "{} {}", before.db_size, status.db_size);
    assert!(status.db_size_in_use <= status.db_size);
    assert_eq!(status.db_size_quota, 64 << 20);
    let header = status.header.expect("a header");
    assert_eq!((header.member_id, header.revision), (1, 2));
}

/// Data past the quota is refused, and what frees room is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_quota_refuses_writes_and_nothing_else() {
    let cluster = Cluster::start(Options::single().env("RAFT_QUOTA_BYTES", "4MiB")).await;
    let client = cluster.client(1);
    let mut written = 0;
    let refusal = loop {
        match client.put(&format!("fill/{written}"), vec![1; 256 << 10]).await {
            Ok(_) => written += 1,
            Err(status) => break status,
        }
        assert!(written < 64, "4 MiB were never full");
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(refusal.message(), "etcdserver: mvcc: database space exceeded");
    client.get("fill/0").await.expect("reads go on");
    let everything = pb::DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..pb::DeleteRangeRequest::default()
    };
    let deleted = client.timely(client.kv().delete_range(everything)).await.expect("a deletion");
    let revision = deleted.header.expect("a header").revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    client.timely(client.kv().compact(compact)).await.expect("a compaction");
    within(PATIENCE, "writes to be taken again", async || {
        client.put("k", "v").await.map_err(|status| status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_listed_with_their_addresses() {
    let mut cluster = Cluster::start(Options::default()).await;
    for id in cluster.ids() {
        let client = cluster.client(id).clone();
        let request = pb::MemberListRequest { linearizable: true };
        let answer = client.timely(client.members().member_list(request)).await.expect("a list");
        assert_eq!(answer.header.expect("a header").member_id, id);
        let ids: Vec<u64> = answer.members.iter().map(|member| member.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        for member in &answer.members {
            let known = cluster.member(member.id);
            assert_eq!(member.peer_ur_ls, [format!("http://{}", known.peer_addr)]);
            assert!(!member.is_learner);
            if member.id == id {
                assert_eq!(member.name, format!("node{id}"));
                assert_eq!(member.client_ur_ls, [format!("http://{}", known.client_addr)]);
            }
        }
        let nodes = client.timely(client.registration().get_nodes(Empty {})).await.expect("nodes");
        let nodes: Vec<(String, String)> =
            nodes.nodes.into_iter().map(|node| (node.id, node.addr)).collect();
        let expected: Vec<(String, String)> =
            [1, 2, 3].map(|id| (id.to_string(), cluster.member(id).peer_addr.clone())).to_vec();
        assert_eq!(nodes, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_it_is_asked_to() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let target = cluster.others(lead.id)[0];
    let request = |target_id| pb::MoveLeaderRequest { target_id };
    let follower = cluster.client(target).clone();
    let refused = follower.timely(follower.maintenance().move_leader(request(target))).await;
    assert_eq!(refused.expect_err("not the leader").message(), "etcdserver: not leader");
    let leader = cluster.client(lead.id).clone();
    let unknown = leader.timely(leader.maintenance().move_leader(request(9))).await;
    let unknown = unknown.expect_err("no such member");
    assert_eq!(unknown.message(), "etcdserver: bad leader transferee");
    leader.timely(leader.maintenance().move_leader(request(target))).await.expect("a transfer");
    let new = cluster.settled().await;
    assert_eq!((new.id, new.term), (target, lead.term + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_service_gives_true_answers() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    for id in cluster.ids() {
        let client = cluster.client(id).clone();
        assert!(client.in_touch().await.expect("an answer"), "{id} is in touch with its leader");
        let known = NodeInfo { id: "2".to_owned(), addr: cluster.member(2).peer_addr.clone() };
        let known = client.timely(client.registration().register_node(known)).await;
        assert!(!known.expect("idempotent").message.is_empty());
        for (node, addr, code) in [
            ("7", "node7:5001", Code::Unimplemented),
            ("x", "node7:5001", Code::InvalidArgument),
            ("0", "node7:5001", Code::InvalidArgument),
            ("7", "nowhere", Code::InvalidArgument),
        ] {
            let info = NodeInfo { id: node.to_owned(), addr: addr.to_owned() };
            let answer = client.timely(client.registration().register_node(info)).await;
            assert_eq!(answer.expect_err("refused").code(), code, "{node} at {addr}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_service_gives_no_vote_without_need() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    for id in cluster.ids() {
        let client = cluster.client(id).clone();
        // A live leader, a non-empty log, a stale term, a stranger: each refuses by itself.
        for (candidate, term) in [("2", i32::MAX), ("2", 0), ("9", i32::MAX), ("me", 1)] {
            let args = RequestVoteArgs { candidate_id: candidate.to_owned(), candidate_term: term };
            let reply = client.timely(client.registration().request_vote(args)).await;
            assert!(!reply.expect("an answer").vote_granted, "{candidate} in term {term}");
        }
    }
    assert_eq!(cluster.settled().await, lead, "no such request disturbs the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_service_knows_when_touch_is_lost() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let follower = cluster.others(lead.id)[0];
    for id in cluster.others(follower) {
        cluster.kill(id);
    }
    let client = cluster.client(follower).clone();
    within(PATIENCE, "the follower to say that it has lost touch", async || {
        if client.in_touch().await.map_err(|status| status.to_string())? {
            Err("in touch".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
}
