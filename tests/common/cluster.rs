//! A cluster of real processes, and what one does to them.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use tempfile::TempDir;

use super::history::Recorder;
use super::link::Net;
use super::member::Site;
use super::{Client, Member, eventually, within};

/// How the processes are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many members.
    pub members: u64,
    /// Whether the connections between members run through links that can be cut and slowed.
    pub links: bool,
    /// Heartbeat, least and most election timeout, in milliseconds.
    pub timing_ms: (u64, u64, u64),
    /// More variables, for every member.
    pub env: Vec<(&'static str, String)>,
    /// Where members 1, 2, and so on run; on loopback, if there are none.
    pub sites: Vec<Site>,
}

impl Default for Options {
    /// Three members with the product's own timing.
    fn default() -> Self {
        let timing_ms = (50, 150, 300);
        Self { members: 3, links: false, timing_ms, env: Vec::new(), sites: Vec::new() }
    }
}

impl Options {
    /// One member.
    pub fn single() -> Self {
        Self { members: 1, ..Self::default() }
    }

    /// Timeouts so long that nobody takes a busy machine for a dead leader: for tests that assert
    /// that no election happened.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { timing_ms: (100, 2000, 4000), ..self }
    }

    /// With links between the members.
    #[must_use]
    pub fn linked(self) -> Self {
        Self { links: true, ..self }
    }

    /// With one more variable.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

fn site(sites: &[Site], id: u64) -> Site {
    sites.get(id as usize - 1).cloned().unwrap_or_else(Site::loopback)
}

/// Member ids count from one.
pub struct Cluster {
    members: Vec<Member>,
    clients: Vec<Client>,
    net: Option<Net>,
    env: Vec<(String, String)>,
    sites: Vec<Site>,
    recorder: Recorder,
    // Last: the processes end before their files go.
    root: TempDir,
}

/// Who leads, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The leader.
    pub id: u64,
    /// Its term.
    pub term: u64,
}

