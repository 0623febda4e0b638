//! Clients that write more than a leader takes in at once.

use super::*;
use crate::raft::{Proposal, RequestId};

/// With a leader that has room for so many bytes, of which each member takes its share to be
/// `share_of`.
fn world(leader: u64, room_bytes: usize, share_of: usize) -> Cluster {
    Cluster::with(|member| {
        let mut config = config(member);
        let own = if member == id(leader) { room_bytes } else { share_of };
        config.raft.uncommitted_bytes_max = own;
        config.raft.append_bytes_max = 300;
        config.proposals_max = 100;
        config
    })
}

fn propose(world: &mut Cluster, at: u64, ticket: u32) {
    let key = [u8::try_from(ticket).expect("few tickets")];
    let data = put(&key, 100 - put(&key, 0).len());
    assert_eq!(data.len(), 100);
    world.give(at, Event::Propose { data, ticket });
}

fn all_applied(world: &Cluster, tickets: std::ops::Range<u32>) {
    for ticket in tickets {
        let heard = world.heard.get(&ticket);
        assert!(matches!(heard, Some(Heard::Applied(_))), "{ticket}: {heard:?}");
    }
}

fn ticket_of(data: &Bytes) -> u8 {
    let Ok(Command::Put(request)) = Command::decode(data) else { panic!("no put: {data:?}") };
    request.key[0]
}

/// Lets member 1 lead, whatever the chances are.
fn lead(world: &mut Cluster) {
    world.down = [id(2), id(3)].into();
    world.tick(70);
    world.down.clear();
    for _ in 0..60 {
        world.tick(1);
        if world.members[&id(1)].seen().role == Role::Leader {
            world.tick(12);
            return;
        }
    }
    panic!("member 1 does not lead");
}

#[test]
fn clients_who_write_more_than_fits_wait_and_are_served_in_order() {
    let mut world = world(1, 600, 600);
    lead(&mut world);
    for ticket in 0..20 {
        for at in [1, 2, 3] {
            propose(&mut world, at, u32::try_from(at).expect("small") * 20 + ticket);
        }
    }
    assert!(world.members.values().all(|member| member.proposals_pending() == 20));
    world.settle();
    world.tick(3);
    all_applied(&world, 20..80);
    for at in [1, 2, 3] {
        let own = world.applied[&id(1)].iter().map(ticket_of).filter(|one| one / 20 == at);
        assert!(own.is_sorted(), "in the order of arrival, at each member");
    }
}

#[test]
fn what_a_leader_has_no_room_for_had_no_effect_and_is_passed_on_again() {
    let mut world = world(1, 400, 1 << 20);
    lead(&mut world);
    for ticket in 0..30 {
        propose(&mut world, 2, ticket);
    }
    world.settle();
    for _ in 0..30 {
        world.tick(1);
    }
    all_applied(&world, 0..30);
    let applied = &world.applied[&id(3)];
    assert_eq!(applied.len(), 30, "each once");
}

#[test]
fn what_finds_no_room_in_time_is_told_so() {
    let mut world = world(1, 1000, 1000);
    lead(&mut world);
    world.hung = [id(2), id(3)].into();
    for ticket in 0..20 {
        propose(&mut world, 2, ticket);
    }
    world.tick(1100);
    let told = |why| (0..20).filter(|one| world.heard[one] == Heard::Failed(why)).count();
    assert_eq!(told(RequestError::Timeout), 2, "they were submitted, and may be committed yet");
    assert_eq!(told(RequestError::TooManyRequests), 18, "without effect");
    assert_eq!(world.members[&id(2)].proposals_pending(), 0);
}

#[test]
fn what_is_no_command_is_not_appended_whoever_passes_it_on() {
    let mut world = world(1, 1 << 20, 1 << 20);
    lead(&mut world);
    let term = world.members[&id(1)].raft().term();
    let before = world.members[&id(1)].raft().last_index();
    let empty_key = put(b"", 0);
    let poison = [Bytes::new(), Bytes::from_static(b"poison"), empty_key];
    for (data, sequence) in poison.into_iter().zip(1_u64 << 40..) {
        let proposals = vec![Proposal { id: RequestId { origin: id(2), sequence }, data }];
        let body = raft::Body::Propose { proposals };
        world.give(1, Event::Message(Message { from: id(2), to: id(1), term, body }));
    }
    world.tick(3);
    assert_eq!(world.members[&id(1)].raft().last_index(), before);
    propose(&mut world, 3, 7);
    world.settle();
    world.tick(3);
    all_applied(&world, 7..8);
}
