//! The network between members: one link for each who dials and whom, made to fail at will.
//!
//! A link is a TCP proxy. Each member is told its own links' addresses in `RAFT_PEERS`, which is
//! possible because addresses are no part of the cluster id.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Read at once, and at most this many such pieces on their way.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_MAX: usize = 256;

/// What a direction does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Passes it on after this time.
    Open(Duration),
    /// Passes nothing on and says nothing, as a network that drops every packet. What was sent
    /// meanwhile arrives later, as TCP would send it again.
    Silent,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// From who dialled to who was dialled.
    there: Way,
    /// From who was dialled to who dialled.
    back: Way,
    /// Connections are reset and new ones closed at once.
    cut: bool,
}

const OPEN: State =
    State { there: Way::Open(Duration::ZERO), back: Way::Open(Duration::ZERO), cut: false };

struct Link {
    addr: String,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

/// The links between every two members.
pub struct Net {
    links: BTreeMap<(u64, u64), Link>,
}

impl Net {
    /// A link from each to every other of `members`, which are ids and peer addresses.
    pub async fn between(members: &[(u64, String)]) -> Self {
        let mut links = BTreeMap::new();
        for (from, _) in members {
            for (to, target) in members.iter().filter(|(to, _)| to != from) {
                links.insert((*from, *to), Link::open(target.clone()).await);
            }
        }
        Self { links }
    }

    /// The address by which `from` reaches `to`.
    pub fn addr(&self, from: u64, to: u64) -> &str {
        &self.links[&(from, to)].addr
    }

    /// Whatever `from` sends `to` goes this way: on connections that either of them opened.
    pub fn set_way(&self, from: u64, to: u64, way: Way) {
        self.links[&(from, to)].state.send_modify(|state| state.there = way);
        self.links[&(to, from)].state.send_modify(|state| state.back = way);
    }

    /// Nothing passes between `id` and the others, and nobody is told.
    pub fn silence(&self, id: u64) {
        for (from, to) in self.of(id) {
            self.set_way(from, to, Way::Silent);
        }
    }

    /// Connections between `id` and the others break, and no new one can be made.
    pub fn cut(&self, id: u64) {
        for pair in self.of(id) {
            self.links[&pair].state.send_modify(|state| state.cut = true);
        }
    }

    /// Everything between every two members takes this long each way.
    pub fn slow(&self, delay: Duration) {
        for (from, to) in self.links.keys() {
            self.set_way(*from, *to, Way::Open(delay));
        }
    }

    /// All links are as at the start.
    pub fn heal(&self) {
        for link in self.links.values() {
            link.state.send_replace(OPEN);
        }
    }

    fn of(&self, id: u64) -> impl Iterator<Item = (u64, u64)> {
        self.links.keys().copied().filter(move |(from, to)| *from == id || *to == id)
    }
}

impl Link {
    async fn open(target: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port())).await.expect("bind");
        let addr = listener.local_addr().expect("an address").to_string();
        let (state, watch) = watch::channel(OPEN);
        let task = tokio::spawn(accept(listener, target, watch));
        Self { addr, state, task }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    loop {
        let Ok((caller, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(connection(caller, target.clone(), state.clone()));
    }
}

/// One connection, until either side closes it or the link is cut.
async fn connection(caller: TcpStream, target: String, state: watch::Receiver<State>) {
    let mut until_cut = state.clone();
    let pumps = async {
        // A silent network lets no handshake through either.
        let mut opened = state.clone();
        opened.wait_for(|state| state.there != Way::Silent && state.back != Way::Silent).await.ok();
        let Ok(dialled) = TcpStream::connect(&target).await else {
            return;
        };
        caller.set_nodelay(true).ok();
        dialled.set_nodelay(true).ok();
        let (requests, replies_out) = caller.into_split();
        let (replies, requests_out) = dialled.into_split();
        tokio::select! {
            () = pump(requests, requests_out, state.clone(), |state| state.there) => {}
            () = pump(replies, replies_out, state, |state| state.back) => {}
        }
    };
    tokio::select! {
        () = pumps => {}
        // The link itself is gone, or cut.
        _ = until_cut.wait_for(|state| state.cut) => {}
    }
}

/// Passes on what `from` sends, each piece when its time has come.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    way: fn(&State) -> Way,
) {
    let (pieces, mut on_their_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reader = async move {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count) = from.read(&mut piece).await {
            if count == 0 || pieces.send((Instant::now(), piece[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writer = async {
        while let Some((since, piece)) = on_their_way.recv().await {
            let Ok(delay) = passage(&mut state, way).await else {
                return;
            };
            tokio::time::sleep_until(since + delay).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(reader, writer);
    tokio::select! {
        // What was sent before the end still arrives.
        () = &mut reader => writer.await,
        () = &mut writer => {}
    }
}

/// The delay of this way, once it is open.
async fn passage(
    state: &mut watch::Receiver<State>,
    way: fn(&State) -> Way,
) -> Result<Duration, watch::error::RecvError> {
    let open = state.wait_for(|state| way(state) != Way::Silent).await?;
    match way(&open) {
        Way::Open(delay) => Ok(delay),
        Way::Silent => unreachable!("just waited for the contrary"),
    }
}
