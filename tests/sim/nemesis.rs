//! The nemesis: what its decisions do to the members, and what heals them.
//!
//! Damage has a budget: fewer disks than a quorum are made to lie or to rot in one run, so that a
//! quorum of good copies is left. A member that found its disk damaged stays away. Where members
//! come and go, that is a quorum of the configuration that stands: `changes` says what follows.
//! Within that, whatever happens, nothing may be lost and nobody may be told a lie.

use std::io::ErrorKind;

use raft_node::node::Event;
use raft_node::raft::{Role, Term};
use raft_node::storage::testing::Fault as DiskFault;

use crate::clients::What;
use crate::faults::{Fault, Whom};
use crate::processes::Death;
use crate::simulator::{Damage, SimEvent, Simulator};

/// What ends a fault.
#[derive(Clone, Debug)]
pub enum Mend {
    /// These links (from, to) carry again.
    Links(Vec<(usize, usize)>),
    /// A link is as fast as before.
    Speed { from: usize, to: usize, by_us: u64 },
    /// A member can be dialled again.
    Dialling { at: usize },
    /// A process goes on.
    Resume { at: usize, until_us: u64 },
    /// Syncs are as fast as before.
    Disk { at: usize },
    /// There is room again.
    Room { at: usize },
    /// A clock goes right again.
    Clock { at: usize },
    /// The power goes, so that a lie of the disk comes to light.
    Reveal { at: usize },
}

impl Simulator {
    /// A decision is carried out, if it makes sense by now.
    pub fn strike(&mut self, decision: usize) {
        if self.healed {
            return;
        }
        let decision = self.plan.decisions[decision].clone();
        self.tell(|| format!("-- {:?}", decision.fault));
        self.trace(11, 0, decision.at_us);
        match decision.fault {
            Fault::Partition { set, for_us } => {
                self.stats.partitions += 1;
                self.cut(for_us, |from, to| (set >> from & 1) != (set >> to & 1));
            }
            Fault::Isolate { whom, for_us } => {
                let at = self.whom(whom);
                self.stats.partitions += 1;
                self.cut(for_us, |from, to| from == at || to == at);
            }
            Fault::OneWay { set, for_us } => {
                self.stats.one_way += 1;
                self.cut(for_us, |from, to| (set >> from & 1) == 1 && (set >> to & 1) == 0);
            }
            Fault::Bridge { whom, set, for_us } => {
                let at = self.whom(whom);
                self.stats.bridges += 1;
                self.cut(for_us, |from, to| {
                    from != at && to != at && (set >> from & 1) != (set >> to & 1)
                });
            }
            Fault::SlowLink { from, to, by_us, for_us } => {
                self.stats.slow_links += 1;
                self.network.link(from, to).slow_us += by_us;
                self.later(for_us, Mend::Speed { from, to, by_us });
            }
            Fault::Disconnect { one, other } => {
                self.stats.disconnects += 1;
                self.disconnect(one, other);
            }
            Fault::Refuse { whom, for_us } => {
                let at = self.whom(whom);
                self.stats.refusals += 1;
                self.refuse(at);
                self.later(for_us, Mend::Dialling { at });
            }
            Fault::VoteRequest { at, candidate, terms_ahead } => {
                self.ask_vote(at, candidate, terms_ahead);
            }
            Fault::Transfer { to } => self.ask_transfer(to),
            Fault::Change { via, wish, one, other, starts_us } => {
                let at = self.whom(via);
                self.ask_change(at, wish, (one, other), starts_us);
            }
            Fault::Revive { which } => self.revive(which),
            Fault::PowerCut { set, down_us } => {
                for at in (0..self.members.len()).filter(|at| set >> at & 1 == 1) {
                    self.power_cut(at, down_us);
                }
            }
            other => self.strike_one(other),
        }
    }

