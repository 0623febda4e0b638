//! One seed from beginning to end: faults; then everything heals; then the cluster must work,
//! agree, and owe nobody an answer; and what its clients saw must have an explanation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use raft_node::raft::{Index, NodeId};
use raft_node::testpoints::{self, Mark, Mutant};

use crate::clients::What;
use crate::linearizability::{Outcome, Request, Verdict, register, revisions};
use crate::plan::{Cut, Length, Plan};
use crate::process::Ticket;
use crate::simulator::Simulator;
use crate::stats::Stats;

/// More than enough for the disks and the queues of a run in which nothing is wrong.
const SERVICE_US: u64 = 5_000_000;

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What happened.
    pub stats: Stats,
    /// The same in two runs of one seed.
    pub trace_hash: u64,
    /// Rare paths that were taken.
    pub hits: BTreeMap<Mark, u64>,
    /// What went wrong, and where that was noticed.
    pub violation: Option<String>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which run.
    pub seed: u64,
    /// How long.
    pub length: Length,
    /// What of it.
    pub cut: Cut,
    /// Which bug is on.
    pub mutant: Option<Mutant>,
    /// Tell what happens.
    pub verbose: bool,
}

impl Run {
    /// The whole run of `seed`.
    pub fn of(seed: u64, length: Length) -> Self {
        Self { seed, length, cut: Cut::default(), mutant: None, verbose: false }
    }

    /// Runs it. A violation is a panic within; it is caught, and told in the report.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        testpoints::take_hits();
        testpoints::set_mutant(self.mutant);
        let plan = Plan::draw(self.seed, self.length, &self.cut);
        let mut simulator = None;
        let outcome = quietly(AssertUnwindSafe(|| {
            let simulator = simulator.insert(Simulator::new(plan, self.verbose));
            live(simulator);
        }));
        testpoints::set_mutant(None);
        report.hits = testpoints::take_hits();
        report.violation = outcome.err();
        if let Some(simulator) = &mut simulator {
            report.trace_hash = simulator.trace_hash();
            simulator.stats.seeds = 1;
            simulator.stats.simulated_ms = simulator.now_us / 1000;
            simulator.stats.elections = simulator.checker.elections;
            simulator.stats.commits = simulator.checker.committed().0;
            simulator.stats.states_compared = simulator.checker.states_compared;
            simulator.stats.changing_seeds = u64::from(simulator.plan.changing());
            simulator.stats.configurations = simulator.checker.configurations.committed;
            simulator.stats.configurations_joint = simulator.checker.configurations.committed_joint;
            report.stats = simulator.stats.clone();
        }
        // What a broken run leaves behind may not even be dropped in peace.
        let _ = quietly(AssertUnwindSafe(move || drop(simulator)));
        report
    }
}

fn live(simulator: &mut Simulator) {
    simulator.run_until(simulator.plan.faulty_us);
    simulator.tell(|| "== everything heals".to_owned());
    simulator.heal();
    let election_us = simulator.plan.election_us();
    let patience_us = 60 * election_us + 30_000_000;
    simulator.work_again(patience_us);
    simulator.agree(simulator.now_us + patience_us);
    simulator.leader_not_dialled();
    simulator.owe_nothing();
    simulator.judge();
}

impl Simulator {
    /// Everybody who can run answers a write and a read, before nothing has moved for
    /// `patience_us`: with windows of one entry, a machine that begins only now takes its time. Who
    /// got no answer asks again, but ever later: with a log cache of a few entries, the tries of
    /// those who are behind would outrun the snapshots that they need. The tries themselves move
    /// the log, so that a run in which one of them is never answered must end, too.
    fn work_again(&mut self, patience_us: u64) {
        let hopeless_us = self.now_us + 20 * patience_us;
        let (mut deadline_us, mut behind) = (self.now_us + patience_us, self.furthest_behind());
        let mut wanted: Vec<(usize, bool, Option<Ticket>)> =
            self.sound().into_iter().flat_map(|at| [(at, false, None), (at, true, None)]).collect();
        let (mut again_us, mut wait_us) = (self.now_us, 200_000);
        let mut unheard_since_us = BTreeMap::new();
        while !wanted.is_empty() {
            let before = std::mem::replace(&mut behind, self.furthest_behind());
            if behind > before {
                deadline_us = hopeless_us.min(self.now_us + patience_us);
            }
            assert!(
                self.now_us < deadline_us,
                "liveness: {} requests to healed members are unanswered: {wanted:?}; {}",
                wanted.len(),
                self.standing()
            );
            let again = self.now_us >= again_us;
            if again {
                wait_us = (wait_us * 3 / 2).min(patience_us / 3);
                again_us = self.now_us + wait_us;
            }
            for (at, reads, ticket) in wanted.iter_mut().filter(|_| again) {
                let (at, reads) = (*at, *reads);
                if ticket.is_none() && self.members[at].process.is_some() {
                    *ticket = Some(self.audit(at, reads));
                }
            }
            self.run_until(self.now_us + 50_000);
            self.name_members(&mut unheard_since_us);
            let sound = self.sound();
            wanted.retain(|(at, _, _)| sound.contains(at));
            wanted.retain_mut(|(_, _, ticket)| {
                let Some(Ticket(asked)) = *ticket else { return true };
                match self.requests[asked].what {
                    What::Audit { done: Some(true), .. } => false,
                    What::Audit { done: Some(false), .. } => {
                        *ticket = None;
                        true
                    }
                    _ => true,
                }
            });
        }
    }

