//! Connections that stand one way only, and messages that take another.

use tokio::net::TcpStream;

use super::*;
use crate::raft::Change;

/// A way to `target` that can be taken away, with all its connections.
struct Relay {
    runtime: Runtime,
    addr: SocketAddr,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut dialled = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut caller, &mut dialled).await
                });
            }
        });
        Self { runtime, addr }
    }

    fn cut(self) {
        self.runtime.shutdown_background();
    }
}

/// Two members, of which the second reaches the first by way of a relay.
fn relayed_pair() -> (Member, Member, Relay) {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let relay = Relay::to(one.local_addr().unwrap());
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let mut one = Member::start(1, one, &peers, Store::default());
    let around = [(node(1), relay.addr.to_string()), peers[1].clone()];
    let mut two = Member::start(2, two, &around, Store::default());
    acquaint(&mut one, &mut two);
    (one, two, relay)
}

fn all_kinds(from: u64) -> Vec<Body> {
    let id = RequestId { origin: node(from), sequence: 1 };
    let last = EntryId { term: Term(1), index: Index(1) };
    vec![
        Body::RequestVote { last, pre_vote: true, transfer: false },
        Body::Vote { granted: true, pre_vote: false },
        Body::TimeoutNow,
        beat(3),
        Body::HeartbeatReply { round: 3 },
        entries(1, 2, 100),
        Body::Appended { last: Index(1) },
        Body::Rejected { prev: Index(1), hint: EntryId::default() },
        Body::Propose { proposals: vec![Proposal { id, data: Bytes::from_static(b"data") }] },
        Body::ReadIndex { id },
        Body::Change { id, changes: vec![Change::Remove(node(9))] },
    ]
}

fn all_answers(to: u64) -> Vec<Body> {
    let id = RequestId { origin: node(to), sequence: 1 };
    vec![
        Body::ReadIndexReply { id, index: Index(1) },
        Body::Refused { ids: vec![id], why: Refusal::NotLeader },
    ]
}

#[test]
fn a_member_that_cannot_dial_says_everything_over_what_its_peer_dialled() {
    let (mut one, mut two, relay) = relayed_pair();
    relay.cut();
    until("the breakage is noticed", || !two.transport.connected(node(1)));
    for body in all_kinds(2).into_iter().chain(all_answers(1)) {
        two.say_until_heard(&mut one, &body);
    }
    for body in all_kinds(1).into_iter().chain(all_answers(2)) {
        one.say_until_heard(&mut two, &body);
    }
}

#[test]
fn a_peer_is_lost_with_its_last_connection_and_not_before() {
    let (one, mut two, relay) = relayed_pair();
    relay.cut();
    until("the breakage is noticed", || !two.transport.connected(node(1)));
    assert_eq!(two.next_within(Duration::from_millis(200)), None, "the other one stands");
    one.kill();
    assert_eq!(two.next(), Delivery::PeerLost(node(1)));
    assert_eq!(two.transport.counters().peers_lost, 1);
}