    /// Faults of one member.
    fn strike_one(&mut self, fault: Fault) {
        match fault {
            Fault::Pause { whom, for_us } => self.pause(whom, for_us),
            Fault::Kill { whom, down_us } => {
                let at = self.whom(whom);
                if self.members[at].process.is_some() {
                    self.stats.kills += 1;
                    self.die(at, Death::Killed, Some(down_us));
                }
            }
            Fault::PowerCutOne { whom, down_us } => {
                let at = self.whom(whom);
                self.power_cut(at, down_us);
            }
            Fault::Stop { whom, down_us } => self.stop(whom, down_us),
            Fault::ClockJump { whom, ticks } => {
                let at = self.whom(whom);
                let member = &mut self.members[at];
                self.stats.clock_faults += 1;
                if member.paused_until_us.is_some() {
                    member.ticks_missed += ticks as u32;
                } else {
                    let life = member.life;
                    self.burst(at, life, ticks as u32);
                }
            }
            Fault::ClockRate { whom, percent, for_us } => {
                let at = self.whom(whom);
                self.stats.clock_faults += 1;
                self.members[at].clock_percent = percent;
                self.later(for_us, Mend::Clock { at });
            }
            Fault::Wipe { whom } => self.wipe(whom),
            other => self.strike_disk(other),
        }
    }

    /// Faults of one disk.
    fn strike_disk(&mut self, fault: Fault) {
        match fault {
            Fault::SlowDisk { whom, times, for_us } => {
                let at = self.whom(whom);
                self.stats.slow_disks += 1;
                self.members[at].disk_slow = times;
                self.later(for_us, Mend::Disk { at });
            }
            Fault::HungDisk { whom, for_us } => {
                let at = self.whom(whom);
                self.stats.hung_disks += 1;
                self.members[at].disk_hung_until_us = self.now_us + for_us;
            }
            Fault::PowerCutAt { whom, operations } => {
                let at = self.whom(whom);
                self.members[at].power_armed = true;
                self.arm(at, operations, DiskFault::PowerCut);
                self.stats.power_cuts += 1;
            }
            Fault::WriteError { whom, operations } => {
                let at = self.whom(whom);
                self.stats.write_errors += 1;
                self.arm(at, operations, DiskFault::Fail(ErrorKind::Other));
            }
            Fault::ReadError { whom, reads, down_us } => {
                let at = self.whom(whom);
                let disk = &self.members[at].disk;
                disk.fail_read_at(disk.reads() + reads, ErrorKind::Other);
                self.stats.read_errors += 1;
                if self.members[at].process.is_some() {
                    self.die(at, Death::Killed, Some(down_us));
                }
            }
            Fault::DiskFull { whom, room_bytes, for_us } => {
                let at = self.whom(whom);
                let disk = &self.members[at].disk;
                disk.set_capacity(Some(disk.used_bytes() + room_bytes));
                self.stats.disks_full += 1;
                self.tell_room(at, true);
                self.later(for_us, Mend::Room { at });
            }
            Fault::BitRot { whom, place, down_us } => self.rot(whom, place, down_us),
            Fault::LostWrite { whom, operations } => {
                self.lie(whom, operations, DiskFault::LoseWrite);
            }
            Fault::MisdirectedWrite { whom, operations, sectors } => {
                self.lie(whom, operations, DiskFault::MisdirectWrite { sectors });
            }
            other => unreachable!("{other:?} is no fault of one disk"),
        }
    }

    fn whom(&self, whom: Whom) -> usize {
        match whom {
            Whom::Member(at) => self.somebody(at),
            Whom::Leader(otherwise) => self.leader().unwrap_or_else(|| self.somebody(otherwise)),
        }
    }

    fn later(&mut self, for_us: u64, mend: Mend) {
        let era = self.era;
        self.queue.push(self.now_us + for_us, SimEvent::Mend { mend, era });
    }

    fn cut(&mut self, for_us: u64, which: impl Fn(usize, usize) -> bool) {
        let count = self.members.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let cut: Vec<_> = pairs.filter(|(from, to)| from != to && which(*from, *to)).collect();
        for (from, to) in &cut {
            self.network.link(*from, *to).cuts += 1;
            self.doubt(*from, *to);
            self.doubt(*to, *from);
        }
        self.later(for_us, Mend::Links(cut));
    }

