//! The handle by which the rest of the process uses the node. Cheap to clone; knows nothing
//! of protocols.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::kv;
use crate::raft::{Change, Index, NodeId, Term};

use super::admission::Admission;
use super::clock::Watchdog;
use super::error::RequestError;
use super::event::Event;
use super::read_batcher;
use super::room::Room;
use super::status::{Member, Members, Status};

/// What the state machine made of a command.
#[derive(Debug)]
pub struct Applied {
    /// Its answer; an error of `kv` is an outcome too, the same on every member.
    pub answer: Result<kv::Answer, kv::Error>,
    /// Where the command stands in the log.
    pub index: Index,
    /// In which term it got there.
    pub term: Term,
}

/// The caller that waits for an outcome: the ticket of the real node.
#[derive(Debug)]
pub enum Ticket {
    /// For a command.
    Propose(oneshot::Sender<Result<Applied, RequestError>>),
    /// For a read barrier, for leadership to move, or for a change of the membership.
    Barrier(oneshot::Sender<Result<(), RequestError>>),
    /// For a vote.
    Vote(oneshot::Sender<Result<bool, RequestError>>),
}

impl Ticket {
    /// Tells the caller that the request failed. It may not be waiting any more.
    pub fn fail(self, why: RequestError) {
        match self {
            Self::Propose(reply) => drop(reply.send(Err(why))),
            Self::Barrier(reply) => drop(reply.send(Err(why))),
            Self::Vote(reply) => drop(reply.send(Err(why))),
        }
    }
}

/// Bounds on what a client may ask.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest encoded command.
    pub request_bytes_max: usize,
    /// The data size past which commands that add data are refused.
    pub quota_bytes: u64,
    /// The longest that a request waits for its outcome.
    pub request_timeout: Duration,
}

/// The node, as `api` and `admin` see it.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Event<Ticket>>,
    /// Where barriers are shared, if they are.
    barriers: Option<mpsc::Sender<read_batcher::Waiting>>,
    status: watch::Receiver<Arc<Status>>,
    pulse: Watchdog,
    machine: Arc<RwLock<kv::Machine>>,
    members: Members,
    admission: Admission,
    limits: Limits,
    room: Room,
    revisions: watch::Receiver<i64>,
}

impl Handle {
    /// A handle of the driver behind `requests`.
    pub fn new(
        requests: mpsc::Sender<Event<Ticket>>,
        status: watch::Receiver<Arc<Status>>,
        pulse: Watchdog,
        machine: Arc<RwLock<kv::Machine>>,
        members: Vec<Member>,
        limits: Limits,
    ) -> Self {
        let members = Members::new(members);
        let admission = Admission::new(limits.request_timeout);
        let room = Room::default();
        // Never changes.
        let revisions = watch::channel(0).1;
        Self {
            requests,
            barriers: None,
            status,
            pulse,
            machine,
            members,
            admission,
            limits,
            room,
            revisions,
        }
    }

    /// The same handle, which lets nothing in that adds data while `room` is short.
    #[must_use]
    pub fn minding(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// The same handle, which knows of each revision by `revisions`.
    #[must_use]
    pub fn announcing(self, revisions: watch::Receiver<i64>) -> Self {
        Self { revisions, ..self }
    }

    /// Wakes when the store has come to another revision, or was replaced.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.clone()
    }

    /// What is known of the room on the disk.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The same handle, with its read barriers asked for through a [`read_batcher::run`] that
    /// passes them on to the same driver.
    #[must_use]
    pub fn sharing_barriers(self, barriers: mpsc::Sender<read_batcher::Waiting>) -> Self {
        Self { barriers: Some(barriers), ..self }
    }

