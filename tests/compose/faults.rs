//! What happens to members, and what must be true meanwhile and afterwards.
//!
//! Every story is the same: a fault hits a member under load; the others lead on; every member's
//! health is told truthfully; the member comes back, catches up, and causes no election.

use std::time::{Duration, Instant};

use raft_node::proto::node::{Empty, Signal};
use tonic::Code;

use crate::cluster::Containers;
use crate::common::cluster::Lead;
use crate::health::{self, Truth};
use crate::traffic::Traffic;

/// Something that happens to one member.
pub struct Fault {
    hit: fn(&Containers, u64),
    undo: fn(&Containers, u64),
    /// Docker's word for the container meanwhile, and its exit code.
    state: (&'static str, &'static str),
    /// Whether its clients still reach it.
    reachable: bool,
}

/// `docker stop`, and `docker start`.
pub const STOP: Fault = Fault {
    hit: |containers, id| containers.docker("stop", id),
    undo: |containers, id| containers.docker("start", id),
    state: ("exited", "0"),
    reachable: false,
};

/// `docker kill`, and `docker start`.
pub const KILL: Fault = Fault {
    hit: |containers, id| containers.docker("kill", id),
    undo: |containers, id| containers.docker("start", id),
    state: ("exited", "137"),
    reachable: false,
};

/// `docker pause`, and `docker unpause`.
pub const PAUSE: Fault = Fault {
    hit: |containers, id| containers.docker("pause", id),
    undo: |containers, id| containers.docker("unpause", id),
    state: ("paused", "0"),
    reachable: false,
};

/// `docker network disconnect`, and `docker network connect`.
pub const CUT: Fault = Fault {
    hit: Containers::cut,
    undo: Containers::mend,
    state: ("running", "0"),
    reachable: true,
};

/// A member that can do nothing says so, instead of keeping its clients waiting.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// A machine that does much else may keep a leader silent for an election timeout, and then there
/// is an election that no fault caused. What a fault causes, it causes every time.
const ATTEMPTS: usize = 3;

/// An election that should not have been.
struct Unrest(String);

impl Fault {
    /// The others elect a leader.
    pub async fn of_the_leader(&self, containers: &Containers) {
        calmly(async || {
            let lead = containers.settled().await;
            let (new, calm) = self.story(containers, lead.id).await;
            assert!(new.term > lead.term, "{lead:?} was lost, and {new:?} leads");
            calm
        })
        .await;
    }

    /// The others notice nothing.
    pub async fn of_a_follower(&self, containers: &Containers) {
        calmly(async || {
            let lead = containers.settled().await;
            let follower = containers.others(lead.id)[0];
            let (still, calm) = self.story(containers, follower).await;
            calm?;
            let what = || Unrest(format!("{still:?} followed on {lead:?} without {follower}"));
            (still == lead).then_some(()).ok_or_else(what)
        })
        .await;
    }

    /// The lead after the fault, and whether it outlived the member's return.
    async fn story(&self, containers: &Containers, victim: u64) -> (Lead, Result<(), Unrest>) {
        let traffic = Traffic::start(containers).await;
        (self.hit)(containers, victim);
        let others = containers.others(victim);
        let lead = containers.led(&others).await;
        traffic.acknowledged(100).await;
        health::tell_the_lead(containers, &others).await;
        let state = containers.inspect(victim, "{{.State.Status}} {{.State.ExitCode}}");
        assert_eq!(state, format!("{} {}", self.state.0, self.state.1));
        if self.reachable {
            is_cut_off(containers, victim).await;
        } else {
            health::is_silent(containers, victim).await;
        }
        let before = containers.led(&others).await;
        (self.undo)(containers, victim);
        containers.docker_says(&containers.ids(), "healthy").await;
        containers.caught_up(victim, before.id).await;
        traffic.acknowledged(100).await;
        let after = containers.led(&containers.ids()).await;
        health::tell_the_lead(containers, &containers.ids()).await;
        traffic.judge(containers).await;
        let what = || Unrest(format!("{after:?} followed on {before:?} when {victim} returned"));
        (lead, (after == before).then_some(()).ok_or_else(what))
    }
}

/// Tells the story again when there was an election that may have been the machine's fault.
/// Nothing else is forgiven: a lie, a lost write or a stale read fails at once.
async fn calmly(mut story: impl AsyncFnMut() -> Result<(), Unrest>) {
    for _ in 0..ATTEMPTS {
        match story().await {
            Ok(()) => return,
            Err(Unrest(why)) => println!("    {why}"),
        }
    }
    panic!("an election too many, {ATTEMPTS} times out of {ATTEMPTS}");
}

/// A member without its peers is alive, says that it is not ready and does not lead, reads its own
/// data, and refuses everything that needs a majority, soon and with etcd's error.
async fn is_cut_off(containers: &Containers, id: u64) {
    health::tells(containers, id, Truth { ready: false, leads: false }).await;
    let client = containers.client(id);
    let start = Instant::now();
    let write = client.put("any", "value").await.expect_err("a write without majority");
    assert_eq!(write.code(), Code::Unavailable, "{write}");
    let read = client.get("any").await.expect_err("a linearizable read without majority");
    assert_eq!(read.code(), Code::Unavailable, "{read}");
    let took = start.elapsed();
    assert!(took < 2 * REFUSAL_MAX, "the refusals took {took:?}: {write}, {read}");
    client.get_local("any").await.expect("its own data can be read");
    let beat = client.timely(client.registration().send_heart_beat(Signal { flag: true })).await;
    assert!(!beat.expect("an answer").flag, "member {id} is in touch with no leader");
    let nodes = client.timely(client.registration().get_nodes(Empty {})).await;
    assert_eq!(nodes.expect("an answer").nodes.len(), 3);
}

/// Nothing that was acknowledged needs a member to have been alive.
pub async fn kill_all(containers: &Containers) {
    let lead = containers.settled().await;
    let traffic = Traffic::start(containers).await;
    traffic.acknowledged(200).await;
    for id in containers.ids() {
        containers.docker("kill", id);
    }
    for id in containers.ids() {
        containers.docker("start", id);
    }
    let new = containers.settled().await;
    assert!(new.term > lead.term, "terms survive: {lead:?}, then {new:?}");
    traffic.acknowledged(100).await;
    traffic.judge(containers).await;
}
