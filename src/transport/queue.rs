//! A bounded queue from senders, which never wait, to the stream that writes to a socket.
//!
//! Bounded twice, in frames and in bytes; a frame that does not fit is dropped, for Raft
//! tolerates loss and nothing else would keep a slow peer from filling our memory. A queue lives
//! as long as its stream: what a dead connection did not carry is not sent late over the next.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Frames.
    pub frames_max: usize,
    /// Bytes, counted as `frame` does. One frame alone may exceed it.
    pub bytes_max: usize,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No stream is open.
    Closed,
    /// The stream's queue is full.
    Full,
}

/// The place where the queue of a stream is found while that stream is open.
#[derive(Debug)]
pub struct Slot<T>(Mutex<Open<T>>);

#[derive(Debug)]
struct Open<T> {
    /// Counts the streams that were opened here.
    generation: u64,
    queue: Option<Queue<T>>,
}

#[derive(Debug)]
struct Queue<T> {
    frames: mpsc::Sender<(T, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    /// Frames taken in.
    given: u64,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(Open { generation: 0, queue: None }))
    }
}

impl<T> Slot<T> {
    /// Opens a queue in place of the one before, whose stream ends. The number names it.
    pub fn open(&self, bounds: Bounds) -> (u64, Frames<T>) {
        let (sender, receiver) = mpsc::channel(bounds.frames_max);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let mut open = self.lock();
        open.generation += 1;
        open.queue = Some(Queue {
            frames: sender,
            waiting_bytes: Arc::clone(&waiting_bytes),
            bytes_max: bounds.bytes_max,
            given: 0,
        });
        (open.generation, Frames { receiver, waiting_bytes })
    }

    /// Like [`open`](Self::open), with a frame that goes before all others.
    pub fn open_with(&self, bounds: Bounds, first: T) -> Frames<T> {
        let (_, frames) = self.open(bounds);
        self.push(first, 0).expect("a queue that was just opened has room");
        frames
    }

    /// Closes the queue `generation`; false if another has taken its place.
    pub fn close(&self, generation: u64) -> bool {
        let mut open = self.lock();
        let current = open.generation == generation;
        if current {
            open.queue = None;
        }
        current
    }

    /// Closes whatever is open, and says how many frames it was given.
    pub fn close_any(&self) -> u64 {
        self.lock().queue.take().map_or(0, |queue| queue.given)
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        self.lock().queue.is_some()
    }

    /// Queues a frame, or drops it.
    pub fn push(&self, frame: T, size_bytes: usize) -> Result<(), Dropped> {
        let mut open = self.lock();
        let Some(queue) = &mut open.queue else {
            return Err(Dropped::Closed);
        };
        let waiting = queue.waiting_bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + size_bytes > queue.bytes_max {
            return Err(Dropped::Full);
        }
        // Counted first: the stream may take the frame, and subtract, before this returns.
        queue.waiting_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        queue.frames.try_send((frame, size_bytes)).map_err(|error| {
            queue.waiting_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => Dropped::Full,
                mpsc::error::TrySendError::Closed(_) => Dropped::Closed,
            }
        })?;
        queue.given += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Open<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end: the stream that a request or response is made of. Ends when its slot closes.
#[derive(Debug)]
pub struct Frames<T> {
    receiver: mpsc::Receiver<(T, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl<T> Stream for Frames<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.receiver.poll_recv(cx).map(|next| {
            let (frame, size_bytes) = next?;
            self.waiting_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
            Some(frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    const BOUNDS: Bounds = Bounds { frames_max: 4, bytes_max: 100 };

    #[tokio::test]
    async fn a_queue_is_bounded_in_frames_and_in_bytes_and_has_room_again() {
        let slot = Slot::default();
        let (_, mut frames) = slot.open(BOUNDS);
        for frame in 0..4 {
            assert_eq!(slot.push(frame, 10), Ok(()));
        }
        assert_eq!(slot.push(4, 10), Err(Dropped::Full));
        assert_eq!(frames.next().await, Some(0));
        assert_eq!(slot.push(5, 71), Err(Dropped::Full), "30 of 100 bytes wait");
        assert_eq!(slot.push(6, 70), Ok(()));
        for expected in [1, 2, 3, 6] {
            assert_eq!(frames.next().await, Some(expected));
        }
        assert_eq!(slot.push(7, 1000), Ok(()), "a frame larger than the bound passes alone");
    }

    #[tokio::test]
    async fn a_new_stream_takes_over_and_the_old_one_ends_without_closing_it() {
        let slot = Slot::default();
        assert_eq!(slot.push(0, 1), Err(Dropped::Closed));
        let (first, mut old) = slot.open(BOUNDS);
        let (second, mut new) = slot.open(BOUNDS);
        assert_eq!(old.next().await, None);
        assert!(!slot.close(first));
        assert_eq!(slot.push(1, 1), Ok(()));
        assert_eq!(new.next().await, Some(1));
        assert!(slot.close(second));
        assert_eq!(new.next().await, None);
    }
}
