//! The core's values in the compact form of the golden scripts.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::super::node::RoleState;
use super::super::progress::ProgressState;
use super::super::{
    Body, Configuration, Entry, Message, NodeId, Payload, Persist, RaftNode, RequestId, Role,
    SoftState,
};

/// `a` or, for nobody, `-`.
pub fn who(id: Option<NodeId>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("n{id}"))
}

/// `n1/7`: request 7 of member 1.
pub fn request(id: RequestId) -> String {
    format!("n{}/{}", id.origin, id.sequence)
}

/// `2@1 "a"`: index 2, term 1, command a.
pub fn entry(entry: &Entry) -> String {
    let content = match &entry.payload {
        Payload::Noop => "noop".to_owned(),
        Payload::Command(proposal) => format!("\"{}\"", String::from_utf8_lossy(&proposal.data)),
        Payload::Config(config) => configuration(config),
    };
    format!("{} {content}", entry.id)
}

/// `voters 1+2+4 and 1+2+3, learners 5 (to vote for n2), removed 6`
pub fn configuration(config: &Configuration) -> String {
    let list = |ids: &BTreeSet<NodeId>| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join("+")
    };
    let mut text = format!("voters {}", list(&config.voters));
    if config.is_joint() {
        write!(text, " and {}", list(&config.outgoing)).expect("a string");
    }
    for learner in &config.learners {
        let aim = match config.promoting.get(learner) {
            None => "",
            Some(None) => " (to vote)",
            Some(Some(replaced)) => &format!(" (to vote for n{replaced})"),
        };
        write!(text, ", learner {learner}{aim}").expect("a string");
    }
    if !config.removed.is_empty() {
        write!(text, ", removed {}", list(&config.removed)).expect("a string");
    }
    text
}

/// `[2@1 "a", 3@1 "b"]`, shortened in the middle.
pub fn entries(list: &[Entry]) -> String {
    let shown: Vec<String> = match list {
        [first, _, .., _, end] if list.len() > 4 => {
            vec![entry(first), format!("… {} more …", list.len() - 2), entry(end)]
        }
        _ => list.iter().map(entry).collect(),
    };
    format!("[{}]", shown.join(", "))
}

/// `n1→n2 t3 Heartbeat commit 2 round 0`.
pub fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    format!("n{from}→n{to} t{term} {}", self::body(body))
}

fn body(body: &Body) -> String {
    match body {
        Body::RequestVote { last, pre_vote, transfer } => {
            let kind = if *pre_vote { "PreVoteRequest" } else { "VoteRequest" };
            let reason = if *transfer { " by transfer" } else { "" };
            format!("{kind} last {last}{reason}")
        }
        Body::Vote { granted, pre_vote } => {
            let kind = if *pre_vote { "PreVote" } else { "Vote" };
            format!("{kind} {}", if *granted { "granted" } else { "refused" })
        }
        Body::Append { prev, entries, commit } => {
            format!("Append prev {prev} {} commit {commit}", self::entries(entries))
        }
        Body::Appended { last } => format!("Appended {last}"),
        Body::Rejected { prev, hint } => format!("Rejected prev {prev} hint {hint}"),
        Body::Heartbeat { commit, round, successor } => {
            let goes = successor.map_or(String::new(), |to| format!(" for n{to}"));
            format!("Heartbeat commit {commit} round {round}{goes}")
        }
        Body::HeartbeatReply { round } => format!("HeartbeatReply round {round}"),
        Body::InstallSnapshot { meta } => format!("InstallSnapshot {}", meta.last),
        Body::TimeoutNow => "TimeoutNow".to_owned(),
        Body::Propose { proposals } => {
            let ids: Vec<String> = proposals.iter().map(|one| request(one.id)).collect();
            format!("Propose {}", ids.join(" "))
        }
        Body::ReadIndex { id } => format!("ReadIndex {}", request(*id)),
        Body::ReadIndexReply { id, index } => {
            format!("ReadIndexReply {} at {index}", request(*id))
        }
        Body::Change { id, changes } => format!("Change {} {changes:?}", request(*id)),
        Body::Removed { pre_vote: _ } => "Removed".to_owned(),
        Body::AskMembers => "AskMembers".to_owned(),
        Body::Members { ids } => {
            let ids: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
            format!("Members {}", ids.join(" "))
        }
        Body::Refused { ids, why } => {
            let ids: Vec<String> = ids.iter().map(|id| request(*id)).collect();
            format!("Refused {} {why:?}", ids.join(" "))
        }
    }
}

/// `write #2: term 1 vote n1 [1@1 noop]`.
pub fn batch(batch: &Persist) -> String {
    let Persist { seq, hard_state, snapshot, entries, messages_after: _ } = batch;
    let mut text = format!("write #{}: term {}", seq.0, hard_state.term);
    write!(text, " vote {} commit {}", who(hard_state.vote), hard_state.commit).expect("a string");
    if let Some(meta) = snapshot {
        write!(text, " snapshot {}", meta.last).expect("a string");
    }
    if !entries.is_empty() {
        write!(text, " {}", self::entries(entries)).expect("a string");
    }
    text
}

/// `follower → leader term 2 led by n1`.
pub fn transition(before: Role, now: SoftState) -> String {
    let change = if before == now.role {
        now.role.as_str().to_owned()
    } else {
        format!("{} → {}", before.as_str(), now.role.as_str())
    };
    format!("{change}, term {}, leader {}", now.term, who(now.leader))
}

/// One line on a node.
pub fn status(node: &RaftNode) -> String {
    let status = node.status();
    format!(
        "{} term {} vote {} leader {} last {} persisted {} commit {} applied {}",
        status.role.as_str(),
        status.term,
        who(status.vote),
        who(status.leader),
        status.last,
        status.persisted,
        status.commit,
        status.applied,
    )
}

/// One line for each follower of a leader.
pub fn peers(node: &RaftNode) -> Vec<String> {
    let RoleState::Leader(leader) = &node.role else { return Vec::new() };
    let peers = leader.peers.iter().map(|(id, progress)| {
        let state = match progress.state() {
            ProgressState::Probe { paused: true } => "probe (paused)",
            ProgressState::Probe { paused: false } => "probe",
            ProgressState::Replicate(_) => "replicate",
            ProgressState::Snapshot { .. } => "snapshot",
        };
        format!("n{id} {state} matched {} next {}", progress.matched(), progress.next())
    });
    peers.collect()
}
