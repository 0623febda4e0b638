//! The simulator: members on simulated disks, a network, clients and a nemesis, all moved by one
//! queue of events to come, in simulated time, on one thread.
//!
//! Only what the simulator is made of, and how it steps. What happens in it stands beside:
//! `processes` (members and their disks), `network`, `transfers` (snapshots on their way),
//! `clients`, `nemesis` (faults).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use raft_node::node::{Effect, Event};
use raft_node::raft::{Configuration, Message, NodeId, Role, Term};
use raft_node::storage::Identity;
use raft_node::storage::testing::SimDisk;

use crate::changes::Asked;
use crate::checks::Checker;
use crate::clients::{Client, Request};
use crate::linearizability::History;
use crate::nemesis::Mend;
use crate::network::{Network, Passage};
use crate::plan::{Plan, stream};
use crate::process::{Process, Ticket};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::stats::Stats;
use crate::transfers::Transfer;

/// The name of every simulated cluster.
pub const CLUSTER: u64 = 0x51_4d_55_4c_41_54_45_44;

/// What can happen. An event of a process names its life, and is dropped when that ends.
pub enum SimEvent {
    /// The clock of a member ticks.
    Tick { at: usize, life: u32 },
    /// A message arrives, if the connection that brought it still stands.
    Arrive { message: Message, passage: Passage },
    /// A member notices that a connection broke.
    Lost { at: usize, life: u32, peer: usize },
    /// Nothing was heard over a connection for so long that it is taken for dead, if it is.
    Silence { at: usize, peer: usize, peer_life: u32 },
    /// Nothing was heard over a connection that a peer dialled, and that broke at this epoch.
    Unheard { at: usize, peer: usize, epoch: u32 },
    /// The log's sync ends.
    Synced { at: usize, life: u32 },
    /// A blank segment is made.
    Spare { at: usize, life: u32 },
    /// A log writer that waits for room looks whether there is some.
    Room { at: usize, life: u32 },
    /// The owner of the state machine takes a step.
    Applied { at: usize, life: u32 },
    /// The snapshot writer takes a step.
    Saved { at: usize, life: u32 },
    /// A snapshot's next piece arrives.
    Piece { transfer: u64 },
    /// The sender hears how its snapshot went.
    Sent { at: usize, life: u32, event: Event<Ticket> },
    /// A client's request arrives.
    Request { at: usize, life: u32, ticket: Ticket },
    /// A read that may go on looks at the store.
    Look { at: usize, life: u32, ticket: Ticket },
    /// A client has something to do.
    Wake { client: usize },
    /// A client stops waiting.
    GiveUp { client: usize, ticket: Ticket },
    /// The nemesis strikes.
    Strike { decision: usize },
    /// A fault ends.
    Mend { mend: Mend, era: u32 },
    /// A member starts.
    Start { at: usize, life: u32 },
    /// A member that was asked to stop ends.
    Stopped { at: usize, life: u32 },
}

/// What the simulator did to a disk that the member must find.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// The operation of the disk at which it happens, if it is one that waits to happen.
    pub operation: Option<u64>,
    /// How many groups were synced when it had happened.
    pub groups_then: Option<u64>,
}

/// One member: its disk, which survives, and its process, which may not.
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its disk.
    pub disk: SimDisk,
    /// Its process, if it runs.
    pub process: Option<Process>,
    /// Counts starts and deaths.
    pub life: u32,
    /// Its disk will not be read again: it holds damage, and says so.
    pub ruined: bool,
    /// What was done to its disk.
    pub damage: Option<Damage>,
    /// It stands still until then.
    pub paused_until_us: Option<u64>,
    /// What happened to it meanwhile.
    pub held: Vec<SimEvent>,
    /// Ticks that it missed.
    pub ticks_missed: u32,
    /// The speed of its clock, in hundredths.
    pub clock_percent: u64,
    /// Every sync takes so many times as long.
    pub disk_slow: u64,
    /// No sync ends before.
    pub disk_hung_until_us: u64,
    /// The power goes at some coming operation.
    pub power_armed: bool,
    /// The term in which it last spoke as a leader.
    pub led: Term,
    /// It was told that it was removed, and stopped.
    pub retired: bool,
    /// When its disk was found damaged.
    pub ruined_us: u64,
    /// How often its directory was emptied.
    pub wipes: u64,
    /// Groups synced, over all lives.
    pub groups: u64,
}

