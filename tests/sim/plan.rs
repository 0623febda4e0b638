//! What a seed makes of a run: how large, how fast, how tight, how unlucky. Everything is drawn
//! before the run begins, so that two runs of one seed differ in nothing.

use std::collections::BTreeMap;

use raft_node::node::ReplicaConfig;
use raft_node::raft::{self, LogCacheLimits, NodeId};
use raft_node::storage::Options;

use crate::faults::{self, Decision, Weather};
use crate::rng::Rng;

/// Streams of a seed's chance.
pub mod stream {
    /// The plan.
    pub const PLAN: u64 = 1;
    /// The injector.
    pub const FAULTS: u64 = 2;
    /// The network and the timing of everything.
    pub const WORLD: u64 = 3;
    /// The clients.
    pub const CLIENTS: u64 = 4;
    /// Who comes and goes.
    pub const MEMBERSHIP: u64 = 5;
    /// Whether members are far from each other.
    pub const DISTANCE: u64 = 6;
    /// The disks: one each.
    pub const DISK: u64 = 100;
}

/// A run to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose.
    pub seed: u64,
    /// How many members it begins with.
    pub members: usize,
    /// How many machines wait to join; none where the members are fixed.
    pub joiners: usize,
    /// With so few voters nobody is removed on purpose.
    pub voters_min: usize,
    /// How long faults go on.
    pub faulty_us: u64,
    /// What goes wrong.
    pub decisions: Vec<Decision>,
    /// How long a tick lasts, by a clock that goes well.
    pub tick_us: u64,
    /// The core's timeouts, in ticks.
    pub heartbeat_ticks: u32,
    /// The shortest election timeout.
    pub election_ticks_min: u32,
    /// The longest.
    pub election_ticks_max: u32,
    /// What is kept, and where it is cut.
    pub sizes: Sizes,
    /// The links.
    pub links: Links,
    /// How fast the members work.
    pub pace: Pace,
    /// What the clients do.
    pub workload: Workload,
}

/// Bounds that are large in production and small here, so that they are met.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The log's files.
    pub options: Options,
    /// Log kept in memory.
    pub cache_bytes: usize,
    /// The least log that makes a snapshot worth its while.
    pub snapshot_log_bytes: u64,
    /// Entries in one append.
    pub append_bytes: usize,
    /// Appends under way to one follower.
    pub inflight_messages: usize,
    /// Bytes under way to one follower.
    pub inflight_bytes: usize,
    /// Bytes that a leader takes in.
    pub uncommitted_bytes: usize,
    /// Bytes handed out for application.
    pub ready_bytes: usize,
    /// Requests that wait.
    pub requests: usize,
    /// A piece of a snapshot on the wire.
    pub piece_bytes: usize,
}

/// How the network behaves on a good day. Chances in parts of a million.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// The least that a message takes.
    pub latency_us: u64,
    /// More of it, at random.
    pub jitter_us: u64,
    /// Messages may overtake each other.
    pub reorder: bool,
    /// Messages lost.
    pub lose: u32,
    /// Messages that arrive twice.
    pub duplicate: u32,
    /// Frames damaged on the way.
    pub corrupt: u32,
    /// Frames that are put through the codec though nothing is wrong with them.
    pub encode: u32,
    /// How long silence lasts until a connection is taken for dead.
    pub keepalive_us: u64,
}

/// How fast members work.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A sync.
    pub sync_us: u64,
    /// The making of a blank segment.
    pub spare_us: u64,
    /// A slice of entries.
    pub apply_us: u64,
    /// A chunk of a snapshot.
    pub save_us: u64,
    /// Turns that take in more before they do anything, in parts of a million.
    pub coalesce: u32,
}

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How many.
    pub clients: usize,
    /// Between two bursts of one client.
    pub pause_us: u64,
    /// Requests in a burst.
    pub burst: u64,
    /// Between two requests of a burst.
    pub think_us: u64,
    /// How long a client waits for an answer.
    pub patience_us: u64,
    /// Different keys.
    pub keys: u64,
    /// The longest value.
    pub value_bytes: u64,
    /// Reads, in hundredths.
    pub reads: u64,
    /// Requests in all, at most.
    pub requests_max: usize,
}

/// How long the worlds of a run go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// For a test: about a minute.
    Short,
    /// For a sweep: five to ten minutes.
    Long,
}

