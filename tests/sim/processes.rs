//! How a member lives on its disk: starts, writes, applies, saves, and dies.
//!
//! The production parts do the work; here is only when each of them gets its turn, and what becomes
//! of a process whose disk fails: it ends, as the real one does.

use raft_node::node::applier;
use raft_node::node::recovery::{self, Recovered};
use raft_node::node::snapshotter::Saving;
use raft_node::node::{Event, persister};
use raft_node::raft::Entry;
use raft_node::storage::testing::SimDisk;
use raft_node::storage::{self};

use crate::checks::Memory;
use crate::process::{Process, Ticket};
use crate::simulator::{SimEvent, Simulator};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Alone: what it wrote stays.
    Killed,
    /// With its machine: what it did not sync may be gone.
    PowerCut,
}

/// Committed entries, and who waits for them.
pub type Entries = Vec<(Entry, Option<Ticket>)>;

/// How soon a process that ended by itself is started again.
const RESTART_US: u64 = 300_000;

/// A log writer that waits for room looks so often whether there is some.
const LOOK_US: u64 = 1_000_000;

/// States are compared about once in so many slices.
const COMPARE_ONE_IN: u64 = 64;

impl Simulator {
    /// Starts a member, as production does: from what its disk gives back.
    pub fn start(&mut self, at: usize, life: u32) {
        let member = &self.members[at];
        if member.life != life || member.process.is_some() || member.ruined {
            return;
        }
        // Whatever held the directory before is dead.
        member.disk.kill();
        let disk = member.disk.for_process();
        let (identity, first) = (self.identity(at), self.first_members(at));
        let sizes = self.plan.sizes;
        let recovered =
            recovery::recover(&disk, sizes.options, identity, &first, sizes.cache_bytes);
        match recovered {
            Ok(recovered) => self.begin_life(at, recovered),
            Err(error) => self.refuse_start(at, &error),
        }
    }

    fn begin_life(&mut self, at: usize, recovered: Recovered<SimDisk>) {
        let acknowledged = self.checker.acknowledged(at);
        let memory = self.checker.recovered(at, &recovered);
        if memory == Memory::Short {
            self.judge_short_memory(at, &acknowledged, &recovered);
            return;
        }
        self.stats.starts += 1;
        self.trace(4, at, recovered.applied.index.0);
        self.tell(|| {
            let last = recovered.restored.entries.last().map(|entry| entry.id);
            format!("member {at} starts: applied {}, last {last:?}", recovered.applied)
        });
        let seed = self.rng.next();
        // An emptied directory forgets which request ids were used. Until members with one are
        // refused, they are given a range of their own here: without it, the cluster takes what
        // they ask for repetitions.
        let restarts = recovered.restarts + (self.members[at].wipes << 16);
        let addresses = self.told_addresses(at);
        let config = self.plan.replica(self.members[at].id, restarts, seed, addresses);
        let member = &mut self.members[at];
        member.life += 1;
        member.process = Some(Process::new(recovered, config));
        let life = member.life;
        let at_us = self.now_us + self.rng.below(self.plan.tick_us) + 1;
        self.queue.push(at_us, SimEvent::Tick { at, life });
        // Whom to reach, before anything arrives.
        self.act(at);
        self.trim(at);
    }

    /// A member does not start. Damage that somebody did stays damage; an error of the disk may
    /// pass.
    fn refuse_start(&mut self, at: usize, error: &recovery::Error) {
        self.tell(|| format!("member {at} does not start: {error}"));
        self.trace(5, at, 0);
        let corrupt = !matches!(error, recovery::Error::Storage(storage::Error::Io { .. }));
        if corrupt {
            assert!(self.members[at].damage.is_some(), "member {at} sees damage in vain: {error}");
            self.stats.damage_found += 1;
            self.ruin(at);
            return;
        }
        self.stats.starts_failed += 1;
        self.die(at, Death::Killed, Some(RESTART_US));
    }

