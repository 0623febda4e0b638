//! Plays the golden scripts in `testdata`. Each tells one story; its commands are below.
//!
//! A script starts with `cluster`. Members do nothing of their own accord: no time passes, no
//! message arrives and no write ends unless a command says so. What an input makes a member do
//! is printed as it happens. `settle` ends writes, applies and delivers until nothing is left to
//! do, and prints only what changed.
//!
//! To rewrite the outputs after a change, run the tests with `UPDATE_GOLDENFILES=1`, and commit
//! only what you understand.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};

use super::super::snapshot::LogCacheLimits;
use super::super::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, Payload, Proposal, RaftNode,
    Ready, RequestId, Role, SnapshotMeta, Term,
};
use super::checker::Checker;
use super::member::{Durable, Member};
use super::{config, id, show};

mod membership;

type Outcome = Result<(), Box<dyn Error>>;

/// A cluster in the hands of a script.
#[derive(Default)]
struct Script {
    members: Vec<Member>,
    /// What each was, for "x → y".
    roles: BTreeMap<NodeId, Role>,
    network: Vec<Message>,
    cut: BTreeSet<(NodeId, NodeId)>,
    sequences: BTreeMap<NodeId, u64>,
    checker: Checker,
    /// Print messages and writes too.
    verbose: bool,
    output: String,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        self.verbose = true;
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => self.cluster(&mut args)?,
            "disk" => self.disk(&mut args)?,
            "lead" | "pass" => self.broad(&command.name, &mut args)?,
            "campaign" | "tick" | "late" | "lost" | "propose" | "read" | "transfer" => {
                self.input(&command.name, &mut args)?;
            }
            "write" | "apply" | "crash" | "restart" | "compact" | "shrink" => {
                self.machine(&command.name, &mut args)?;
            }
            "deliver" | "drop" | "repeat" | "settle" | "cut" | "heal" | "network" => {
                self.wires(&command.name, &mut args)?;
            }
            "snapshot" | "snapshot_sent" => self.snapshot(&command.name, &mut args)?,
            "step" => self.inject(&mut args)?,
            "join" | "change" | "members" | "reached" => {
                self.membership(&command.name, &mut args)?;
            }
            "status" | "peers" | "log" => self.look(&command.name, &mut args)?,
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(std::mem::take(&mut self.output))
    }
}

