//! The searches: each looks closely at one part of the protocol, so that it gets deep into it.
//!
//! One search over everything at once would spend its states on the first few steps. What each
//! must have met is named beside it.

use std::collections::BTreeSet;

use raft_node::raft::canonical::Ticks;
use raft_node::raft::{Configuration, Entry, EntryId, Index, NodeId, Payload, Term};
use raft_node::testpoints::Mark;

use crate::bounds::{self, Budget, DiskPace, Elections, Rules, SetupStep, Wish, id};
use crate::reachability::Goal;
use crate::search::Found;

pub struct Preset {
    pub name: &'static str,
    pub what: &'static str,
    pub rules: Rules,
    /// Enough states to meet all that must be met, in a plain `cargo test`.
    pub states: usize,
    pub goals: &'static [Goal],
    pub marks: &'static [Mark],
}

impl Preset {
    /// What must be met.
    pub fn wanted(&self) -> usize {
        self.goals.len() + self.marks.len()
    }

    /// What of that `found` did not meet, by name.
    pub fn missed(&self, found: &Found) -> Vec<String> {
        let goals = self.goals.iter().filter(|goal| !found.goals.has(**goal));
        let marks = self.marks.iter().filter(|mark| !found.marks.contains_key(*mark));
        goals.map(|goal| format!("{goal:?}")).chain(marks.map(|mark| format!("{mark:?}"))).collect()
    }
}

pub fn all() -> Vec<Preset> {
    vec![
        elections(),
        votes(),
        pair(),
        replication(),
        figure_8(),
        streaming(),
        forwarding(),
        reads(),
        snapshots(),
        transfer(),
        joint(),
        learner(),
        membership(),
        joining(),
        growing(),
        shrinking(),
        late_snapshots(),
        late_orders(),
        clock(),
    ]
}

pub fn named(name: &str) -> Option<Preset> {
    all().into_iter().find(|preset| preset.name == name)
}

fn ids(raw: &[u64]) -> BTreeSet<NodeId> {
    raw.iter().copied().map(id).collect()
}

fn voters(raw: &[u64]) -> Configuration {
    Configuration { voters: ids(raw), ..Configuration::default() }
}

fn three() -> Rules {
    Rules::new(3, voters(&[1, 2, 3]))
}

fn elections() -> Preset {
    Preset {
        name: "elections",
        what: "two campaigns with every message by itself, slow disks, a crash, lost links",
        rules: Rules {
            disk: DiskPace::InItsTime,
            elections: Elections::EachMessage,
            keeps_stale: true,
            in_flight_max: 4,
            ..three()
                .allow(Budget::Timeouts, 3)
                .allow(Budget::LinkLosses, 1)
                .allow(Budget::Crashes, 1)
        },
        states: 150_000,
        goals: &[Goal::SuffixLost],
        marks: &[Mark::RivalOutranked],
    }
}

fn votes() -> Preset {
    Preset {
        name: "votes",
        what: "three campaigns behind granted pre-votes, slow disks, two crashes, repeated votes",
        rules: Rules {
            disk: DiskPace::InItsTime,
            elections: Elections::PreVoteAtOnce,
            keeps_stale: true,
            terms_max: 3,
            in_flight_max: 4,
            ..three()
                .allow(Budget::Timeouts, 3)
                .allow(Budget::Crashes, 1)
                .allow(Budget::Duplicates, 1)
        },
        states: 150_000,
        goals: &[Goal::LeaderInTerm2],
        marks: &[Mark::VoteRepeated, Mark::ShorterLogRefused],
    }
}

fn pair() -> Preset {
    Preset {
        name: "pair",
        what: "two members, which need each other: everything by itself, slow disks, crashes",
        rules: Rules {
            disk: DiskPace::InItsTime,
            elections: Elections::EachMessage,
            terms_max: 2,
            in_flight_max: 3,
            ..Rules::new(2, voters(&[1, 2]))
                .allow(Budget::Timeouts, 4)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Crashes, 2)
                .allow(Budget::Drops, 1)
                .allow(Budget::Heartbeats, 1)
                .allow(Budget::LinkLosses, 1)
        },
        states: 150_000,
        goals: &[Goal::CommandCommitted, Goal::SuffixLost],
        marks: &[],
    }
}