/// What is left of a plan while it is being shortened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The decisions that stay, by number; `None`: all.
    pub keep: Option<Vec<usize>>,
    /// How long faults go on.
    pub faulty_us: Option<u64>,
    /// How many requests there are.
    pub requests_max: Option<usize>,
}

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, length: Length, cut: &Cut) -> Self {
        let mut rng = Rng::new(seed, stream::PLAN);
        let fixed = rng.pick(&[3, 3, 3, 3, 3, 4, 5, 5, 5, 7]);
        let mut membership = Rng::new(seed, stream::MEMBERSHIP);
        let changing = membership.one_in(2).then(|| Changing::draw(&mut membership, length));
        let members = changing.as_ref().map_or(fixed, |changing| changing.members);
        let joiners = changing.as_ref().map_or(0, |changing| changing.joiners);
        let places = (members + joiners) as u64;
        let faulty_us = match length {
            Length::Short => rng.between(30, 60) * 1_000_000,
            Length::Long => rng.between(300, 600) * 1_000_000,
        };
        let every_us = match length {
            Length::Short => rng.between(300, 3000) * 1000,
            Length::Long => rng.between(1000, 10_000) * 1000,
        };
        let heartbeat_ticks = rng.pick(&[1, 1, 2, 2, 3, 5]);
        let heartbeat_us = rng.pick(&[50_000, 50_000, 50_000, 100_000]);
        let election_ticks_min = heartbeat_ticks * rng.between(2, 4) as u32 + 1;
        let election_ticks_max = election_ticks_min + rng.between(1, 8) as u32;
        let mut sizes = sizes(&mut rng);
        // A run whose ordinary days look like faults would prove nothing about healing.
        let timeout_us = heartbeat_us / u64::from(heartbeat_ticks) * u64::from(election_ticks_min);
        let mut links = links(&mut rng, timeout_us / 15);
        let pace = pace(&mut rng, timeout_us / 20);
        let workload = workload(&mut rng, length);
        let mut distance = Rng::new(seed, stream::DISTANCE);
        if distance.one_in(8) {
            go_far(&mut distance, timeout_us, &mut links, &mut sizes);
        }
        let mut faults = Rng::new(seed, stream::FAULTS);
        let weather = Weather::draw(&mut faults);
        let mut decisions = weather.decide(&mut faults, places, faulty_us, every_us);
        if faults.one_in(4) {
            decisions.insert(0, Decision::at_first_start(&mut faults, places));
        }
        if let Some(changing) = &changing {
            let every_us = changing.every_us;
            decisions.extend(faults::changes(&mut membership, places, faulty_us, every_us));
            decisions.sort_by_key(|decision| decision.at_us);
        }
        let plan = Self {
            seed,
            members,
            joiners,
            voters_min: changing.map_or(members, |changing| changing.voters_min),
            faulty_us,
            decisions,
            tick_us: heartbeat_us / u64::from(heartbeat_ticks),
            heartbeat_ticks,
            election_ticks_min,
            election_ticks_max,
            sizes,
            links,
            pace,
            workload,
        };
        plan.cut(cut)
    }

    fn cut(mut self, cut: &Cut) -> Self {
        if let Some(keep) = &cut.keep {
            self.decisions = keep.iter().map(|at| self.decisions[*at].clone()).collect();
        }
        if let Some(faulty_us) = cut.faulty_us {
            self.faulty_us = faulty_us;
            self.decisions.retain(|decision| decision.at_us < faulty_us);
        }
        if let Some(requests_max) = cut.requests_max {
            self.workload.requests_max = requests_max;
        }
        self
    }

    /// The longest election timeout.
    pub fn election_us(&self) -> u64 {
        u64::from(self.election_ticks_max) * self.tick_us
    }

    /// How many first members make a majority.
    pub fn quorum(&self) -> usize {
        self.members / 2 + 1
    }

    /// How many machines there are.
    pub fn places(&self) -> usize {
        self.members + self.joiners
    }

    /// Whether members come and go.
    pub fn changing(&self) -> bool {
        self.joiners > 0
    }

    /// Where the first members are reached, as their operators say.
    pub fn first_addresses(&self) -> BTreeMap<NodeId, String> {
        let id = |at: usize| NodeId::new(at as u64 + 1).expect("counted from one");
        (0..self.members).map(|at| (id(at), address(at, 0))).collect()
    }

    /// The settings of a member in one of its lives.
    pub fn replica(
        &self,
        id: NodeId,
        restarts: u64,
        seed: u64,
        addresses: BTreeMap<NodeId, String>,
    ) -> ReplicaConfig {
        let sizes = &self.sizes;
        let ticks = |us: u64| us.div_ceil(self.tick_us) as u32;
        ReplicaConfig {
            raft: raft::Config {
                id,
                heartbeat_ticks: self.heartbeat_ticks,
                election_ticks_min: self.election_ticks_min,
                election_ticks_max: self.election_ticks_max,
                leader_lost_delay_ticks_max: ticks(20_000),
                addresses,
                address_overrides: BTreeMap::new(),
                append_bytes_max: sizes.append_bytes,
                inflight_messages_max: sizes.inflight_messages,
                inflight_bytes_max: sizes.inflight_bytes,
                // Each member submits its share.
                uncommitted_bytes_max: sizes.uncommitted_bytes * self.members,
                reads_pending_max: sizes.requests,
                ready_bytes_max: sizes.ready_bytes,
                seed,
            },
            first_sequence: (restarts << 40) + 1,
            request_ticks: ticks(7_000_000),
            park_ticks: 2 * self.election_ticks_max,
            disk_stall_ticks: 2 * self.election_ticks_max,
            proposals_max: sizes.requests,
            proposal_bytes_max: 1 << 20,
            reads_max: sizes.requests,
            log_cache_limits: LogCacheLimits {
                bytes_max: sizes.cache_bytes,
                lagging_bytes_max: 4 * sizes.cache_bytes,
            },
            snapshot_log_bytes_min: sizes.snapshot_log_bytes,
        }
    }
}

