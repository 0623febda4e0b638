//! One client's stream of watches: those that are behind read history here, at their client's pace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::kv::{Compacted, History, KeySet, Store};

use super::super::Error;
use super::hub::{Hub, Join, WatchKey};
use super::queue::{Item, Queue};
use super::{WatchRequest, WatchResponse};

/// Changes looked at under one hold of the store's lock, and bytes of events in one response.
const STEP_CHANGES: usize = 1024;
const STEP_BYTES: usize = 256 << 10;

/// Responses that wait before no more requests are taken.
const QUEUE_MAX: usize = 4096;

const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const TOO_MANY: &str = "etcdserver: too many requests";

/// The watches of one stream.
pub struct WatchStream {
    hub: Hub,
    number: u64,
    queue: Arc<Queue>,
    watches: BTreeMap<i64, Watch>,
    /// The ids of those that are behind, in turn.
    behind: VecDeque<i64>,
    watches_made: u64,
    next_id: i64,
    progress: Option<Interval>,
    progress_interval: Duration,
    /// History is read next, and not the queue.
    history_next: bool,
}

struct Watch {
    number: u64,
    keys: KeySet,
    request: Arc<WatchRequest>,
    /// If it is behind: the first revision that it has not read.
    next: i64,
    /// It was told something since its progress was last due.
    told: bool,
}

