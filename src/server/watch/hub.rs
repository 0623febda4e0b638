//! The one reader of new revisions, and the synced watches.
//!
//! Everything that changes the set of synced watches, or says how far they have been told, happens
//! under one lock, so a response that names a revision stands in its queue behind all events up to
//! that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::kv::{Event, Follower, KeySet, KeySetIndex, Store};
use crate::node::{Handle, RequestError};

use super::super::Error;
use super::queue::{Item, Queue};
use super::{NO_WATCH, WatchRequest, WatchResponse};

/// Watches of one member, at most: some hundred bytes each.
const WATCHES_MAX: usize = 1 << 20;

/// Revisions read, and about how many of their events, under one hold of the store's lock.
const STEP_REVISIONS: usize = 64;
const STEP_EVENTS: usize = 512;

/// How often the hub looks whether the member stops, or has lost its leader.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A stream that wants a leader ends when there was none for so long; etcd waits for three election
/// time-outs.
const NO_LEADER_MAX: Duration = Duration::from_secs(3);

/// The synced watches of one member. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle,
    state: Mutex<State>,
    joined: Notify,
    /// Of all streams, synced or not.
    watches: AtomicUsize,
    events: AtomicU64,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchCounts {
    /// Streams.
    pub streams: usize,
    /// Watches.
    pub watches: usize,
    /// Watches that read history.
    pub behind: usize,
    /// Events handed to watches so far.
    pub events: u64,
}

/// A watch of a stream, by the numbers of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchKey {
    pub(super) stream: u64,
    pub(super) number: u64,
}

#[derive(Default)]
struct State {
    index: KeySetIndex<WatchKey>,
    watches: BTreeMap<WatchKey, Synced>,
    /// Follows the store while there are watches.
    follower: Option<Follower>,
    streams: BTreeMap<u64, Stream>,
    streams_opened: u64,
    stopped: bool,
}

struct Stream {
    queue: Arc<Queue>,
    requires_leader: bool,
}

struct Synced {
    id: i64,
    keys: KeySet,
    /// The first revision that it has to be told.
    from: i64,
    request: Arc<WatchRequest>,
    queue: Arc<Queue>,
}

/// A watch that wants to be synced.
pub(super) struct Join {
    pub(super) key: WatchKey,
    pub(super) id: i64,
    pub(super) keys: KeySet,
    pub(super) from: i64,
    pub(super) request: Arc<WatchRequest>,
    pub(super) queue: Arc<Queue>,
}

impl Hub {
    pub(in super::super) fn new(handle: Handle) -> Self {
        let shared = Shared {
            handle,
            state: Mutex::default(),
            joined: Notify::new(),
            watches: AtomicUsize::new(0),
            events: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How many watches there are.
    pub fn counts(&self) -> WatchCounts {
        let state = self.lock();
        let watches = self.shared.watches.load(Ordering::Relaxed);
        WatchCounts {
            streams: state.streams.len(),
            watches,
            behind: watches.saturating_sub(state.watches.len()),
            events: self.shared.events.load(Ordering::Relaxed),
        }
    }

    /// Counts a watch that was made, if there is room for one more.
    pub(super) fn admit(&self) -> bool {
        let fits = |watches: usize| (watches < WATCHES_MAX).then_some(watches + 1);
        self.shared.watches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Counts watches that have ended.
    pub(super) fn ended(&self, watches: usize) {
        self.shared.watches.fetch_sub(watches, Ordering::Relaxed);
    }

    /// Counts events that a watch is told of.
    pub(super) fn told(&self, events: usize) {
        self.shared.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.shared.handle
    }

    /// Tells the watches what is new, until the member ends.
    pub async fn run(self) {
        let mut revisions = self.shared.handle.revisions();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led = Instant::now();
        loop {
            let idle = self.lock().watches.is_empty();
            tokio::select! {
                // Nobody is woken for each write while nobody watches.
                changed = revisions.changed(), if !idle => {
                    if changed.is_err() {
                        return;
                    }
                    self.tell_new().await;
                }
                () = self.shared.joined.notified() => self.tell_new().await,
                _ = look.tick() => self.look_at_member(&mut led),
            }
        }
    }

    async fn tell_new(&self) {
        while self.lock().step(&self.shared.handle) {
            tokio::task::yield_now().await;
        }
    }

    fn look_at_member(&self, led: &mut Instant) {
        let status = self.shared.handle.status();
        if status.leader.is_some() {
            *led = Instant::now();
        }
        let leaderless = led.elapsed() > NO_LEADER_MAX;
        if !leaderless && !status.shutting_down {
            return;
        }
        let mut state = self.lock();
        state.stopped |= status.shutting_down;
        for stream in state.streams.values() {
            if status.shutting_down {
                stream.queue.push(Item::End(Error::Request(RequestError::Stopped)));
            } else if stream.requires_leader {
                stream.queue.push(Item::End(Error::Request(RequestError::NoLeader)));
            }
        }
        state.streams.retain(|_, stream| !status.shutting_down && !stream.requires_leader);
    }

    /// A stream begins.
    pub(super) fn open(&self, queue: &Arc<Queue>, requires_leader: bool) -> Result<u64, Error> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Error::Request(RequestError::Stopped));
        }
        state.streams_opened += 1;
        let number = state.streams_opened;
        state.streams.insert(number, Stream { queue: Arc::clone(queue), requires_leader });
        Ok(number)
    }