    /// The member has forgotten what its disk had confirmed. No log can notice that its very last
    /// group never arrived; everything before it, it must.
    fn judge_short_memory(
        &mut self,
        at: usize,
        acknowledged: &str,
        recovered: &Recovered<SimDisk>,
    ) {
        let member = &self.members[at];
        let unnoticeable = member
            .damage
            .is_some_and(|damage| damage.groups_then.is_some_and(|then| member.groups <= then + 1));
        assert!(
            unnoticeable,
            "member {at} forgot what was durable: it had {acknowledged}, and remembers {:?} \
             with a log of {} entries from {} and a snapshot of {}",
            recovered.restored.hard_state,
            recovered.restored.entries.len(),
            recovered.restored.base.last,
            recovered.latest_snapshot,
        );
        self.stats.tails_lost += 1;
        self.ruin(at);
    }

    /// A member's disk is never used again.
    fn ruin(&mut self, at: usize) {
        self.members[at].ruined = true;
        self.members[at].ruined_us = self.now_us;
        self.members[at].life += 1;
        self.checker.forget(at);
    }

    /// A process ends, with its machine if the power is gone already. It starts again after
    /// `down_us`, if at all.
    pub fn die(&mut self, at: usize, death: Death, down_us: Option<u64>) {
        self.stopping.remove(&at);
        let member = &mut self.members[at];
        let powered = member.disk.is_powered();
        let death = if powered { death } else { Death::PowerCut };
        match death {
            Death::Killed => member.disk.kill(),
            Death::PowerCut => member.disk.power_cut(),
        }
        member.life += 1;
        member.paused_until_us = None;
        member.held.clear();
        member.ticks_missed = 0;
        let (life, process) = (member.life, member.process.take());
        if let Some(down_us) = down_us {
            self.queue.push(self.now_us + down_us, SimEvent::Start { at, life });
        }
        let Some(process) = process else { return };
        self.trace(6, at, u64::from(death == Death::PowerCut));
        self.tell(|| format!("member {at} ends: {death:?}"));
        for ticket in process.open {
            self.orphan(ticket);
        }
        self.network.forget(at);
        for peer in (0..self.members.len()).filter(|peer| *peer != at) {
            self.network.link(peer, at).epoch += 1;
            // A dead process's connections are reset by its machine; a dead machine says nothing.
            if death == Death::Killed && self.network.passes(at, peer) {
                self.tell_loss(peer, at);
            } else {
                self.doubt(peer, at);
            }
        }
    }

    /// A process whose disk failed under it ends: of itself, or because the power is gone.
    fn end_by_disk(&mut self, at: usize, error: &storage::Error) {
        self.tell(|| format!("member {at}: {error}"));
        self.stats.ended_by_disk += u64::from(self.members[at].disk.is_powered());
        self.die(at, Death::Killed, Some(RESTART_US));
    }

    /// The power may have gone during an operation whose failure alone ends no process.
    pub fn check_power(&mut self, at: usize) {
        if self.members[at].process.is_some()
            && self.members[at].power_armed
            && !self.members[at].disk.is_powered()
        {
            self.die(at, Death::PowerCut, Some(RESTART_US));
        }
    }

    /// Gives the log writer work.
    pub fn write(&mut self, at: usize, job: persister::Job<SimDisk>) {
        self.process(at).writes.push_back(job);
        self.sync_soon(at);
    }

    /// Lets the log writer take up what waits, unless it waits for the disk already.
    fn sync_soon(&mut self, at: usize) {
        let now_us = self.now_us;
        let process = self.process(at);
        if process.syncing || process.writes.is_empty() {
            return;
        }
        if let Err(error) = process.write_group() {
            self.end_by_disk(at, &error);
            return;
        }
        let process = self.process(at);
        process.syncing = true;
        let waits = process.persister.is_waiting();
        if waits && !std::mem::replace(&mut process.looking, true) {
            self.stats.writes_held += 1;
            let life = self.members[at].life;
            self.queue.push(now_us + LOOK_US, SimEvent::Room { at, life });
        }
        let member = &self.members[at];
        let (slow, hung_until_us, life) =
            (member.disk_slow, member.disk_hung_until_us, member.life);
        let took_us = self.rng.around(self.plan.pace.sync_us) * slow + 1;
        let at_us = (now_us + took_us).max(hung_until_us);
        self.queue.push(at_us, SimEvent::Synced { at, life });
    }

    /// Looks whether there is room by now, as happens once a second.
    pub fn look_for_room(&mut self, at: usize, life: u32) {
        if self.lives(at, life) {
            self.process(at).looking = false;
            self.write(at, persister::Job::Rest);
        }
    }