/// All of it.
pub struct Simulator {
    /// What it is to be.
    pub plan: Plan,
    /// The time.
    pub now_us: u64,
    /// What is to come.
    pub queue: Queue<SimEvent>,
    /// For the network and for timing.
    pub rng: Rng,
    /// For the clients.
    pub workload_rng: Rng,
    /// The members.
    pub members: Vec<Member>,
    /// Those that were asked to stop, and end soon.
    pub stopping: BTreeSet<usize>,
    /// Those whose operators name the members that are there.
    pub named: BTreeSet<usize>,
    /// The links.
    pub network: Network,
    /// Snapshots on their way, and the lanes (from, to) that they take up. The value of a lane
    /// says whether another one waits.
    pub transfers: BTreeMap<u64, Transfer>,
    /// Lanes in use.
    pub lanes: BTreeMap<(usize, usize), bool>,
    /// Numbers transfers.
    pub transfers_begun: u64,
    /// The clients.
    pub clients: Vec<Client>,
    /// What they asked, and who waits for it.
    pub requests: Vec<Request>,
    /// What they saw.
    pub history: History,
    /// The books.
    pub checker: Checker,
    /// The changes of the membership that somebody wants.
    pub asked: Vec<Asked>,
    /// When the last one was asked for.
    pub asked_us: u64,
    /// Counts.
    pub stats: Stats,
    /// Faults of an earlier era do not end any more: they have ended.
    pub era: u32,
    /// Nothing goes wrong any more.
    pub healed: bool,
    /// Tells what happens.
    pub verbose: bool,
    trace: DefaultHasher,
}

impl Simulator {
    /// The run of `plan`, with all members about to start.
    pub fn new(plan: Plan, verbose: bool) -> Self {
        let places = plan.places();
        let first = Configuration::of_voters((0..plan.members).map(Self::id));
        let members = (0..places).map(|at| Member {
            id: Self::id(at),
            disk: SimDisk::new(Rng::new(plan.seed, stream::DISK + at as u64).next()),
            process: None,
            life: 0,
            ruined: false,
            damage: None,
            paused_until_us: None,
            held: Vec::new(),
            ticks_missed: 0,
            clock_percent: 100,
            disk_slow: 1,
            disk_hung_until_us: 0,
            power_armed: false,
            led: Term(0),
            retired: false,
            ruined_us: 0,
            wipes: 0,
            groups: 0,
        });
        let mut simulator = Self {
            now_us: 0,
            queue: Queue::new(),
            rng: Rng::new(plan.seed, stream::WORLD),
            workload_rng: Rng::new(plan.seed, stream::CLIENTS),
            members: members.collect(),
            stopping: BTreeSet::new(),
            named: BTreeSet::new(),
            network: Network::new(places),
            transfers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            transfers_begun: 0,
            clients: (0..plan.workload.clients).map(|at| Client::new(at % plan.members)).collect(),
            requests: Vec::new(),
            history: History::new(),
            checker: Checker::new(places, &first),
            asked: Vec::new(),
            asked_us: 0,
            stats: Stats::default(),
            era: 0,
            healed: false,
            verbose,
            trace: DefaultHasher::new(),
            plan,
        };
        simulator.begin();
        simulator
    }

    fn begin(&mut self) {
        for at in 0..self.plan.members {
            let at_us = self.rng.below(100_000);
            self.queue.push(at_us, SimEvent::Start { at, life: 0 });
        }
        for client in 0..self.clients.len() {
            let at_us = self.workload_rng.around(self.plan.workload.pause_us);
            self.queue.push(at_us, SimEvent::Wake { client });
        }
        for (decision, made) in self.plan.decisions.iter().enumerate() {
            self.queue.push(made.at_us, SimEvent::Strike { decision });
        }
    }

    /// Dispatches the next event, if it is due by `until_us`; false if none is.
    pub fn turn(&mut self, until_us: u64) -> bool {
        if self.queue.next_us().is_none_or(|next_us| next_us > until_us) {
            self.now_us = until_us;
            return false;
        }
        let (at_us, what) = self.queue.pop().expect("the next was just seen");
        assert!(at_us >= self.now_us, "time goes on");
        self.now_us = at_us;
        self.stats.events += 1;
        self.dispatch(what);
        true
    }

    /// Dispatches the events that are due by `until_us`.
    pub fn run_until(&mut self, until_us: u64) {
        while self.turn(until_us) {}
    }

    /// A number that two runs of one seed have in common only if they were the same.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Puts something into the trace.
    pub fn trace(&mut self, what: u8, at: usize, detail: u64) {
        (self.now_us, what, at, detail).hash(&mut self.trace);
    }

