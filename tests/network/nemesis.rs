//! Everything at once, for a while: members killed, stopped and frozen, links cut, one-way,
//! flapping, slow and lossy, ports that cannot be dialled, while a machine joins and goes again.
//! Then the clients' history is judged, and no process may have ended that was not asked to. A
//! short form runs with the other tests; `NETWORK_NEMESIS_SECONDS=300` makes it a long one. At
//! most one process is down or frozen at a time, so that a quorum is left; the network has no
//! such mercy.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use raft_node::proto::etcdserverpb as pb;
use tokio::task::JoinHandle;

use crate::common::{Client, Cluster, Load, Options};
use crate::room::Room;
use crate::wire::{Cut, Way};

const SECONDS_SHORT: u64 = 20;
/// From here on the clients take it slowly: their history must be judged.
const SECONDS_LONG: u64 = 60;
const FIRST_MEMBERS: u64 = 3;
/// Machines that may join, one after the other: an id is used once.
const PLACES: u8 = 12;
const STEP: Duration = Duration::from_millis(100);
/// The number of the signal.
const SIGTERM: i32 = 15;

/// The test.
pub async fn everything() {
    let seconds = std::env::var("NETWORK_NEMESIS_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS_SHORT, |seconds| seconds.parse().expect("seconds"));
    let pause = Duration::from_millis(if seconds < SECONDS_LONG { 10 } else { 100 });
    let room = Room::new(PLACES);
    let cluster = Cluster::start(room.options(Options::default())).await;
    let traffic = Load::paced(cluster.clients(), pause);
    let mut nemesis = Nemesis {
        room,
        cluster,
        began: Instant::now(),
        mends: Vec::new(),
        down: None,
        guest: Guest::Nobody { last: FIRST_MEMBERS },
        strikes: 0,
    };
    while nemesis.began.elapsed() < Duration::from_secs(seconds) {
        nemesis.mend().await;
        nemesis.move_guest().await;
        if rand::random_range(0..5) == 0 {
            nemesis.strike();
        }
        nemesis.nobody_ended();
        tokio::time::sleep(STEP).await;
    }
    let strikes = nemesis.strikes;
    let (mut cluster, _room) = nemesis.end().await;
    cluster.settled().await;
    println!("{strikes} strikes in {seconds} s");
    traffic.stop().await.judge(&mut cluster).await;
}

struct Nemesis {
    room: Room,
    cluster: Cluster,
    began: Instant,
    mends: Vec<(Instant, Mend)>,
    /// Whose process is down or frozen.
    down: Option<u64>,
    guest: Guest,
    strikes: u32,
}

enum Mend {
    Network,
    Start(u64),
    Thaw(u64),
    /// A process that was asked to stop is waited for, and starts again.
    Return(u64),
    /// A link that flaps is cut again, so many times more.
    Flap(u64, u32),
}

/// The machine that comes and goes.
enum Guest {
    Nobody { last: u64 },
    Joining { id: u64 },
    Member { id: u64 },
    Leaving { id: u64, asked: JoinHandle<()> },
}

impl Nemesis {
    fn tell(&self, what: &str) {
        println!("{:7.3} s  {what}", self.began.elapsed().as_secs_f64());
    }

    fn later(&mut self, most_ms: u64, mend: Mend) {
        let wait = Duration::from_millis(rand::random_range(100..most_ms));
        self.mends.push((Instant::now() + wait, mend));
    }

    fn any() -> u64 {
        rand::random_range(1..=FIRST_MEMBERS)
    }

    fn strike(&mut self) {
        let id = Self::any();
        self.strikes += 1;
        match rand::random_range(0..10) {
            0..=3 => self.strike_process(id),
            kind => self.strike_network(id, kind),
        }
    }

    fn strike_process(&mut self, id: u64) {
        if self.down.is_some() {
            return;
        }
        self.down = Some(id);
        match rand::random_range(0..3) {
            0 => {
                self.tell(&format!("kill {id}"));
                self.cluster.kill(id);
                self.later(2000, Mend::Start(id));
            }
            1 => {
                self.tell(&format!("stop {id}"));
                self.cluster.member(id).terminate();
                self.later(1000, Mend::Return(id));
            }
            _ => {
                self.tell(&format!("freeze {id}"));
                self.cluster.member(id).freeze();
                self.later(1500, Mend::Thaw(id));
            }
        }
    }

    fn strike_network(&mut self, id: u64, kind: u32) {
        let wire = &self.room.wire;
        let what = match kind {
            4 => {
                wire.change_to(id, |way| way.cut = Cut::All);
                wire.change_from(id, |way| way.cut = Cut::All);
                "is cut off"
            }
            5 => {
                wire.change_from(id, |way| way.cut = Cut::All);
                "is not heard"
            }
            6 => {
                let cut = if rand::random() { Cut::Dialled } else { Cut::Rejected };
                wire.change_to(id, |way| way.cut = cut);
                "cannot be dialled"
            }
            7 => {
                wire.set_all(Way { lost_of_1000: 30, ..Way::default() });
                "and all others lose packets"
            }
            8 => {
                let delay = Duration::from_millis(rand::random_range(5..60));
                wire.set_all(Way { delay, ..Way::default() });
                "and all others are slow"
            }
            _ => {
                self.later(300, Mend::Flap(id, 6));
                "flaps"
            }
        };
        self.tell(&format!("{id} {what}"));
        self.later(3000, Mend::Network);
    }

    async fn mend(&mut self) {
        let now = Instant::now();
        let (due, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = kept;
        for (_, mend) in due {
            match mend {
                Mend::Network | Mend::Flap(_, 0) => self.room.wire.heal(),
                Mend::Flap(id, more) => {
                    let cut = if more.is_multiple_of(2) { Cut::All } else { Cut::Nothing };
                    self.room.wire.change_to(id, |way| way.cut = cut);
                    self.later(300, Mend::Flap(id, more - 1));
                }
                Mend::Start(id) => {
                    self.cluster.restart(id);
                    self.down = None;
                }
                Mend::Thaw(id) => {
                    self.cluster.member(id).thaw();
                    self.down = None;
                }
                Mend::Return(id) => {
                    let status = self.cluster.member(id).exit(Duration::from_secs(20)).await;
                    // A process that has just begun has no handler for the signal yet.
                    let unheard = status.signal() == Some(SIGTERM);
                    let stopped = status.code() == Some(0) || unheard;
                    assert!(stopped, "member {id} was asked to stop: {status}");
                    self.cluster.restart(id);
                    self.down = None;
                }
            }
        }
    }

    /// One machine at a time joins, becomes a voter, and is removed.
    async fn move_guest(&mut self) {
        let by = self.cluster.client(Self::any()).clone();
        let nobody = Guest::Nobody { last: 0 };
        self.guest = match std::mem::replace(&mut self.guest, nobody) {
            Guest::Nobody { last } if last < u64::from(PLACES) => {
                let id = last + 1;
                self.tell(&format!("{id} joins"));
                self.cluster.join(id, &[1, 2, 3], &[]);
                Guest::Joining { id }
            }
            Guest::Joining { id } if votes(&by, id).await => {
                self.tell(&format!("{id} votes"));
                Guest::Member { id }
            }
            Guest::Member { id } if rand::random_range(0..20) == 0 => {
                self.tell(&format!("{id} is to go"));
                Guest::Leaving {
                    id,
                    asked: tokio::spawn(remove(self.cluster.clients().to_vec(), id)),
                }
            }
            Guest::Leaving { id, asked } if asked.is_finished() => {
                asked.await.expect("the operator does not panic");
                self.tell(&format!("{id} has gone"));
                self.cluster.dismissed(id).await;
                Guest::Nobody { last: id }
            }
            same => same,
        };
    }

    /// Nobody ends who was not asked to.
    fn nobody_ended(&mut self) {
        let leaving = match &self.guest {
            Guest::Leaving { id, .. } => Some(*id),
            Guest::Nobody { .. } | Guest::Joining { .. } | Guest::Member { .. } => None,
        };
        for id in self.cluster.ids() {
            if Some(id) != self.down && Some(id) != leaving && self.cluster.member(id).runs() {
                self.cluster.member(id).assert_runs();
            }
        }
    }

    /// Everything is well again, and whoever is on the way in or out has got there.
    async fn end(mut self) -> (Cluster, Room) {
        while let Some((at, _)) = self.mends.iter().max_by_key(|(at, _)| *at) {
            tokio::time::sleep(at.saturating_duration_since(Instant::now())).await;
            self.mend().await;
        }
        self.room.wire.heal();
        let deadline = Instant::now() + Duration::from_mins(1);
        while matches!(self.guest, Guest::Joining { .. } | Guest::Leaving { .. }) {
            assert!(Instant::now() < deadline, "a change of the membership does not end");
            self.move_guest().await;
            tokio::time::sleep(STEP).await;
        }
        self.nobody_ended();
        (self.cluster, self.room)
    }
}

/// Whether `client`'s member says that `id` is a voter.
async fn votes(client: &Client, id: u64) -> bool {
    let client = client.with_deadline(Duration::from_millis(500));
    let request = pb::MemberListRequest { linearizable: true };
    let list = client.timely(client.members().member_list(request)).await;
    list.is_ok_and(|list| list.members.iter().any(|one| one.id == id && !one.is_learner))
}

/// Asks one member after the other until `id` is no member any more.
async fn remove(clients: Vec<Client>, id: u64) {
    let first: Vec<Client> = clients.into_iter().filter(|one| one.id <= FIRST_MEMBERS).collect();
    for client in first.iter().cycle() {
        let client = client.with_deadline(Duration::from_secs(2));
        let request = pb::MemberRemoveRequest { id };
        match client.timely(client.members().member_remove(request)).await {
            // An earlier try may have had its effect.
            Err(status) if status.code() != tonic::Code::NotFound => {
                tokio::time::sleep(STEP).await;
            }
            Ok(_) | Err(_) => return,
        }
    }
}
