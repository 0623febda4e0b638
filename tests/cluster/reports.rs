//! What the members' logs say of elections, and of peers that are refused: the causes, the terms,
//! the votes; each once.

use std::time::Duration;

use crate::common::{Cluster, Options, eventually, within};

/// Lists of ids: with one member they look like a number.
const LISTS: [&str; 6] = ["voters", "outgoing", "learners", "granted", "refused", "silent"];

/// The lines of a member's log that hold all of `words`.
fn lines(cluster: &mut Cluster, id: u64, words: &[&str]) -> Vec<String> {
    let log = cluster.member(id).log();
    let holds = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(holds).map(str::to_owned).collect()
}

/// Waits until a member's log holds such a line.
async fn logged(cluster: &mut Cluster, id: u64, words: &[&str]) -> String {
    within(Duration::from_secs(30), &format!("{words:?} in the log of {id}"), async || {
        lines(cluster, id, words).pop().ok_or_else(|| cluster.member(id).log())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_says_why_and_who_voted() {
    let mut cluster = Cluster::start(Options::default()).await;
    let old = cluster.settled().await;
    cluster.kill(old.id);
    let new = cluster.settled().await;
    let voter = cluster.ids().into_iter().find(|id| ![old.id, new.id].contains(id)).expect("one");
    let (old_term, term) = (format!("old_term={}", old.term), format!("term={}", new.term));
    logged(&mut cluster, new.id, &["leader lost", &old_term, "connection to the leader lost"])
        .await;
    logged(&mut cluster, new.id, &["elected", &term, "granted=", &voter.to_string()]).await;
    logged(&mut cluster, new.id, &["role changed", "to=\"leader\"", &term, "cause="]).await;
    let candidate = format!("candidate={}", new.id);
    logged(&mut cluster, voter, &["vote given", &candidate, &term]).await;
    let leader = format!("leader={}", new.id);
    logged(&mut cluster, voter, &["leader known", &leader, &term]).await;
    for id in [new.id, voter] {
        for line in lines(&mut cluster, id, &["role changed"]) {
            assert!(line.contains("old_term="), "one term reads as two leaders in it: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_alone_can_be_logged_in_detail() {
    let options = Options::default().env("RAFT_LOG", "warn,raft_node::raft=debug");
    let mut cluster = Cluster::start(options).await;
    let lead = cluster.settled().await;
    logged(&mut cluster, lead.id, &["DEBUG", "vote received", "granted=true"]).await;
    logged(&mut cluster, lead.id, &["INFO", "elected"]).await;
    let other = lines(&mut cluster, lead.id, &["INFO", "serving"]);
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_logged_and_names_who_is_silent() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let others = cluster.others(lead.id);
    for id in &others {
        cluster.member(*id).freeze();
    }
    let silent: Vec<String> = others.iter().map(ToString::to_string).collect();
    let silent = format!("silent=\"{}\"", silent.join(","));
    logged(&mut cluster, lead.id, &["WARN", "quorum lost", &silent]).await;
    logged(&mut cluster, lead.id, &["WARN", "no leader", "leaderless_ms="]).await;
    for id in &others {
        cluster.member(*id).thaw();
    }
    cluster.settled().await;
    logged(&mut cluster, lead.id, &["leader known", "leaderless_ms="]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_token_is_named_by_both_sides_and_once() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.member(3).set("RAFT_CLUSTER_TOKEN", "other");
    for id in [1, 2, 3] {
        cluster.member(id).start();
    }
    cluster.settled_among(&[1, 2]).await;
    logged(&mut cluster, 3, &["peer not reached", "RAFT_CLUSTER_TOKEN"]).await;
    logged(&mut cluster, 1, &["frame refused", "sender=\"127.0.0.1:", "RAFT_CLUSTER_TOKEN"]).await;
    // Long enough for many dials, of which each is refused.
    logged(&mut cluster, 3, &["no leader", "leaderless_ms="]).await;
    for id in [1, 2] {
        let refused = lines(&mut cluster, id, &["frame refused"]);
        assert!(refused.len() <= 2, "{} lines: {refused:#?}", refused.len());
    }
    // The same mistake, made after the first start.
    cluster.stop(1).await;
    cluster.member(1).set("RAFT_CLUSTER_TOKEN", "other");
    cluster.member(1).start();
    let status = cluster.member(1).exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(74));
    let told = lines(&mut cluster, 1, &["RAFT_CLUSTER_TOKEN", "RAFT_PEERS", "belongs to"]);
    assert_eq!(told.len(), 1, "{}", cluster.member(1).log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_that_returns_is_logged_once() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let gone = cluster.others(lead.id)[0];
    cluster.remove(gone, lead.id).await;
    cluster.dismissed(gone).await;
    for _ in 0..5 {
        cluster.restart(gone);
        cluster.member(gone).exit(Duration::from_secs(20)).await;
    }
    for id in cluster.others(gone) {
        let refused = lines(&mut cluster, id, &["frame refused"]);
        assert!(refused.len() <= 2, "{} lines: {refused:#?}", refused.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_a_log_for_machines_are_numbers() {
    let mut cluster = Cluster::start(Options::default().env("RAFT_LOG_FORMAT", "json")).await;
    let old = cluster.settled().await;
    cluster.kill(old.id);
    cluster.settled().await;
    cluster.restart(old.id);
    cluster.settled().await;
    for id in cluster.ids() {
        for line in cluster.member(id).log().lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let fields = event.as_object().expect("an object");
            for (name, value) in fields.iter().filter(|(name, _)| !LISTS.contains(&name.as_str())) {
                let is_number = value.as_str().is_some_and(|text| text.parse::<u64>().is_ok());
                assert!(!is_number, "{name} is text: {line}");
            }
        }
    }
    let leads = format!("\"leader\":{}", cluster.settled().await.id);
    eventually("the leader, as a number", async || {
        let told = lines(&mut cluster, old.id, &["leader known", &leads]);
        if told.is_empty() { Err(cluster.member(old.id).log()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_without_effect_is_logged_with_the_reason() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let dead = cluster.others(lead.id)[0];
    cluster.join(4, &[lead.id], &[]);
    cluster.voters(&[1, 2, 3, 4], lead.id).await;
    cluster.kill(dead);
    // The machine is made anew on the disk that it has, to take the place of a dead member.
    cluster.stop(4).await;
    cluster.member(4).set("RAFT_REPLACES", &dead.to_string());
    cluster.restart(4);
    let why = format!("node 4 is a member already, and {dead} still is");
    logged(&mut cluster, 4, &["WARN", "RAFT_REPLACES", "has no effect", &why]).await;
    cluster.settled().await;
}
