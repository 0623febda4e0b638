//! `etcdserverpb.Watch`: one stream with any number of watches.
//!
//! The stream of responses reads the requests, so a client that takes no responses is not heard
//! either, and no task of its own is needed. The end of the requests does not end the stream, as
//! in etcd.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::stream;
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use crate::kv::KeySet;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::{Watch, WatchServer};
use crate::server::{Kinds, NO_WATCH, WatchRequest, WatchResponse, WatchStream};

use super::error::to_status;
use super::header::Context;
use super::{ANSWER_BYTES_MAX, convert, multiplex};

/// The service over one node.
pub(super) struct WatchService {
    context: Context,
}

impl WatchService {
    pub(super) fn server(context: Context) -> WatchServer<Self> {
        let decode_max = context.decode_bytes_max();
        WatchServer::new(Self { context })
            .max_decoding_message_size(decode_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let requires_leader = multiplex::requires_leader(request.metadata().as_ref());
        let watches = self.context.server.watch(requires_leader).map_err(to_status)?;
        let conversation = Conversation {
            context: self.context.clone(),
            requests: Some(request.into_inner()),
            watches,
            ready: VecDeque::new(),
        };
        let responses = stream::unfold(Some(conversation), |conversation| async {
            let mut conversation = conversation?;
            match conversation.next().await {
                Ok(response) => Some((Ok(response), Some(conversation))),
                Err(End::Failed(status)) => Some((Err(status), None)),
                Err(End::Left) => None,
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

struct Conversation {
    context: Context,
    /// None once the client has ended its requests.
    requests: Option<Streaming<pb::WatchRequest>>,
    watches: WatchStream,
    /// Converted, and yet to be sent.
    ready: VecDeque<pb::WatchResponse>,
}

/// Why there are no more responses.
enum End {
    /// The client is told.
    Failed(Status),
    /// The client has gone.
    Left,
}

impl Conversation {
    async fn next(&mut self) -> Result<pb::WatchResponse, End> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            let hears = self.requests.is_some() && self.watches.takes_requests();
            tokio::select! {
                request = heard(&mut self.requests), if hears => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => self.requests = None,
                    Err(_) => return Err(End::Left),
                },
                response = self.watches.next() => {
                    let response = response.map_err(|error| End::Failed(to_status(error)))?;
                    self.convert(response);
                }
            }
        }
    }

    fn take(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.watches.create(create(request)),
            Some(RequestUnion::CancelRequest(request)) => self.watches.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.watches.request_progress(),
            // Of a later version, or of none.
            None => {}
        }
    }

    fn convert(&mut self, response: WatchResponse) {
        let term = self.context.server.handle().status().term;
        let header = |revision| Some(self.context.header(revision, term));
        let blank = pb::WatchResponse::default();
        let converted = match response {
            WatchResponse::Created { id, revision } => {
                pb::WatchResponse { header: header(revision), watch_id: id, created: true, ..blank }
            }
            WatchResponse::Rejected { revision, reason } => pb::WatchResponse {
                header: header(revision),
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..blank
            },
            WatchResponse::Canceled { id, revision, compact_revision } => pb::WatchResponse {
                header: header(revision),
                watch_id: id,
                canceled: true,
                compact_revision,
                ..blank
            },
            WatchResponse::Progress { id, revision } => {
                pb::WatchResponse { header: header(revision), watch_id: id, ..blank }
            }
            WatchResponse::Events { id, revision, events, prev_kv, fragment } => {
                let whole = pb::WatchResponse {
                    header: header(revision),
                    watch_id: id,
                    events: events.iter().map(|event| convert::event(event, prev_kv)).collect(),
                    ..blank
                };
                let part_max = self.context.server.handle().limits().request_bytes_max;
                self.ready.extend(fragments(whole, if fragment { part_max } else { usize::MAX }));
                return;
            }
        };
        self.ready.push_back(converted);
    }
}

async fn heard(
    requests: &mut Option<Streaming<pb::WatchRequest>>,
) -> Result<Option<pb::WatchRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}

fn create(request: pb::WatchCreateRequest) -> WatchRequest {
    let wants = |filter: FilterType| !request.filters.contains(&(filter as i32));
    let kinds = Kinds { put: wants(FilterType::Noput), delete: wants(FilterType::Nodelete) };
    WatchRequest {
        keys: KeySet::new(request.key, request.range_end),
        start_revision: request.start_revision,
        id: (request.watch_id != 0).then_some(request.watch_id),
        prev_kv: request.prev_kv,
        kinds,
        progress_notify: request.progress_notify,
        fragment: request.fragment,
    }
}

/// `whole` in parts of about `bytes_max` bytes, each but the last marked as a fragment.
fn fragments(whole: pb::WatchResponse, bytes_max: usize) -> Vec<pb::WatchResponse> {
    use prost::Message;
    let mut whole = whole;
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for event in std::mem::take(&mut whole.events) {
        let event_bytes = event.encoded_len();
        if bytes + event_bytes > bytes_max && !part.is_empty() {
            let events = std::mem::take(&mut part);
            parts.push(pb::WatchResponse { events, fragment: true, ..whole.clone() });
            bytes = 0;
        }
        bytes += event_bytes;
        part.push(event);
    }
    parts.push(pb::WatchResponse { events: part, ..whole });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mvccpb;

    #[test]
    fn a_response_in_parts_says_so_in_all_but_the_last() {
        let event = |value: &str| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { value: value.to_owned().into(), ..Default::default() }),
            ..Default::default()
        };
        let long = "v".repeat(100);
        let events = vec![event(&long), event(&long), event("short"), event(&long)];
        let whole = pb::WatchResponse { watch_id: 7, events, ..Default::default() };
        let parts = fragments(whole.clone(), 150);
        let sizes: Vec<(usize, bool)> =
            parts.iter().map(|part| (part.events.len(), part.fragment)).collect();
        assert_eq!(sizes, [(1, true), (2, true), (1, false)]);
        let joined = parts.into_iter().flat_map(|part| part.events).collect::<Vec<_>>();
        assert_eq!(joined, whole.events);
        assert_eq!(fragments(whole.clone(), usize::MAX), [whole]);
    }
}
