//! Changes of the membership, as their callers see them.

use super::*;
use crate::raft::{Change, ChangeError, TargetRole};

impl Cluster {
    fn change(&mut self, at: u64, changes: Vec<Change>, ticket: u32) {
        self.give(at, Event::Change { changes, ticket });
    }

    fn learners_at(&self, member: u64) -> Vec<u64> {
        let config = self.members[&id(member)].raft().membership();
        config.learners.iter().map(|id| id.get()).collect()
    }
}

fn learner(raw: u64) -> Vec<Change> {
    vec![Change::Add { id: id(raw), address: format!("host{raw}:5001"), aim: TargetRole::Learner }]
}

#[test]
fn a_change_is_answered_by_the_member_that_was_asked() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.tick(11);
    world.change(follower_of(leader), learner(4), 1);
    world.tick(11);
    assert_eq!(world.heard[&1], Heard::Changed);
    for member in [1, 2, 3] {
        assert_eq!(world.learners_at(member), [4]);
    }
}

#[test]
fn a_change_that_is_asked_for_twice_at_once_is_done_and_refused() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.tick(11);
    world.change(leader, learner(4), 1);
    world.change(follower_of(leader), learner(4), 2);
    world.tick(30);
    assert_eq!(world.heard[&1], Heard::Changed);
    assert_eq!(world.heard[&2], Heard::Failed(RequestError::Change(ChangeError::Exists)));
}

#[test]
fn changes_that_come_together_are_done_one_after_the_other() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.tick(11);
    for (raw, ticket) in [(4, 1), (5, 2), (6, 3)] {
        world.change(follower_of(leader), learner(raw), ticket);
    }
    world.tick(60);
    for ticket in [1, 2, 3] {
        assert_eq!(world.heard[&ticket], Heard::Changed);
    }
    assert_eq!(world.learners_at(leader), [4, 5, 6]);
}

#[test]
fn a_change_lost_with_its_leader_is_done_once_by_the_next() {
    let mut world = Cluster::new();
    let old = world.elect();
    world.tick(11);
    let asked = follower_of(old);
    world.change(asked, learner(4), 1);
    world.perform(id(asked));
    world.down.insert(id(old));
    world.settle();
    world.give(asked, Event::PeerLost(id(old)));
    let new = world.elect();
    world.tick(30);
    assert_eq!(world.heard[&1], Heard::Changed);
    assert_eq!(world.learners_at(new), [4]);
}

#[test]
fn without_a_leader_a_change_fails_soon() {
    let mut world = Cluster::new();
    let leader = world.elect();
    for member in [1, 2, 3] {
        if member != leader {
            world.down.insert(id(member));
        }
    }
    world.tick(400);
    world.change(leader, learner(4), 1);
    world.settle();
    assert_eq!(world.heard[&1], Heard::Failed(RequestError::NoLeader));
}

#[test]
fn a_member_that_removes_itself_hands_over_and_says_that_it_was_removed() {
    let mut world = Cluster::new();
    let leader = world.elect();
    world.tick(11);
    world.change(leader, vec![Change::Remove(id(leader))], 1);
    world.tick(40);
    assert_eq!(world.heard[&1], Heard::Changed);
    assert_eq!(world.removed, [id(leader)].into());
    world.down.insert(id(leader));
    let next = world.elect();
    assert_ne!(next, leader);
    world.propose(next, 2);
    world.tick(11);
    assert!(matches!(world.heard[&2], Heard::Applied(_)), "{:?}", world.heard);
}

/// Joint consensus is left by an entry that leaves a member out. Until it is committed that member
/// may be needed, to commit it or to lead without it, by who comes back after a crash, too.
#[test]
fn who_is_left_out_by_an_uncommitted_change_is_reached_after_a_restart() {
    let mut world = Cluster::new();
    let full = Configuration::of_voters([1, 2, 3].map(id));
    let left = Configuration::of_voters([1, 2].map(id));
    let joint = Configuration { outgoing: full.voters.clone(), ..left.clone() };
    let logged = |index, config| raft::Entry {
        id: EntryId { term: Term(1), index: Index(index) },
        payload: Payload::Config(config),
    };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, commit: Index(1) },
        base: SnapshotMeta { last: EntryId::default(), config: full },
        entries: vec![logged(1, joint), logged(2, left)],
        applied: Index(0),
    };
    world.members.insert(id(1), Replica::new(config(id(1)), restored, Index(0), 0));
    let says = |body| Event::Message(Message { from: id(2), to: id(1), term: Term(1), body });
    for _ in 0..3 {
        world.give(1, says(raft::Body::Heartbeat { commit: Index(1), round: 1, successor: None }));
        world.give(1, Event::Tick);
        world.perform(id(1));
    }
    assert_eq!(world.reached_ids(), [2, 3], "it may be needed yet");
    world.give(1, says(raft::Body::Heartbeat { commit: Index(2), round: 2, successor: None }));
    world.perform(id(1));
    world.give(1, Event::Tick);
    world.perform(id(1));
    assert_eq!(world.reached_ids(), [2], "nobody needs it any more");
}