impl WatchStream {
    pub(in super::super) fn open(
        hub: Hub,
        requires_leader: bool,
        progress_interval: Duration,
    ) -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let number = hub.open(&queue, requires_leader)?;
        Ok(Self {
            hub,
            number,
            queue,
            watches: BTreeMap::new(),
            behind: VecDeque::new(),
            watches_made: 0,
            next_id: 0,
            progress: None,
            progress_interval,
            history_next: false,
        })
    }

    /// Whether the client has taken enough for another request to be heard.
    pub fn takes_requests(&self) -> bool {
        self.queue.len() < QUEUE_MAX
    }

    /// Makes a watch.
    pub fn create(&mut self, request: WatchRequest) {
        let revision = self.revision();
        let reason = match &request {
            WatchRequest { keys: None, .. } => EMPTY_RANGE,
            WatchRequest { start_revision: ..0, .. } => COMPACTED,
            WatchRequest { id: Some(id), .. } if self.watches.contains_key(id) => DUPLICATE_ID,
            _ if !self.hub.admit() => TOO_MANY,
            WatchRequest { keys: Some(keys), .. } => {
                let keys = keys.clone();
                return self.make(keys, request, revision);
            }
        };
        self.respond(WatchResponse::Rejected { revision, reason });
    }

    fn make(&mut self, keys: KeySet, request: WatchRequest, revision: i64) {
        let id = request.id.unwrap_or_else(|| {
            while self.watches.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        });
        let next = match request.start_revision {
            0 => revision + 1,
            start => start,
        };
        if request.progress_notify && self.progress.is_none() {
            let begin = tokio::time::Instant::now() + self.progress_interval;
            let mut progress = tokio::time::interval_at(begin, self.progress_interval);
            progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.progress = Some(progress);
        }
        self.watches_made += 1;
        let number = self.watches_made;
        let watch = Watch { number, keys, request: Arc::new(request), next, told: false };
        self.watches.insert(id, watch);
        self.respond(WatchResponse::Created { id, revision });
        if next <= revision || !self.join(id) {
            // By the queue: it is told of the watch before of any event.
            self.queue.push(Item::Behind { id, number, next });
        }
    }

    /// Ends a watch; nothing if there is no such watch.
    pub fn cancel(&mut self, id: i64) {
        if let Some(watch) = self.forget(id) {
            self.hub.leave(self.key(watch.number));
            let revision = self.revision();
            self.respond(WatchResponse::Canceled { id, revision, compact_revision: 0 });
        }
    }

    /// Tells how far all watches have been told, if all are synced.
    pub fn request_progress(&mut self) {
        if self.behind.is_empty() {
            self.hub.tell_progress(self.number, self.watches.len(), &self.queue);
        }
    }

    /// The next response. May be dropped before it is ready: nothing is lost.
    ///
    /// # Errors
    ///
    /// The stream ends: the member stops, or there is no leader and the client wants one.
    pub async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            // By turns: neither those behind nor those synced wait for the others to be quiet.
            self.history_next = !self.history_next;
            if self.history_next
                && let Some(response) = self.read_history()
            {
                return Ok(response);
            }
            match self.queue.pop() {
                Some(Item::Response(response)) => {
                    self.note_told(&response);
                    return Ok(response);
                }
                Some(Item::Behind { id, number, next }) => self.fell_behind(id, number, next),
                Some(Item::End(why)) => return Err(why),
                None if !self.behind.is_empty() => tokio::task::yield_now().await,
                None => self.wait().await,
            }
        }
    }

    async fn wait(&mut self) {
        let Some(progress) = &mut self.progress else { return self.queue.filled().await };
        tokio::select! {
            () = self.queue.filled() => {}
            _ = progress.tick() => self.progress_is_due(),
        }
    }

    fn progress_is_due(&mut self) {
        for watch in self.watches.values_mut().filter(|watch| watch.request.progress_notify) {
            if !std::mem::take(&mut watch.told) {
                let (stream, number) = (self.number, watch.number);
                self.hub.tell_progress_of(WatchKey { stream, number });
            }
        }
    }

    fn note_told(&mut self, response: &WatchResponse) {
        if let WatchResponse::Events { id, events, .. } = response {
            self.hub.told(events.len());
            if let Some(watch) = self.watches.get_mut(id) {
                watch.told = true;
            }
        }
    }

    fn fell_behind(&mut self, id: i64, number: u64, next: i64) {
        if let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.number == number) {
            watch.next = next;
            self.behind.push_back(id);
        }
    }

    /// One step of a watch that is behind.
    fn read_history(&mut self) -> Option<WatchResponse> {
        let id = self.behind.pop_front()?;
        let watch = self.watches.get_mut(&id).expect("those behind are watches");
        let read = self
            .hub
            .handle()
            .with_store(|store| store.history(&watch.keys, watch.next, STEP_CHANGES, STEP_BYTES));
        let History { events, next, revision } = match read {
            Ok(history) => history,
            Err(Compacted { revision: compact_revision }) => {
                self.watches.remove(&id);
                self.hub.ended(1);
                return Some(WatchResponse::Canceled { id, revision: 0, compact_revision });
            }
        };
        watch.next = next;
        let request = Arc::clone(&watch.request);
        let events: Vec<_> =
            events.into_iter().filter(|event| request.wants(event.kind)).map(Arc::new).collect();
        watch.told |= !events.is_empty();
        self.hub.told(events.len());
        if next <= revision || !self.join(id) {
            self.behind.push_back(id);
        }
        let (prev_kv, fragment) = (request.prev_kv, request.fragment);
        let response = WatchResponse::Events { id, revision, events, prev_kv, fragment };
        match &response {
            WatchResponse::Events { events, .. } if events.is_empty() => None,
            _ => Some(response),
        }
    }

    /// Makes the watch a synced one, if it has read all that there is.
    fn join(&self, id: i64) -> bool {
        let watch = &self.watches[&id];
        self.hub.join(Join {
            key: self.key(watch.number),
            id,
            keys: watch.keys.clone(),
            from: watch.next,
            request: Arc::clone(&watch.request),
            queue: Arc::clone(&self.queue),
        })
    }

    fn forget(&mut self, id: i64) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        self.behind.retain(|behind| *behind != id);
        self.hub.ended(1);
        Some(watch)
    }

    fn respond(&self, response: WatchResponse) {
        self.queue.push(Item::Response(response));
    }

    fn revision(&self) -> i64 {
        self.hub.handle().with_store(Store::revision)
    }

    fn key(&self, number: u64) -> WatchKey {
        WatchKey { stream: self.number, number }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.ended(self.watches.len());
        let watches = self.watches.values().map(|watch| watch.number);
        self.hub.close(self.number, watches);
    }
}
