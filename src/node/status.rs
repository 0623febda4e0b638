//! What a member says of itself: the one source of health, of the status page and of headers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::raft::{Attributes, Configuration, Index, NodeId, Role, Term};

/// A member of the cluster, as clients and operators know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where peers reach it, `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, `host:port`; empty while not known.
    pub client_addrs: Vec<String>,
    /// Whether it only receives.
    pub learner: bool,
}

/// Members that have introduced themselves before the log named them. Bounds what callers of the
/// peer port can make this member remember.
const STRANGERS_MAX: usize = 64;

/// The members, and what each has said of itself. Shared.
#[derive(Clone, Debug)]
pub struct Members(Arc<RwLock<Directory>>);

#[derive(Debug)]
struct Directory {
    members: Vec<Member>,
    configuration: Configuration,
    /// Names and client addresses of those who were quicker than the log.
    strangers: BTreeMap<NodeId, (String, String)>,
}

impl Members {
    /// These, of whom some may not have introduced themselves yet, and no configuration so far.
    pub fn new(members: Vec<Member>) -> Self {
        let voters = members.iter().map(|member| member.id);
        let configuration = Configuration::of_voters(voters);
        let strangers = BTreeMap::new();
        Self(Arc::new(RwLock::new(Directory { members, configuration, strangers })))
    }

    /// All of them, in order of id.
    pub fn list(&self) -> Vec<Member> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).members.clone()
    }

    /// The configuration in force here.
    pub fn configuration(&self) -> Configuration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).configuration.clone()
    }

    /// The membership is `config` now. What members said of themselves is kept.
    pub fn set(&self, config: &Configuration) {
        let mut directory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::new();
        for id in config.members() {
            let known = directory.members.iter().find(|member| member.id == id).cloned();
            let introduced = directory.strangers.remove(&id);
            let mut member = known.unwrap_or_else(|| {
                let (name, client_addr) = introduced.unzip();
                Member {
                    id,
                    name: name.unwrap_or_default(),
                    peer_addr: String::new(),
                    client_addrs: client_addr.into_iter().collect(),
                    learner: false,
                }
            });
            if let Some(address) = config.addresses.get(&id) {
                member.peer_addr.clone_from(address);
            }
            if let Some(Attributes { name, client_addr }) = config.attributes.get(&id) {
                member.name.clone_from(name);
                member.client_addrs = vec![client_addr.clone()];
            }
            member.learner = !config.is_voter(id);
            next.push(member);
        }
        directory.members = next;
        directory.configuration = config.clone();
    }

    /// A member says how it is called and where clients reach it. It counts until the log says so,
    /// which all members agree on. Nobody else is believed.
    pub fn introduce(&self, id: NodeId, name: String, client_addr: String) {
        let mut directory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if directory.configuration.attributes.contains_key(&id) {
            return;
        }
        if let Some(member) = directory.members.iter_mut().find(|member| member.id == id) {
            member.name = name;
            member.client_addrs = vec![client_addr];
        } else if directory.strangers.len() < STRANGERS_MAX
            && !directory.configuration.removed.contains(&id)
        {
            directory.strangers.insert(id, (name, client_addr));
        }
    }
}

/// A snapshot of one member's state. Published by the driver whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question that a probe may ask")]
pub struct Status {
    /// This member.
    pub node_id: NodeId,
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of that term, as far as known.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: Index,
    /// The last index applied.
    pub applied: Index,
    /// The last index in the log.
    pub last_index: Index,
    /// Proposals of this member's clients that wait for their outcome.
    pub proposals_pending: usize,
    /// Its event loop turned, and its disk answered, lately.
    pub alive: bool,
    /// It votes, knows a leader, has applied what was committed when it started, and is not
    /// stopping.
    pub ready: bool,
    /// It leads, and a quorum heard from it within an election timeout.
    pub leader_confirmed: bool,
    /// All that was committed when it started has been applied.
    pub applied_at_start: bool,
    /// The disk has let a write wait for too long.
    pub disk_stalled: bool,
    /// It is stopping.
    pub shutting_down: bool,
    /// It only receives, or is yet to hear that it is a member.
    pub learner: bool,
    /// It was removed from the cluster.
    pub removed: bool,
}

#[cfg(test)]
impl Status {
    /// That of a member which leads and serves, for tests.
    pub fn leading(node_id: NodeId) -> Self {
        Self {
            node_id,
            cluster_id: 0xc1,
            name: "node1".into(),
            role: Role::Leader,
            term: Term(5),
            leader: Some(node_id),
            commit: Index(0),
            applied: Index(0),
            last_index: Index(0),
            proposals_pending: 0,
            alive: true,
            ready: true,
            leader_confirmed: true,
            applied_at_start: true,
            disk_stalled: false,
            shutting_down: false,
            learner: false,
            removed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).expect("positive")
    }

    #[test]
    fn members_are_as_the_log_says_and_called_as_they_say() {
        let members = Members::new(Vec::new());
        members.introduce(id(2), "two".to_owned(), "two:2379".to_owned());
        let mut config = Configuration::of_voters([id(1)]);
        config.learners.insert(id(2));
        config.addresses.insert(id(2), "two:5001".to_owned());
        members.set(&config);
        members.introduce(id(1), "one".to_owned(), "one:2379".to_owned());
        let list = members.list();
        assert_eq!((list[0].name.as_str(), list[0].learner), ("one", false));
        assert_eq!((list[1].name.as_str(), list[1].learner), ("two", true));
        assert_eq!(
            (list[1].peer_addr.as_str(), &*list[1].client_addrs[0]),
            ("two:5001", "two:2379")
        );
        let said = Attributes { name: "zwei".to_owned(), client_addr: "zwei:2379".to_owned() };
        config.attributes.insert(id(2), said);
        config.addresses.insert(id(2), "elsewhere:5001".to_owned());
        config.removed.insert(id(1));
        config.voters = [id(2)].into();
        config.learners.clear();
        members.set(&config);
        let list = members.list();
        assert_eq!((list.len(), list[0].name.as_str(), list[0].learner), (1, "zwei", false));
        assert_eq!(list[0].client_addrs, ["zwei:2379"]);
        members.introduce(id(2), "two".to_owned(), "two:2379".to_owned());
        assert_eq!(members.list()[0].name, "zwei", "all members say what the log says");
        assert_eq!(list[0].peer_addr, "elsewhere:5001");
    }

    #[test]
    fn strangers_fill_no_memory() {
        let members = Members::new(Vec::new());
        for stranger in 1..1000 {
            members.introduce(id(stranger), "x".to_owned(), "x:1".to_owned());
        }
        let directory = members.0.read().expect("nobody panicked");
        assert_eq!((directory.members.len(), directory.strangers.len()), (0, STRANGERS_MAX));
    }
}
