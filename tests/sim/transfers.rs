//! Snapshots on their way from one member's disk to another's, piece by piece, as the transport and
//! the bridge of the real node carry them: the receiver's core hears of one only when its file is
//! whole and durable.

use bytes::Bytes;

use raft_node::node::received::Receiving;
use raft_node::node::{Event, recovery};
use raft_node::raft::{Body, Index, Message, SnapshotMeta, Term};
use raft_node::storage::testing::SimDisk;
use raft_node::storage::{self, SnapshotReader};

use crate::simulator::{SimEvent, Simulator};

/// How long neither end may stand still.
const STALL_US: u64 = 5_000_000;

/// How often an end that stands still is looked at.
const LOOK_US: u64 = 100_000;

/// One snapshot under way.
pub struct Transfer {
    from: usize,
    to: usize,
    from_life: u32,
    to_life: u32,
    term: Term,
    meta: SnapshotMeta,
    reader: SnapshotReader<SimDisk>,
    /// What is left of the last chunk.
    rest: Bytes,
    writer: Option<Receiving<SimDisk>>,
    /// The receiver has begun a file.
    begun: bool,
    stalled_us: u64,
}

/// What a piece came to.
enum Piece {
    /// There is more.
    More,
    /// Nothing moved: somebody stands still.
    Stalled,
    /// The receiver has it whole.
    Whole,
    /// It broke off.
    Broken,
}

impl Simulator {
    /// A leader wants its latest snapshot sent. A lane carries one at a time, and remembers one.
    pub fn send_snapshot(&mut self, from: usize, to: usize) {
        if !self.process(from).circle.table.peers.contains_key(&Self::id(to)) {
            return;
        }
        if let Some(again) = self.lanes.get_mut(&(from, to)) {
            *again = true;
            return;
        }
        // As the transport does: a snapshot is sent in the term in which its sender leads, though
        // its core may have heard of a later one meanwhile.
        let term = self.members[from].led;
        let read = self.process(from).snapshots.read();
        let Ok(Some(reader)) = read else {
            self.tell_sent(from, self.members[from].life, to, Index(0), false);
            return;
        };
        let meta = reader.info().meta.clone();
        self.tell(|| format!("member {from} sends its snapshot of {} to {to}", meta.last));
        self.transfers_begun += 1;
        let transfer = Transfer {
            from,
            to,
            from_life: self.members[from].life,
            to_life: self.members[to].life,
            term,
            meta,
            reader,
            rest: Bytes::new(),
            writer: None,
            begun: false,
            stalled_us: 0,
        };
        let id = self.transfers_begun;
        self.transfers.insert(id, transfer);
        self.lanes.insert((from, to), false);
        self.next_piece(id, from, to);
    }

    fn next_piece(&mut self, transfer: u64, from: usize, to: usize) {
        let plan = self.plan.links;
        let slow_us = self.network.link(from, to).slow_us;
        let took_us = plan.latency_us + slow_us + self.rng.around(plan.jitter_us) + 1;
        self.queue.push(self.now_us + took_us, SimEvent::Piece { transfer });
    }

    /// The next piece of a transfer arrives.
    pub fn piece(&mut self, id: u64) {
        let Some(mut transfer) = self.transfers.remove(&id) else { return };
        let (from, to) = (transfer.from, transfer.to);
        match self.carry_piece(&mut transfer) {
            Piece::More => {
                self.transfers.insert(id, transfer);
                self.next_piece(id, from, to);
            }
            Piece::Stalled => {
                transfer.stalled_us += LOOK_US;
                if transfer.stalled_us > STALL_US {
                    self.end_transfer(transfer, false);
                } else {
                    self.transfers.insert(id, transfer);
                    self.queue.push(self.now_us + LOOK_US, SimEvent::Piece { transfer: id });
                }
            }
            Piece::Whole => {
                let sender = self.members[from].id;
                let message = Message {
                    from: sender,
                    to: self.members[to].id,
                    term: transfer.term,
                    body: Body::InstallSnapshot { meta: transfer.meta.clone() },
                };
                self.end_transfer(transfer, true);
                self.trace(8, to, message.term.0);
                self.give(to, Event::Message(message));
            }
            Piece::Broken => self.end_transfer(transfer, false),
        }
        self.check_power(from);
        self.check_power(to);
    }

