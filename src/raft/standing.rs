//! Who has a say: whose word may change this member's term, leader, log or snapshot.
//!
//! The members of any configuration that the log in memory holds have a say, and those that this
//! member's operator named. Nobody else has: whoever reaches the peer port can claim to lead in a
//! term of its choice, and every member would follow and remember it.
//!
//! A member that was away may lack the configuration in which the present leader joined, and a
//! leader must be accepted wherever it joined (thesis §4.2.2). So a claim of somebody unknown is
//! dropped, but makes this member ask those it knows who the members are. Whom one of them names
//! is *vouched for*, and heard from then on. Nothing of that is kept on disk: after a restart the
//! question is asked again. If all whom this member knows are gone, its operator has to name those
//! who are there now (`Config::address_overrides`).
//!
//! A new machine has no configuration. It knows whom it asked to be taken in, and so hears those,
//! and whom they vouch for. One that was told of nobody hears everybody, as it has nothing to lose.
//!
//! Even a member does not take the term beyond reach at once: see [`TERM_STEP_MAX`].

use std::collections::BTreeSet;

use crate::testpoints::{self, Mark, Mutant};

use super::config::Config;
use super::message::Body;
use super::node::RaftNode;
use super::types::{Index, NodeId, Term};

/// A message raises the term by at most this. At a thousand elections a second, a member would have
/// to be away for two years to be left behind by more; then it needs several messages. The
/// highest term that is accepted at all is millions of such steps away.
pub(super) const TERM_STEP_MAX: u64 = 1 << 36;

/// A snapshot moves the log on by at most this: a million entries a second for eight years.
const INDEX_STEP_MAX: u64 = 1 << 48;

/// Most members that are remembered as vouched for.
const VOUCHED_MAX: usize = 256;

/// Who was vouched for, and when members may be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    pub(super) vouched: BTreeSet<NodeId>,
    /// However often somebody unknown speaks, members are not asked before.
    pub(super) rest_ticks: u32,
}

impl RaftNode {
    /// Whether `id` may lead this member, or be given its vote.
    pub fn has_standing(&self, id: NodeId) -> bool {
        self.membership.has_named(id)
            || self.standing.vouched.contains(&id)
            || self.was_told_of().any(|told| told == id)
            || (self.is_blank() && self.was_told_of().next().is_none())
            || testpoints::mutant(Mutant::StrangerFollowed)
    }

    /// Whom the operator named, or those named who took this member in.
    fn was_told_of(&self) -> impl Iterator<Item = NodeId> {
        let Config { id, addresses, address_overrides, .. } = &self.config;
        let named = addresses.keys().chain(address_overrides.keys());
        named.copied().filter(move |told| told != id)
    }

    /// No membership has reached this member yet.
    fn is_blank(&self) -> bool {
        self.membership.current().voters.is_empty()
    }

    /// Whether `from` may speak as a leader. If nothing is known of it, members are asked.
    pub(super) fn may_claim_to_lead(&mut self, from: NodeId) -> bool {
        let heard = self.has_standing(from);
        if !heard {
            self.ask_for_members();
        }
        heard
    }

    /// Somebody unknown has a say if a member knows it.
    pub(super) fn ask_for_members(&mut self) {
        testpoints::mark(Mark::StrangerUnheard);
        if self.standing.rest_ticks > 0 {
            return;
        }
        self.standing.rest_ticks = self.config.heartbeat_ticks;
        let own = self.config.id;
        let mut known = self.membership.current().members();
        if self.is_blank() {
            known.extend(self.was_told_of());
        }
        for member in known.into_iter().filter(|member| *member != own) {
            self.send(member, Body::AskMembers);
        }
    }

    /// Who the members are is no secret.
    pub(super) fn handle_ask_members(&mut self, from: NodeId) {
        let ids = self.membership.current().members().into_iter().collect();
        self.send(from, Body::Members { ids });
    }

