//! Who the members are, and how each is: etcd's services, and the project's first one.

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::node::{Empty, NodeInfo, RequestVoteArgs};
use tonic::Code;

use crate::common::{Client, Cluster, Options, PATIENCE, within};

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

/// What a member says of itself is in the log: the others know it of one that is down, and after
/// they were started again without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_down_is_listed_with_its_name_and_urls() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let urls: Vec<String> = cluster
        .ids()
        .iter()
        .map(|id| format!("http://{}", cluster.member(*id).client_addr))
        .collect();
    let listed = async |cluster: &Cluster, by: u64| {
        let client = cluster.client(by).clone();
        within(PATIENCE, "all members to be listed as they are called", async || {
            let request = pb::MemberListRequest { linearizable: true };
            let list = client.timely(client.members().member_list(request)).await;
            let members = list.map_err(|status| status.to_string())?.members;
            let said: Vec<(String, Vec<String>)> =
                members.into_iter().map(|one| (one.name, one.client_ur_ls)).collect();
            let expected: Vec<(String, Vec<String>)> =
                (1..=3).map(|id| (format!("node{id}"), vec![urls[id - 1].clone()])).collect();
            if said == expected { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    };
    listed(&cluster, lead.id).await;
    // Until then they may be known from the introductions of connections alone.
    for id in cluster.ids() {
        within(PATIENCE, "each to have it in the log", async || {
            let log = cluster.member(id).log();
            if log.contains("published") { Ok(()) } else { Err(log) }
        })
        .await;
    }
    let others = cluster.others(lead.id);
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    for id in &others {
        cluster.restart(*id);
    }
    cluster.settled_among(&others).await;
    for id in others {
        listed(&cluster, id).await;
    }
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
            ("x", "node7:5001", Code::InvalidArgument),
            ("0", "node7:5001", Code::InvalidArgument),
            ("7", "nowhere", Code::InvalidArgument),
            ("7", &cluster.member(2).peer_addr.clone(), Code::AlreadyExists),
        ] {
            let info = NodeInfo { id: node.to_owned(), addr: addr.to_owned() };
            let answer = client.timely(client.registration().register_node(info)).await;
            assert_eq!(answer.expect_err("refused").code(), code, "{node} at {addr}");
        }
    }
}

/// A node may register twice, on any member. Under an id in use, another address is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_service_adds_nodes_and_moves_none() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    for (id, addr) in [(1, "node7:5001"), (2, "node7:5001")] {
        let client = cluster.client(id).clone();
        let info = NodeInfo { id: "7".to_owned(), addr: addr.to_owned() };
        let answer = client.timely(client.registration().register_node(info)).await;
        let message = answer.expect("taken in").message;
        assert!(message.contains("node 7") && message.contains(addr), "{message}");
        let found = listed(&client).await.into_iter().find(|member| member.id == 7);
        let found = found.expect("it is a member");
        assert_eq!(found.peer_ur_ls, [format!("http://{addr}")]);
        assert!(found.is_learner, "it has caught up with nothing yet");
    }
    let client = cluster.client(3).clone();
    let info = NodeInfo { id: "7".to_owned(), addr: "elsewhere:5001".to_owned() };
    let moved = client.timely(client.registration().register_node(info)).await;
    assert_eq!(moved.expect_err("it is node7's").code(), Code::AlreadyExists);
    let lead = cluster.settled().await;
    let client = cluster.client(cluster.others(lead.id)[0]).clone();
    let request = pb::MemberRemoveRequest { id: 7 };
    let gone = client.timely(client.members().member_remove(request)).await;
    gone.expect("a learner can go at any time");
    let info = NodeInfo { id: "7".to_owned(), addr: "node7:5001".to_owned() };
    let back = client.timely(client.registration().register_node(info)).await;
    let back = back.expect_err("ids never come back");
    assert_eq!(back.code(), Code::FailedPrecondition);
    assert_eq!(back.message(), "a member of this id was removed");
}

async fn listed(client: &Client) -> Vec<pb::Member> {
    let request = pb::MemberListRequest { linearizable: true };
    client.timely(client.members().member_list(request)).await.expect("a list").members
}

fn url(address: &str) -> Vec<String> {
    vec![format!("http://{address}")]
}

