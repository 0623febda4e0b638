//! The containers of the members, what one does to them, and what they say of themselves.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;

use crate::common::cluster::Lead;
use crate::common::{Client, eventually, within};
use crate::docker::{MOVED, built_before, compose, compose_in, docker};

/// The published ports of members 1 to 6: for clients, for peers.
const PORTS: [(u16, u16); 6] =
    [(2379, 5001), (22379, 5002), (32379, 5003), (42379, 5004), (52379, 5005), (62379, 5006)];

/// The members that a new cluster has.
const FIRST: [u64; 3] = [1, 2, 3];

/// The network that Raft runs over.
const PEERS: &str = "raft_peers";

/// Throws everything away, the machines of the profile included.
const DOWN: [&str; 5] = ["--profile", "grow", "down", "--volumes", "--remove-orphans"];

/// A member that does not answer for so long does not answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Containers start, join and catch up within it.
const GROWN_WITHIN: Duration = Duration::from_mins(1);

/// The cluster of the compose file.
pub struct Containers {
    /// The members of now.
    ids: Vec<u64>,
}

/// The container of a member.
pub fn name(id: u64) -> String {
    format!("node{id}")
}

#[allow(clippy::unused_self, reason = "whoever holds one knows that the containers exist")]
impl Containers {
    /// Builds the image, unless one was named, and starts the three members anew.
    pub fn up() -> Result<Self, String> {
        if built_before().is_none() {
            println!("building the image (some minutes, the first time)");
            compose(&["build"])?;
        }
        let mut containers = Self { ids: Vec::new() };
        containers.create_anew()?;
        compose(&["up", "-d", "--no-build"])?;
        Ok(containers)
    }

    /// Throws the members and their data away, and makes new ones, not yet started.
    pub fn create_anew(&mut self) -> Result<(), String> {
        compose(&DOWN)?;
        self.ids = FIRST.to_vec();
        compose(&["up", "--no-start", "--no-build"]).map(drop)
    }

    /// A new cluster of three, settled: ids that an earlier story used up are free again.
    pub async fn begin_anew(&mut self) -> Lead {
        self.create_anew().expect("new containers");
        compose(&["up", "-d", "--no-build"]).unwrap_or_else(|error| panic!("{error}"));
        self.settled().await
    }

    /// Leaves nothing behind.
    pub fn down(&self) {
        if let Err(error) = compose(&DOWN) {
            println!("the cluster could not be taken down: {error}");
        }
    }

    /// What the members said last.
    pub fn print_logs(&self) {
        for id in self.ids() {
            let log = docker(&["logs", "--timestamps", "--tail", "100", &name(id)]);
            println!("---- {}\n{}", name(id), log.unwrap_or_else(|error| error));
        }
    }

    /// All ids.
    pub fn ids(&self) -> Vec<u64> {
        self.ids.clone()
    }

