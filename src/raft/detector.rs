//! The failure detector: how long a leader, or a leader's quorum, may be silent before it is given
//! up (§5.2, thesis §6.2).
//!
//! The configured time-outs suit a machine on which heartbeats come when they are due. On one whose
//! processors are oversubscribed, or over a link that loses packets, a live leader is now and then
//! silent for longer, and every election called for that costs its clients more than the silence
//! did. So the time-outs in force follow the silences that ended with a sign of life of the same
//! member: they are the configured ones, stretched until they exceed the usual delay of a heartbeat
//! twice over. This is an eventually perfect detector in the sense of Chandra and Toueg: a false
//! suspicion makes it more patient.
//!
//! - *Two silences, not one.* The stretch follows the second longest of late, so a single outage
//!   (a paused process, a partition that heals) changes nothing.
//! - *Bounded.* At most [`STRETCH_PERCENT_MAX`] of the configured time-outs.
//! - *It shrinks again.* Both values decay with a constant of 4096 ticks.
//! - *Suspects.* A silence that lasted until the election ends with another leader. Whether the old
//!   one had died shows afterwards: if it speaks within [`SUSPECT_TIMEOUTS`] time-outs and its
//!   connection did not break, it was alive, and its silence counts like any other.
//!
//! Only ticks at which this member was listening count as silence (see
//! [`RaftNode::tick_late`](super::node::RaftNode::tick_late)).
//!
//! Safety rests on no time-out: votes, commits and reads need quorums. What rests on them is
//! liveness, and the three that must fit together are stretched alike: when a follower asks for
//! pre-votes, how long a live leader shields against candidates, and when a leader without a quorum
//! steps down.

use super::config::Config;
use super::types::NodeId;

/// The longest that time-outs become, in hundredths of the configured ones.
pub const STRETCH_PERCENT_MAX: u32 = 800;

/// How long after the beginning of its silence a suspect may still turn out to be alive, in longest
/// configured election time-outs. Beyond that it was an outage, which an election is for.
const SUSPECT_TIMEOUTS: u32 = 4;

/// Delays are kept in fractions of a tick, so that they decay slowly.
const PER_TICK: u64 = 1 << DECAY_SHIFT;
const DECAY_SHIFT: u32 = 12;

/// What was seen of late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Detector {
    /// By how much the latest heartbeat of late exceeded the interval, in `1 / PER_TICK` ticks.
    pub(super) longest: u64,
    /// The second latest.
    pub(super) second: u64,
    pub(super) suspect: Option<Suspect>,
}

/// A leader that was given up for its silence alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suspect {
    pub(super) leader: NodeId,
    pub(super) ticks_since_contact: u32,
}

impl Detector {
    /// A tick passes at which this member listens.
    pub fn tick(&mut self, config: &Config) {
        self.longest -= self.longest >> DECAY_SHIFT;
        self.second -= self.second >> DECAY_SHIFT;
        if let Some(suspect) = &mut self.suspect {
            suspect.ticks_since_contact += 1;
            if suspect.ticks_since_contact > SUSPECT_TIMEOUTS * config.election_ticks_max {
                self.suspect = None;
            }
        }
    }

    /// A silence of `silent_ticks` ended with a sign of life. One missed heartbeat is ordinary.
    pub fn observe(&mut self, ticks_since_contact: u32, config: &Config) {
        let late_ticks = ticks_since_contact.saturating_sub(config.heartbeat_ticks);
        if late_ticks <= config.heartbeat_ticks {
            return;
        }
        let late = u64::from(late_ticks) * PER_TICK;
        if late > self.longest {
            self.second = self.longest;
            self.longest = late;
        } else {
            self.second = self.second.max(late);
        }
    }

    /// `leader` was silent for so long that an election began, with its connection standing.
    pub fn suspect(&mut self, leader: NodeId, ticks_since_contact: u32) {
        self.suspect = Some(Suspect { leader, ticks_since_contact });
    }

    /// `from` speaks.
    pub fn heard(&mut self, from: NodeId, config: &Config) {
        if let Some(suspect) = self.suspect.take_if(|suspect| suspect.leader == from) {
            self.observe(suspect.ticks_since_contact, config);
        }
    }

