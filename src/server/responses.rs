//! How much memory the responses under way may take: the one owner of that bound.
//!
//! A response holds the keys that it has found, whose bytes it shares with the store. It is
//! counted as if the store dropped them all meanwhile. What it counts for is given back as its
//! bytes are written to the client's socket; so it is bounded what clients ask for and do not
//! read.
//!
//! Three sizes: a *small* response passes without being counted. A *medium* one, which one step of
//! a scan finds, waits for what it takes. A *large* one waits for as much as one may take, and
//! gives back what it turns out not to need; so few are collected at the same time, and none waits
//! for the rest of what it needs while it holds a part. Of each size one connection has a share
//! only.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ConnectionId, Error};

/// The largest message that gRPC in Go, and so an etcd client, can be sent.
const MESSAGE_BYTES_MAX: u64 = i32::MAX as u64;

/// Up to here a response is small.
pub const SMALL_BYTES: u64 = 16 << 10;

/// How long a request waits for the memory that its response takes.
const GRANT_TIMEOUT: Duration = Duration::from_secs(30);

/// A response of which the client takes nothing for so long is given up.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const STALL_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Work that would hold up others: to sort or to free much.
pub type Work = Box<dyn FnOnce() + Send>;

/// A response on its way to a client.
pub trait Outgoing: Send + Sync {
    /// Frees all of it if the client has taken nothing for [`STALL_TIMEOUT`]. Whether it is over.
    fn give_up_if_stalled(&self) -> bool;
}

/// The bounds on the responses of one member, and those under way.
#[derive(Clone)]
pub struct Responses {
    shared: Arc<Shared>,
}

struct Shared {
    bytes_max: u64,
    medium_bytes_max: u64,
    whole: Room,
    connections: Mutex<BTreeMap<ConnectionId, Weak<Room>>>,
    under_way: Mutex<Vec<Weak<dyn Outgoing>>>,
    work: SyncSender<Work>,
}

/// Bytes of each size.
#[derive(Debug)]
struct Room {
    large: Arc<Semaphore>,
    medium: Arc<Semaphore>,
}