    /// A sync ends.
    pub fn synced(&mut self, at: usize, life: u32) {
        if !self.lives(at, life) {
            return;
        }
        self.process(at).syncing = false;
        let mut events = Vec::new();
        if let Err(error) = self.finish_group(at, &mut events) {
            self.end_by_disk(at, &error);
            return;
        }
        for event in events {
            if self.lives(at, life) {
                self.give(at, event);
            }
        }
        if self.lives(at, life) {
            self.trim(at);
            self.sync_soon(at);
        }
    }

    fn finish_group(
        &mut self,
        at: usize,
        events: &mut Vec<Event<Ticket>>,
    ) -> Result<(), storage::Error> {
        let process = self.members[at].process.as_mut().expect("it syncs");
        let dirty = process.persister.wal().is_dirty();
        let mut wrote = false;
        if let Some(seq) = process.persister.sync()? {
            wrote = dirty;
            self.checker.durable(at, seq);
            events.push(Event::Persisted { seq });
        }
        while let Some(meta) = process.persister.release()? {
            self.checker.saved(at, meta.last);
            self.stats.snapshots_saved += 1;
            events.push(Event::SnapshotSaved { meta });
        }
        let idle = process.writes.is_empty();
        self.note_group(at, wrote);
        if idle {
            self.process(at).persister.vouch()?;
        }
        Ok(())
    }

    /// Counts groups, so that it is known what was written after a disk lied.
    fn note_group(&mut self, at: usize, wrote: bool) {
        let member = &mut self.members[at];
        if let Some(damage) = &mut member.damage
            && damage.groups_then.is_none()
            && damage.operation.is_none_or(|operation| member.disk.operations() > operation)
        {
            damage.groups_then = Some(member.groups);
        }
        member.groups += u64::from(wrote);
    }

    /// Lets a blank segment be made, if one is wanted.
    fn trim(&mut self, at: usize) {
        let now_us = self.now_us;
        if self.process(at).want_spare(now_us) {
            let at_us = now_us + self.rng.around(self.plan.pace.spare_us) + 1;
            let life = self.members[at].life;
            self.queue.push(at_us, SimEvent::Spare { at, life });
        }
    }

    /// A blank segment is made, or not.
    pub fn spare_made(&mut self, at: usize, life: u32) {
        if !self.lives(at, life) {
            return;
        }
        let job = self.process(at).spare.take().expect("one was asked for");
        let spare = job.run();
        self.write(at, persister::Job::Spare(spare));
        if self.lives(at, life) {
            self.check_power(at);
        }
    }

    /// Gives the owner of the state machine work.
    pub fn put_job(&mut self, at: usize, job: applier::Job<Ticket>) {
        self.process(at).jobs.push_back(job);
        self.apply_soon(at);
    }

    /// Applies `entries` here and now, as the driver does when they are few and nothing waits; else
    /// leaves them to the owner of the state machine. True if it did.
    pub fn apply_at_once(&mut self, at: usize, entries: Entries) -> bool {
        let process = self.process(at);
        let busy = process.batch.is_some() || !process.jobs.is_empty();
        if busy || entries.len() > 16 || !self.rng.one_in(3) {
            self.put_job(at, applier::Job::Apply(entries));
            return false;
        }
        let process = self.process(at);
        let answers = process.applier.apply_slice(&mut entries.into_iter());
        let answers = answers.expect("every command is understood");
        for (ticket, applied) in answers {
            self.answered(at, ticket, applied);
        }
        let process = self.process(at);
        let event = process.applier.report();
        process.replica.handle(event);
        true
    }

    fn apply_soon(&mut self, at: usize) {
        if std::mem::replace(&mut self.process(at).applying, true) {
            return;
        }
        let at_us = self.now_us + self.rng.around(self.plan.pace.apply_us) + 1;
        let life = self.members[at].life;
        self.queue.push(at_us, SimEvent::Applied { at, life });
    }