fn replication() -> Preset {
    Preset {
        name: "replication",
        what: "leaders come and go while entries travel, slow disks, a crash",
        rules: Rules {
            disk: DiskPace::InItsTime,
            terms_max: 3,
            in_flight_max: 3,
            ..three()
                .allow(Budget::Timeouts, 3)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Crashes, 1)
        },
        states: 150_000,
        goals: &[Goal::CommandCommitted, Goal::OldTermCommitted, Goal::SuffixLost],
        marks: &[Mark::ConflictTruncate, Mark::WriteOvertaken],
    }
}

fn figure_8() -> Preset {
    Preset {
        name: "figure-8",
        what: "five terms, entries one by one: what an old term left behind (§5.4.2)",
        rules: Rules {
            single_entries: true,
            terms_max: 5,
            in_flight_max: 3,
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Propose(1),
                SetupStep::Lose,
                SetupStep::Elect(3, 2),
                SetupStep::Lose,
            ],
            keeps_stale: true,
            ..three()
                .allow(Budget::Timeouts, 3)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Heartbeats, 1)
        },
        states: 150_000,
        goals: &[Goal::OldTermCommitted, Goal::FollowerCommits],
        marks: &[Mark::OldTermWithheld, Mark::ConflictTruncate, Mark::ProbeMovesBack],
    }
}

fn streaming() -> Preset {
    Preset {
        name: "streaming",
        what: "one leader, then another: appends repeated, lost and out of order, a full window",
        rules: Rules {
            in_flight_max: 4,
            opening: vec![SetupStep::Elect(1, 2), SetupStep::Talk(1, 2)],
            ..three()
                .allow(Budget::Proposals, 3)
                .allow(Budget::Duplicates, 1)
                .allow(Budget::Drops, 1)
                .allow(Budget::Heartbeats, 2)
                .allow(Budget::Timeouts, 1)
        },
        states: 150_000,
        goals: &[Goal::CommandCommitted, Goal::FollowerCommits],
        marks: &[Mark::WindowFull, Mark::StaleRejection, Mark::CommittedSkipped],
    }
}

fn forwarding() -> Preset {
    Preset {
        name: "forwarding",
        what: "a follower's proposal comes twice, across a crash or a change of leaders",
        rules: Rules {
            in_flight_max: 4,
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Talk(1, 2),
                SetupStep::Talk(1, 3),
                SetupStep::Propose(2),
            ],
            ..three()
                .allow(Budget::Duplicates, 1)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Timeouts, 1)
                .allow(Budget::Silences, 1)
                .allow(Budget::Crashes, 1)
        },
        states: 100_000,
        goals: &[Goal::CommandCommitted, Goal::Refused],
        marks: &[Mark::ProposalRepeated, Mark::ProposalUnanswered],
    }
}

fn reads() -> Preset {
    Preset {
        name: "reads",
        what: "reads on every member while leaders change and write",
        rules: Rules {
            terms_max: 2,
            in_flight_max: 4,
            opening: vec![SetupStep::Elect(1, 2), SetupStep::Talk(1, 2), SetupStep::Talk(1, 3)],
            ..three().allow(Budget::Reads, 3).allow(Budget::Proposals, 1).allow(Budget::Timeouts, 1)
        },
        states: 150_000,
        goals: &[Goal::LeaderRead, Goal::FollowerRead, Goal::Refused, Goal::TwoLeaders],
        marks: &[Mark::ReadBeforeFirstCommit],
    }
}

fn snapshots() -> Preset {
    Preset {
        name: "snapshots",
        what: "logs are forgotten, and followers that lag or went astray get snapshots",
        rules: Rules {
            disk: DiskPace::InItsTime,
            terms_max: 3,
            in_flight_max: 3,
            opening: vec![
                // The third is alone with entries of term 1.
                SetupStep::Elect(3, 1),
                SetupStep::Propose(3),
                SetupStep::Lose,
                SetupStep::Elect(1, 2),
                SetupStep::Propose(1),
                SetupStep::Talk(1, 2),
            ],
            ..three()
                .allow(Budget::Compactions, 2)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Duplicates, 1)
                .allow(Budget::Drops, 1)
                .allow(Budget::Timeouts, 1)
                .allow(Budget::Crashes, 1)
        },
        states: 150_000,
        goals: &[Goal::SnapshotInstalled, Goal::FollowerCommits],
        marks: &[Mark::SnapshotReplacesLog, Mark::StaleSnapshotIgnored, Mark::SnapshotFailed],
    }
}

