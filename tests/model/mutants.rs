//! Whether the searches would see a bug: each deliberate bug of the core, and where it must die.

use raft_node::testpoints::Mutant;

use crate::search::{self, Counterexample, Limits};
use crate::specs;

/// How a bug was found.
#[derive(Clone, Debug)]
pub struct Kill {
    pub preset: &'static str,
    pub states: usize,
    pub seconds: f64,
    pub example: Counterexample,
}

/// Where each bug of the core is looked for, most promising first.
const WHERE: &[(Mutant, &[&str])] = &[
    (Mutant::VoteBlind, &["figure-8"]),
    (Mutant::VoteTwice, &["votes"]),
    (Mutant::VoteUnsaved, &["votes"]),
    (Mutant::TermUnsaved, &["votes"]),
    (Mutant::RevealEarly, &["votes"]),
    (Mutant::StaleVoteCounted, &["votes"]),
    (Mutant::PreVoteCounted, &["elections"]),
    (Mutant::PreVoteRaisesTerm, &["elections"]),
    (Mutant::ShieldIgnored, &["clock"]),
    (Mutant::FutureIgnored, &["figure-8"]),
    (Mutant::TransferVoteBlind, &["late-orders"]),
    (Mutant::TransferTooEarly, &["transfer"]),
    (Mutant::StaleTimeoutNow, &["transfer"]),
    (Mutant::JointVoteHalf, &["joint"]),
    (Mutant::CommitOldTerm, &["figure-8"]),
    (Mutant::NoopForgotten, &["figure-8"]),
    (Mutant::CountUndurable, &["replication"]),
    (Mutant::AckUndurable, &["replication"]),
    (Mutant::ApplyUndurable, &["replication"]),
    (Mutant::OvertakenWriteCounted, &["replication"]),
    (Mutant::StaleAckCounted, &["figure-8"]),
    (Mutant::CutMatching, &["streaming"]),
    (Mutant::HeartbeatCommitsAll, &["figure-8"]),
    (Mutant::QuorumUnsorted, &["figure-8"]),
    (Mutant::JointCommitHalf, &["joint"]),
    (Mutant::LearnerCounted, &["learner"]),
    (Mutant::LearnerMute, &["growing"]),
    (Mutant::LeftOutSilent, &["shrinking"]),
    (Mutant::RemovedCounted, &["shrinking"]),
    (Mutant::ConfigOutlivesCut, &["membership"]),
    (Mutant::StaleSnapshot, &["late-snapshots"]),
    (Mutant::SnapshotCutsLog, &["late-snapshots"]),
    (Mutant::SnapshotKeepsMembership, &["joining"]),
    (Mutant::SnapshotUnsaved, &["snapshots"]),
    (Mutant::ReadBeforeCommit, &["reads"]),
    (Mutant::ReadUnconfirmed, &["reads"]),
    (Mutant::ReadRoundReused, &["reads"]),
    (Mutant::ReadJoinsRound, &["reads"]),
    (Mutant::ProposalTwice, &["forwarding"]),
    (Mutant::RefusesForgotten, &["forwarding"]),
    (Mutant::ProposeInTransfer, &["transfer"]),
];

/// All bugs of the core.
pub fn all() -> impl Iterator<Item = Mutant> {
    WHERE.iter().map(|(mutant, _)| *mutant)
}

/// The first search that finds `mutant`, each within `states`. None: it lives, or is not of the
/// core.
pub fn kill(mutant: Mutant, states: usize, threads: usize) -> Option<Kill> {
    let (_, searches) = WHERE.iter().find(|(one, _)| *one == mutant)?;
    searches.iter().find_map(|name| {
        let preset = specs::named(name).expect("the presets named above exist");
        let limits = Limits { states, threads, mutant: Some(mutant), progress: None };
        let found = search::run(&preset.rules, limits);
        found.violation.map(|example| Kill {
            preset: preset.name,
            states: found.states,
            seconds: found.seconds,
            example,
        })
    })
}
