//! Counts of the calls that clients make, under the names that gRPC servers in Go use
//! (`grpc_server_*`), etcd among them.
//!
//! The methods are known when the process starts, so a call is counted by its place in a table:
//! some atomic additions and two looks at the clock, no label is looked up and nothing allocated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Which sides of a call are streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RpcKind {
    /// Neither.
    Unary,
    /// The server's.
    ServerStream,
    /// Both.
    BidiStream,
}

impl RpcKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// The labels of one method.
#[derive(Clone, Copy, Debug)]
pub struct RpcName {
    /// The service, by its full name.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
    /// Its kind.
    pub kind: RpcKind,
}

/// The status codes of gRPC in order, as Go spells them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// Upper bounds of the duration's buckets in milliseconds: those that Go's client library has when
/// nobody sets any, so that etcd's alerts find theirs.
const BUCKETS_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// The counts of one method.
struct Counts {
    name: RpcName,
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    /// One more than there are bounds: the last has none.
    took: [AtomicU64; BUCKETS_MS.len() + 1],
    took_ns: AtomicU64,
}

/// The counts of all methods.
pub struct Rpcs(Box<[Counts]>);

impl fmt::Debug for Rpcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rpcs of {} methods", self.0.len())
    }
}

impl Rpcs {
    /// All at zero. A method is known by its place in `names` from now on.
    pub fn new(names: impl IntoIterator<Item = RpcName>) -> Self {
        let counts = |name| Counts {
            name,
            started: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            handled: [const { AtomicU64::new(0) }; CODES.len()],
            took: [const { AtomicU64::new(0) }; BUCKETS_MS.len() + 1],
            took_ns: AtomicU64::default(),
        };
        Self(names.into_iter().map(counts).collect())
    }

    /// A call of the method at this place begins.
    pub fn begin(self: &Arc<Self>, at: usize) -> RpcCall {
        self.0[at].started.fetch_add(1, Ordering::Relaxed);
        RpcCall { rpcs: Arc::clone(self), at, began: Instant::now(), ended: false }
    }

    /// So many messages came from clients of the method at this place.
    pub fn received(&self, at: usize, messages: u64) {
        self.0[at].received.fetch_add(messages, Ordering::Relaxed);
    }
}

/// A call under way. One that is dropped before its end was cancelled by the client.
#[derive(Debug)]
pub struct RpcCall {
    rpcs: Arc<Rpcs>,
    at: usize,
    began: Instant,
    ended: bool,
}

impl RpcCall {
    fn counts(&self) -> &Counts {
        &self.rpcs.0[self.at]
    }

    /// What kind of call it is.
    pub fn kind(&self) -> RpcKind {
        self.counts().name.kind
    }

    /// So many messages came from the client.
    pub fn received(&self, messages: u64) {
        self.rpcs.received(self.at, messages);
    }

    /// So many messages went to the client.
    pub fn sent(&self, messages: u64) {
        self.counts().sent.fetch_add(messages, Ordering::Relaxed);
    }

    /// It ended with this status code. Only the first end counts.
    pub fn end(&mut self, code: usize) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.began.elapsed();
        let counts = self.counts();
        let handled = counts.handled.get(code).unwrap_or(&counts.handled[UNKNOWN]);
        handled.fetch_add(1, Ordering::Relaxed);
        let within = |bound: &u64| took <= Duration::from_millis(*bound);
        let bucket = BUCKETS_MS.iter().position(within).unwrap_or(BUCKETS_MS.len());
        counts.took[bucket].fetch_add(1, Ordering::Relaxed);
        counts.took_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Drop for RpcCall {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}

type Encoded = Result<(), fmt::Error>;

impl Counts {
    fn labels(&self) -> [(&'static str, &'static str); 3] {
        let RpcName { service, method, kind } = self.name;
        [("grpc_method", method), ("grpc_service", service), ("grpc_type", kind.as_str())]
    }
}

impl Rpcs {
    fn encode_counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        count: impl Fn(&Counts) -> &AtomicU64,
    ) -> Encoded {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for counts in &self.0 {
            let value = ConstCounter::new(count(counts).load(Ordering::Relaxed));
            value.encode(family.encode_family(&counts.labels())?)?;
        }
        Ok(())
    }

    /// Every code of every method, as in Go: the first failure of a kind is then a step from zero,
    /// which a rate sees, and not a series that begins at one, which it does not.
    fn encode_handled(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let (name, help) = ("grpc_server_handled", "Calls ended, whatever their outcome");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for counts in &self.0 {
            let [method, service, kind] = counts.labels();
            for (code, count) in CODES.iter().zip(&counts.handled) {
                let labels = [("grpc_code", *code), method, service, kind];
                let value = ConstCounter::new(count.load(Ordering::Relaxed));
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let (name, help) = ("grpc_server_handling_seconds", "Duration of calls");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for counts in &self.0 {
            let bounds = BUCKETS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
            let took = counts.took.iter().map(|count| count.load(Ordering::Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.zip(took).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = Duration::from_nanos(counts.took_ns.load(Ordering::Relaxed)).as_secs_f64();
            family
                .encode_family(&counts.labels())?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Rpcs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let started = ("grpc_server_started", "Calls begun");
        self.encode_counter(&mut encoder, started, |counts| &counts.started)?;
        self.encode_handled(&mut encoder)?;
        let received = ("grpc_server_msg_received", "Messages received from clients");
        self.encode_counter(&mut encoder, received, |counts| &counts.received)?;
        let sent = ("grpc_server_msg_sent", "Messages sent to clients");
        self.encode_counter(&mut encoder, sent, |counts| &counts.sent)?;
        self.encode_durations(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_call_is_counted_once_under_its_end() {
        let name = RpcName { service: "s.S", method: "M", kind: RpcKind::Unary };
        let rpcs = Arc::new(Rpcs::new([name]));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&rpcs)));
        let printed = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a string takes it");
            text
        };
        let mut call = rpcs.begin(0);
        call.received(1);
        call.sent(1);
        call.end(0);
        call.end(14);
        drop(call);
        drop(rpcs.begin(0));
        rpcs.begin(0).end(99);
        let labels = r#"grpc_method="M",grpc_service="s.S",grpc_type="unary""#;
        let text = printed();
        for line in [
            format!("grpc_server_started_total{{{labels}}} 3"),
            format!("grpc_server_msg_received_total{{{labels}}} 1"),
            format!("grpc_server_msg_sent_total{{{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Unknown\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Unavailable\",{labels}}} 0"),
            format!("grpc_server_handling_seconds_count{{{labels}}} 3"),
            format!("grpc_server_handling_seconds_bucket{{le=\"+Inf\",{labels}}} 3"),
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
        }
    }
}
