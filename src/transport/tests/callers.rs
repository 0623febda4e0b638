//! Who is let in: guests, and not those who come back without their directory.

use super::*;

/// A leader that was added while this member was away calls it before its log names that leader.
#[test]
fn a_guest_is_heard_and_answered_and_keeps_its_streams_when_it_becomes_a_peer() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let mut one = Member::start(1, one, &peers, Store::default());
    let mut two = Member::start(2, two, &[], Store::default());
    one.say_until_heard(&mut two, &beat(7));
    let reply = two.say(1, Body::HeartbeatReply { round: 7 });
    assert_eq!(one.next_message(), reply);
    two.transport.update_peers(peers);
    two.say_until_heard(&mut one, &beat(8));
    let reply = one.say(2, Body::HeartbeatReply { round: 8 });
    assert_eq!(two.next_message(), reply);
    assert_eq!(one.transport.counters().peers_lost, 0, "no connection was given up");
}

#[test]
fn a_member_that_lost_its_directory_is_refused_by_those_who_met_it() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let config = |id, instance| Config { instance, ..Config::new(CLUSTER, node(id)) };
    let mut one = Member::start_with(config(1, 10), one, &peers, Store::default());
    let mut two = Member::start_with(config(2, 20), two, &peers, Store::default());
    acquaint(&mut one, &mut two);
    let addr = two.kill();
    assert_eq!(one.next(), Delivery::PeerLost(node(2)));
    let listener = listen_again(addr);
    let mut wiped = Member::start_with(config(2, 21), listener, &peers, Store::default());
    let disowned = Delivery::Disowned { by: node(1), why: Disowned::OtherInstance };
    // It may hear before that how the other hangs up.
    while wiped.next() != disowned {}
    one.say(2, beat(1));
    wiped.say(1, beat(1));
    assert_eq!(one.next_within(Duration::from_millis(200)), None, "nothing of it is heard");
    assert!(!one.transport.connected(node(2)), "and it is told nothing");
}
