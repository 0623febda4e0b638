//! The requests under way: one write and one read every so often to each member, whether or not
//! the last ones were answered.
//!
//! An open loop: a member that is slow or gone does not slow its own writer down, let alone the
//! others', so that the first moment at which it answers again is seen. What is under way is
//! bounded. Reads get a long deadline: the answer of a frozen member that wakes up is exactly the
//! one that must not be stale.

use super::ledger::{Ack, Ledger, value};
use crate::grpc::{self, CallError, Link};
use bytes::Bytes;
use prost::Message as _;
use raft_node::proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// At 5 ms and a deadline of a second, 200 are under way at a silent member.
const UNDER_WAY_MAX: usize = 256;
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// A member that answers nothing for so long gets a new connection.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How fast, and how patient.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Between two writes to the same member.
    pub write_interval: Duration,
    /// Between two reads from the same member.
    pub read_interval: Duration,
    /// When a write without an answer is given up.
    pub write_deadline: Duration,
    /// Reads that may be stale.
    pub serializable: bool,
}

/// What the tasks of one probe share.
pub struct Shared {
    /// What was sent and promised.
    ledger: Mutex<Ledger>,
    /// Set once: the loops end.
    pub stop: AtomicBool,
}

impl Shared {
    /// Nothing sent yet.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger: Mutex::new(ledger), stop: AtomicBool::new(false) }
    }

    /// Never held across an await.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no task panics with the ledger in hand")
    }
}

/// Writes to one member until stopped; ends when nothing is under way any more.
pub async fn write_loop(shared: Arc<Shared>, link: Arc<Link>, member: usize, pace: Pace) {
    let mut ticks = tokio::time::interval(pace.write_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut last_answers = 0;
    let mut silent_since = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let answers = shared.ledger().writes[member].ok;
        if answers != last_answers || under_way.load(Ordering::Relaxed) == 0 {
            last_answers = answers;
            silent_since = Instant::now();
        } else if silent_since.elapsed() > SILENCE_MAX {
            link.give_up();
            silent_since = Instant::now();
        }
        if under_way.load(Ordering::Relaxed) >= UNDER_WAY_MAX {
            continue; // nothing was sent, so nothing failed
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let (shared, link, under_way) = (shared.clone(), link.clone(), under_way.clone());
        tokio::spawn(async move {
            write(&shared, &link, member, pace.write_deadline).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
    drained(&under_way).await;
}

/// Reads from one member until stopped; ends when nothing is under way any more.
pub async fn read_loop(shared: Arc<Shared>, link: Arc<Link>, member: usize, pace: Pace) {
    let mut ticks = tokio::time::interval(pace.read_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let under_way = Arc::new(AtomicUsize::new(0));
    while !shared.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        if under_way.load(Ordering::Relaxed) >= UNDER_WAY_MAX {
            continue;
        }
        let Some(expected) = shared.ledger().begin_read(member) else {
            continue;
        };
        under_way.fetch_add(1, Ordering::Relaxed);
        let (shared, link, under_way) = (shared.clone(), link.clone(), under_way.clone());
        tokio::spawn(async move {
            read(&shared, &link, member, expected, pace.serializable).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
    drained(&under_way).await;
}

async fn drained(under_way: &AtomicUsize) {
    let give_up_at = Instant::now() + READ_DEADLINE;
    while under_way.load(Ordering::Relaxed) > 0 && Instant::now() < give_up_at {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write(shared: &Shared, link: &Link, member: usize, deadline: Duration) {
    let (id, key) = {
        let mut ledger = shared.ledger();
        let id = ledger.begin_write(member);
        (id, ledger.key(id))
    };
    let put = PutRequest { value: value(&key), key, ..Default::default() };
    let outcome = link.call_within(grpc::PUT, grpc::encode_frame(&put), deadline).await;
    let at = Instant::now();
    match outcome.and_then(|answer| put_revision(&answer)) {
        Ok(revision) => shared.ledger().acknowledged(id, revision, at),
        Err(failure) => shared.ledger().write_failed(id, failure.to_string()),
    }
}

async fn read(shared: &Shared, link: &Link, member: usize, expected: Ack, serializable: bool) {
    let key = shared.ledger().key(expected.id);
    let range = RangeRequest { key, serializable, ..Default::default() };
    let outcome = link.unary::<RangeResponse>(grpc::RANGE, &range, READ_DEADLINE).await;
    let mut ledger = shared.ledger();
    match outcome {
        Ok(answer) => {
            let revision = answer.header.map_or(0, |header| header.revision);
            ledger.read_answered(member, expected, answer.kvs.first(), revision);
        }
        Err(failure) => ledger.read_failed(member, failure.to_string()),
    }
}

fn put_revision(answer: &Bytes) -> Result<i64, CallError> {
    let decoded = PutResponse::decode(&answer[..]).ok().and_then(|response| response.header);
    match decoded {
        Some(header) => Ok(header.revision),
        None => Err(CallError::Malformed("a put's answer without header")),
    }
}