    /// The connection to `peer` broke: it had died, or its machine cannot be reached.
    pub fn lost(&mut self, peer: NodeId) {
        self.suspect.take_if(|suspect| suspect.leader == peer);
    }

    /// How far the configured time-outs are stretched, in hundredths.
    pub fn stretch_percent(&self, config: &Config) -> u32 {
        if self.second == 0 {
            return 100;
        }
        let needed_ticks = u64::from(config.heartbeat_ticks) + 2 * self.second.div_ceil(PER_TICK);
        let percent = needed_ticks * 100 / u64::from(config.election_ticks_min);
        u32::try_from(percent).unwrap_or(u32::MAX).clamp(100, STRETCH_PERCENT_MAX)
    }

    /// A configured time-out as it is in force.
    pub fn stretched(&self, ticks: u32, config: &Config) -> u32 {
        let ticks = u64::from(ticks) * u64::from(self.stretch_percent(config)) / 100;
        u32::try_from(ticks).expect("the configuration leaves room")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    /// Heartbeats every 10 ticks, time-outs of 30 to 60, as in production.
    fn config() -> Config {
        Config {
            heartbeat_ticks: 10,
            election_ticks_min: 30,
            election_ticks_max: 60,
            ..testing::config(1, 7)
        }
    }

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).expect("positive")
    }

    fn pass(detector: &mut Detector, ticks: u32) {
        (0..ticks).for_each(|_| detector.tick(&config()));
    }

    #[test]
    fn punctual_heartbeats_and_one_missed_now_and_then_change_nothing() {
        let mut detector = Detector::default();
        for gap in [0, 1, 9, 10, 11, 12, 20, 10, 20, 19, 20] {
            detector.observe(gap, &config());
            pass(&mut detector, gap);
        }
        assert_eq!(detector, Detector::default());
        assert_eq!(detector.stretched(30, &config()), 30);
    }

    #[test]
    fn one_outage_changes_nothing_and_a_second_stretches_the_time_outs_beyond_it() {
        let mut detector = Detector::default();
        detector.observe(55, &config());
        assert_eq!(detector.stretch_percent(&config()), 100);
        detector.observe(45, &config());
        // Late by 35 ticks: 10 + 2 * 35.
        assert_eq!(detector.stretched(30, &config()), 79);
        assert_eq!(detector.stretched(60, &config()), 159);
    }

    #[test]
    fn the_stretch_is_bounded_and_goes_when_heartbeats_are_punctual_again() {
        let mut detector = Detector::default();
        detector.observe(u32::MAX, &config());
        detector.observe(u32::MAX, &config());
        assert_eq!(detector.stretch_percent(&config()), STRETCH_PERCENT_MAX);

        let mut detector = Detector::default();
        detector.observe(60, &config());
        detector.observe(60, &config());
        let at_first = detector.stretch_percent(&config());
        pass(&mut detector, 3000);
        let halved = detector.stretch_percent(&config());
        assert!((at_first * 45 / 100..at_first * 60 / 100).contains(&halved), "{halved}");
        pass(&mut detector, 12_000);
        assert_eq!(detector.stretch_percent(&config()), 100);
    }

    #[test]
    fn a_suspect_that_speaks_soon_after_was_alive_all_the_while() {
        let mut detector = Detector::default();
        for _ in 0..2 {
            detector.suspect(id(1), 40);
            detector.heard(id(2), &config());
            pass(&mut detector, 10);
            detector.heard(id(1), &config());
        }
        assert!(detector.stretched(30, &config()) >= 80, "late by 40 ticks, twice");
    }

    #[test]
    fn a_suspect_whose_connection_broke_or_that_stays_silent_had_died() {
        let mut detector = Detector::default();
        for _ in 0..2 {
            detector.suspect(id(1), 40);
            detector.lost(id(1));
            detector.heard(id(1), &config());
            detector.suspect(id(1), 40);
            pass(&mut detector, 4 * 60);
            detector.heard(id(1), &config());
        }
        assert_eq!(detector, Detector::default());
    }
}
