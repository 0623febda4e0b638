//! The bounds of a search: who takes part, what may happen how often, and from where it starts.

use std::ops::RangeInclusive;

use raft_node::raft::canonical::{Names, Ticks};
use raft_node::raft::{Change, Config, Configuration, Entry, NodeId, TargetRole};

/// Ticks without an answer after which a leader steps down, where single ticks are not searched.
const SILENCE_TICKS: u32 = 64;

/// How the disk comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPace {
    /// Each write is durable before anything else happens.
    AtOnce,
    /// A write is durable when that is its turn among all other events, or never.
    InItsTime,
}

/// How fine elections are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elections {
    /// Timers fire, and every message travels by itself.
    EachMessage,
    /// A pre-vote is asked and granted in one step; the election itself goes by messages.
    PreVoteAtOnce,
    /// A few members agree on a leader in one step, as they do when nothing comes between. What
    /// they say to others meanwhile is lost.
    AtOnce,
}

/// What is allowed only so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Timeouts,
    Proposals,
    Reads,
    Heartbeats,
    Crashes,
    Drops,
    Duplicates,
    LinkLosses,
    Silences,
    Transfers,
    Compactions,
    Changes,
    Ticks,
}

pub const BUDGETS: usize = Budget::Ticks as usize + 1;

/// A change of the membership that somebody may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new voter, which learns first.
    Add(u64),
    /// A learner is to vote.
    Promote(u64),
    /// A member is to go.
    Remove(u64),
}

impl Wish {
    /// What is asked for.
    pub fn changes(self) -> Vec<Change> {
        vec![match self {
            Self::Add(raw) => Change::Add {
                id: id(raw),
                address: format!("machine{raw}:1"),
                aim: TargetRole::Voter { replaces: None },
            },
            Self::Promote(raw) => Change::Promote(id(raw)),
            Self::Remove(raw) => Change::Remove(id(raw)),
        }]
    }
}

/// How often each may happen.
pub type Budgets = [u8; BUDGETS];

/// A step towards where the search starts.
#[derive(Clone, Copy, Debug)]
pub enum SetupStep {
    /// The first becomes leader by the vote of the second.
    Elect(u64, u64),
    Tick(u64),
    LinkLost(u64, u64),
    Transfer(u64, u64),
    Propose(u64),
    Compact(u64),
    Change(u64, Wish),
    /// Everything that these two say to each other arrives, until they have no more to say.
    Talk(u64, u64),
    /// One message arrives.
    Deliver(u64, u64),
    /// Everything in flight is lost.
    Lose,
}

/// One search.
#[derive(Clone, Debug)]
pub struct Rules {
    pub members: u64,
    pub initial: Configuration,
    /// Who led term 1 before the start, and the entries that it has on its disk.
    pub logs: Option<(NodeId, Vec<Entry>)>,
    pub disk: DiskPace,
    pub ticks: Ticks,
    pub elections: Elections,
    /// Whether messages stay in flight that can have no effect any more.
    pub keeps_stale: bool,
    /// Entries travel one by one.
    pub single_entries: bool,
    /// How many votes besides its own a candidate gets, where they come at once.
    pub helpers: RangeInclusive<u32>,
    pub terms_max: u64,
    pub in_flight_max: usize,
    pub budgets: Budgets,
    pub opening: Vec<SetupStep>,
    /// What may be wanted of the membership. Who is no member at first begins under none then.
    pub wishes: Vec<Wish>,
    /// Every renaming of the members under which the initial configuration stays what it is; the
    /// first changes no name.
    pub names: Vec<Names>,
}

impl Rules {
    /// `initial`, in which every number from 1 to `members` takes part or waits to.
    pub fn new(members: u64, initial: Configuration) -> Self {
        Self {
            names: renamings(members, &initial),
            members,
            initial,
            logs: None,
            disk: DiskPace::AtOnce,
            ticks: Ticks::Ignore,
            elections: Elections::AtOnce,
            keeps_stale: false,
            single_entries: false,
            helpers: 1..=1,
            terms_max: 2,
            in_flight_max: 4,
            budgets: [0; BUDGETS],
            opening: Vec::new(),
            wishes: Vec::new(),
        }
    }

    pub fn allow(mut self, budget: Budget, times: u8) -> Self {
        self.budgets[budget as usize] = times;
        self
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.members).map(id)
    }

    /// The sets of members whose votes the one at `at` may get at once, a bit for each.
    pub fn helpers(&self, at: usize) -> impl Iterator<Item = u8> {
        let fits = move |set: &u8| *set & 1 << at == 0 && self.helpers.contains(&set.count_ones());
        (0..1 << self.members).filter(fits)
    }

    pub fn config(&self, id: NodeId) -> Config {
        let election_ticks = match self.ticks {
            Ticks::Count => 2,
            Ticks::Ignore => SILENCE_TICKS,
        };
        Config {
            id,
            heartbeat_ticks: 1,
            election_ticks_min: election_ticks,
            election_ticks_max: election_ticks,
            leader_lost_delay_ticks_max: 1,
            append_bytes_max: if self.single_entries { 1 } else { 1 << 20 },
            inflight_messages_max: 2,
            inflight_bytes_max: 1 << 20,
            uncommitted_bytes_max: 1 << 20,
            reads_pending_max: 8,
            ready_bytes_max: 1 << 20,
            addresses: std::collections::BTreeMap::new(),
            address_overrides: std::collections::BTreeMap::new(),
            seed: 1,
        }
    }
}

pub fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("members count from 1")
}

fn renamings(members: u64, initial: &Configuration) -> Vec<Names> {
    let mut all: Vec<Vec<u64>> = vec![Vec::new()];
    for _ in 0..members {
        let mut longer = Vec::new();
        for names in all {
            let free = (1..=members).filter(|name| !names.contains(name));
            longer.extend(free.map(|name| [names.clone(), vec![name]].concat()));
        }
        all = longer;
    }
    let keeps = |names: &Names| {
        let kept = |half: &std::collections::BTreeSet<NodeId>| {
            half.iter().all(|member| half.contains(&id(names.of(*member))))
        };
        kept(&initial.voters) && kept(&initial.outgoing) && kept(&initial.learners)
    };
    all.into_iter().map(Names::new).filter(keeps).collect()
}