    fn pause(&mut self, whom: Whom, for_us: u64) {
        let at = self.whom(whom);
        let until_us = self.now_us + for_us;
        let member = &mut self.members[at];
        if member.process.is_none() || member.paused_until_us.is_some() {
            return;
        }
        self.stats.pauses += 1;
        member.paused_until_us = Some(until_us);
        self.later(for_us, Mend::Resume { at, until_us });
    }

    fn power_cut(&mut self, at: usize, down_us: u64) {
        if self.members[at].process.is_some() {
            self.stats.power_cuts += 1;
            self.die(at, Death::PowerCut, Some(down_us));
        }
    }

    /// SIGTERM: leadership is handed over; some time later the process ends.
    fn stop(&mut self, whom: Whom, down_us: u64) {
        let at = self.whom(whom);
        let member = &self.members[at];
        if member.process.is_none() || member.paused_until_us.is_some() {
            return;
        }
        self.stats.stops += 1;
        let life = member.life;
        self.give(at, Event::Stop);
        if !self.lives(at, life) {
            return;
        }
        let grace_us = self.rng.below(1_000_000);
        self.stopping.insert(at);
        self.queue.push(self.now_us + grace_us, SimEvent::Stopped { at, life });
        // Its life ends then; the start is that of whoever comes after.
        let start = SimEvent::Start { at, life: life + 1 };
        self.queue.push(self.now_us + grace_us + down_us, start);
    }

    /// Empties a directory, where that breaks no promise that anybody relies on: everything that
    /// the member vouched for is vouched for by a quorum of the others, nobody else believes to
    /// lead, and so many others have voted in the leader's term that nobody else can win it.
    fn wipe(&mut self, whom: Whom) {
        let at = self.whom(whom);
        // Once members come and go, an emptied machine joins anew, under another id.
        let changed = !self.asked.is_empty();
        if changed || !self.may_damage(at) || self.leader() == Some(at) || !self.may_forget(at) {
            return;
        }
        self.stats.wipes += 1;
        self.die(at, Death::Killed, None);
        for peer in 0..self.members.len() {
            self.network.link(at, peer).epoch += 1;
        }
        let disk = &self.members[at].disk;
        for name in disk.names() {
            disk.lose_file(&name);
        }
        self.checker.forget(at);
        self.members[at].wipes += 1;
        let life = self.members[at].life;
        self.queue.push(self.now_us + 200_000, SimEvent::Start { at, life });
    }

    fn may_forget(&self, at: usize) -> bool {
        let Some((term, leader)) = self.checker.latest_leader() else { return false };
        let leads = |process: &crate::process::Process| process.replica.seen().role == Role::Leader;
        let rivals = self.up().any(|(other, process)| other != leader && leads(process));
        if rivals || self.leader() != Some(leader) {
            return false;
        }
        let others = || (0..self.plan.members).filter(|other| *other != at);
        let last = self.checker.last_issued(leader);
        let held = others().filter(|other| self.checker.durably_holds(*other, last)).count();
        let id = Some(self.members[leader].id);
        let bound = |other: &usize| {
            let disk = self.checker.durable_vote(*other);
            disk.term > term || (disk.term == term && disk.vote == id)
        };
        let free = others().filter(|other| !bound(other)).count() + 1;
        held >= self.plan.quorum() && free < self.plan.quorum()
    }

    fn arm(&self, at: usize, operations: u64, fault: DiskFault) {
        let disk = &self.members[at].disk;
        disk.fault_at(disk.operations() + operations, fault);
    }

    /// Whether one more disk may be damaged, or this one again.
    fn may_damage(&self, at: usize) -> bool {
        if self.members[at].ruined || self.members[at].damage.is_some() {
            return false;
        }
        if self.plan.changing() && !self.is_of_no_account(at) && !self.is_calm() {
            return false;
        }
        let voters = &self.checker.configurations.standing().voters;
        self.is_of_no_account(at) || self.has_good_quorum(voters, Some(at))
    }

