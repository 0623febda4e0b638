//! What goes wrong, decided before the run begins: a list that can be shortened, told and run
//! again. Whom it strikes is fixed when it strikes.

use std::fmt;

use crate::rng::Rng;

/// One decision of the injector.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When.
    pub at_us: u64,
    /// What.
    pub fault: Fault,
}

impl Decision {
    /// The power goes while somebody starts for the first time.
    pub fn at_first_start(rng: &mut Rng, members: u64) -> Self {
        let (member, operations) = (rng.below(members) as usize, rng.below(14));
        let fault = Fault::PowerCutAt { whom: Whom::Member(member), operations };
        Self { at_us: 0, fault }
    }
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug)]
pub enum Whom {
    /// This one.
    Member(usize),
    /// Who leads then; if nobody does, this one.
    Leader(usize),
}

/// What can go wrong. Times in microseconds; sets of members as bits.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// No word between the set and the rest.
    Partition { set: u64, for_us: u64 },
    /// No word from one to anybody else.
    Isolate { whom: Whom, for_us: u64 },
    /// No word out of the set; what is sent into it arrives.
    OneWay { set: u64, for_us: u64 },
    /// Two halves that hear each other through this member alone.
    Bridge { whom: Whom, set: u64, for_us: u64 },
    /// A link becomes slower by so much.
    SlowLink { from: usize, to: usize, by_us: u64, for_us: u64 },
    /// The connections between two break; what was under way is lost.
    Disconnect { one: usize, other: usize },
    /// Nobody can dial it, and what others dialled breaks; what it dials stands.
    Refuse { whom: Whom, for_us: u64 },
    /// The process stands still.
    Pause { whom: Whom, for_us: u64 },
    /// The process dies, the machine lives.
    Kill { whom: Whom, down_us: u64 },
    /// The power goes under all of the set.
    PowerCut { set: u64, down_us: u64 },
    /// The same for one.
    PowerCutOne { whom: Whom, down_us: u64 },
    /// The power goes at a coming operation of the disk, in the midst of it.
    PowerCutAt { whom: Whom, operations: u64 },
    /// The process is asked to stop, and does.
    Stop { whom: Whom, down_us: u64 },
    /// Every sync takes so many times as long.
    SlowDisk { whom: Whom, times: u64, for_us: u64 },
    /// No sync ends.
    HungDisk { whom: Whom, for_us: u64 },
    /// A coming write, sync, renaming or removal fails.
    WriteError { whom: Whom, operations: u64 },
    /// A coming read fails, and the process is killed so that it reads.
    ReadError { whom: Whom, reads: u64, down_us: u64 },
    /// Nothing more than so much fits.
    DiskFull { whom: Whom, room_bytes: u64, for_us: u64 },
    /// A bit of some file turns over, and the process is killed so that it reads.
    BitRot { whom: Whom, place: u64, down_us: u64 },
    /// A coming write is acknowledged and never arrives.
    LostWrite { whom: Whom, operations: u64 },
    /// A coming write arrives elsewhere.
    MisdirectedWrite { whom: Whom, operations: u64, sectors: u64 },
    /// The clock jumps forward by so many ticks.
    ClockJump { whom: Whom, ticks: u64 },
    /// The clock goes at so many hundredths of its speed.
    ClockRate { whom: Whom, percent: u64, for_us: u64 },
    /// An operator wants another leader.
    Transfer { to: Option<usize> },
    /// A stranger asks for a vote in a candidate's name.
    VoteRequest { at: usize, candidate: usize, terms_ahead: u64 },
    /// The data directory is emptied, if that breaks no promise that others rely on.
    Wipe { whom: Whom },
    /// An operator asks a member for a change of the membership. If it is of a new machine, that
    /// one is started so much later, or not at all.
    Change { via: Whom, wish: Wish, one: usize, other: usize, starts_us: Option<u64> },
    /// A member that was removed, and stopped for that, is started again on its old disk.
    Revive { which: usize },
}

/// What an operator wants of the membership. Of whom, is decided by who is there then.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// One more voter.
    Grow,
    /// One more learner.
    Learn,
    /// A learner is to vote.
    Promote,
    /// A member is to go.
    Remove,
    /// The leader is to go.
    RemoveLeader,
    /// A new machine takes a member's place.
    Replace,
    /// A member moves.
    UpdateAddress,
    /// Several things in one step.
    Several,
    /// Something that cannot be.
    Nonsense,
}

/// The wishes of `for_us`, about `every_us` apart.
pub fn changes(rng: &mut Rng, places: u64, for_us: u64, every_us: u64) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut at_us = rng.around(every_us);
    while at_us < for_us {
        decisions.push(Decision { at_us, fault: change(rng, places) });
        // Two at once, now and then, at two members.
        let soon = if rng.one_in(6) { 20_000 } else { every_us };
        at_us += rng.around(soon) + 1;
    }
    decisions
}

