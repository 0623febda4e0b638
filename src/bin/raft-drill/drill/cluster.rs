//! What a drill may do to a member, whatever the members are.

use crate::grpc::Endpoint;
use clap::ValueEnum;

/// What befalls the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Asked to end: docker stop, SIGTERM
    Stop,
    /// Ended at once: docker kill, SIGKILL
    Kill,
    /// Frozen, its connections open: docker pause, SIGSTOP
    Pause,
    /// Cut off from the other members while its clients still reach it (docker only)
    Disconnect,
}

impl Fault {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Disconnect => "disconnect",
        }
    }
}

/// A cluster that can be broken and mended. Calls block: they run beside the traffic's thread.
pub trait Cluster: Send + Sync {
    /// Where the members answer clients.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// What a member is called in the report.
    fn name(&self, member: usize) -> String;
    /// Does it.
    fn strike(&self, member: usize, fault: Fault) -> Result<(), String>;
    /// Undoes it.
    fn heal(&self, member: usize, fault: Fault) -> Result<(), String>;
    /// Whether docker calls the member healthy; true without docker.
    fn called_healthy(&self, member: usize) -> Result<bool, String>;
    /// The end of its log, to find out why a drill failed.
    fn last_words(&self, member: usize) -> String;
}