impl Cluster {
    /// Starts the processes and waits until all are ready under one leader.
    pub async fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options).await;
        for member in &mut cluster.members {
            member.start();
        }
        cluster.settled().await;
        cluster
    }

    /// Everything but the start of the processes.
    pub async fn prepare(options: Options) -> Self {
        let root = tempfile::Builder::new().prefix("raft-node-").tempdir().expect("a directory");
        let (heartbeat, least, most) = options.timing_ms;
        let mut env = vec![
            ("RAFT_HEARTBEAT_INTERVAL_MS", heartbeat.to_string()),
            ("RAFT_ELECTION_TIMEOUT_MIN_MS", least.to_string()),
            ("RAFT_ELECTION_TIMEOUT_MAX_MS", most.to_string()),
            ("RAFT_LOG", "info".to_owned()),
        ];
        env.extend(options.env.clone());
        let env: Vec<(String, String)> =
            env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let sites = options.sites;
        let member = |id| Member::at(site(&sites, id), id, root.path(), env.clone());
        let mut members: Vec<Member> = (1..=options.members).map(member).collect();
        let real: Vec<(u64, String)> =
            members.iter().map(|member| (member.id, member.peer_addr.clone())).collect();
        let net = if options.links { Some(Net::between(&real).await) } else { None };
        for member in &mut members {
            let seen_by_it = real.iter().map(|(id, addr)| match &net {
                Some(net) if *id != member.id => format!("{id}={}", net.addr(member.id, *id)),
                _ => format!("{id}={addr}"),
            });
            let peers = seen_by_it.collect::<Vec<_>>().join(",");
            member.set("RAFT_PEERS", &peers);
        }
        let recorder = Recorder::default();
        let clients = members
            .iter()
            .map(|member| Client::new(member.id, &member.client_addr, &member.peer_addr))
            .map(|client| client.recorded(&recorder))
            .collect();
        Self { members, clients, net, env, sites, recorder, root }
    }

    /// Starts a machine that joins the cluster under `id`, by way of the members `by`, with more
    /// variables of its own.
    pub fn join(&mut self, id: u64, by: &[u64], more: &[(&str, &str)]) {
        let asked: Vec<String> = by.iter().map(|id| self.member(*id).peer_addr.clone()).collect();
        let site = site(&self.sites, id);
        let mut member = Member::at(site, id, self.root.path(), self.env.clone());
        member.set("RAFT_JOIN", &asked.join(","));
        for (name, value) in more {
            member.set(name, value);
        }
        member.start();
        let client = Client::new(id, &member.client_addr, &member.peer_addr);
        self.clients.push(client.recorded(&self.recorder));
        self.members.push(member);
    }

    /// Waits until the members are voters, and are these, as `by` knows it.
    pub async fn voters(&mut self, ids: &[u64], by: u64) {
        let client = self.client(by).clone();
        within(Duration::from_mins(1), &format!("{ids:?} to be the voters"), async || {
            let request = pb::MemberListRequest { linearizable: true };
            let list = client.timely(client.members().member_list(request)).await;
            let members = list.map_err(|status| status.to_string())?.members;
            let seen: Vec<(u64, bool)> =
                members.iter().map(|one| (one.id, one.is_learner)).collect();
            let wanted: Vec<(u64, bool)> = ids.iter().map(|id| (*id, false)).collect();
            if seen == wanted { Ok(()) } else { Err(format!("(id, learner): {seen:?}")) }
        })
        .await;
    }

    /// Asks `by` to remove `id`, until it is done.
    pub async fn remove(&mut self, id: u64, by: u64) {
        let client = self.client(by).clone();
        super::eventually(&format!("{id} to be removed"), async || {
            let request = pb::MemberRemoveRequest { id };
            match client.timely(client.members().member_remove(request)).await {
                // An earlier try may have had its effect.
                Err(status) if status.code() != tonic::Code::NotFound => Err(status.to_string()),
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await;
    }

    /// Waits until a member that was removed has ended, cleanly and by itself.
    pub async fn dismissed(&mut self, id: u64) {
        let status = self.member(id).exit(Duration::from_secs(20)).await;
        let log = self.member(id).log();
        assert_eq!(status.code(), Some(0), "member {id} was removed:\n{log}");
        assert!(log.contains("removed from the cluster"), "{log}");
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &std::path::Path {
        self.root.path()
    }

    /// All ids.
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// All ids but `id`.
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// A member.
    pub fn member(&mut self, id: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).expect("a member")
    }

    /// A client of one member.
    pub fn client(&self, id: u64) -> &Client {
        self.clients.iter().find(|client| client.id == id).expect("a member")
    }

    /// A client of each member.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The links, for a cluster that has them.
    pub fn net(&self) -> &Net {
        self.net.as_ref().expect("a cluster with links")
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u64) {
        self.member(id).kill();
    }

    /// Starts a member that ended.
    pub fn restart(&mut self, id: u64) {
        self.member(id).start();
    }

    /// SIGTERM, and its end with code 0.
    pub async fn stop(&mut self, id: u64) {
        let member = self.member(id);
        member.terminate();
        let status = member.exit(Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(0), "member {id} did not stop cleanly: {status}");
    }

    /// The leader that all running members follow, once all are ready and its quorum is confirmed.
    pub async fn settled(&mut self) -> Lead {
        let running: Vec<u64> =
            self.members.iter().filter(|member| member.runs()).map(|member| member.id).collect();
        self.settled_among(&running).await
    }

    /// The leader that all of `ids` follow, once all are ready and its quorum is confirmed.
    pub async fn settled_among(&mut self, ids: &[u64]) -> Lead {
        eventually(&format!("{ids:?} to follow one leader"), async || {
            let mut leads = Vec::new();
            for id in ids {
                self.member(*id).assert_runs();
                leads.push(self.lead_by(*id).await?);
            }
            let lead = leads[0];
            if leads.iter().any(|other| *other != lead) || !ids.contains(&lead.id) {
                return Err(format!("{leads:?}"));
            }
            if !self.client(lead.id).serves("leader").await {
                return Err(format!("{lead:?}, who does not confirm it"));
            }
            for id in ids {
                if !self.client(*id).serves("ready").await {
                    return Err(format!("{lead:?}, and {id} is not ready"));
                }
            }
            Ok(lead)
        })
        .await
    }

    /// Whom `id` takes for the leader.
    pub async fn lead_by(&self, id: u64) -> Result<Lead, String> {
        let client = self.client(id).with_deadline(Duration::from_secs(2));
        let status = client.status().await.map_err(|status| format!("{id}: {status}"))?;
        if status.leader == 0 {
            return Err(format!("{id} knows no leader"));
        }
        Ok(Lead { id: status.leader, term: status.raft_term })
    }

    /// Waits until `id` has applied everything that `by` has.
    pub async fn caught_up(&mut self, id: u64, by: u64) {
        let goal = self.client(by).status().await.expect("the status").raft_applied_index;
        within(Duration::from_mins(1), &format!("{id} to apply {goal}"), async || {
            let status = self.client(id).status().await.map_err(|status| status.to_string())?;
            let applied = status.raft_applied_index;
            if applied >= goal { Ok(()) } else { Err(format!("applied {applied}")) }
        })
        .await;
    }
}