impl Script {
    /// `cluster voters=1,2,3 [learners=4] [outgoing=1,2] [LIMIT=n …]`
    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let configuration = Configuration {
            voters: list(args.take_key("voters").ok_or("who?")?)?.into_iter().collect(),
            outgoing: list(args.take_key("outgoing").unwrap_or(""))?.into_iter().collect(),
            learners: list(args.take_key("learners").unwrap_or(""))?.into_iter().collect(),
            ..Configuration::default()
        };
        let limits: Vec<(String, usize)> = std::iter::from_fn(|| args.next_key())
            .map(|(key, value)| Ok((key.to_owned(), value.parse()?)))
            .collect::<Result<_, Box<dyn Error>>>()?;
        for member in configuration.members() {
            let mut config = config(member.get(), 7);
            for (limit, value) in &limits {
                *match limit.as_str() {
                    "append_bytes" => &mut config.append_bytes_max,
                    "inflight_messages" => &mut config.inflight_messages_max,
                    "inflight_bytes" => &mut config.inflight_bytes_max,
                    "uncommitted_bytes" => &mut config.uncommitted_bytes_max,
                    "reads_pending" => &mut config.reads_pending_max,
                    "ready_bytes" => &mut config.ready_bytes_max,
                    other => return Err(format!("unknown limit {other}").into()),
                } = *value;
            }
            self.roles.insert(member, Role::Follower);
            self.members.push(Member::new(config, Durable::new(configuration.clone())));
        }
        Ok(())
    }

    /// `disk 1 [log=1,1,2] [term=3] [vote=2] [commit=1]`: start again from this. The log is given
    /// by the terms of its entries.
    fn disk(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let at = self.member(args)?;
        let terms = numbers(args.take_key("log").unwrap_or(""))?;
        let term = args.take_key("term").map(str::parse).transpose()?;
        let vote = args.take_key("vote").map(str::parse).transpose()?.map(id);
        let commit = args.take_key("commit").unwrap_or("0").parse()?;
        let durable = &mut self.members[at].durable;
        let entries = terms.iter().zip(1..).map(|(term, index)| Entry {
            id: EntryId { term: Term(*term), index: Index(index) },
            payload: Payload::Noop,
        });
        durable.entries = entries.collect();
        durable.hard_state.term = Term(term.or(terms.last().copied()).unwrap_or(0));
        durable.hard_state.vote = vote;
        durable.hard_state.commit = Index(commit);
        self.members[at].crash(0);
        self.members[at].start();
        self.checker.crashed(self.members[at].config.id, &self.members[at].durable);
        Ok(())
    }

    /// `lead 1`: campaign, and settle without a word. `pass n`: n times, time passes for all,
    /// and all is settled.
    fn broad(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        self.verbose = false;
        if name == "lead" {
            let at = self.member(args)?;
            self.act(at, RaftNode::campaign);
            self.settle(None)?;
            self.output.clear();
            let node = self.members[at].node.as_ref().ok_or("it is down")?;
            let status = show::status(node);
            self.say(at, &status);
            return Ok(());
        }
        let count: u32 = args.next_pos().ok_or("how often?")?.parse()?;
        for _ in 0..count {
            for at in 0..self.members.len() {
                if self.members[at].node.is_some() {
                    self.act(at, RaftNode::tick);
                }
            }
            self.settle(None)?;
        }
        Ok(())
    }

    /// `campaign 1`, `tick 1 [n]`, `late 1 [n]`, `lost 1 2`, `propose 1 a b`, `read 1 [n]`,
    /// `transfer 1 [2]`
    fn input(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let at = self.member(args)?;
        match name {
            "campaign" => self.act(at, RaftNode::campaign),
            "tick" | "late" => {
                let count = args.next_pos().unwrap_or("1").parse()?;
                let tick = if name == "late" { RaftNode::tick_late } else { RaftNode::tick };
                (0..count).for_each(|_: u32| self.act(at, tick));
            }
            "lost" => {
                let peer = self.member(args)?;
                let peer = self.members[peer].config.id;
                self.act(at, |node| node.peer_lost(peer));
            }
            "propose" => {
                let mut proposals = Vec::new();
                while let Some(data) = args.next_pos() {
                    let data = Bytes::copy_from_slice(data.as_bytes());
                    proposals.push(Proposal { id: self.next_request(at), data });
                }
                self.act(at, |node| node.propose(proposals));
            }
            "read" => {
                let count: u32 = args.next_pos().unwrap_or("1").parse()?;
                let ids: Vec<RequestId> = (0..count).map(|_| self.next_request(at)).collect();
                for id in &ids {
                    self.checker.read_begins(*id);
                }
                self.act(at, |node| ids.iter().for_each(|id| node.read_index(*id)));
            }
            _ => {
                let to = args.next_pos().map(str::parse).transpose()?.map(id);
                let mut result = Ok(());
                self.act(at, |node| result = node.transfer_leadership(to));
                if let Err(error) = result {
                    self.say(at, &format!("no transfer: {error}"));
                }
            }
        }
        Ok(())
    }

    /// `write 1 [n]`: the next n writes are durable. `apply 1`, `crash 1`, `restart 1`,
    /// `compact 1 [keep=n]`: save a snapshot, forget the log but for n entries.
    /// `shrink 1 [keep=n]`: forget all that is applied, but keep n bytes for a follower in touch.
    fn machine(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let at = self.member(args)?;
        match name {
            "write" => {
                let count: u32 = args.next_pos().unwrap_or("1").parse()?;
                for _ in 0..count {
                    self.finish_write(at);
                }
            }
            "apply" => self.apply(at),
            "crash" => {
                self.members[at].crash(0);
                let member = &self.members[at];
                self.checker.crashed(member.config.id, &member.durable);
                self.checker.forget_reads(member.config.id);
            }
            "restart" => {
                self.members[at].start();
                self.roles.insert(self.members[at].config.id, Role::Follower);
            }
            "shrink" => {
                let lagging_bytes_max = args.take_key("keep").unwrap_or("0").parse()?;
                let room = LogCacheLimits { bytes_max: 0, lagging_bytes_max };
                self.act(at, |node| node.shrink_log(room));
            }
            _ => {
                let keep: u64 = args.take_key("keep").unwrap_or("0").parse()?;
                let meta = self.members[at].save_snapshot().ok_or("nothing new to save")?;
                let upto = Index(meta.last.index.0 - keep);
                self.say(at, &format!("snapshot {}, log begins after {upto}", meta.last));
                self.act(at, |node| node.compact(upto));
            }
        }
        Ok(())
    }

    /// `deliver|drop|repeat [from=1] [to=2] [kind=Append] [first=n]`, `network` (what is under
    /// way), `settle [verbose] [hung=1]` (1's disk hangs), `cut 1 2 …` (from everybody),
    /// `cut 1 from=2` (2's messages do not reach 1), `heal`
    fn wires(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        match name {
            "settle" => {
                let hung = args.take_key("hung").map(str::parse).transpose()?.map(id);
                self.verbose = args.next_pos() == Some("verbose");
                self.settle(hung)?;
            }
            "heal" => self.cut.clear(),
            "cut" => {
                let from = args.take_key("from").map(str::parse).transpose()?.map(id);
                while let Some(raw) = args.next_pos() {
                    let one = id(raw.parse()?);
                    for other in self.members.iter().map(|member| member.config.id) {
                        if from.is_none_or(|from| from == other) {
                            self.cut.insert((other, one));
                        }
                        if from.is_none() {
                            self.cut.insert((one, other));
                        }
                    }
                }
            }
            _ => {
                let matching = self.take_matching(args)?;
                match name {
                    "deliver" => matching.into_iter().for_each(|message| self.arrive(message)),
                    "drop" => matching.iter().for_each(|message| {
                        writeln!(self.output, "lost: {}", show::message(message))
                            .expect("a string");
                    }),
                    "repeat" => {
                        self.network.extend(matching.iter().cloned());
                        self.network.extend(matching);
                    }
                    _ => {
                        for message in &matching {
                            writeln!(self.output, "{}", show::message(message)).expect("a string");
                        }
                        self.network = matching;
                    }
                }
            }
        }
        Ok(())
    }

    /// `snapshot 1 3`: member 1 sends its snapshot, whole. `snapshot_sent 1 3 ok|failed`
    fn snapshot(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let (at, to) = (self.member(args)?, self.member(args)?);
        let to = self.members[to].config.id;
        let meta = self.members[at].durable.base.clone();
        if name == "snapshot" {
            let (from, node) = (self.members[at].config.id, self.members[at].node.as_ref());
            let term = node.ok_or("it is down")?.term();
            self.post(Message { from, to, term, body: Body::InstallSnapshot { meta } });
        } else {
            let ok = args.next_pos() == Some("ok");
            self.act(at, |node| node.snapshot_sent(to, ok, meta.last.index));
        }
        Ok(())
    }

    /// `step 2 1 term=3 KIND …`: a message that nobody sent. See `parse_body`.
    fn inject(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let from = id(args.next_pos().ok_or("from?")?.parse()?);
        let at = self.member(args)?;
        let to = self.members[at].config.id;
        let term = Term(args.take_key("term").ok_or("which term?")?.parse()?);
        let body = parse_body(args)?;
        self.act(at, |node| node.step(Message { from, to, term, body }));
        Ok(())
    }

    /// `status [1]`, `peers 1`, `log [1]`
    fn look(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let one = args.next_pos().map(str::parse).transpose()?.map(id);
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if one.is_some_and(|one| one != member.config.id) {
                continue;
            }
            let Some(node) = &member.node else {
                self.say(at, "down");
                continue;
            };
            let lines = match name {
                "status" => vec![show::status(node)],
                "peers" => show::peers(node),
                _ => {
                    let base = node.log.base();
                    let entries =
                        node.log.slice(base.index.next(), node.log.last().index, usize::MAX);
                    let entries: Vec<String> = entries.iter().map(show::entry).collect();
                    vec![format!("log after {base}: {}", entries.join(", "))]
                }
            };
            for line in &lines {
                self.say(at, line);
            }
        }
        Ok(())
    }

    fn member(&self, args: &mut ArgumentConsumer<'_>) -> Result<usize, Box<dyn Error>> {
        let raw: u64 = args.next_pos().ok_or("which member?")?.parse()?;
        let at = self.members.iter().position(|member| member.config.id == id(raw));
        at.ok_or_else(|| format!("no member {raw}").into())
    }

    fn next_request(&mut self, at: usize) -> RequestId {
        let origin = self.members[at].config.id;
        let sequence = self.sequences.entry(origin).or_insert(0);
        *sequence += 1;
        RequestId { origin, sequence: *sequence }
    }

    fn say(&mut self, at: usize, line: &str) {
        let id = self.members[at].config.id;
        writeln!(self.output, "n{id}: {line}").expect("a string");
    }

    /// Gives a member an input, and prints what it asks for.
    fn act(&mut self, at: usize, act: impl FnOnce(&mut RaftNode)) {
        let Some(node) = &mut self.members[at].node else {
            self.say(at, "is down");
            return;
        };
        act(node);
        let ready = node.ready();
        self.checker.observe(&self.members, at);
        self.checker.check_log(&self.members[at]);
        let Ready {
            messages,
            persist,
            committed,
            reads,
            refused,
            snapshots_wanted,
            soft_state,
            configuration,
            notices: _,
        } = ready;
        let id = self.members[at].config.id;
        if let Some(now) = soft_state {
            let before = self.roles.insert(id, now.role).expect("known from the start");
            self.say(at, &show::transition(before, now));
        }
        if let Some(configuration) = configuration {
            self.say(at, &format!("now under {}", show::configuration(&configuration)));
        }
        for (request, why) in refused {
            self.checker.refused(request);
            self.say(at, &format!("refused {} {why:?}", show::request(request)));
        }
        for grant in reads {
            self.checker.read_released(grant);
            self.say(at, &format!("read {} at {}", show::request(grant.id), grant.index));
        }
        for peer in snapshots_wanted {
            self.say(at, &format!("wants a snapshot for n{peer}"));
        }
        if let Some(batch) = persist {
            if self.verbose {
                self.say(at, &show::batch(&batch));
            }
            self.members[at].writes.push_back(batch);
        }
        for message in messages {
            self.post(message);
        }
        self.members[at].applying.extend(committed);
    }

    fn post(&mut self, message: Message) {
        let at = self.members.iter().position(|member| member.config.id == message.from);
        if let Some(at) = at {
            Checker::check_message(&self.members[at].durable, &message);
        }
        if self.verbose {
            writeln!(self.output, "{}", show::message(&message)).expect("a string");
        }
        self.network.push(message);
    }

    fn arrive(&mut self, message: Message) {
        let at = self.members.iter().position(|member| member.config.id == message.to);
        let up = at.filter(|at| self.members[*at].node.is_some());
        match up {
            Some(at) if !self.cut.contains(&(message.from, message.to)) => {
                self.act(at, |node| node.step(message));
            }
            Some(_) | None if self.verbose => {
                writeln!(self.output, "lost: {}", show::message(&message)).expect("a string");
            }
            Some(_) | None => {}
        }
    }

    fn take_matching(
        &mut self,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<Vec<Message>, Box<dyn Error>> {
        let from = args.take_key("from").map(str::parse).transpose()?.map(id);
        let to = args.take_key("to").map(str::parse).transpose()?.map(id);
        let kind = args.take_key("kind").unwrap_or("").to_owned();
        let mut first = args.take_key("first").map_or(Ok(usize::MAX), str::parse)?;
        let (mut matching, mut rest) = (Vec::new(), Vec::new());
        for message in std::mem::take(&mut self.network) {
            let shown = show::message(&message);
            let matches = from.is_none_or(|from| from == message.from)
                && to.is_none_or(|to| to == message.to)
                && (kind.is_empty() || shown.split(' ').nth(2) == Some(&kind));
            if matches && first > 0 {
                first -= 1;
                matching.push(message);
            } else {
                rest.push(message);
            }
        }
        self.network = rest;
        Ok(matching)
    }

    fn finish_write(&mut self, at: usize) -> bool {
        let Some(batch) = self.members[at].finish_write() else { return false };
        let seq = batch.seq;
        if let Some(meta) = batch.snapshot {
            self.members[at].applying.clear();
            self.act(at, |node| node.applied(meta.last.index));
            self.say(at, &format!("restored from snapshot {}", meta.last));
        }
        batch.messages_after.into_iter().for_each(|message| self.post(message));
        self.act(at, |node| node.persisted(seq));
        true
    }

    fn apply(&mut self, at: usize) {
        let entries: Vec<Entry> = std::mem::take(&mut self.members[at].applying).into();
        if let Some(last) = entries.last() {
            self.say(at, &format!("applies {}", show::entries(&entries)));
            let index = last.id.index;
            self.act(at, |node| node.applied(index));
        }
    }

    fn settle(&mut self, hung: Option<NodeId>) -> Outcome {
        for _ in 0..1000 {
            let mut quiet = true;
            for at in 0..self.members.len() {
                while hung != Some(self.members[at].config.id) && self.finish_write(at) {
                    quiet = false;
                }
                self.apply(at);
            }
            for message in std::mem::take(&mut self.network) {
                quiet = false;
                self.arrive(message);
            }
            if quiet {
                return Ok(());
            }
        }
        Err("it never settles".into())
    }
}

