//! The network between the members: every packet passes through here, and what becomes of it is
//! decided for each direction between two members.
//!
//! It is made in user space because a kernel's own (netem) is not in every kernel. Members' packets
//! come as VXLAN datagrams and go on as such; nothing is resolved or routed.

use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packet::Packet;
use crate::room::PEER_PORT;

/// What one direction between two members does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// How long each takes.
    pub delay: Duration,
    /// How many of a thousand are lost.
    pub lost_of_1000: u32,
    /// Which do not pass.
    pub cut: Cut,
}

/// Which packets do not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cut {
    /// All pass.
    #[default]
    Nothing,
    /// None passes, and nobody is told.
    All,
    /// None to the receiver's peer port passes: whatever the sender dialled. Nobody is told.
    Dialled,
    /// The same, and the sender is told with a reset.
    Rejected,
}

/// Where a member's packets come from and go to.
#[derive(Clone, Debug)]
pub struct Port {
    /// The member.
    pub id: u8,
    /// Its end of the tunnel.
    pub addr: String,
}

/// The network between the members.
pub struct Wire {
    shared: Arc<Shared>,
    members: Vec<u8>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    socket: UdpSocket,
    addresses: BTreeMap<u8, SocketAddr>,
    state: Mutex<State>,
    more: Condvar,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    ways: BTreeMap<(u8, u8), Way>,
    /// When the last packet of a direction is due: none overtakes another.
    last: BTreeMap<(u8, u8), Instant>,
    under_way: BinaryHeap<InProgress>,
    count: u64,
}

/// A packet that is due some time. The earliest is the greatest.
#[derive(PartialEq, Eq)]
struct InProgress {
    due: Instant,
    count: u64,
    to: u8,
    datagram: Vec<u8>,
}

impl Ord for InProgress {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.count).cmp(&(self.due, self.count))
    }
}

impl PartialOrd for InProgress {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What bursts of packets need, or the kernel loses some.
const BUFFER_BYTES: usize = 32 << 20;
/// How soon the threads notice that it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Wire {
    /// Begins to carry what comes in at UDP port `port`, without faults.
    pub fn lay(port: u16, members: &[Port]) -> Self {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the port of the tunnels");
        socket.set_read_timeout(Some(LOOK_EVERY)).expect("a time-out");
        // Best effort: only root may exceed the system's limit.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).ok();
        rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, BUFFER_BYTES).ok();
        let address = |member: &Port| (member.id, member.addr.parse().expect("an address"));
        let shared = Arc::new(Shared {
            socket,
            addresses: members.iter().map(address).collect(),
            state: Mutex::default(),
            more: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let (reader, writer) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || reader.read()),
            std::thread::spawn(move || writer.write()),
        ];
        Self { shared, members: members.iter().map(|member| member.id).collect(), threads }
    }

    /// What `from` sends to `to` goes this way from now on.
    pub fn set(&self, from: u64, to: u64, way: Way) {
        let key = (from as u8, to as u8);
        self.shared.state.lock().expect("no thread panics").ways.insert(key, way);
    }

    /// Everything between every two members goes this way from now on.
    pub fn set_all(&self, way: Way) {
        for (from, to) in self.pairs() {
            self.set(from, to, way);
        }
    }

    /// Changes what is on the way to `to`, from all others.
    pub fn change_to(&self, to: u64, change: impl Fn(&mut Way)) {
        for (from, _) in self.pairs().filter(|(_, other)| *other == to) {
            let mut state = self.shared.state.lock().expect("no thread panics");
            change(state.ways.entry((from as u8, to as u8)).or_default());
        }
    }

    /// Changes what is on the way from `from`, to all others.
    pub fn change_from(&self, from: u64, change: impl Fn(&mut Way)) {
        for (_, to) in self.pairs().filter(|(other, _)| *other == from) {
            let mut state = self.shared.state.lock().expect("no thread panics");
            change(state.ways.entry((from as u8, to as u8)).or_default());
        }
    }

    /// Each packet between two members takes this long, each way.
    pub fn delay(&self, delay: Duration) {
        self.set_all(Way { delay, ..Way::default() });
    }

    /// As at first.
    pub fn heal(&self) {
        self.set_all(Way::default());
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        let members = self.members.clone();
        self.members.iter().flat_map(move |from| {
            let others = members.clone().into_iter().filter(move |to| to != from);
            others.map(|to| (u64::from(*from), u64::from(to)))
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // A panic is printed where it happens.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn read(&self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.is_over() {
            match self.socket.recv(&mut buffer) {
                Ok(count) => self.take(&mut buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A tunnel's other end may be gone: ICMP says so to whoever reads next.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("the wire: {error}"),
            }
        }
    }

    fn take(&self, datagram: &mut [u8]) {
        let Some(mut packet) = Packet::parse(datagram) else { return };
        packet.sum_up();
        let (from, to, dialled) = (packet.from(), packet.to(), packet.is_to_port(PEER_PORT));
        let mut state = self.state.lock().expect("no thread panics");
        let way = state.ways.get(&(from, to)).copied().unwrap_or_default();
        let passes = match way.cut {
            Cut::All => false,
            Cut::Dialled => !dialled,
            Cut::Rejected if dialled => {
                if let Some(reset) = packet.reset() {
                    self.send(from, &reset);
                }
                false
            }
            Cut::Nothing | Cut::Rejected => true,
        };
        if !passes || rand::random_range(0..1000) < way.lost_of_1000 {
            return;
        }
        let now = Instant::now();
        let last = state.last.get(&(from, to)).copied().unwrap_or(now);
        let due = (now + way.delay).max(last);
        if due <= now {
            drop(state);
            self.send(to, datagram);
            return;
        }
        state.last.insert((from, to), due);
        state.count += 1;
        let count = state.count;
        state.under_way.push(InProgress { due, count, to, datagram: datagram.to_vec() });
        drop(state);
        self.more.notify_one();
    }

    fn write(&self) {
        let mut state = self.state.lock().expect("no thread panics");
        while !self.is_over() {
            let now = Instant::now();
            let wait = match state.under_way.peek() {
                Some(next) if next.due <= now => {
                    let next = state.under_way.pop().expect("just seen");
                    self.send(next.to, &next.datagram);
                    continue;
                }
                Some(next) => next.due - now,
                None => LOOK_EVERY,
            };
            state = self.more.wait_timeout(state, wait).expect("no thread panics").0;
        }
    }

    fn send(&self, to: u8, datagram: &[u8]) {
        if let Some(address) = self.addresses.get(&to) {
            // What cannot be sent is lost, as packets may be.
            self.socket.send_to(datagram, address).ok();
        }
    }
}
