//! Changes of the membership that somebody waits for.
//!
//! A change is asked of the leader of a term, and can enter the log in that term alone. Once an
//! entry of a later term is applied here, it is known whether it did: if it is neither done nor
//! under way by then, it never will be, and may be asked for again. So a change outlives its
//! leader, and is done once.

use crate::raft::{Change, ChangeError, Configuration, Refusal, RequestId, Term};

use super::super::error::RequestError;
use super::super::pending_proposals::Tick;

/// Most changes that wait at once; more are refused.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
struct Waiting<T> {
    changes: Vec<Change>,
    ticket: T,
    deadline: Tick,
    /// Under which name, and in which term, it was asked for last.
    asked: Option<(RequestId, Term)>,
    /// Not to be asked for before this.
    retry_at: Tick,
    /// Why it was refused last, for now.
    postponed: Option<ChangeError>,
}

/// All of them, oldest first.
#[derive(Debug)]
pub struct Changes<T>(Vec<Waiting<T>>);

impl<T> Changes<T> {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Somebody wants `changes`, in one step, and waits until `deadline`. Handed back if too many
    /// wait already.
    pub fn want(&mut self, changes: Vec<Change>, ticket: T, deadline: Tick) -> Result<(), T> {
        if self.0.len() >= WAITING_MAX {
            return Err(ticket);
        }
        let (asked, postponed) = (None, None);
        self.0.push(Waiting { changes, ticket, deadline, asked, retry_at: 0, postponed });
        Ok(())
    }

    /// The next one to ask the leader of `term` for. Each time it gets another name from `name`.
    pub fn next_due(
        &mut self,
        now: Tick,
        term: Term,
        name: impl FnOnce() -> RequestId,
    ) -> Option<(RequestId, Vec<Change>)> {
        let due = |one: &&mut Waiting<T>| one.asked.is_none() && one.retry_at <= now;
        let one = self.0.iter_mut().find(due)?;
        let id = name();
        one.asked = Some((id, term));
        Some((id, one.changes.clone()))
    }

    /// It was refused. Gives who waits, unless it will be asked for again.
    pub fn refused(
        &mut self,
        id: RequestId,
        why: Refusal,
        now: Tick,
    ) -> Option<(T, Result<(), RequestError>)> {
        let at = self.position(id)?;
        let one = &mut self.0[at];
        one.asked = None;
        one.retry_at = now + 1;
        match why {
            Refusal::NotLeader | Refusal::Transferring | Refusal::Busy => None,
            Refusal::Change(why @ (ChangeError::InProgress | ChangeError::LeaderNotReady)) => {
                one.postponed = Some(why);
                None
            }
            // As somebody who asks twice wants to hear it.
            Refusal::Change(ChangeError::NoChange) => Some((self.0.remove(at).ticket, Ok(()))),
            Refusal::Change(why) => {
                Some((self.0.remove(at).ticket, Err(RequestError::Change(why))))
            }
        }
    }

    /// A configuration was applied. Gives who waited for it.
    pub fn applied(&mut self, config: &Configuration) -> Option<T> {
        let id = config.request.filter(|_| !config.is_joint())?;
        let at = self.position(id)?;
        Some(self.0.remove(at).ticket)
    }

    /// An entry of `term` is about to be applied, under `config`: what was asked for in an earlier
    /// term and is not under way did not come about.
    pub fn on_new_term(&mut self, term: Term, config: &Configuration) {
        for one in &mut self.0 {
            if let Some((id, asked_in)) = one.asked
                && asked_in < term
                && config.request != Some(id)
            {
                one.asked = None;
            }
        }
    }

    /// A snapshot skipped what was applied. Gives those whose outcome it hides.
    pub fn unknowable(&mut self, config: &Configuration) -> Vec<T> {
        let under_way = |one: &Waiting<T>| match one.asked {
            Some((id, _)) => config.request == Some(id),
            None => true,
        };
        let (kept, hidden) = std::mem::take(&mut self.0).into_iter().partition(under_way);
        self.0 = kept;
        let hidden: Vec<Waiting<T>> = hidden;
        hidden.into_iter().map(|one| one.ticket).collect()
    }

    /// Hands back those whose time is up.
    pub fn expired(&mut self, now: Tick) -> Vec<(T, RequestError)> {
        let (late, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|one| one.deadline <= now);
        self.0 = kept;
        let why = |one: &Waiting<T>| match (one.asked, one.postponed) {
            (None, Some(why)) => RequestError::Change(why),
            (Some(_), _) | (None, None) => RequestError::Timeout,
        };
        late.into_iter().map(|one| (why(&one), one.ticket)).map(|(why, t)| (t, why)).collect()
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        self.0.iter().position(|one| one.asked.is_some_and(|(asked, _)| asked == id))
    }
}