fn transfer() -> Preset {
    Preset {
        name: "transfer",
        what: "leadership is handed over, to one that lags or not, while others campaign",
        rules: Rules {
            elections: Elections::PreVoteAtOnce,
            keeps_stale: true,
            terms_max: 3,
            in_flight_max: 4,
            opening: vec![SetupStep::Elect(1, 2), SetupStep::Talk(1, 2)],
            ..three()
                .allow(Budget::Transfers, 2)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Reads, 1)
                .allow(Budget::Timeouts, 1)
                .allow(Budget::Duplicates, 1)
        },
        states: 150_000,
        goals: &[Goal::TransferCompleted, Goal::Refused],
        marks: &[Mark::ProposalInTransfer],
    }
}

fn joint() -> Preset {
    let config = Configuration { outgoing: ids(&[1, 2, 3]), ..voters(&[1, 4]) };
    Preset {
        name: "joint",
        what: "from three members to two others, by way of both: each half has its say",
        rules: Rules { helpers: 1..=3, ..changing(config) }
            .allow(Budget::Timeouts, 2)
            .allow(Budget::Proposals, 1),
        states: 100_000,
        goals: &[Goal::ConfigurationCommitted, Goal::LeaderInTerm2],
        marks: &[Mark::ConflictTruncate],
    }
}

fn learner() -> Preset {
    let initial = Configuration { learners: ids(&[3]), ..voters(&[1, 2]) };
    Preset {
        name: "learner",
        what: "two voters and a learner, which has the entries and no say",
        rules: Rules {
            terms_max: 3,
            in_flight_max: 4,
            ..Rules::new(3, initial)
                .allow(Budget::Timeouts, 2)
                .allow(Budget::Proposals, 1)
                .allow(Budget::Reads, 1)
                .allow(Budget::Drops, 1)
                .allow(Budget::Crashes, 1)
        },
        states: 50_000,
        goals: &[Goal::CommandCommitted, Goal::OldTermCommitted],
        marks: &[],
    }
}

/// The first of three led term 1, and began a change to `config`. A fourth waits.
fn changing(config: Configuration) -> Rules {
    let id = EntryId { term: Term(1), index: Index(1) };
    Rules {
        logs: Some((bounds::id(1), vec![Entry { id, payload: Payload::Config(config) }])),
        terms_max: 3,
        in_flight_max: 4,
        ..Rules::new(4, voters(&[1, 2, 3]))
    }
}

fn with_learner() -> Configuration {
    Configuration { learners: ids(&[4]), ..voters(&[1, 2, 3]) }
}

fn membership() -> Preset {
    Preset {
        name: "membership",
        what: "a change of members stands in one log, and is committed or cut",
        rules: changing(with_learner()).allow(Budget::Timeouts, 2).allow(Budget::Proposals, 1),
        states: 100_000,
        goals: &[Goal::ConfigurationCommitted, Goal::OldTermCommitted],
        marks: &[Mark::ConflictTruncate],
    }
}

fn joining() -> Preset {
    Preset {
        name: "joining",
        what: "a change of members is committed and forgotten, and travels by snapshot",
        rules: Rules {
            opening: vec![SetupStep::Elect(1, 2), SetupStep::Talk(1, 2), SetupStep::Lose],
            ..changing(with_learner())
                .allow(Budget::Timeouts, 1)
                .allow(Budget::Heartbeats, 1)
                .allow(Budget::LinkLosses, 1)
                .allow(Budget::Compactions, 1)
                .allow(Budget::Proposals, 1)
        },
        states: 100_000,
        goals: &[Goal::SnapshotInstalled],
        marks: &[Mark::SnapshotReplacesLog],
    }
}