impl Room {
    fn new(large_bytes: u64, medium_bytes: u64) -> Self {
        let semaphore = |bytes: u64| {
            let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(permits))
        };
        Self { large: semaphore(large_bytes), medium: semaphore(medium_bytes) }
    }

    fn of(&self, size: Size) -> Arc<Semaphore> {
        match size {
            Size::Medium => Arc::clone(&self.medium),
            Size::Large => Arc::clone(&self.large),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Medium,
    Large,
}

/// Leave to hold so many bytes.
#[derive(Debug)]
pub struct Grant {
    whole: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
    /// Kept, so that the next response on the connection finds it.
    connection: Arc<Room>,
}

impl Grant {
    /// Takes leave for `bytes`, or for all that is left, out of this one.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let count = (permits(bytes) as usize).min(self.whole.num_permits());
        let take = |permit: &mut OwnedSemaphorePermit| {
            permit.split(count).expect("both halves have the same number")
        };
        Self {
            whole: take(&mut self.whole),
            share: take(&mut self.share),
            connection: Arc::clone(&self.connection),
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let rest = self.split(bytes);
        *self = rest;
    }
}

/// One permit is one byte.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Responses {
    /// All of them together take up to `memory_bytes`, one of them up to half of that. `work`
    /// leads to a thread that does it.
    pub fn new(memory_bytes: u64, work: SyncSender<Work>) -> Self {
        let bytes_max = (memory_bytes / 2).min(MESSAGE_BYTES_MAX);
        let medium = memory_bytes / 8;
        let shared = Shared {
            bytes_max,
            medium_bytes_max: medium / 4,
            whole: Room::new(memory_bytes - medium, medium),
            connections: Mutex::default(),
            under_way: Mutex::default(),
            work,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What one response may hold.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }

    /// Waits for leave to collect a response on the connection of `client`, of which it is known
    /// how much it holds, or not.
    pub async fn grant(
        &self,
        client: Option<ConnectionId>,
        bytes: Option<u64>,
    ) -> Result<Grant, Error> {
        let (size, bytes) = match bytes {
            Some(bytes) if bytes <= self.shared.medium_bytes_max => (Size::Medium, bytes),
            Some(bytes) => (Size::Large, bytes),
            None => (Size::Large, self.shared.bytes_max),
        };
        let connection = self.connection(client);
        let take = |room: &Room| room.of(size).acquire_many_owned(permits(bytes));
        let (share, whole) = (take(&connection), take(&self.shared.whole));
        let both = async {
            // The share first: what waits behind others of its connection holds nothing of the
            // whole.
            let share = share.await;
            (share, whole.await)
        };
        match tokio::time::timeout(GRANT_TIMEOUT, both).await {
            Ok((Ok(share), Ok(whole))) => Ok(Grant { whole, share, connection }),
            Ok(_) => unreachable!("the semaphores are never closed"),
            Err(_) => Err(Error::TooManyResponses),
        }
    }

    fn connection(&self, client: Option<ConnectionId>) -> Arc<Room> {
        let Shared { bytes_max, medium_bytes_max, .. } = *self.shared;
        let room = || Arc::new(Room::new(bytes_max, medium_bytes_max));
        let Some(client) = client else { return room() };
        let mut connections = lock(&self.shared.connections);
        if let Some(known) = connections.get(&client).and_then(Weak::upgrade) {
            return known;
        }
        let room = room();
        connections.insert(client, Arc::downgrade(&room));
        room
    }

    /// Notes a response that is about to be sent.
    pub fn sent(&self, outgoing: Weak<dyn Outgoing>) {
        lock(&self.shared.under_way).push(outgoing);
    }

    /// Bytes that large responses may still take.
    #[cfg(test)]
    pub fn room_left(&self) -> u64 {
        self.shared.whole.large.available_permits() as u64
    }

    /// Does `work` elsewhere, or here if too much waits there.
    pub fn elsewhere(&self, work: Work) {
        use std::sync::mpsc::TrySendError;
        match self.shared.work.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => work(),
        }
    }

    /// Gives up responses that their clients do not take, for ever.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(STALL_LOOK_INTERVAL).await;
            lock(&self.shared.connections).retain(|_, room| room.strong_count() > 0);
            let under_way = std::mem::take(&mut *lock(&self.shared.under_way));
            for outgoing in under_way {
                let Some(response) = outgoing.upgrade() else { continue };
                if !response.give_up_if_stalled() {
                    lock(&self.shared.under_way).push(outgoing);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc::sync_channel;
    use std::task::Poll;

    use super::*;

    const MEMORY_BYTES: u64 = 8 << 20;

    fn responses() -> Responses {
        let (work, _) = sync_channel(1);
        Responses::new(MEMORY_BYTES, work)
    }

    fn client(port: usize) -> ConnectionId {
        ConnectionId(port)
    }

    /// Whether `grant` is not to be had at once.
    async fn waits(grant: impl Future<Output = Result<Grant, Error>>) -> bool {
        let mut grant = pin!(grant);
        poll_fn(|cx| Poll::Ready(grant.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn large_responses_wait_for_each_other_and_medium_ones_for_none_of_them() {
        let responses = responses();
        let first = responses.grant(Some(client(1)), None).await.expect("there is room");
        let second = responses.grant(Some(client(2)), None);
        assert!(waits(second).await, "half is taken, and an eighth is for others");
        let medium = responses.grant(Some(client(3)), Some(SMALL_BYTES + 1)).await;
        assert!(medium.is_ok());
        drop(first);
        responses.grant(Some(client(2)), None).await.expect("there is room");
    }

    #[tokio::test]
    async fn what_a_response_turns_out_not_to_need_is_for_others() {
        let responses = responses();
        let mut first = responses.grant(Some(client(1)), None).await.expect("there is room");
        first.shrink(1 << 20);
        responses.grant(Some(client(2)), None).await.expect("there is room");
    }

    #[tokio::test]
    async fn one_connection_has_its_share_only() {
        let responses = responses();
        let mut first = responses.grant(Some(client(1)), None).await.expect("there is room");
        first.shrink(1 << 20);
        assert!(waits(responses.grant(Some(client(1)), None)).await);
        responses.grant(Some(client(2)), None).await.expect("another connection");
        drop(first);
        responses.grant(Some(client(1)), None).await.expect("there is room");
    }

    #[tokio::test]
    async fn a_part_of_a_grant_is_given_back_by_itself() {
        let responses = responses();
        let all = responses.room_left();
        let mut grant = responses.grant(Some(client(1)), None).await.expect("there is room");
        let part = grant.split(1 << 20);
        let whole = responses.bytes_max();
        assert_eq!(responses.room_left(), all - whole);
        drop(part);
        assert_eq!(responses.room_left(), all - whole + (1 << 20));
        let rest = grant.split(u64::MAX);
        drop(rest);
        assert_eq!(responses.room_left(), all);
    }
}
