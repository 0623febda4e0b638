//! What one member owes to every other, checked at each of its steps (figure 2, figure 3, §5.1).
//!
//! What takes the whole cluster to see is in `ghost`.

use raft_node::raft::{Body, Entry, Message, Payload, Role, Term};

use crate::durable::Durable;
use crate::server::{Checked, Input, Reaction, Server, check};

const REVEALS: &str = "vote, term and entries are durable before a message reveals them";

/// What a message reveals is on its sender's disk.
pub fn of_a_message(durable: &Durable, message: &Message) -> Checked<()> {
    let hard_state = durable.hard_state;
    let term = message.term;
    let holds = match &message.body {
        // The term of a granted pre-vote is the candidate's idea.
        Body::Vote { granted: true, pre_vote: true } => true,
        Body::RequestVote { pre_vote: true, .. } => Term(term.0 - 1) <= hard_state.term,
        Body::Vote { granted: true, pre_vote: false } => {
            hard_state.term > term
                || (hard_state.term == term && hard_state.vote == Some(message.to))
        }
        Body::RequestVote { pre_vote: false, last, .. } => {
            hard_state.term > term
                || (hard_state.term == term
                    && hard_state.vote == Some(message.from)
                    && durable.last() >= *last)
        }
        Body::Appended { last } => hard_state.term >= term && durable.last().index >= *last,
        _ => hard_state.term >= term,
    };
    check(holds, REVEALS, || format!("{message:?} with {hard_state:?} on disk"))
}

/// Nothing is applied that is not durable here, and nothing out of order.
pub fn of_an_apply(server: &Server, entry: &Entry) -> Checked<()> {
    let durable = server.durable.entry(entry.id.index) == Some(entry);
    check(durable, "only what is durable is applied", || {
        format!("{} applies {entry:?}", server.id)
    })?;
    let next = server.node.applied_index().next();
    check(entry.id.index == next, "entries are applied in order, without gaps", || {
        format!("{} applies {entry:?} where {next} is next", server.id)
    })
}

/// A leader knows what is committed before it lets anybody read.
pub fn of_a_grant(server: &Server) -> Checked<()> {
    let node = &server.node;
    let own_term =
        node.role() != Role::Leader || node.term_at(node.committed()) == Some(node.term());
    check(own_term, "no read before the first commit of the term", || {
        format!("{} has committed {} in term {}", server.id, node.committed(), node.term())
    })
}

/// After every step of a server.
pub fn of_a_step(before: &Server, input: &Input, after: &Reaction) -> Checked<()> {
    monotone(before, input, &after.server)?;
    log_in_memory(&after.server)?;
    leader(before, input, after)?;
    if let Input::Timeout = input {
        campaigns(before, after)?;
    }
    if let Input::Message(message) = input {
        message_obeyed(before, message, after)?;
        vote_given(before, message, after)?;
    }
    Ok(())
}

/// §5.1: terms rise, a vote stands for its term, what is committed stays so; on disk always, in
/// memory until a crash.
fn monotone(before: &Server, input: &Input, after: &Server) -> Checked<()> {
    let (old, new) = (before.durable.hard_state, after.durable.hard_state);
    let vote =
        |old: Term, new: Term, given: Option<_>, now| old != new || given.is_none() || given == now;
    let holds = new.term >= old.term && vote(old.term, new.term, old.vote, new.vote);
    check(holds, "terms rise and votes stand", || format!("{old:?} on disk became {new:?}"))?;
    if matches!(input, Input::Crash(_)) {
        return Ok(());
    }
    let (old, new) = (&before.node, &after.node);
    let (old_status, new_status) = (old.status(), new.status());
    let holds =
        new.term() >= old.term() && vote(old.term(), new.term(), old_status.vote, new_status.vote);
    check(holds, "terms rise and votes stand", || format!("{old_status:?} became {new_status:?}"))?;
    check(new.committed() >= old.committed(), "the commit index never falls", || {
        format!("{} became {}", old.committed(), new.committed())
    })
}

/// The log in memory is the one that the writes under way make, membership included.
fn log_in_memory(server: &Server) -> Checked<()> {
    let Server { node, planned, .. } = server;
    let same = node.last_index() == planned.last().index
        && planned.entries.iter().all(|entry| {
            entry.id.index < node.first_index()
                || node.term_at(entry.id.index) == Some(entry.id.term)
        });
    check(same, "what is in memory goes to disk", || format!("{node:?} but {planned:?}"))?;
    check(node.membership() == planned.configuration(), "the log tells the membership", || {
        format!("{:?} is in force under {planned:?}", node.membership())
    })
}

