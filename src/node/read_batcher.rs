//! Read barriers of many clients as one.
//!
//! A barrier asked for now serves everybody who asked before it was passed on, so requests that
//! come in while one is under way wait for the next, together. The driver hears of one request
//! instead of hundreds, and those who wait are woken by a neighbour on their own runtime instead of
//! one by one across threads: at full load that is a good part of what a read costs.

use tokio::sync::{mpsc, oneshot};

use super::error::RequestError;
use super::event::Event;
use super::handle::Ticket;

/// Somebody who waits for a barrier.
pub type Waiting = oneshot::Sender<Result<(), RequestError>>;

/// Requests that share one barrier at the most.
const SHARED_MAX: usize = 4096;

/// Passes barriers on, one at a time, until nobody can ask any more.
pub async fn run(mut asked: mpsc::Receiver<Waiting>, driver: mpsc::Sender<Event<Ticket>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, SHARED_MAX).await > 0 {
        // A caller that has given up needs no barrier.
        waiting.retain(|one| !one.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let (reply, outcome) = oneshot::channel();
        let outcome = match driver.send(Event::Read { ticket: Ticket::Barrier(reply) }).await {
            Ok(()) => outcome.await.unwrap_or(Err(RequestError::Stopped)),
            Err(_) => Err(RequestError::Stopped),
        };
        for one in waiting.drain(..) {
            let _ = one.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_ask_during_a_barrier_share_the_next() {
        let (ask, asked) = mpsc::channel(16);
        let (driver, mut requests) = mpsc::channel(16);
        let sharing = tokio::spawn(run(asked, driver));
        let mut answers = Vec::new();
        let mut asks = async |count: usize| {
            for _ in 0..count {
                let (reply, answer) = oneshot::channel();
                ask.send(reply).await.expect("is being served");
                answers.push(answer);
            }
        };
        asks(1).await;
        let Some(Event::Read { ticket: Ticket::Barrier(first) }) = requests.recv().await else {
            panic!("a barrier is passed on")
        };
        asks(5).await;
        tokio::task::yield_now().await;
        assert!(requests.try_recv().is_err(), "the five wait for the first to end");
        first.send(Ok(())).expect("is waited for");
        let Some(Event::Read { ticket: Ticket::Barrier(second) }) = requests.recv().await else {
            panic!("one barrier for the five")
        };
        second.send(Err(RequestError::NoLeader)).expect("is waited for");
        drop(ask);
        sharing.await.expect("ends when nobody can ask");
        assert!(requests.try_recv().is_err());
        let mut heard = Vec::new();
        for answer in answers {
            heard.push(answer.await.expect("is answered"));
        }
        assert_eq!(heard[0], Ok(()));
        assert!(heard[1..].iter().all(|one| *one == Err(RequestError::NoLeader)), "{heard:?}");
    }
}