    fn carry_piece(&mut self, transfer: &mut Transfer) -> Piece {
        let (from, to) = (transfer.from, transfer.to);
        if !self.lives(from, transfer.from_life) || !self.lives(to, transfer.to_life) {
            return Piece::Broken;
        }
        let still = |at: usize| self.members[at].paused_until_us.is_some();
        if still(from)
            || still(to)
            || !self.network.passes(from, to)
            || self.network.refuses(from, to)
        {
            return Piece::Stalled;
        }
        if !self.lets_in(to, from) {
            return Piece::Broken;
        }
        transfer.stalled_us = 0;
        // One in a few hundred breaks off, as connections do; a damaged piece is refused.
        let fragile = self.plan.links.lose > 0 && !self.healed;
        if fragile && self.rng.one_in(200) {
            return Piece::Broken;
        }
        let Some(mut writer) = transfer.writer.take() else { return self.open_file(transfer) };
        if transfer.rest.is_empty() {
            match transfer.reader.next_chunk() {
                Ok(Some(chunk)) => transfer.rest = chunk,
                Ok(None) => {
                    return match writer.finish() {
                        Ok(_) => Piece::Whole,
                        Err(error) => self.not_received(to, &error),
                    };
                }
                Err(error) => return self.broken(from, &error),
            }
        }
        let bytes = self.plan.sizes.piece_bytes.min(transfer.rest.len());
        let piece = transfer.rest.split_to(bytes);
        if let Err(error) = writer.write(&piece) {
            return self.not_received(to, &error);
        }
        transfer.writer = Some(writer);
        Piece::More
    }

    /// The disk of the receiver fails. What a member sends makes a state.
    fn not_received(&self, at: usize, error: &recovery::Error) -> Piece {
        match error {
            recovery::Error::Storage(error) => self.broken(at, error),
            other => panic!("member {at} was sent a snapshot that it refuses: {other}"),
        }
    }

    /// The disk of one end fails: the transfer is given up, the process goes on.
    fn broken(&self, at: usize, error: &storage::Error) -> Piece {
        self.tell(|| format!("a snapshot breaks off at member {at}: {error}"));
        Piece::Broken
    }

    /// The header arrives: the receiver begins a file, unless another one is coming in.
    fn open_file(&mut self, transfer: &mut Transfer) -> Piece {
        let process = self.process(transfer.to);
        if process.receiving {
            return Piece::Broken;
        }
        let writer = match Receiving::begin(&process.snapshots, &transfer.meta) {
            Ok(writer) => writer,
            Err(error) => return self.broken(transfer.to, &error),
        };
        process.receiving = true;
        (transfer.writer, transfer.begun) = (Some(writer), true);
        Piece::More
    }

    fn end_transfer(&mut self, transfer: Transfer, ok: bool) {
        let Transfer { from, to, from_life, to_life, meta, writer, begun, .. } = transfer;
        drop(writer);
        if self.lives(to, to_life) && begun {
            self.process(to).receiving = false;
        }
        let upto = meta.last.index;
        self.tell(|| format!("the snapshot of {upto} from {from} to {to} ended, ok: {ok}"));
        if ok {
            self.stats.snapshots_sent += 1;
        } else {
            self.stats.transfers_broken += 1;
        }
        let again = self.lanes.remove(&(from, to)).unwrap_or_default();
        if !self.lives(from, from_life) {
            return;
        }
        // The receipt may get lost.
        let heard = ok && self.network.passes(to, from);
        self.tell_sent(from, from_life, to, upto, heard);
        if again {
            self.send_snapshot(from, to);
        }
    }

    fn tell_sent(&mut self, from: usize, life: u32, to: usize, upto: Index, ok: bool) {
        let event = Event::SnapshotSent { to: self.members[to].id, upto, ok };
        let at_us = self.now_us + self.plan.links.latency_us + 1;
        self.queue.push(at_us, SimEvent::Sent { at: from, life, event });
    }
}