    /// All ids but `id`.
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids.iter().copied().filter(|other| *other != id).collect()
    }

    /// A machine of the profile comes, in the place of another where one is named, and votes.
    pub async fn grow(&mut self, id: u64, replaces: Option<u64>) {
        let variables: Vec<String> =
            replaces.iter().map(|old| format!("NODE{id}_REPLACES={old}")).collect();
        compose_in(&variables, &["--profile", "grow", "up", "-d", "--no-build", &name(id)])
            .unwrap_or_else(|error| panic!("{error}"));
        self.ids.push(id);
        self.ids.retain(|member| Some(*member) != replaces);
        self.votes(id).await;
    }

    /// Waits until these very members vote, as `by` has it.
    pub async fn votes(&self, by: u64) {
        self.voters(&self.ids, by).await;
    }

    /// Waits until those with `ids` vote, as the member on machine `by` has it.
    pub async fn voters(&self, ids: &[u64], by: u64) {
        let client = self.client(by);
        within(GROWN_WITHIN, &format!("{ids:?} to be the voters"), async || {
            let request = pb::MemberListRequest { linearizable: true };
            let list = client.timely(client.members().member_list(request)).await;
            let members = list.map_err(|status| status.to_string())?.members;
            let seen: Vec<_> = members.iter().map(|one| (one.id, one.is_learner)).collect();
            let wanted: Vec<_> = ids.iter().map(|id| (*id, false)).collect();
            if seen == wanted { Ok(()) } else { Err(format!("(id, learner): {seen:?}")) }
        })
        .await;
    }

    /// Another member is asked to remove it. It ends, and its container goes.
    pub async fn remove(&mut self, id: u64) {
        self.ids.retain(|member| *member != id);
        let client = self.client(self.ids[0]);
        eventually(&format!("{id} to be removed"), async || {
            let request = pb::MemberRemoveRequest { id };
            match client.timely(client.members().member_remove(request)).await {
                // An earlier try may have had its effect.
                Err(status) if status.code() != tonic::Code::NotFound => Err(status.to_string()),
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await;
        self.votes(self.ids[0]).await;
        eventually(&format!("{id} to learn of it"), async || {
            let log = docker(&["logs", &name(id)])?;
            let ended = log.contains("removed from the cluster");
            if ended { Ok(()) } else { Err(log) }
        })
        .await;
        self.stays_down(id).await;
        self.discard(id);
    }

    /// A member that was removed ends with code 0, and docker does not start it again.
    pub async fn stays_down(&self, id: u64) {
        eventually(&format!("{id} to have ended"), async || {
            let state = self.inspect(id, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}");
            if state == "exited 0 0" { Ok(()) } else { Err(state) }
        })
        .await;
        let policy = "{{.HostConfig.RestartPolicy.Name}} \
                      {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
        assert_eq!(self.inspect(id, policy), "on-failure 10");
    }

    /// Throws a container away, as somebody does whose machine is gone.
    pub fn discard(&self, id: u64) {
        compose(&["--profile", "grow", "rm", "--stop", "--force", &name(id)])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes a container anew at its other address, with the data that it has.
    pub fn relocate(&self, id: u64) {
        compose(&["-f", MOVED, "up", "-d", "--no-build", "--no-deps", &name(id)])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// New connections to a member, as from the host.
    pub fn client(&self, id: u64) -> Client {
        let (client, peer) = PORTS[id as usize - 1];
        let (client, peer) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{peer}"));
        Client::new(id, &client, &peer).with_deadline(DEADLINE)
    }

    /// Where a member's client port is published.
    pub fn client_addr(&self, id: u64) -> String {
        format!("127.0.0.1:{}", PORTS[id as usize - 1].0)
    }

    /// `docker <verb> node<id>`, which must succeed.
    pub fn docker(&self, verb: &str, id: u64) {
        docker(&[verb, &name(id)]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Cuts a member off from its peers; its clients still reach it.
    pub fn cut(&self, id: u64) {
        let words = ["network", "disconnect", PEERS, &name(id)];
        docker(&words).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Undoes [`Self::cut`], without telling docker more than a user would.
    pub fn mend(&self, id: u64) {
        let words = ["network", "connect", PEERS, &name(id)];
        docker(&words).unwrap_or_else(|error| panic!("{error}"));
    }

    /// What docker knows about a container.
    pub fn inspect(&self, id: u64, format: &str) -> String {
        docker(&["inspect", "--format", format, &name(id)])
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// `running`, `exited` or `paused`.
    pub fn state(&self, id: u64) -> String {
        self.inspect(id, "{{.State.Status}}")
    }

    /// What docker's own probe found last: `starting`, `healthy` or `unhealthy`.
    pub fn docker_health(&self, id: u64) -> String {
        self.inspect(id, "{{.State.Health.Status}}")
    }

    /// Waits until docker calls these members `wanted`.
    pub async fn docker_says(&self, ids: &[u64], wanted: &str) {
        eventually(&format!("docker to call {ids:?} {wanted}"), async || {
            let found: Vec<String> = ids.iter().map(|id| self.docker_health(*id)).collect();
            if found.iter().all(|health| health == wanted) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }

    /// Undoes whatever was done, and waits until all are healthy under one leader.
    pub async fn settled(&self) -> Lead {
        for id in self.ids() {
            match self.state(id).as_str() {
                "running" => {}
                "paused" => self.docker("unpause", id),
                _ => self.docker("start", id),
            }
            let networks = self
                .inspect(id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
            if !networks.contains(PEERS) {
                self.mend(id);
            }
        }
        self.docker_says(&self.ids(), "healthy").await;
        self.led(&self.ids()).await
    }

    /// Waits until these members agree that one of them leads.
    pub async fn led(&self, ids: &[u64]) -> Lead {
        let clients: Vec<Client> = ids.iter().map(|id| self.client(*id)).collect();
        eventually(&format!("{ids:?} to agree on a leader"), async || agreed(&clients).await).await
    }

    /// Waits until a member has applied what another one has in its log by now.
    pub async fn caught_up(&self, id: u64, with: u64) {
        let goal = self.client(with).status().await.expect("a healthy member").raft_index;
        let client = self.client(id);
        let what = format!("member {id} to apply up to {goal}");
        within(Duration::from_secs(10), &what, async || {
            let status = client.status().await.map_err(|error| error.to_string())?;
            let applied = status.raft_applied_index;
            if applied >= goal { Ok(()) } else { Err(format!("applied {applied}")) }
        })
        .await;
    }
}

async fn agreed(clients: &[Client]) -> Result<Lead, String> {
    let mut leads = Vec::new();
    for client in clients {
        let status = client.status().await.map_err(|error| format!("{}: {error}", client.id))?;
        leads.push(Lead { id: status.leader, term: status.raft_term });
    }
    let first = leads[0];
    let is_one_of_them = clients.iter().any(|client| client.id == first.id);
    let agreed = is_one_of_them && leads.iter().all(|lead| *lead == first);
    agreed.then_some(first).ok_or_else(|| format!("{leads:?}"))
}