    /// Replicates a command. Resolves once it is applied on this member.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; what [`is_definite`](RequestError::is_definite) had no effect.
    pub async fn propose(&self, command: kv::Command) -> Result<Applied, RequestError> {
        let data = command.encode();
        let more_bytes = command.cost_bytes();
        // One copy is enough to wait with.
        drop(command);
        if data.len() > self.limits.request_bytes_max {
            return Err(RequestError::TooLarge);
        }
        if self.lacks_room(more_bytes) {
            return Err(RequestError::NoSpace);
        }
        let admitted = self.admission.admit(data.len()).await?;
        let (reply, outcome) = oneshot::channel();
        self.request(Event::Propose { data, ticket: Ticket::Propose(reply) })?;
        let outcome = match admitted.deadline {
            None => outcome.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, outcome).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(RequestError::Timeout),
            },
        };
        outcome.unwrap_or(Err(RequestError::Stopped))
    }

    /// After this, any look at the store sees every write acknowledged before the call.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; a barrier never has an effect.
    pub async fn read_barrier(&self) -> Result<(), RequestError> {
        let (reply, outcome) = oneshot::channel();
        match &self.barriers {
            Some(barriers) => barriers.try_send(reply).map_err(|refused| unsent(&refused))?,
            None => self.request(Event::Read { ticket: Ticket::Barrier(reply) })?,
        }
        outcome.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// Looks at the store. Writes wait meanwhile: keep it short.
    pub fn with_store<R>(&self, look: impl FnOnce(&kv::Store) -> R) -> R {
        // A panic aborts the process in release; in tests a poisoned store is still whole,
        // since readers do not change it.
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        look(machine.store())
    }

    /// The latest status.
    pub fn status(&self) -> Arc<Status> {
        let status = Arc::clone(&self.status.borrow());
        if !status.alive || self.pulse.is_fresh() {
            return status;
        }
        // The driver has not turned for a while: its last word is not to be trusted.
        Arc::new(Status {
            alive: false,
            ready: false,
            leader_confirmed: false,
            ..(*status).clone()
        })
    }

    /// The last entry that the store is known to hold: at least that of every answer given.
    pub fn applied_index(&self) -> Index {
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        self.status.borrow().applied.max(Index(machine.applied()))
    }

    /// Wakes whenever the status changes. A driver that hangs does not wake it: ask
    /// [`status`](Self::status) now and then too.
    pub fn watch_status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The members now.
    pub fn members(&self) -> Vec<Member> {
        self.members.list()
    }

    /// The members, to be told what they say of themselves.
    pub fn directory(&self) -> Members {
        self.members.clone()
    }

    /// The bounds on requests.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Hands leadership to `to`, or to the most caught-up voter. Resolves once that one leads.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotLeader`], [`RequestError::BadTransferee`], or a time-out.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<(), RequestError> {
        let (reply, outcome) = oneshot::channel();
        self.request(Event::Transfer { to, ticket: Ticket::Barrier(reply) })?;
        outcome.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// Changes the membership, in one step. Resolves once that is committed and known here.
    ///
    /// # Errors
    ///
    /// [`RequestError::Change`] says why the membership stays as it is; after a time-out it may
    /// still change.
    pub async fn change_membership(&self, changes: Vec<Change>) -> Result<(), RequestError> {
        let (reply, outcome) = oneshot::channel();
        self.request(Event::Change { changes, ticket: Ticket::Barrier(reply) })?;
        outcome.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// Asks this member, by every rule, for its vote for a candidate whose log is empty.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooManyRequests`] or [`RequestError::Stopped`].
    pub async fn request_vote(&self, candidate: NodeId, term: Term) -> Result<bool, RequestError> {
        let (reply, outcome) = oneshot::channel();
        self.request(Event::VoteRequest { candidate, term, ticket: Ticket::Vote(reply) })?;
        outcome.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// Begins to stop: goes unready, hands leadership over. Does not wait.
    ///
    /// # Errors
    ///
    /// [`RequestError::Stopped`] if it has stopped already.
    pub async fn begin_stop(&self) -> Result<(), RequestError> {
        self.requests.send(Event::Stop).await.map_err(|_| RequestError::Stopped)
    }

    fn lacks_room(&self, more_bytes: u64) -> bool {
        let over_quota =
            || self.with_store(kv::Store::size_bytes) + more_bytes > self.limits.quota_bytes;
        more_bytes > 0 && (self.room.is_short() || over_quota())
    }

    fn request(&self, event: Event<Ticket>) -> Result<(), RequestError> {
        self.requests.try_send(event).map_err(|refused| unsent(&refused))
    }

    /// The way to the driver, for those who pass requests on.
    pub fn requests(&self) -> mpsc::Sender<Event<Ticket>> {
        self.requests.clone()
    }
}

fn unsent<T>(refused: &mpsc::error::TrySendError<T>) -> RequestError {
    match refused {
        mpsc::error::TrySendError::Full(_) => RequestError::TooManyRequests,
        mpsc::error::TrySendError::Closed(_) => RequestError::Stopped,
    }
}
