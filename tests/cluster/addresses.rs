//! Where members are reached: wrong addresses, newcomers under an id in use, and how an operator
//! gets out of either.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::node::NodeInfo;
use tonic::{Code, Status};

use crate::common::{Client, Cluster, Options, eventually, free_port};

const CONFIGURATION: i32 = 78;

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:9";

async fn update(client: &Client, id: u64, address: &str) -> Result<(), Status> {
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![format!("http://{address}")] };
    client.timely(client.members().member_update(request)).await.map(drop)
}

async fn peer_urls(client: &Client, id: u64) -> Vec<String> {
    let request = pb::MemberListRequest { linearizable: true };
    let list = client.timely(client.members().member_list(request)).await.expect("a list");
    let member = list.members.into_iter().find(|member| member.id == id).expect("a member");
    member.peer_ur_ls
}

/// One wrong address costs no quorum, two would: the second is refused, and the first is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_wrong_address_is_refused_while_the_first_member_is_not_reached() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let (one, two) = (cluster.others(lead.id)[0], cluster.others(lead.id)[1]);
    let client = cluster.client(lead.id).clone();
    update(&client, one, NOWHERE).await.expect("the others are a quorum");
    let refused = update(&client, two, NOWHERE).await.expect_err("nobody would be left");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    client.surely_put("with", "one wrong address").await;

    // Also the addresses in the log are not the last word: all start again, and go on.
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    let right = cluster.member(one).peer_addr.clone();
    for id in cluster.ids() {
        cluster.restart(id);
    }
    let client = cluster.client(two).clone();
    eventually("the address to be mended", async || {
        update(&client, one, &right).await.map_err(|status| status.to_string())
    })
    .await;
    let lead = cluster.settled().await;
    cluster.caught_up(one, lead.id).await;
    eventually("the others to be a quorum again", async || {
        update(&client, two, NOWHERE).await.map_err(|status| status.to_string())
    })
    .await;
    client.surely_put("and", "again").await;
}

/// The log holds a wrong address: the environment overrides it until it is corrected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_overrides_addresses_from_the_environment() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let one = cluster.others(lead.id)[0];
    let client = cluster.client(lead.id).clone();
    eventually("the wrong address to be taken", async || {
        update(&client, one, NOWHERE).await.map_err(|status| status.to_string())
    })
    .await;
    // Its machine is another one from now on, at an address that only the operator knows.
    cluster.stop(one).await;
    let elsewhere = format!("127.0.0.1:{}", free_port());
    let member = cluster.member(one);
    member.set("RAFT_PEER_LISTEN", &elsewhere);
    member.peer_addr.clone_from(&elsewhere);
    for id in cluster.others(one) {
        cluster.stop(id).await;
        cluster.member(id).set("RAFT_PEER_OVERRIDES", &format!("{one}={elsewhere}"));
        cluster.restart(id);
        cluster.settled().await;
    }
    cluster.restart(one);
    let lead = cluster.settled().await;
    cluster.caught_up(one, lead.id).await;
    let client = cluster.client(lead.id).clone();
    assert_eq!(peer_urls(&client, one).await, [format!("http://{NOWHERE}")], "as logged");
    eventually("the address to be mended", async || {
        update(&client, one, &elsewhere).await.map_err(|status| status.to_string())
    })
    .await;
    for id in cluster.others(one) {
        cluster.stop(id).await;
        cluster.member(id).unset("RAFT_PEER_OVERRIDES");
        cluster.restart(id);
        cluster.settled().await;
    }
    let lead = cluster.settled().await;
    cluster.caught_up(one, lead.id).await;
}

/// Neither a machine with an empty directory nor a caller of the original service takes the place
/// of a healthy member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_under_an_id_in_use_is_refused_and_moves_no_member() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let taken = cluster.others(lead.id)[0];
    let client = cluster.client(lead.id).clone();
    let before = peer_urls(&client, taken).await;

    // As a machine of its own, whose id was set by mistake.
    cluster.join(9, &[lead.id], &[("RAFT_NODE_ID", &taken.to_string())]);
    let status = cluster.member(9).exit(Duration::from_secs(20)).await;
    let log = cluster.member(9).log();
    assert_eq!(status.code(), Some(CONFIGURATION), "{log}");
    assert!(log.contains("is a member already, at"), "it says why:\n{log}");
    assert_eq!(peer_urls(&client, taken).await, before);

    let info = NodeInfo { id: taken.to_string(), addr: NOWHERE.to_owned() };
    let refused = client.timely(client.registration().register_node(info)).await;
    assert_eq!(refused.expect_err("it is somebody else's").code(), Code::AlreadyExists);
    assert_eq!(peer_urls(&client, taken).await, before);
    client.surely_put("all", "are there").await;
    assert_eq!(cluster.lead_by(taken).await, Ok(lead), "nobody was disturbed");
}

/// A machine that cannot listen is not listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_without_a_port_leaves_no_trace() {
    let mut cluster = Cluster::start(Options::single()).await;
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = occupied.local_addr().expect("an address").to_string();
    cluster.join(2, &[1], &[("RAFT_CLIENT_LISTEN", &address)]);
    let status = cluster.member(2).exit(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(CONFIGURATION), "{}", cluster.member(2).log());
    cluster.voters(&[1], 1).await;
}

/// The highest id there is leaves ids for those that come after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_do_not_run_out() {
    let mut cluster = Cluster::start(Options::single()).await;
    cluster.join(u64::MAX, &[1], &[]);
    cluster.voters(&[1, u64::MAX], 1).await;
    let client = cluster.client(1).clone();
    let peer_ur_ls = vec![format!("http://127.0.0.1:{}", free_port())];
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
    let added = client.timely(client.members().member_add(request)).await.expect("an id");
    assert_eq!(added.member.map(|member| member.id), Some(2));
    cluster.remove(u64::MAX, 1).await;
    cluster.dismissed(u64::MAX).await;
}