/// `Vote granted|refused`, `PreVote …`, `VoteRequest last=1@1 [transfer]`,
/// `PreVoteRequest last=1@1`,
/// `Append prev=1@1 terms=1,2 commit=0`, `Appended last=3`, `Rejected prev=3 hint=1@1`,
/// `Heartbeat commit=0 round=0 [for=1]`, `HeartbeatReply round=0`, `TimeoutNow`, `Removed`,
/// `InstallSnapshot last=1@1`, `AskMembers`, `Members ids=1,2`
fn parse_body(args: &mut ArgumentConsumer<'_>) -> Result<Body, Box<dyn Error>> {
    let kind = args.next_pos().ok_or("what?")?;
    let number = |args: &mut ArgumentConsumer<'_>, key: &str| -> Result<u64, Box<dyn Error>> {
        Ok(args.take_key(key).unwrap_or("0").parse()?)
    };
    Ok(match kind {
        "Vote" | "PreVote" => {
            Body::Vote { granted: args.next_pos() == Some("granted"), pre_vote: kind == "PreVote" }
        }
        "VoteRequest" | "PreVoteRequest" => Body::RequestVote {
            last: entry_id(args.take_key("last").unwrap_or("0@0"))?,
            pre_vote: kind == "PreVoteRequest",
            transfer: args.next_pos() == Some("transfer"),
        },
        "Append" => {
            let prev = entry_id(args.take_key("prev").unwrap_or("0@0"))?;
            let terms = numbers(args.take_key("terms").unwrap_or(""))?;
            let entries = terms.iter().zip(1..).map(|(term, nth)| Entry {
                id: EntryId { term: Term(*term), index: Index(prev.index.0.wrapping_add(nth)) },
                payload: Payload::Noop,
            });
            let commit = Index(number(args, "commit")?);
            Body::Append { prev, entries: entries.collect(), commit }
        }
        "Appended" => Body::Appended { last: Index(number(args, "last")?) },
        "Rejected" => Body::Rejected {
            prev: Index(number(args, "prev")?),
            hint: entry_id(args.take_key("hint").unwrap_or("0@0"))?,
        },
        "Heartbeat" => Body::Heartbeat {
            commit: Index(number(args, "commit")?),
            round: number(args, "round")?,
            successor: args.take_key("for").map(str::parse).transpose()?.map(id),
        },
        "HeartbeatReply" => Body::HeartbeatReply { round: number(args, "round")? },
        "TimeoutNow" => Body::TimeoutNow,
        "AskMembers" => Body::AskMembers,
        "Removed" => Body::Removed { pre_vote: true },
        "Members" => Body::Members { ids: list(args.take_key("ids").unwrap_or(""))? },
        "InstallSnapshot" => {
            let last = entry_id(args.take_key("last").ok_or("up to what?")?)?;
            let voters = list(args.take_key("voters").unwrap_or("1,2,3"))?;
            let config = Configuration::of_voters(voters);
            Body::InstallSnapshot { meta: SnapshotMeta { last, config } }
        }
        other => return Err(format!("unknown message {other}").into()),
    })
}

fn entry_id(text: &str) -> Result<EntryId, Box<dyn Error>> {
    let (index, term) = text.split_once('@').ok_or("index@term")?;
    Ok(EntryId { term: Term(term.parse()?), index: Index(index.parse()?) })
}

fn numbers(text: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let numbers = text.split(',').filter(|part| !part.is_empty()).map(str::parse);
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn list(text: &str) -> Result<Vec<NodeId>, Box<dyn Error>> {
    Ok(numbers(text)?.into_iter().map(id).collect())
}

#[test]
fn stories() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/testdata");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts lie beside the room")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "the scripts are all there: {}", paths.len());
    let only = std::env::var("RAFT_STORY").unwrap_or_default();
    for path in paths {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        if name.contains(&only) {
            println!("story {name}");
            goldenscript::run(&mut Script::default(), &path).expect("the script runs");
        }
    }
}