/// Where a machine is reached; each has several addresses.
pub fn address(at: usize, which: usize) -> String {
    format!("machine{at}:{}", 5001 + which)
}

/// A run whose members come and go.
struct Changing {
    members: usize,
    joiners: usize,
    voters_min: usize,
    /// Between two wishes.
    every_us: u64,
}

impl Changing {
    fn draw(rng: &mut Rng, length: Length) -> Self {
        let (joiners, every_ms) = match length {
            Length::Short => (rng.between(2, 5), rng.between(1000, 5000)),
            Length::Long => (rng.between(4, 10), rng.pick(&[3000, 8000, 20_000, 40_000])),
        };
        Self {
            members: rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5]),
            joiners: joiners as usize,
            voters_min: rng.pick(&[1, 2, 3, 3]),
            every_us: every_ms * 1000,
        }
    }
}

fn sizes(rng: &mut Rng) -> Sizes {
    let segment_bytes = rng.pick(&[4096, 8192, 16384, 65536]);
    Sizes {
        options: Options {
            segment_bytes,
            urgent_segment_bytes: rng.pick(&[2048, 4096]),
            recycled_max: rng.below(3) as usize,
        },
        cache_bytes: rng.pick(&[200, 1000, 5000, 1 << 20]),
        snapshot_log_bytes: rng.pick(&[500, 2000, 10_000, 50_000, 1 << 30]),
        append_bytes: rng.pick(&[1, 300, 2000, 1 << 20]),
        inflight_messages: rng.pick(&[1, 2, 8, 256]),
        inflight_bytes: rng.pick(&[1, 1000, 16 << 20]),
        uncommitted_bytes: rng.pick(&[300, 2000, 1 << 20]),
        ready_bytes: rng.pick(&[1, 500, 1 << 20]),
        requests: rng.pick(&[2, 8, 4096]),
        piece_bytes: rng.pick(&[1000, 8000, 65536]),
    }
}

fn links(rng: &mut Rng, most_us: u64) -> Links {
    let mut some = |most: u64| if rng.one_in(3) { 0 } else { rng.below(most) as u32 };
    let (lose, duplicate) = (some(60_000), some(60_000));
    let (corrupt, encode) = (some(300), some(20_000));
    Links {
        latency_us: rng.pick(&[50, 200, 1000, 10_000]).min(most_us),
        jitter_us: rng.pick(&[10, 200, 2000, 20_000]).min(most_us),
        reorder: rng.one_in(2),
        lose,
        duplicate,
        corrupt,
        encode,
        keepalive_us: rng.between(500, 3000) * 1000,
    }
}

/// Members far from each other: a round trip takes most of an election timeout, and a follower's
/// read more than one. Where it takes so long, much must fit on the way.
fn go_far(rng: &mut Rng, timeout_us: u64, links: &mut Links, sizes: &mut Sizes) {
    let round_trip_us = timeout_us * rng.pick(&[30, 60, 85]) / 100;
    links.latency_us = round_trip_us * 45 / 100;
    links.jitter_us = round_trip_us * 5 / 100;
    sizes.cache_bytes = 1 << 20;
    sizes.append_bytes = 1 << 20;
    sizes.inflight_messages = 256;
    sizes.inflight_bytes = 16 << 20;
    sizes.uncommitted_bytes = 1 << 20;
    sizes.ready_bytes = 1 << 20;
    sizes.requests = 4096;
}

fn pace(rng: &mut Rng, most_us: u64) -> Pace {
    Pace {
        sync_us: rng.pick(&[100, 500, 2000, 10_000]).min(most_us),
        spare_us: rng.pick(&[1000, 50_000, 500_000]),
        apply_us: rng.pick(&[10, 200, 5000]),
        save_us: rng.pick(&[100, 5000, 100_000]),
        coalesce: rng.pick(&[0, 50_000, 300_000]),
    }
}

fn workload(rng: &mut Rng, length: Length) -> Workload {
    let (low, high) = match length {
        Length::Short => (2, 8),
        Length::Long => (10, 60),
    };
    Workload {
        clients: rng.between(2, 6) as usize,
        pause_us: rng.between(low, high) * 1_000_000,
        burst: rng.between(3, 40),
        think_us: rng.pick(&[100, 5000, 50_000]),
        patience_us: rng.between(300, 8000) * 1000,
        keys: rng.between(1, 12),
        value_bytes: rng.pick(&[8, 100, 1500]),
        reads: rng.between(10, 70),
        requests_max: usize::MAX,
    }
}