fn growing() -> Preset {
    Preset {
        name: "growing",
        what: "a machine with nothing joins three members, and votes, while members go",
        rules: Rules {
            helpers: 2..=2,
            wishes: vec![Wish::Promote(4), Wish::Remove(1), Wish::Remove(4)],
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Talk(1, 2),
                SetupStep::Talk(1, 3),
                SetupStep::Change(1, Wish::Add(4)),
                SetupStep::Talk(1, 2),
            ],
            ..Rules::new(4, voters(&[1, 2, 3]))
                .allow(Budget::Timeouts, 1)
                .allow(Budget::Changes, 1)
                .allow(Budget::Proposals, 1)
        },
        states: 150_000,
        goals: &[Goal::JointCommitted, Goal::NewcomerVotes, Goal::LeaderInTerm2],
        marks: &[Mark::JointEntered, Mark::JointInherited, Mark::SecondChangeRefused],
    }
}

fn shrinking() -> Preset {
    Preset {
        name: "shrinking",
        what: "members go, the leader among them, while others campaign",
        rules: Rules {
            terms_max: 3,
            wishes: vec![Wish::Remove(2), Wish::Remove(3)],
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Talk(1, 2),
                SetupStep::Talk(1, 3),
                SetupStep::Change(1, Wish::Remove(1)),
            ],
            ..three()
                .allow(Budget::Timeouts, 2)
                .allow(Budget::Changes, 1)
                .allow(Budget::Heartbeats, 1)
                .allow(Budget::Proposals, 1)
        },
        states: 150_000,
        goals: &[Goal::JointCommitted, Goal::ConfigurationCommitted, Goal::RemovedLeaderFollowed],
        marks: &[Mark::JointEntered, Mark::JointInherited, Mark::RemovedLeaderHandsOver],
    }
}

fn late_snapshots() -> Preset {
    Preset {
        name: "late-snapshots",
        what: "a snapshot is on its way to a follower to which its entries are, too",
        rules: Rules {
            in_flight_max: 7,
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Talk(1, 2),
                SetupStep::Talk(1, 3),
                // Both are on their way to both; the first is committed, and forgotten.
                SetupStep::Propose(1),
                SetupStep::Propose(1),
                SetupStep::Deliver(1, 2),
                SetupStep::Deliver(2, 1),
                SetupStep::Compact(1),
                SetupStep::LinkLost(1, 3),
            ],
            ..three()
                .allow(Budget::Proposals, 1)
                .allow(Budget::Duplicates, 1)
                .allow(Budget::Compactions, 1)
                .allow(Budget::Drops, 1)
        },
        states: 100_000,
        goals: &[Goal::SnapshotInstalled, Goal::CommandCommitted],
        marks: &[Mark::SnapshotHeldAlready, Mark::StaleSnapshotIgnored, Mark::SnapshotFailed],
    }
}

fn late_orders() -> Preset {
    Preset {
        name: "late-orders",
        what: "an order to campaign arrives after its leader has given up handing over",
        rules: Rules {
            ticks: Ticks::Count,
            elections: Elections::EachMessage,
            terms_max: 2,
            in_flight_max: 6,
            opening: vec![
                SetupStep::Elect(1, 2),
                SetupStep::Talk(1, 2),
                SetupStep::Talk(1, 3),
                SetupStep::Transfer(1, 3),
                SetupStep::Tick(1),
                SetupStep::Talk(1, 2),
                SetupStep::Tick(1),
            ],
            ..three().allow(Budget::Proposals, 1).allow(Budget::Ticks, 1)
        },
        states: 50_000,
        goals: &[Goal::LeaderInTerm2, Goal::CommandCommitted],
        marks: &[Mark::TransferTimedOut, Mark::ShorterLogRefused],
    }
}

fn clock() -> Preset {
    Preset {
        name: "clock",
        what: "time tick by tick: leases, CheckQuorum, transfers that take too long",
        rules: Rules {
            ticks: Ticks::Count,
            elections: Elections::EachMessage,
            terms_max: 3,
            in_flight_max: 4,
            opening: vec![SetupStep::Elect(1, 2), SetupStep::Talk(1, 2), SetupStep::Talk(1, 3)],
            ..three()
                .allow(Budget::Ticks, 7)
                .allow(Budget::Transfers, 1)
                .allow(Budget::Reads, 1)
                .allow(Budget::Drops, 2)
        },
        states: 150_000,
        goals: &[Goal::SteppedDown, Goal::LeaderRead],
        marks: &[Mark::QuorumLost, Mark::CandidateShielded],
    }
}
