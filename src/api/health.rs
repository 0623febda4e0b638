//! `grpc.health.v1.Health` on both ports.
//!
//! The verdict is read from the node's status at the moment of the question, so no task copies it
//! and none can lag behind. Unknown services are `NOT_FOUND` for `Check` and `Watch` alike. A
//! watch ends when the node shuts down, lest it hold the listener open.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::{IntervalStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::node::{self, Handle};

/// How soon a watch notices that the node's own loop hangs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a service name asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// `""`: is the process alive?
    Alive,
    /// `ready`, or the name of a service of this port: does it serve?
    Ready,
    /// `leader`: does this member lead, with a quorum behind it?
    Leader,
}

/// The health service of one port, which serves `services` besides.
pub(super) struct HealthService {
    handle: Handle,
    services: &'static [&'static str],
}

impl HealthService {
    pub(super) fn server(
        handle: Handle,
        services: &'static [&'static str],
    ) -> HealthServer<HealthService> {
        HealthServer::new(Self { handle, services }).accept_compressed(CompressionEncoding::Gzip)
    }

    fn question(&self, service: &str) -> Result<Question, Status> {
        match service {
            "" => Ok(Question::Alive),
            "ready" => Ok(Question::Ready),
            "leader" => Ok(Question::Leader),
            name if self.services.contains(&name) => Ok(Question::Ready),
            name => Err(Status::not_found(format!("unknown service {name}"))),
        }
    }
}

impl Question {
    fn answer(self, status: &node::Status) -> HealthCheckResponse {
        let serving = match self {
            Self::Alive => status.alive,
            Self::Ready => status.ready,
            Self::Leader => status.leader_confirmed,
        };
        let verdict = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        HealthCheckResponse { status: verdict.into() }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let question = self.question(&request.get_ref().service)?;
        Ok(Response::new(question.answer(&self.handle.status())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let question = self.question(&request.get_ref().service)?;
        let changes = WatchStream::new(self.handle.watch_status()).map(drop);
        // A driver that hangs publishes nothing: its silence shows only to those who ask.
        let looks = IntervalStream::new(tokio::time::interval(LOOK_INTERVAL)).map(drop);
        let handle = self.handle.clone();
        let statuses = changes.merge(looks).map(move |()| handle.status());
        Ok(Response::new(Box::pin(verdicts(question, statuses))))
    }
}

/// The verdict now and at each change of it; the one of a node that shuts down is the last.
fn verdicts(
    question: Question,
    statuses: impl Stream<Item = Arc<node::Status>> + Send,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + Send {
    let mut said = None;
    let mut over = false;
    statuses
        .take_while(move |status| {
            let go_on = !over;
            over |= status.shutting_down;
            go_on
        })
        .map(move |status| question.answer(&status))
        .filter(move |verdict| said.replace(verdict.status) != Some(verdict.status))
        .map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Index, NodeId, Role, Term};

    fn status(ready: bool, shutting_down: bool) -> Arc<node::Status> {
        Arc::new(node::Status {
            node_id: NodeId::new(1).expect("positive"),
            cluster_id: 7,
            name: "node1".into(),
            role: Role::Follower,
            term: Term(1),
            leader: None,
            commit: Index(0),
            applied: Index(0),
            last_index: Index(0),
            proposals_pending: 0,
            alive: true,
            ready,
            leader_confirmed: false,
            applied_at_start: true,
            disk_stalled: false,
            shutting_down,
            learner: false,
            removed: false,
        })
    }

    async fn watched(question: Question, statuses: Vec<Arc<node::Status>>) -> Vec<i32> {
        let verdicts = verdicts(question, tokio_stream::iter(statuses));
        verdicts.map(|verdict| verdict.expect("never fails").status).collect().await
    }

    const SERVING: i32 = ServingStatus::Serving as i32;
    const NOT_SERVING: i32 = ServingStatus::NotServing as i32;

    #[tokio::test]
    async fn a_watch_tells_changes_of_the_verdict_alone() {
        let statuses = [false, false, true, true, false].map(|ready| status(ready, false)).to_vec();
        let told = watched(Question::Ready, statuses.clone()).await;
        assert_eq!(told, [NOT_SERVING, SERVING, NOT_SERVING]);
        assert_eq!(watched(Question::Alive, statuses.clone()).await, [SERVING]);
        assert_eq!(watched(Question::Leader, statuses).await, [NOT_SERVING]);
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_verdict_of_a_node_that_shuts_down() {
        let statuses = vec![status(true, false), status(false, true), status(true, false)];
        assert_eq!(watched(Question::Ready, statuses).await, [SERVING, NOT_SERVING]);
    }
}