/// In etcd's words, by which its clients know what went wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_as_in_etcd() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let client = cluster.client(cluster.others(lead.id)[0]).clone();
    let add = async |address: &str, is_learner| {
        let request = pb::MemberAddRequest { peer_ur_ls: url(address), is_learner };
        client.timely(client.members().member_add(request)).await
    };
    let refused = async |address: &str, is_learner| {
        let status = add(address, is_learner).await.expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    let added = add("node4:5001", true).await.expect("room for a learner");
    assert_eq!(added.header.expect("a header").revision, 0);
    let member = added.member.expect("the new one");
    assert_eq!((member.id, member.is_learner, member.name.as_str()), (4, true, ""));
    assert_eq!((member.peer_ur_ls, member.client_ur_ls.len()), (url("node4:5001"), 0));
    assert_eq!(added.members.len(), 4);
    for (address, is_learner, code, text) in [
        ("node4:5001", false, Code::FailedPrecondition, "Peer URLs already exists"),
        ("nowhere", false, Code::InvalidArgument, "given member URLs are invalid"),
        ("node5:5001", true, Code::FailedPrecondition, "too many learner members in cluster"),
    ] {
        let expected = (code, format!("etcdserver: {text}"));
        assert_eq!(refused(address, is_learner).await, expected, "{address}");
    }
    let voter = add("node5:5001", false).await.expect("room for a voter").member;
    let voter = voter.expect("the new one");
    assert_eq!((voter.id, voter.is_learner), (5, true), "it learns first");

    let promote = async |id| {
        let answer = client.members().member_promote(pb::MemberPromoteRequest { id }).await;
        answer.expect_err("refused").message().to_owned()
    };
    let only = "etcdserver: can only promote a learner member";
    assert_eq!(promote(1).await, only);
    assert_eq!(promote(4).await, format!("{only} which is in sync with leader"));
    assert_eq!(promote(9).await, "etcdserver: member not found");
    let update = async |id, address: &str| {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: url(address) };
        client.timely(client.members().member_update(request)).await
    };
    let moved = update(4, "node6:5001").await.expect("an update").members;
    let moved = moved.iter().find(|member| member.id == 4).expect("it is there");
    assert_eq!((&moved.peer_ur_ls, moved.is_learner), (&url("node6:5001"), true));
    let taken = update(5, "node6:5001").await.expect_err("taken");
    assert_eq!(taken.message(), "etcdserver: Peer URLs already exists");
    let unknown = update(9, "node9:5001").await.expect_err("unknown");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "etcdserver: member not found")
    );

    for id in [4, 5] {
        let request = pb::MemberRemoveRequest { id };
        let left = client.timely(client.members().member_remove(request)).await.expect("gone");
        assert!(left.members.iter().all(|member| member.id != id));
        let twice = client.timely(client.members().member_remove(request)).await;
        let twice = twice.expect_err("it is gone");
        assert_eq!(twice.message(), "etcdserver: member not found");
    }
    let next = add("node4:5001", false).await.expect("room again").member.expect("the new one");
    assert_eq!(next.id, 6, "an id is never given away twice");
    assert_eq!(listed(&client).await.len(), 4);
    assert_eq!(cluster.settled().await, lead, "nobody was disturbed");
}

/// With two voters in touch, another one may go only if they can go on without it. A leader that
/// has just come to office knows for certain that it has not heard from the dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let others = cluster.others(lead.id);
    cluster.kill(others[1]);
    let client = cluster.client(lead.id).clone();
    let transfer = pb::MoveLeaderRequest { target_id: others[0] };
    client.timely(client.maintenance().move_leader(transfer)).await.expect("a transfer");
    cluster.settled().await;
    let client = cluster.client(others[0]).clone();
    let remove = async |id| {
        client.timely(client.members().member_remove(pb::MemberRemoveRequest { id })).await
    };
    let refused = remove(lead.id).await.expect_err("one of two cannot decide alone");
    let told = (refused.code(), refused.message());
    assert_eq!(told, (Code::Unavailable, "etcdserver: unhealthy cluster"));
    remove(others[1]).await.expect("the dead one can go");
    client.surely_put("k", "v").await;
}

/// etcd's other answer: not for want of members in touch, but of any that ever started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_cannot_be_removed() {
    let cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1);
    let request = pb::MemberRemoveRequest { id: 1 };
    let refused = client.timely(client.members().member_remove(request)).await;
    let refused = refused.expect_err("nobody would be left");
    let text = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, text));
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
