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
    let rejected = Delivery::PeerRejection { by: node(1), why: PeerRejection::OtherInstance };
    // It may hear before that how the other hangs up.
    while wiped.next() != rejected {}
    one.say(2, beat(1));
    wiped.say(1, beat(1));
    assert_eq!(one.next_within(Duration::from_millis(200)), None, "nothing of it is heard");
    assert!(!one.transport.connected(node(2)), "and it is told nothing");
}

#[test]
fn a_member_that_is_known_says_who_it_is_and_a_guest_is_not_remembered() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let config = |id, instance| Config { instance, ..Config::new(CLUSTER, node(id)) };
    let mut one = Member::start_with(config(1, 10), one, &peers, Store::default());
    let mut two = Member::start_with(config(2, 20), two, &peers, Store::default());
    acquaint(&mut one, &mut two);
    Runtime::new().unwrap().block_on(async {
        let mut bare = Bare::to(&one).await;
        // A host that calls as the member, and does not know its number.
        let status = bare.stream(vec![hello(CLUSTER, 2, 1)]).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        let vote = wire::VoteRequest {
            route: Some(route(CLUSTER, node(9), node(1))),
            term: 1,
            last: Some(wire::EntryId::default()),
            ..Default::default()
        };
        for number in [98, 99] {
            let call = bare.client.request_vote(instance::signed(vote, number));
            let ended = timeout(Duration::from_millis(300), call).await;
            assert!(ended.is_err(), "it is listened to, and nobody answers: {ended:?}");
        }
    });
}

#[test]
fn a_host_that_guesses_the_cluster_is_not_told_which_it_is() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two]);
    let one = Member::start(1, one, &peers, Store::default());
    Runtime::new().unwrap().block_on(async {
        let mut bare = Bare::to(&one).await;
        let status = bare.stream(vec![hello(7, 2, 1)]).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(!status.message().contains(&format!("{CLUSTER:x}")), "{status}");
        assert!(status.message().contains("cluster"), "{status}");
    });
}