    fn rot(&mut self, whom: Whom, place: u64, down_us: u64) {
        let at = self.whom(whom);
        let disk = &self.members[at].disk;
        let names = disk.names();
        if names.is_empty() || !self.may_damage(at) {
            return;
        }
        let name = &names[(place % names.len() as u64) as usize];
        let bits = disk.content(name).expect("it was listed").len() * 8;
        if bits == 0 {
            return;
        }
        // Mostly where something was written, which is at the front.
        let most = if place >> 60 == 0 { bits } else { bits.min(8 * 4096) };
        let bit = (place >> 8) as usize % most;
        disk.flip_bit(name, bit);
        self.tell(|| format!("bit {bit} of {name} of member {at} turns over"));
        let groups_then = Some(self.members[at].groups);
        self.members[at].damage = Some(Damage { operation: None, groups_then });
        self.stats.bits_rotten += 1;
        if self.members[at].process.is_some() {
            self.die(at, Death::Killed, Some(down_us));
        }
    }

    /// A coming write will lie. Some time later the power goes, so that it shows.
    fn lie(&mut self, whom: Whom, operations: u64, fault: DiskFault) {
        let at = self.whom(whom);
        if !self.may_damage(at) {
            return;
        }
        let operation = self.members[at].disk.operations() + operations;
        self.arm(at, operations, fault);
        self.members[at].damage = Some(Damage { operation: Some(operation), groups_then: None });
        match fault {
            DiskFault::LoseWrite => self.stats.writes_lost += 1,
            _ => self.stats.writes_misdirected += 1,
        }
        let for_us = self.rng.around(3_000_000);
        self.later(for_us, Mend::Reveal { at });
    }

    fn ask_transfer(&mut self, to: Option<usize>) {
        let Some(at) = self.leader() else { return };
        if self.members[at].paused_until_us.is_some() {
            return;
        }
        self.stats.transfers_asked += 1;
        let ticket = self.open(at, What::Transfer);
        let to = to.map(|to| self.members[to].id);
        self.give(at, Event::Transfer { to, ticket });
    }

    fn ask_vote(&mut self, at: usize, candidate: usize, terms_ahead: u64) {
        if self.members[at].process.is_none() || self.members[at].paused_until_us.is_some() {
            return;
        }
        let term = Term(self.process(at).replica.raft().term().0 + terms_ahead);
        if term == Term(0) {
            return;
        }
        let ticket = self.open(at, What::Vote { candidate, term });
        let candidate = self.members[candidate].id;
        self.give(at, Event::VoteRequest { candidate, term, ticket });
    }

    /// A fault ends.
    pub fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Links(cut) => {
                for (from, to) in cut {
                    self.network.link(from, to).cuts -= 1;
                }
            }
            Mend::Speed { from, to, by_us } => self.network.link(from, to).slow_us -= by_us,
            Mend::Dialling { at } => self.accept(at),
            Mend::Resume { at, until_us } => {
                if self.members[at].paused_until_us == Some(until_us) {
                    self.resume(at);
                }
            }
            Mend::Disk { at } => self.members[at].disk_slow = 1,
            Mend::Room { at } => {
                self.members[at].disk.set_capacity(None);
                self.tell_room(at, false);
            }
            Mend::Clock { at } => self.members[at].clock_percent = 100,
            Mend::Reveal { at } => self.power_cut(at, 500_000),
        }
    }

    /// A member learns whether its disk is short of room.
    fn tell_room(&mut self, at: usize, short: bool) {
        let member = &self.members[at];
        if member.process.is_some() && member.paused_until_us.is_none() {
            self.give(at, Event::RoomShort(short));
        }
    }

    /// Everything that can be mended is.
    pub fn heal(&mut self) {
        self.healed = true;
        self.era += 1;
        self.network.heal();
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            member.clock_percent = 100;
            member.disk_slow = 1;
            member.disk_hung_until_us = 0;
            member.disk.set_capacity(None);
            member.disk.clear_faults();
            self.tell_room(at, false);
            let member = &mut self.members[at];
            if member.paused_until_us.is_some() {
                self.resume(at);
            }
            let member = &self.members[at];
            if member.process.is_none() && self.has_a_place(at) {
                let life = member.life;
                self.queue.push(self.now_us, SimEvent::Start { at, life });
            }
        }
    }
}