    /// A stream has ended, and its watches with it.
    pub(super) fn close(&self, stream: u64, watches: impl Iterator<Item = u64>) {
        let mut state = self.lock();
        state.streams.remove(&stream);
        for number in watches {
            state.leave(WatchKey { stream, number });
        }
    }

    /// The watch is synced from now on, if it has read all that the hub has told.
    pub(super) fn join(&self, join: Join) -> bool {
        let mut state = self.lock();
        if state.follower.is_none() {
            state.follower = Some(self.shared.handle.with_store(Follower::begin));
        }
        let told = state.follower.as_ref().map(Follower::revision);
        if told.is_none_or(|told| told >= join.from) {
            return false;
        }
        let Join { key, id, keys, from, request, queue } = join;
        state.index.insert(&keys, key);
        state.watches.insert(key, Synced { id, keys, from, request, queue });
        drop(state);
        self.shared.joined.notify_one();
        true
    }

    /// A watch is synced no more.
    pub(super) fn leave(&self, key: WatchKey) {
        self.lock().leave(key);
    }

    /// Tells the stream how far all its watches have been told, if that can be said: if all
    /// `watches` of them are synced, and none begins later.
    pub(super) fn tell_progress(&self, stream: u64, watches: usize, queue: &Queue) {
        let mut state = self.lock();
        while state.step(&self.shared.handle) {}
        let told = match &state.follower {
            Some(follower) => follower.revision(),
            None => self.shared.handle.with_store(Store::revision),
        };
        let (first, last) = (WatchKey { stream, number: 0 }, WatchKey { stream, number: u64::MAX });
        let synced = state.watches.range(first..=last).filter(|(_, watch)| watch.from <= told + 1);
        if synced.count() == watches {
            let progress = WatchResponse::Progress { id: NO_WATCH, revision: told };
            queue.push(Item::Response(progress));
        }
    }

    /// Tells one watch how far it has been told, if it is synced.
    pub(super) fn tell_progress_of(&self, key: WatchKey) {
        let state = self.lock();
        let (Some(watch), Some(follower)) = (state.watches.get(&key), &state.follower) else {
            return;
        };
        let revision = follower.revision();
        if watch.from <= revision + 1 {
            let progress = WatchResponse::Progress { id: watch.id, revision };
            watch.queue.push(Item::Response(progress));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave(&mut self, key: WatchKey) {
        if let Some(watch) = self.watches.remove(&key) {
            self.index.remove(&watch.keys, key);
        }
        if self.watches.is_empty() {
            self.follower = None;
        }
    }

    /// Tells the events of some new revisions. True if there may be more.
    fn step(&mut self, handle: &Handle) -> bool {
        let Some(follower) = &mut self.follower else { return false };
        let (index, mut read, mut events) = (&self.index, Vec::new(), 0);
        let told = follower.revision();
        let outcome = handle.with_store(|store| {
            while read.len() < STEP_REVISIONS && events < STEP_EVENTS {
                match follower.next(store, |key| index.is_wanted(key))? {
                    Some(next) => {
                        events += next.1.len();
                        read.push(next);
                    }
                    None => return Ok(false),
                }
            }
            Ok(true)
        });
        for (revision, events) in read {
            self.tell(revision, events);
        }
        outcome.unwrap_or_else(|_: crate::kv::Compacted| {
            self.fall_behind(told);
            true
        })
    }

    fn tell(&mut self, revision: i64, events: Vec<Event>) {
        let mut wanted = Vec::new();
        for event in events.into_iter().map(Arc::new) {
            self.index.visit(&event.kv.key, |key| wanted.push((key, Arc::clone(&event))));
        }
        // Stable: the events of each watch stay in order.
        wanted.sort_by_key(|(key, _)| *key);
        for group in wanted.chunk_by(|one, other| one.0 == other.0) {
            let key = group[0].0;
            let watch = self.watches.get(&key).expect("the index holds synced watches");
            let request = &watch.request;
            let events: Vec<_> = group
                .iter()
                .map(|(_, event)| Arc::clone(event))
                .filter(|event| request.wants(event.kind))
                .collect();
            if revision < watch.from || events.is_empty() {
                continue;
            }
            let (prev_kv, fragment) = (request.prev_kv, request.fragment);
            let response =
                WatchResponse::Events { id: watch.id, revision, events, prev_kv, fragment };
            if !watch.queue.push_events(response) {
                let (id, number) = (watch.id, key.number);
                watch.queue.push(Item::Behind { id, number, next: revision });
                self.leave(key);
            }
        }
    }

    /// The store was replaced by one without some of the revisions after `told`: whoever was to be
    /// told of them finds out from history.
    fn fall_behind(&mut self, told: i64) {
        let now = self.follower.as_ref().map_or(0, Follower::revision);
        let missed: Vec<WatchKey> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.from <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in missed {
            let watch = &self.watches[&key];
            let next = watch.from.max(told + 1);
            let (id, number) = (watch.id, key.number);
            watch.queue.push(Item::Behind { id, number, next });
            self.leave(key);
        }
    }
}