    /// A member that has a say names others.
    pub(super) fn handle_members(&mut self, from: NodeId, ids: Vec<NodeId>) {
        if !self.has_standing(from) {
            return;
        }
        let own = self.config.id;
        let unknown = |id: &NodeId| *id != own && !self.membership.has_named(*id);
        let news: Vec<NodeId> = ids.into_iter().filter(unknown).collect();
        if news.is_empty() {
            return;
        }
        testpoints::mark(Mark::StrangerVouchedFor);
        if self.standing.vouched.len() + news.len() > VOUCHED_MAX {
            self.standing.vouched.clear();
        }
        self.standing.vouched.extend(news.into_iter().take(VOUCHED_MAX));
    }

    /// The term that a message of `term` may raise this one to.
    pub(super) fn within_reach(&self, term: Term) -> Term {
        if testpoints::mutant(Mutant::TermUnbounded) {
            return term;
        }
        term.min(Term(self.term.0.saturating_add(TERM_STEP_MAX)))
    }

    /// Whether a snapshot up to `last` can be of this cluster.
    pub(super) fn is_snapshot_within_reach(&self, last: Index) -> bool {
        last.0 <= self.log.last().index.0.saturating_add(INDEX_STEP_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::testing::{config, id};
    use crate::raft::types::{Configuration, EntryId, HardState, SnapshotMeta};
    use crate::raft::{Message, Restored};

    /// A machine that has just been taken in, and was told of these.
    fn blank(told: &[u64]) -> RaftNode {
        let mut config = config(7, 1);
        config.addresses = told.iter().map(|raw| (id(*raw), format!("host{raw}"))).collect();
        let base = SnapshotMeta { last: EntryId::default(), config: Configuration::default() };
        let hard_state = HardState::default();
        let applied = Index(0);
        RaftNode::new(config, Restored { hard_state, base, entries: Vec::new(), applied })
    }

    fn says(node: &mut RaftNode, from: u64, term: u64, body: Body) {
        node.step(Message { from: id(from), to: id(7), term: Term(term), body });
    }

    fn beat() -> Body {
        Body::Heartbeat { commit: Index(0), round: 1, successor: None }
    }

    fn asked(node: &mut RaftNode) -> Vec<NodeId> {
        let messages = node.ready().messages;
        let questions = messages.iter().filter(|message| message.body == Body::AskMembers);
        questions.map(|message| message.to).collect()
    }

    #[test]
    fn a_new_machine_hears_those_it_asked() {
        let mut node = blank(&[1, 2]);
        says(&mut node, 2, 5, beat());
        assert_eq!((node.term(), node.leader()), (Term(5), Some(id(2))));
    }

    #[test]
    fn a_new_machine_asks_in_term_0_about_whom_it_was_not_told_of() {
        let mut node = blank(&[1, 2]);
        says(&mut node, 9, 5, beat());
        assert_eq!((node.term(), node.leader()), (Term(0), None));
        assert_eq!(asked(&mut node), [id(1), id(2)]);
        says(&mut node, 9, 5, Body::Members { ids: vec![id(9)] });
        says(&mut node, 9, 5, beat());
        assert_eq!(node.leader(), None, "nobody vouches for itself");
        says(&mut node, 1, 5, Body::Members { ids: vec![id(1), id(9)] });
        says(&mut node, 9, 5, beat());
        assert_eq!((node.term(), node.leader()), (Term(5), Some(id(9))));
    }

    #[test]
    fn members_are_asked_no_more_often_than_a_leader_speaks() {
        let mut node = blank(&[1]);
        let mut questions = 0;
        for _ in 0..30 {
            (0..100).for_each(|_| says(&mut node, 9, 5, beat()));
            questions += asked(&mut node).len();
            node.tick();
        }
        assert_eq!(questions, 10, "heartbeats are 3 ticks apart");
    }

    #[test]
    fn those_who_were_vouched_for_are_bounded() {
        let mut node = blank(&[1]);
        for from in 0..50 {
            let ids = (0..100).map(|nth| id(100 + 100 * from + nth)).collect();
            says(&mut node, 1, 1, Body::Members { ids });
            assert!(node.standing.vouched.len() <= VOUCHED_MAX);
        }
    }
}
