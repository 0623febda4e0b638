//! The arithmetic of majorities (§5.3, §5.4.2), also of two at once (§6, joint consensus).
//!
//! Pure functions over a [`Configuration`]. Everything that a quorum decides goes through here:
//! what is committed, who has won, which read round is confirmed, how lately a quorum was heard.
//! Values are sorted afresh each time: nothing is kept that could fall out of order.

use crate::testpoints::{self, Mutant};

use super::types::{Configuration, NodeId};
use std::collections::BTreeSet;

/// How many of `voters_count` make a majority.
pub const fn majority(voters_count: usize) -> usize {
    voters_count / 2 + 1
}

/// The highest value that a quorum has reached; in a joint configuration, a quorum of each half.
/// None without voters: nobody decides nothing.
pub fn reached<T: Ord + Copy>(config: &Configuration, value: impl Fn(NodeId) -> T) -> Option<T> {
    let counted =
        if testpoints::mutant(Mutant::LearnerCounted) { &config.members() } else { &config.voters };
    let incoming = reached_by(counted, &value)?;
    Some(match reached_by(&config.outgoing, &value) {
        Some(outgoing) if !testpoints::mutant(Mutant::JointCommitHalf) => incoming.min(outgoing),
        Some(_) | None => incoming,
    })
}

fn reached_by<T: Ord + Copy>(voters: &BTreeSet<NodeId>, value: impl Fn(NodeId) -> T) -> Option<T> {
    let mut values: Vec<T> = voters.iter().map(|id| value(*id)).collect();
    if !testpoints::mutant(Mutant::QuorumUnsorted) {
        values.sort_unstable();
    }
    // Sorted upwards, the value at len - majority is reached by a majority.
    values.len().checked_sub(majority(values.len())).map(|at| values[at])
}

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A quorum said yes.
    Won,
    /// No quorum can say yes any more.
    Lost,
    /// Neither yet.
    Open,
}

/// Counts votes: `Some(true)` for, `Some(false)` against, `None` not in yet.
pub fn tally(config: &Configuration, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
    let incoming = tally_of(&config.voters, &vote);
    if config.outgoing.is_empty() || testpoints::mutant(Mutant::JointVoteHalf) {
        return incoming;
    }
    match (incoming, tally_of(&config.outgoing, &vote)) {
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        (Tally::Open, _) | (_, Tally::Open) => Tally::Open,
    }
}

fn tally_of(voters: &BTreeSet<NodeId>, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
    let needed = majority(voters.len());
    let granted = voters.iter().filter(|id| vote(**id) == Some(true)).count();
    let open = voters.iter().filter(|id| vote(**id).is_none()).count();
    if granted >= needed {
        Tally::Won
    } else if granted + open < needed {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(raw: &[u64]) -> BTreeSet<NodeId> {
        raw.iter().map(|id| NodeId::new(*id).expect("positive")).collect()
    }

    fn config(voters: &[u64], outgoing: &[u64]) -> Configuration {
        Configuration { voters: ids(voters), outgoing: ids(outgoing), ..Configuration::default() }
    }

    #[test]
    fn majorities() {
        let table = [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)];
        for (voters_count, needed) in table {
            assert_eq!(majority(voters_count), needed, "of {voters_count}");
        }
    }

    #[test]
    fn values_reached() {
        // Match indexes of members 1, 2, 3, 4, 5, 6; absent members have reached 0.
        type Row<'a> = (&'a [u64], &'a [u64], [u64; 6], Option<u64>);
        let table: &[Row<'_>] = &[
            (&[], &[], [9, 9, 9, 9, 9, 9], None),
            (&[], &[1], [9, 9, 9, 9, 9, 9], None),
            (&[1], &[], [7, 0, 0, 0, 0, 0], Some(7)),
            (&[1, 2], &[], [7, 3, 0, 0, 0, 0], Some(3)),
            (&[1, 2, 3], &[], [7, 3, 5, 0, 0, 0], Some(5)),
            (&[1, 2, 3], &[], [9, 0, 0, 0, 0, 0], Some(0)),
            (&[1, 2, 3, 4], &[], [9, 8, 7, 6, 0, 0], Some(7)),
            (&[1, 2, 3, 4, 5], &[], [5, 4, 3, 2, 1, 0], Some(3)),
            // Learner or stranger 6 does not count, however far it is.
            (&[1, 2, 3], &[], [1, 2, 3, 0, 0, 99], Some(2)),
            // Joint: both halves, so the slower one decides.
            (&[1, 2, 3], &[1, 2, 3], [7, 3, 5, 0, 0, 0], Some(5)),
            (&[1, 2, 3], &[4, 5, 6], [9, 9, 9, 1, 2, 3], Some(2)),
            (&[4, 5, 6], &[1, 2, 3], [9, 9, 9, 1, 2, 3], Some(2)),
            (&[1, 2, 3], &[3, 4, 5], [9, 9, 0, 4, 0, 0], Some(0)),
            (&[1, 2, 3], &[3, 4, 5], [9, 9, 6, 4, 0, 0], Some(4)),
            (&[1, 2, 3, 4], &[1], [2, 9, 9, 9, 0, 0], Some(2)),
        ];
        for (voters, outgoing, matched, want) in table {
            let got = reached(&config(voters, outgoing), |id| matched[id.get() as usize - 1]);
            assert_eq!(got, *want, "{voters:?} {outgoing:?} {matched:?}");
        }
    }

    #[test]
    fn tallies() {
        const Y: Option<bool> = Some(true);
        const N: Option<bool> = Some(false);
        const O: Option<bool> = None;
        type Row<'a> = (&'a [u64], &'a [u64], [Option<bool>; 5], Tally);
        let table: &[Row<'_>] = &[
            (&[], &[], [Y, Y, Y, Y, Y], Tally::Lost),
            (&[1], &[], [Y, O, O, O, O], Tally::Won),
            (&[1], &[], [N, Y, Y, Y, Y], Tally::Lost),
            (&[1, 2], &[], [Y, O, O, O, O], Tally::Open),
            (&[1, 2], &[], [Y, N, O, O, O], Tally::Lost),
            (&[1, 2, 3], &[], [Y, O, O, Y, Y], Tally::Open),
            (&[1, 2, 3], &[], [Y, Y, O, O, O], Tally::Won),
            (&[1, 2, 3], &[], [Y, N, N, O, O], Tally::Lost),
            (&[1, 2, 3, 4], &[], [Y, Y, N, O, O], Tally::Open),
            (&[1, 2, 3, 4], &[], [Y, Y, N, N, O], Tally::Lost),
            (&[1, 2, 3], &[1, 4, 5], [Y, Y, O, O, O], Tally::Open),
            (&[1, 2, 3], &[1, 4, 5], [Y, Y, O, Y, O], Tally::Won),
            (&[1, 2, 3], &[1, 4, 5], [Y, Y, Y, N, N], Tally::Lost),
            (&[1, 2, 3], &[1, 4, 5], [O, N, N, Y, Y], Tally::Lost),
        ];
        for (voters, outgoing, votes, want) in table {
            let got = tally(&config(voters, outgoing), |id| votes[id.get() as usize - 1]);
            assert_eq!(got, *want, "{voters:?} {outgoing:?} {votes:?}");
        }
    }
}