    /// The owner of the state machine takes a step: a slice, a restoration, a bit of compaction.
    pub fn apply(&mut self, at: usize, life: u32) {
        if !self.lives(at, life) {
            return;
        }
        self.process(at).applying = false;
        match self.apply_step(at) {
            Ok(more) => {
                if self.lives(at, life) && more {
                    self.apply_soon(at);
                }
            }
            Err(recovery::Error::Storage(error)) => {
                let spoiled = self.members[at].damage.is_some();
                let excused = spoiled || matches!(error, storage::Error::Io { .. });
                assert!(excused, "member {at} sees damage in vain: {error}");
                self.end_by_disk(at, &error);
            }
            Err(error) => panic!("member {at} cannot go on: {error}"),
        }
    }

    /// True if there is more to do.
    fn apply_step(&mut self, at: usize) -> Result<bool, recovery::Error> {
        let process = self.process(at);
        if process.batch.is_none() {
            match process.jobs.pop_front() {
                None => {
                    let more = !process.applier.compact_step();
                    if !more {
                        let data_bytes = process.applier.data_bytes();
                        self.give(at, Event::Shrunk { data_bytes });
                    }
                    return Ok(more);
                }
                Some(applier::Job::Apply(entries)) => {
                    process.batch = Some(entries.into_iter());
                }
                Some(applier::Job::Restore(meta)) => {
                    process.applier.restore(&meta, || ())?;
                    self.report_applied(at, true);
                    return Ok(true);
                }
                Some(applier::Job::SaveSnapshot) => {
                    let job = process.applier.snapshot();
                    process.to_save.push_back(job);
                    self.save_soon(at);
                    return Ok(true);
                }
            }
        }
        let process = self.process(at);
        let batch = process.batch.as_mut().expect("one is under way");
        let more = batch.len() >= applier::SLICE_MAX;
        let answers = process.applier.apply_slice(batch)?;
        for (ticket, applied) in answers {
            self.answered(at, ticket, applied);
        }
        if !more {
            self.process(at).batch = None;
            let compare = self.rng.one_in(COMPARE_ONE_IN);
            self.report_applied(at, compare);
        }
        Ok(true)
    }

    fn report_applied(&mut self, at: usize, compare: bool) {
        let process = self.members[at].process.as_ref().expect("it applies");
        if compare {
            let machine = process.machine.read().expect("nobody panics with the lock held");
            self.checker.state(at, process.applier.applied.index, &machine);
        }
        let event = process.applier.report();
        self.trace(
            7,
            at,
            self.members[at].process.as_ref().map_or(0, |process| process.applier.applied.index.0),
        );
        self.give(at, event);
    }

    fn save_soon(&mut self, at: usize) {
        let at_us = self.now_us + self.rng.around(self.plan.pace.save_us) + 1;
        let life = self.members[at].life;
        self.queue.push(at_us, SimEvent::Saved { at, life });
    }

    /// The snapshot writer takes a step: begins a file, writes a chunk, or finishes.
    pub fn save(&mut self, at: usize, life: u32) {
        if !self.lives(at, life) {
            return;
        }
        let process = self.process(at);
        let outcome = match process.saving.take() {
            None => {
                let Some(job) = process.to_save.pop_front() else { return };
                let meta = job.meta.clone();
                Saving::begin(job, &process.snapshots).map(|saving| Some((meta, saving)))
            }
            Some((meta, mut saving)) => match saving.write(&process.machine) {
                Ok(true) => Ok(Some((meta, saving))),
                Ok(false) => saving.finish().map(|_| {
                    process.writes.push_back(persister::Job::Release(meta));
                    None
                }),
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(Some(under_way)) => {
                process.saving = Some(under_way);
                self.save_soon(at);
            }
            Ok(None) => {
                self.sync_soon(at);
                if self.lives(at, life) {
                    self.save_next(at);
                }
            }
            Err(error) => {
                self.tell(|| format!("member {at}: no snapshot: {error}"));
                self.stats.snapshots_failed += 1;
                self.give(at, Event::SnapshotFailed);
                if self.lives(at, life) {
                    self.save_next(at);
                }
            }
        }
        if self.lives(at, life) {
            self.check_power(at);
        }
    }

    fn save_next(&mut self, at: usize) {
        if !self.process(at).to_save.is_empty() {
            self.save_soon(at);
        }
    }

    /// A member that was asked to stop has had its time.
    pub fn stopped(&mut self, at: usize, life: u32) {
        if self.lives(at, life) {
            self.die(at, Death::Killed, None);
        }
    }
}