    /// Tells something, if somebody wants to know.
    #[expect(clippy::print_stdout, reason = "the trace of a seed is asked for")]
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:11.6} {}", self.now_us as f64 / 1e6, what());
        }
    }

    /// Whether that life of that member still goes on.
    pub fn lives(&self, at: usize, life: u32) -> bool {
        self.members[at].life == life && self.members[at].process.is_some()
    }

    /// The process of a member that runs.
    pub fn process(&mut self, at: usize) -> &mut Process {
        self.members[at].process.as_mut().expect("the caller has seen that it runs")
    }

    /// Those who run.
    pub fn up(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.members
            .iter()
            .enumerate()
            .filter_map(|(at, member)| member.process.as_ref().map(|process| (at, process)))
    }

    /// Who leads, if anybody does who runs: in the highest term.
    pub fn leader(&self) -> Option<usize> {
        self.up()
            .filter(|(_, process)| process.replica.seen().role == Role::Leader)
            .max_by_key(|(_, process)| process.replica.seen().term)
            .map(|(at, _)| at)
    }

    /// The membership under which a member begins; one that joins knows of none.
    pub fn first_members(&self, at: usize) -> Configuration {
        let first = if at < self.plan.members { self.plan.members } else { 0 };
        Configuration::of_voters((0..first).map(Self::id))
    }

    /// Whose directory that is.
    pub fn identity(&self, at: usize) -> Identity {
        Identity { cluster_id: CLUSTER, node_id: self.members[at].id }
    }

    /// The id of a machine.
    pub fn id(at: usize) -> NodeId {
        NodeId::new(at as u64 + 1).expect("counted from one")
    }

    /// A member by its id.
    pub fn place(id: NodeId) -> usize {
        id.get() as usize - 1
    }

    fn dispatch(&mut self, what: SimEvent) {
        let Some(what) = self.hold(what) else { return };
        match what {
            SimEvent::Tick { at, life } => self.tick(at, life),
            SimEvent::Arrive { message, passage } => self.arrive(message, passage),
            SimEvent::Lost { at, life, peer } => self.notice_loss(at, life, peer),
            SimEvent::Silence { at, peer, peer_life } => self.notice_silence(at, peer, peer_life),
            SimEvent::Unheard { at, peer, epoch } => self.notice_breakage(at, peer, epoch),
            SimEvent::Synced { at, life } => self.synced(at, life),
            SimEvent::Spare { at, life } => self.spare_made(at, life),
            SimEvent::Room { at, life } => self.look_for_room(at, life),
            SimEvent::Applied { at, life } => self.apply(at, life),
            SimEvent::Saved { at, life } => self.save(at, life),
            SimEvent::Piece { transfer } => self.piece(transfer),
            SimEvent::Sent { at, life, event } => {
                if self.lives(at, life) {
                    self.give(at, event);
                }
            }
            SimEvent::Request { at, life, ticket } => self.request(at, life, ticket),
            SimEvent::Look { at, life, ticket } => self.look(at, life, ticket),
            SimEvent::Wake { client } => self.wake(client),
            SimEvent::GiveUp { client, ticket } => self.give_up(client, ticket),
            SimEvent::Strike { decision } => self.strike(decision),
            SimEvent::Mend { mend, era } => {
                if era == self.era {
                    self.mend(mend);
                }
            }
            SimEvent::Start { at, life } => self.start(at, life),
            SimEvent::Stopped { at, life } => self.stopped(at, life),
        }
    }

    /// Keeps back what concerns a process that stands still; gives back everything else.
    fn hold(&mut self, what: SimEvent) -> Option<SimEvent> {
        let (at, life) = match &what {
            SimEvent::Arrive { message, .. } => {
                let at = Self::place(message.to);
                (at, self.members[at].life)
            }
            SimEvent::Lost { at, life, .. }
            | SimEvent::Synced { at, life }
            | SimEvent::Spare { at, life }
            | SimEvent::Room { at, life }
            | SimEvent::Applied { at, life }
            | SimEvent::Saved { at, life }
            | SimEvent::Sent { at, life, .. }
            | SimEvent::Request { at, life, .. }
            | SimEvent::Look { at, life, .. }
            | SimEvent::Stopped { at, life } => (*at, *life),
            SimEvent::Tick { .. }
            | SimEvent::Silence { .. }
            | SimEvent::Unheard { .. }
            | SimEvent::Piece { .. }
            | SimEvent::Wake { .. }
            | SimEvent::GiveUp { .. }
            | SimEvent::Strike { .. }
            | SimEvent::Mend { .. }
            | SimEvent::Start { .. } => return Some(what),
        };
        let member = &mut self.members[at];
        if member.paused_until_us.is_none() {
            return Some(what);
        }
        if member.life == life && member.held.len() < HELD_MAX {
            member.held.push(what);
        }
        None
    }

    /// A process goes on after it stood still: as the driver does, it takes in what others
    /// finished, what peers and clients said, and then the ticks that it missed, before it acts. Or
    /// the ticks come first, because what peers said is still in the sockets.
    pub fn resume(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.paused_until_us = None;
        let mut held = std::mem::take(&mut member.held);
        held.sort_by_key(|what| match what {
            SimEvent::Arrive { .. } | SimEvent::Lost { .. } | SimEvent::Sent { .. } => 1,
            SimEvent::Request { .. } => 2,
            _ => 0,
        });
        let ticks = std::mem::take(&mut member.ticks_missed);
        let life = member.life;
        let Some(process) = &mut member.process else { return };
        process.turning = true;
        if self.rng.one_in(2) {
            self.burst(at, life, ticks);
            for what in held {
                self.dispatch(what);
            }
            return;
        }
        for what in held {
            self.dispatch(what);
        }
        self.burst(at, life, ticks);
    }

    /// So many ticks at once, as many as the clock of the real node hands out.
    pub fn burst(&mut self, at: usize, life: u32, ticks: u32) {
        if !self.lives(at, life) {
            return;
        }
        for late in (0..ticks.min(self.plan.election_ticks_max + 1)).rev() {
            let tick = if late == 0 { Event::Tick } else { Event::LateTick };
            self.process(at).replica.handle(tick);
        }
        self.act(at);
    }

    fn tick(&mut self, at: usize, life: u32) {
        if !self.lives(at, life) {
            return;
        }
        let member = &mut self.members[at];
        let next_us = self.now_us + self.plan.tick_us * 100 / member.clock_percent;
        self.queue.push(next_us, SimEvent::Tick { at, life });
        if member.paused_until_us.is_some() {
            member.ticks_missed += 1;
            return;
        }
        self.process(at).replica.handle(Event::Tick);
        self.act(at);
    }

    /// Gives a running member an event. It acts at once, or takes in more first.
    pub fn give(&mut self, at: usize, event: Event<Ticket>) {
        let process = self.process(at);
        process.replica.handle(event);
        if process.turning || self.rng.per_million(self.plan.pace.coalesce) {
            return;
        }
        self.act(at);
    }

    /// A member does what follows from what it took in.
    pub fn act(&mut self, at: usize) {
        let life = self.members[at].life;
        self.process(at).turning = false;
        let mut again = true;
        while again {
            again = false;
            let effects = self.process(at).replica.flush();
            let replica = &self.members[at].process.as_ref().expect("it acts").replica;
            self.checker.observe(at, replica);
            for effect in effects {
                again |= self.perform(at, effect);
                if !self.lives(at, life) {
                    return;
                }
            }
        }
        self.speaks_with_all_needed(at);
        let raft = self.members[at].process.as_ref().expect("it acts").replica.raft();
        self.checker.acted(at, raft);
    }

    /// Does one thing that a member wants done. True if that gave it an event at once.
    fn perform(&mut self, at: usize, effect: Effect<Ticket>) -> bool {
        match effect {
            Effect::Send(message) => {
                self.checker.sends(at, &message);
                self.send(message);
            }
            Effect::Persist(persist) => {
                self.checker.persist(at, &persist);
                self.write(at, raft_node::node::persister::Job::Write(persist));
            }
            Effect::Apply(entries) => {
                for (entry, _) in &entries {
                    self.checker.applies(at, entry);
                }
                return self.apply_at_once(at, entries);
            }
            Effect::Restore(meta) => {
                self.stats.snapshots_installed += 1;
                self.put_job(at, raft_node::node::applier::Job::Restore(meta));
            }
            Effect::SaveSnapshot => {
                self.put_job(at, raft_node::node::applier::Job::SaveSnapshot);
            }
            Effect::SendSnapshot { to } => self.send_snapshot(at, Self::place(to)),
            Effect::ReadReady(tickets) => {
                for ticket in tickets {
                    self.may_read(at, ticket);
                }
            }
            Effect::TransferDone(ticket) => self.settle(at, ticket),
            Effect::ChangeDone(ticket) => self.change_done(at, ticket),
            Effect::Peers(table) => self.speak_with(at, table),
            Effect::Removed => self.retire(at),
            Effect::VoteReply { ticket, granted } => {
                self.check_vote(at, ticket, granted);
                self.settle(at, ticket);
            }
            Effect::Fail(ticket, why) => self.failed(at, ticket, why),
            Effect::Notice(_) => {}
            Effect::SoftState(soft_state) => {
                let replica = &self.members[at].process.as_ref().expect("it acts").replica;
                self.checker.soft_state(at, soft_state, replica);
                self.trace(1, at, soft_state.term.0);
                self.tell(|| format!("member {at}: {soft_state:?}"));
            }
        }
        false
    }

    /// The members whose disks are not ruined.
    pub fn sound(&self) -> BTreeSet<usize> {
        let members = self.checker.configurations.standing().members();
        let places = members.into_iter().map(Self::place);
        places.filter(|at| !self.members[*at].ruined).collect()
    }
}

/// What waits at a process that stands still; the rest is lost, as when buffers are full.
const HELD_MAX: usize = 2000;