    /// Everybody comes to hold the same, some time before `deadline_us`.
    fn agree(&mut self, deadline_us: u64) {
        loop {
            let sound = self.sound();
            let members = || self.up().filter(|(at, _)| sound.contains(at)).map(|(_, p)| p);
            let applied: Vec<Index> = members().map(|p| p.applier.applied.index).collect();
            let last: Vec<Index> = members().map(|p| p.replica.raft().last_index()).collect();
            let leaders: Vec<_> = members().map(|p| p.replica.raft().leader()).collect();
            let is_member = |id: NodeId| sound.contains(&Self::place(id));
            let led = leaders.iter().all(|one| one.is_some_and(is_member) && *one == leaders[0]);
            let standing = self.checker.configurations.standing();
            let ready = members().all(|p| p.replica.caught_up());
            let agreed = members().all(|p| p.replica.raft().membership() == &**standing);
            let stay = sound.is_disjoint(&self.stopping);
            let settled = stay && applied.len() == sound.len() && self.is_final(standing);
            let all = led && ready && agreed && settled;
            if all && applied.iter().chain(&last).all(|index| *index == applied[0]) {
                break;
            }
            assert!(self.now_us < deadline_us, "convergence: {}", self.standing());
            self.run_until(self.now_us + 50_000);
        }
        self.changes_hold();
        for at in self.sound() {
            let process = self.members[at].process.as_ref().expect("it is up");
            let machine = process.machine.read().expect("nobody panics with the lock held");
            self.checker.state(at, process.applier.applied.index, &machine);
        }
    }

    /// Nobody can dial the leader, which dials everybody: the followers serve all the same, or
    /// another member leads soon.
    fn leader_not_dialled(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.tell(|| format!("== nobody can dial {leader}"));
        self.refuse(leader);
        let round_trip_us = 2 * (self.plan.links.latency_us + self.plan.links.jitter_us);
        let limit_us = 2 * self.plan.election_us() + 20 * round_trip_us + SERVICE_US;
        let deadline_us = self.now_us + limit_us;
        for at in self.sound() {
            for reads in [false, true] {
                self.serves(at, reads, deadline_us);
            }
        }
        self.accept(leader);
    }

    /// A member answers a request in time; where it is busy, another one.
    fn serves(&mut self, at: usize, reads: bool, deadline_us: u64) {
        let mut ticket = None;
        loop {
            let Ticket(asked) = *ticket.get_or_insert_with(|| self.audit(at, reads));
            self.run_until(self.now_us + 10_000);
            match self.requests[asked].what {
                What::Audit { done: Some(true), .. } => return,
                What::Audit { done: Some(false), .. } => ticket = None,
                _ => {}
            }
            assert!(
                self.now_us < deadline_us,
                "liveness: member {at} does not serve, and nobody can dial the leader; {}",
                self.standing()
            );
        }
    }

    /// Every request that a living member took was answered, once its time is over.
    fn owe_nothing(&mut self) {
        self.run_until(self.now_us + 8_000_000);
        for (at, process) in self.up() {
            assert!(process.open.is_empty(), "member {at} still owes {:?}", process.open);
            assert_eq!(process.replica.proposals_pending(), 0, "member {at} keeps proposals");
        }
    }

    /// How far the member has come that lacks the most. Those who were removed and never hear of it
    /// stand still, and nobody waits for them.
    fn furthest_behind(&self) -> u64 {
        let sound = self.sound();
        let counts = self.up().filter(|(at, _)| sound.contains(at));
        let applied = counts.map(|(_, process)| process.applier.applied.index.0);
        applied.min().unwrap_or_default()
    }

    /// What the clients saw has an explanation.
    pub fn judge(&mut self) {
        self.stats.operations_checked = self.history.operations.len() as u64;
        let log = self.checker.log();
        self.tell(|| format!("the log is known: {}", log.is_some()));
        for operation in &self.history.operations {
            let Request::Write(command) = &operation.request else { continue };
            let there = log.iter().flatten().any(|(_, logged)| logged == command);
            if there && matches!(operation.outcome, Outcome::NoEffect { .. }) {
                self.tell(|| format!("denied, and in the log: {operation:?}"));
            }
        }
        revisions::check(&self.history, log.as_deref()).expect_linearizable();
        // Many writes of unknown outcome may be more than the search can order. The revisions have
        // judged the history by then; how many were judged by them alone is counted.
        match register::check(&self.history) {
            Verdict::Undecided(_) => self.stats.searches_undecided += 1,
            verdict @ (Verdict::Linearizable | Verdict::Violation(_)) => {
                verdict.expect_linearizable();
            }
        }
    }

    /// Where everybody stands, for a report.
    fn standing(&self) -> String {
        let one = |(at, process): (usize, &crate::process::Process)| {
            let raft = process.replica.raft();
            format!(
                "{at}: {:?} in {} of {:?}, log {} to {}, committed {}, applied {}",
                raft.role(),
                raft.term(),
                raft.leader().map(NodeId::get),
                raft.first_index(),
                raft.last_index(),
                raft.committed(),
                process.applier.applied.index,
            )
        };
        let lines: Vec<String> = self.up().map(one).collect();
        format!("{}; under {:?}", lines.join("; "), self.checker.configurations.standing())
    }
}

thread_local! {
    static QUIET: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Lets panics of threads that run worlds be caught without a word: there may be hundreds.
pub fn silence_panics() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let caught = QUIET.with_borrow_mut(|quiet| {
            let Some(told) = quiet else { return false };
            told.push(info.to_string());
            true
        });
        if !caught {
            loud(info);
        }
    }));
}

/// Runs `work`; a panic becomes its message.
fn quietly(work: impl FnOnce() + panic::UnwindSafe) -> Result<(), String> {
    QUIET.set(Some(Vec::new()));
    let outcome = panic::catch_unwind(work);
    let told = QUIET.take().unwrap_or_default();
    outcome.map_err(|_| told.first().cloned().unwrap_or_else(|| "a panic".to_owned()))
}
