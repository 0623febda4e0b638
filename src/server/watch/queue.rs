//! What waits for one stream's client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::kv::Event;

use super::super::Error;
use super::WatchResponse;

/// Events that wait, at most, and their bytes. One revision more than that may be in the queue.
const EVENTS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;

/// Something for the stream.
#[derive(Debug)]
pub(super) enum Item {
    /// To be sent.
    Response(WatchResponse),
    /// A watch is behind, from revision `next` on. Its number says whether it is still the one of
    /// that id.
    Behind { id: i64, number: u64, next: i64 },
    /// The stream ends.
    End(Error),
}

/// Filled by the hub, emptied by the stream.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    events: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn push(&self, item: Item) {
        self.lock().items.push_back(item);
        self.filled.notify_one();
    }

    /// Adds the events of one revision. False if the queue is full.
    pub(super) fn push_events(&self, response: WatchResponse) -> bool {
        let (events, bytes) = size(&response);
        let mut state = self.lock();
        if state.events >= EVENTS_MAX || state.bytes >= BYTES_MAX {
            return false;
        }
        state.events += events;
        state.bytes += bytes;
        state.items.push_back(Item::Response(response));
        drop(state);
        self.filled.notify_one();
        true
    }

    pub(super) fn pop(&self) -> Option<Item> {
        let mut state = self.lock();
        let item = state.items.pop_front()?;
        if let Item::Response(response) = &item {
            let (events, bytes) = size(response);
            state.events -= events;
            state.bytes -= bytes;
        }
        Some(item)
    }

    /// How many things wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Returns once there may be something.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(response: &WatchResponse) -> (usize, usize) {
    match response {
        WatchResponse::Events { events, .. } => {
            let bytes = |event: &Arc<Event>| event.size_bytes();
            (events.len(), events.iter().map(bytes).sum())
        }
        WatchResponse::Created { .. }
        | WatchResponse::Rejected { .. }
        | WatchResponse::Canceled { .. }
        | WatchResponse::Progress { .. } => (0, 0),
    }
}
