//! A client of one member, with a deadline on every call.

use std::time::Duration;

use bytes::Bytes;
use raft_node::kv;
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::cluster_client::ClusterClient;
use raft_node::proto::etcdserverpb::kv_client::KvClient;
use raft_node::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use raft_node::proto::node::Signal;
use raft_node::proto::node::node_registration_client::NodeRegistrationClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::history::{self, Recorder};
use super::linearizability::{Answer, Freshness, Request};

/// Longer than any answer should take, a leader's loss included.
const DEADLINE: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Speaks to one member and to no other.
#[derive(Clone)]
pub struct Client {
    /// The member.
    pub id: u64,
    channel: Channel,
    peer: Channel,
    deadline: Duration,
    recorder: Option<Recorder>,
}

fn channel(addr: &str) -> Channel {
    Endpoint::from_shared(format!("http://{addr}"))
        .expect("an address")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect_lazy()
}

impl Client {
    /// Connects at the first call, and anew after a connection broke.
    pub fn new(id: u64, client_addr: &str, peer_addr: &str) -> Self {
        Self {
            id,
            channel: channel(client_addr),
            peer: channel(peer_addr),
            deadline: DEADLINE,
            recorder: None,
        }
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same client, which writes down in `recorder` what it does.
    #[must_use]
    pub fn recorded(&self, recorder: &Recorder) -> Self {
        Self { recorder: Some(recorder.clone()), ..self.clone() }
    }

    /// Where it writes down what it does.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Makes `call` and writes down what was asked and answered.
    async fn tell<T>(
        &self,
        request: impl FnOnce() -> Request,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, Status> {
        let Some(recorder) = &self.recorder else { return self.timely(call).await };
        let id = recorder.call(self.id, request());
        let result = self.timely(call).await;
        recorder.returned(id, &result, answer);
        result
    }

    /// etcd's key-value service. What goes through it directly is not written down.
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// etcd's maintenance service.
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// etcd's cluster service.
    pub fn members(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    /// Health on the client port.
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// Health on the peer port.
    pub fn peer_health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.peer.clone())
    }

    /// The project's first service, on the peer port.
    pub fn registration(&self) -> NodeRegistrationClient<Channel> {
        NodeRegistrationClient::new(self.peer.clone())
    }

    /// The client port's connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The peer port's connection.
    pub fn peer_channel(&self) -> Channel {
        self.peer.clone()
    }

    /// `call`, or `DEADLINE_EXCEEDED` by our own clock: the member may be frozen.
    pub async fn timely<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("by the test's own clock")),
        }
    }

    /// Puts, and returns the revision of the write.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<i64, Status> {
        let (key, value): (Bytes, Bytes) = (key.to_owned().into(), value.into().into());
        let asked = kv::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
        let request = pb::PutRequest { key, value, ..pb::PutRequest::default() };
        let mut service = self.kv();
        let response = self
            .tell(
                || Request::Write(kv::Command::Put(asked)),
                service.put(request),
                |response| Answer::Written(kv::Response::Put(history::put(response))),
            )
            .await?;
        Ok(response.header.expect("every answer has a header").revision)
    }

    /// Deletes one key, and returns the revision and whether it was there.
    pub async fn delete(&self, key: &str) -> Result<(i64, bool), Status> {
        let key: Bytes = key.to_owned().into();
        let asked =
            kv::DeleteRangeRequest { key: key.clone(), prev_kv: true, ..Default::default() };
        let request = pb::DeleteRangeRequest { key, prev_kv: true, ..Default::default() };
        let mut service = self.kv();
        let response = self
            .tell(
                || Request::Write(kv::Command::DeleteRange(asked)),
                service.delete_range(request),
                |response| Answer::Written(kv::Response::DeleteRange(history::deleted(response))),
            )
            .await?;
        let revision = response.header.expect("every answer has a header").revision;
        Ok((revision, response.deleted > 0))
    }

    /// Puts both keys, in one transaction, if the first holds `expected`; else reads the first.
    pub async fn swap(
        &self,
        [first, second]: [&str; 2],
        expected: &str,
        value: &str,
    ) -> Result<bool, Status> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let put = |key: &str| kv::PutRequest {
            key: bytes(key),
            value: bytes(value),
            ..Default::default()
        };
        let asked = kv::TxnRequest {
            compare: vec![kv::Compare {
                key: bytes(first),
                range_end: Bytes::new(),
                result: kv::CompareResult::Equal,
                target: kv::CompareTarget::Value(bytes(expected)),
            }],
            success: [first, second].map(|key| kv::RequestOp::Put(put(key))).to_vec(),
            failure: vec![kv::RequestOp::Range(kv::RangeRequest {
                key: bytes(first),
                ..Default::default()
            })],
        };
        let request = history::swap([first, second], expected, value);
        let mut service = self.kv();
        let response = self
            .tell(
                || Request::Write(kv::Command::Txn(asked)),
                service.txn(request),
                |response| Answer::Written(kv::Response::Txn(history::txn(response))),
            )
            .await?;
        Ok(response.succeeded)
    }

    /// Puts until it is acknowledged: on a busy machine the leader may change at any time.
    pub async fn surely_put(&self, key: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        super::eventually(&format!("{} to take a write", self.id), async || {
            self.put(key, value.clone()).await.map_err(|status| status.to_string())
        })
        .await;
    }

    /// One key's value, read linearizably; asked until answered.
    pub async fn sure_value(&self, key: &str) -> Option<Vec<u8>> {
        super::eventually(&format!("{} to answer a read", self.id), async || {
            self.value(key).await.map_err(|status| status.to_string())
        })
        .await
    }

    /// Any range.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let freshness =
            if request.serializable { Freshness::Serializable } else { Freshness::Linearizable };
        let asked = history::range(&request);
        let mut service = self.kv();
        self.tell(
            || Request::Range(asked, freshness),
            service.range(request),
            |response| Answer::Range(history::ranged(response)),
        )
        .await
    }

    /// Reads one key linearizably.
    pub async fn get(&self, key: &str) -> Result<pb::RangeResponse, Status> {
        self.range(pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() })
            .await
    }

    /// One key's value, read linearizably.
    pub async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Status> {
        Ok(self.get(key).await?.kvs.into_iter().next().map(|kv| kv.value.to_vec()))
    }

    /// Reads one key from this member's own data.
    pub async fn get_local(&self, key: &str) -> Result<pb::RangeResponse, Status> {
        self.range(pb::RangeRequest {
            key: key.to_owned().into(),
            serializable: true,
            ..pb::RangeRequest::default()
        })
        .await
    }

    /// What the member says of itself.
    pub async fn status(&self) -> Result<pb::StatusResponse, Status> {
        self.timely(self.maintenance().status(pb::StatusRequest::default())).await
    }

    /// Whether the member says, by the project's first service, that it has a leader.
    pub async fn in_touch(&self) -> Result<bool, Status> {
        let mut registration = self.registration();
        let beat = registration.send_heart_beat(Signal { flag: false });
        Ok(self.timely(beat).await?.flag)
    }

    /// Whether the member says that it serves `service`. A member that does not answer does not.
    pub async fn serves(&self, service: &str) -> bool {
        let request = HealthCheckRequest { service: service.to_owned() };
        self.timely(self.health().check(request))
            .await
            .is_ok_and(|answer| answer.status() == ServingStatus::Serving)
    }
}
