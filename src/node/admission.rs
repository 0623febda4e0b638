//! How much of what clients want to write is let in at once, in bytes.
//!
//! Writers beyond [`ADMITTED_BYTES_MAX`] wait, in order of arrival, for room, and not for the
//! answer "too many requests": a closed loop of large writes is then as fast as the cluster, and no
//! client of it fails. What waits is bounded too, since each holds its request in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::Instant;

use super::error::RequestError;

/// Bytes of commands on their way through the log: less than the log writer, the replica and the
/// way to a leader have room for.
pub const ADMITTED_BYTES_MAX: usize = 64 << 20;

/// Bytes of commands that wait to be admitted; more are refused.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Admits the commands of this member's clients.
#[derive(Clone, Debug)]
pub struct Admission {
    room: Arc<Semaphore>,
    waiting_room: Arc<Semaphore>,
    /// The longest that a request takes in all.
    patience: Duration,
}

/// A command was let in. Its room is free again when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    _permit: OwnedSemaphorePermit,
    /// For one that had to wait: when its time is up.
    pub deadline: Option<Instant>,
}

impl Admission {
    /// All room is free. A request that waits for it has `patience` for that and for its answer.
    pub fn new(patience: Duration) -> Self {
        Self {
            room: Arc::new(Semaphore::new(ADMITTED_BYTES_MAX)),
            waiting_room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            patience,
        }
    }

    /// Lets a command of so many bytes in, now or when there is room.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooManyRequests`] when too much waits already, or none came in time.
    pub async fn admit(&self, bytes: usize) -> Result<Admitted, RequestError> {
        let permits = u32::try_from(bytes.min(ADMITTED_BYTES_MAX)).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(permit) => return Ok(Admitted { _permit: permit, deadline: None }),
            Err(TryAcquireError::Closed) => return Err(RequestError::Stopped),
            Err(TryAcquireError::NoPermits) => {}
        }
        let deadline = Instant::now() + self.patience;
        let Ok(_place) = self.waiting_room.try_acquire_many(permits) else {
            return Err(RequestError::TooManyRequests);
        };
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(permit)) => Ok(Admitted { _permit: permit, deadline: Some(deadline) }),
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::TooManyRequests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = ADMITTED_BYTES_MAX / 2;

    fn gate() -> Admission {
        Admission::new(Duration::from_secs(7))
    }

    #[tokio::test]
    async fn writers_beyond_the_room_wait_for_it_in_order() {
        let gate = gate();
        let first = gate.admit(LARGE).await.expect("there is room");
        let second = gate.admit(LARGE).await.expect("there is room");
        assert!(first.deadline.is_none(), "nobody waits without need");
        let third = tokio::spawn({
            let gate = gate.clone();
            async move { gate.admit(LARGE).await }
        });
        tokio::task::yield_now().await;
        let small = tokio::spawn(async move { gate.admit(1).await });
        drop(second);
        let third = third.await.expect("no panic").expect("there is room");
        assert!(third.deadline.is_some());
        drop(first);
        small.await.expect("no panic").expect("there is room");
    }

    #[tokio::test]
    async fn one_that_finds_no_room_in_time_is_refused_without_effect() {
        let gate = Admission::new(Duration::from_millis(10));
        let _first = gate.admit(ADMITTED_BYTES_MAX).await;
        let why = gate.admit(1).await.expect_err("there is no room");
        assert_eq!(why, RequestError::TooManyRequests);
        assert!(why.is_definite());
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let gate = gate();
        let _first = gate.admit(ADMITTED_BYTES_MAX).await;
        let waiting: Vec<_> = (0..=WAITING_BYTES_MAX / LARGE)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.admit(LARGE).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.last().is_some_and(tokio::task::JoinHandle::is_finished));
    }
}