fn change(rng: &mut Rng, places: u64) -> Fault {
    let (one, other) = (rng.below(places) as usize, rng.below(64) as usize);
    if rng.one_in(12) {
        return Fault::Revive { which: one };
    }
    let asked = rng.below(places) as usize;
    let via = if rng.one_in(2) { Whom::Leader(asked) } else { Whom::Member(asked) };
    let wish = match rng.below(20) {
        0..=4 => Wish::Grow,
        5 => Wish::Learn,
        6..=7 => Wish::Promote,
        8..=10 => Wish::Remove,
        11..=12 => Wish::RemoveLeader,
        13..=14 => Wish::Replace,
        15 => Wish::UpdateAddress,
        16..=18 => Wish::Several,
        _ => Wish::Nonsense,
    };
    let starts_us = (!rng.one_in(8)).then(|| rng.around(300_000));
    Fault::Change { via, wish, one, other, starts_us }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_us / 1_000_000, self.at_us / 1000 % 1000);
        write!(f, "{seconds:4}.{millis:03} s  {:?}", self.fault)
    }
}

/// Which faults a run may have, as bits: each seed has its own profile.
#[derive(Clone, Copy, Debug)]
pub struct Weather(u32);

const KINDS: u32 = 24;

impl Weather {
    /// Some faults, rarely none, sometimes all.
    pub fn draw(rng: &mut Rng) -> Self {
        let all = (1 << KINDS) - 1;
        let bits = match rng.below(8) {
            0 => all,
            1 => rng.next() as u32 & rng.next() as u32 & all,
            _ => rng.next() as u32 & all,
        };
        Self(bits)
    }

    /// The decisions of `for_us`, about `every_us` apart.
    pub fn decide(self, rng: &mut Rng, members: u64, for_us: u64, every_us: u64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut at_us = rng.around(every_us);
        while at_us < for_us {
            let kind = rng.below(u64::from(KINDS)) as u32;
            if self.0 & (1 << kind) != 0 {
                let fault = draw(kind, rng, members);
                decisions.push(Decision { at_us, fault });
            }
            at_us += rng.around(every_us) + 1;
        }
        decisions
    }
}

fn draw(kind: u32, rng: &mut Rng, members: u64) -> Fault {
    let member = rng.below(members) as usize;
    let other = (member as u64 + 1 + rng.below(members - 1)) % members;
    let other = other as usize;
    let whom = if rng.one_in(2) { Whom::Leader(member) } else { Whom::Member(member) };
    let set = rng.between(1, (1 << members) - 2);
    let for_us = rng.around(3_000_000) + 1000;
    let down_us = rng.around(2_000_000) + 1000;
    let operations = rng.below(40);
    match kind {
        0 => Fault::Partition { set, for_us },
        1 => Fault::Isolate { whom, for_us },
        2 => Fault::OneWay { set, for_us },
        3 => Fault::Bridge { whom, set, for_us },
        4 => {
            let by_us = rng.around(100_000);
            Fault::SlowLink { from: member, to: other, by_us, for_us }
        }
        5 if rng.one_in(2) => Fault::Refuse { whom, for_us },
        5 => Fault::Disconnect { one: member, other },
        6 => Fault::Pause { whom, for_us: rng.around(800_000) + 1000 },
        7 => Fault::Kill { whom, down_us },
        8 => Fault::PowerCut { set: rng.between(1, (1 << members) - 1), down_us },
        9 => Fault::PowerCutOne { whom, down_us },
        10 => Fault::PowerCutAt { whom, operations },
        11 => Fault::Stop { whom, down_us },
        12 => Fault::SlowDisk { whom, times: rng.between(3, 200), for_us },
        13 => Fault::HungDisk { whom, for_us },
        14 => Fault::WriteError { whom, operations },
        15 => Fault::ReadError { whom, reads: rng.below(20), down_us },
        16 => Fault::DiskFull { whom, room_bytes: rng.below(1 << 15), for_us },
        17 => Fault::BitRot { whom, place: rng.next(), down_us },
        18 => Fault::LostWrite { whom, operations },
        19 => Fault::MisdirectedWrite { whom, operations, sectors: rng.between(1, 9) },
        20 => Fault::ClockJump { whom, ticks: rng.between(1, 200) },
        21 => Fault::ClockRate { whom, percent: rng.between(10, 300), for_us },
        22 => {
            if rng.one_in(3) {
                let terms_ahead = rng.below(3);
                return Fault::VoteRequest { at: member, candidate: other, terms_ahead };
            }
            Fault::Transfer { to: rng.one_in(2).then_some(member) }
        }
        _ => Fault::Wipe { whom },
    }
}
