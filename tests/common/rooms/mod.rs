//! The store, the disk, the door for votes and some rules of the core by themselves, driven by
//! chance and judged from outside: quick enough to tell within a moment whether a bug of one of
//! them would be seen.

pub mod callers;
pub mod disk;
pub mod door;
pub mod poison;
pub mod quorum;
pub mod store;
pub mod strangers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_node::testpoints::{self, Mark, Mutant};

/// How a mutant died.
#[derive(Clone, Debug)]
pub struct Kill {
    /// With which seed.
    pub seed: u64,
    /// What was seen.
    pub how: String,
}

/// Bugs of the store.
pub const STORE: &[Mutant] = &[
    Mutant::RevisionNotBumped,
    Mutant::RevisionPerOperation,
    Mutant::TxnReadsItsEnd,
    Mutant::TxnUnchecked,
    Mutant::CompactNewest,
    Mutant::CompactedOffByOne,
    Mutant::FutureAnswered,
    Mutant::TombstoneReadable,
    Mutant::CreationForgotten,
    Mutant::RangeEndIncluded,
    Mutant::ImportForgetsCompaction,
];

/// Bugs of the disk's room.
pub const DISK: &[Mutant] = &[
    Mutant::WalSyncSkipped,
    Mutant::SegmentNameUnsynced,
    Mutant::SnapshotUnsynced,
    Mutant::SnapshotNameUnsynced,
    Mutant::DamageTakenForTear,
    Mutant::ChainUnchecked,
    Mutant::TailNotBlanked,
    Mutant::FoundNotRewritten,
    Mutant::SpareNotZeroed,
    Mutant::StaleSnapshotAdopted,
];

/// Bugs of the door for votes, which a whole world hardly ever comes by.
pub const DOOR: &[Mutant] = &[Mutant::VoteOfAnyTerm];

/// Bugs of what a leader looks at before it changes the voters: who is dead does not come back in
/// a world that has time for it.
pub const QUORUM: &[Mutant] = &[Mutant::QuorumGivenUp, Mutant::MovedCounted];

/// Bugs of what the core makes of a host that is no member, of which there is none in the worlds
/// that are made of members.
pub const STRANGERS: &[Mutant] =
    &[Mutant::StrangerFollowed, Mutant::TermUnbounded, Mutant::SuccessorUnnamed];

/// Bugs of what becomes of commands and snapshots that nobody can read.
pub const POISON: &[Mutant] = &[Mutant::PoisonProposed, Mutant::SnapshotUnread];

/// Bugs of how a member knows another again.
pub const CALLERS: &[Mutant] = &[Mutant::GuestRemembered];

/// The rare paths of the store and the disk.
pub const MARKS: &[Mark] = &[
    Mark::CompactedRefused,
    Mark::FutureRefused,
    Mark::TxnRefused,
    Mark::CompactionHeld,
    Mark::CompactionResumed,
    Mark::TombstoneSwept,
    Mark::ReadBegunAnew,
    Mark::ImageAbandoned,
    Mark::ChangesLost,
    Mark::TornTailCut,
    Mark::UnbegunSegment,
    Mark::LogRestarted,
    Mark::SegmentRolled,
    Mark::UrgentSegment,
    Mark::SpareRecycled,
    Mark::GroupMasked,
    Mark::SnapshotReplaced,
    Mark::LateSnapshotIgnored,
    Mark::SnapshotAbandoned,
];

/// Runs up to `seeds` worlds of the mutant's room with the mutant in them, until one of them shows
/// it; none if it survives them all, or is of none of these rooms.
pub fn kill(mutant: Mutant, seeds: u64) -> Option<Kill> {
    let judge: fn(u64) -> Result<(), String> = if STORE.contains(&mutant) {
        store::judge
    } else if DISK.contains(&mutant) {
        disk::judge
    } else if DOOR.contains(&mutant) {
        door::judge
    } else if QUORUM.contains(&mutant) {
        quorum::judge
    } else if STRANGERS.contains(&mutant) {
        strangers::judge
    } else if POISON.contains(&mutant) {
        poison::judge
    } else if CALLERS.contains(&mutant) {
        callers::judge
    } else {
        return None;
    };
    testpoints::set_mutant(Some(mutant));
    let killed = (0..seeds).find_map(|seed| {
        // What the store and the log assert of themselves counts too.
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(seed)));
        let how = outcome.unwrap_or_else(|panic| Err(said(panic.as_ref()))).err()?;
        Some(Kill { seed, how })
    });
    testpoints::set_mutant(None);
    if let Some(Kill { seed, how }) = &killed {
        // Nobody is hanged for what he did not do.
        judge(*seed).unwrap_or_else(|what| panic!("without {mutant:?}: {what}, not {how}"));
    }
    killed
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}

/// Random numbers from a seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed, the same fate.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize].clone()
    }
}