/// What a leader must and must not do.
fn leader(before: &Server, input: &Input, after: &Reaction) -> Checked<()> {
    let (old, new) = (&before.node, &after.server.node);
    if new.role() != Role::Leader {
        return Ok(());
    }
    check(after.server.last().term == new.term(), "a leader's log ends in its term", || {
        format!("{} leads term {} with {:?}", after.server.id, new.term(), after.server.last())
    })?;
    if old.role() != Role::Leader || old.term() != new.term() {
        return Ok(());
    }
    let (had, has) = (&before.planned, &after.server.planned);
    let kept = had.entries.iter().all(|entry| {
        entry.id.index <= has.base.last.index || has.entry(entry.id.index) == Some(entry)
    });
    check(kept, "leaders only append", || format!("{had:?} became {has:?}"))?;
    let hands_over = old.status().transferring_to.is_some();
    let took = has.entries.iter().any(|entry| {
        entry.id.index > had.last().index && matches!(entry.payload, Payload::Command(_))
    });
    check(!(hands_over && took), "no proposal is taken while handing over", || {
        format!("{} took one by {input:?}", before.id)
    })
}

/// Whoever may be needed to lead asks for it when its timer runs out: every voter of what is
/// committed, though a change that is not may leave it out (thesis §4.2.2).
fn campaigns(before: &Server, after: &Reaction) -> Checked<()> {
    let (old, new) = (&before.node, &after.server.node);
    let needed = old.membership_at(old.committed()).is_voter(before.id);
    let able = old.applied_index() >= old.first_index().prev() && old.role() != Role::Leader;
    check(!(needed && able) || new.role() != Role::Follower, "voters campaign", || {
        format!("{} stays silent as a {:?}", before.id, new.role())
    })
}

/// A vote is for whoever asks first with a complete log and has a say, if no leader is known; also
/// that of a member that does not know yet that it is a voter (etcd#10998).
fn vote_given(before: &Server, message: &Message, after: &Reaction) -> Checked<()> {
    let Body::RequestVote { last, pre_vote, .. } = message.body else { return Ok(()) };
    let old = &before.node;
    let may_lead = old.membership().is_voter(message.from)
        || (last > before.last() && old.has_standing(message.from));
    let due = message.term > old.term()
        && (old.role() == Role::Follower && (old.leader().is_none() || before.cut_off))
        && before.writes.is_empty()
        && !old.membership().removed.contains(&message.from)
        && (may_lead && last >= before.last());
    let yes = |said: &Message| {
        said.to == message.from && said.body == Body::Vote { granted: true, pre_vote }
    };
    let given = if pre_vote {
        after.sent.iter().any(yes)
    } else {
        after.server.node.status().vote == Some(message.from)
    };
    check(!due || given, "votes are not withheld", || format!("{message:?} to {:?}", old.status()))
}

/// What the term of a message commands (§5.1), and who may be helped to lead (thesis §4.2.3, §9.6).
fn message_obeyed(before: &Server, message: &Message, after: &Reaction) -> Checked<()> {
    let (old, new) = (&before.node, &after.server.node);
    let told = || format!("{message:?} to {:?}", old.status());
    let question = matches!(message.body, Body::RequestVote { pre_vote: true, .. });
    let grant = matches!(message.body, Body::Vote { granted: true, pre_vote: true });
    let moved = new.term() > old.term();
    check(!(question && moved), "a question changes no term", told)?;
    if message.term < old.term() && !grant && !matches!(message.body, Body::Refused { .. }) {
        check(old.status() == new.status(), "a message of the past has no effect", told)?;
    }
    let of_no_term = matches!(
        message.body,
        Body::TimeoutNow | Body::AskMembers | Body::Members { .. } | Body::Removed { .. }
    );
    let commands = !matches!(message.body, Body::RequestVote { .. })
        && !of_no_term
        && !grant
        && old.membership().members().contains(&message.from);
    if commands && message.term > old.term() {
        check(new.term() >= message.term, "a higher term is followed", told)?;
    }
    if let Body::RequestVote { transfer: false, pre_vote, .. } = message.body {
        let in_leader_lease = match old.role() {
            Role::Leader => true,
            Role::Follower => old.leader().is_some() && before.hears,
            Role::PreCandidate | Role::Candidate => false,
        };
        let yes = |said: &Message| {
            said.to == message.from && said.body == Body::Vote { granted: true, pre_vote }
        };
        let news = old.status().vote != Some(message.from) || message.term > old.term();
        let helped = after.sent.iter().any(yes) && (pre_vote || news);
        check(!(in_leader_lease && (helped || moved)), "a live leader shields", told)?;
    }
    Ok(())
}

/// The request that a command in the log answers to.
pub fn request_in(entry: &Entry) -> Option<raft_node::raft::RequestId> {
    match &entry.payload {
        Payload::Command(proposal) => Some(proposal.id),
        Payload::Noop | Payload::Config(_) => None,
    }
}
