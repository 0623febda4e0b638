//! A closed loop of puts or gets: each client sends its next request when it has its answer.
//!
//! Single-client latency is the same loop with `--clients 1`. The first seconds count for nothing
//! (caches, connections, elections). Requests are prepared frames in which only the key's digits
//! change; the clients of a thread share one histogram. Since the generator takes processor time
//! from the servers beside it, what it took is part of the report.

use crate::bulk::{self, Noise};
use crate::grpc::{self, CallError, ENDPOINT, Endpoint, Link};
use crate::lag::LagMeter;
use crate::output;
use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use raft_node::proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest, StatusResponse};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PREFIX: &str = "load/";
/// A request that takes longer counts as an error.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// After an error, so that a dead member does not make the loop spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// The longest latency that the histogram can hold.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Linux counts processor time in hundredths of a second.
const CPU_TICKS_PER_S: f64 = 100.0;

/// Whom the connections lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Every endpoint in turn
    All,
    /// The leader at the start of the run
    Leader,
    /// Every endpoint but the leader
    Followers,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Writes
    Put,
    /// Linearizable reads
    Get,
    /// Both: see --read-percent
    Mixed,
}

/// `load`'s arguments.
#[derive(Args)]
pub struct LoadArgs {
    /// What to send
    #[arg(value_enum)]
    kind: Kind,
    /// Where the members answer clients
    #[arg(long, value_delimiter = ',', default_value = ENDPOINT, value_name = "HOST:PORT,…")]
    endpoints: Vec<Endpoint>,
    /// How many requests are under way at any time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many HTTP/2 connections they share, spread over the endpoints
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Which of the endpoints to use
    #[arg(long, value_enum, default_value_t = Target::All)]
    target: Target,
    /// How many threads drive them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration_s: u64,
    /// How long to load before measuring
    #[arg(long, default_value_t = 2)]
    warmup_s: u64,
    /// Bytes per value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Among how many keys the requests choose at random
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// With `mixed`: how many in a hundred are reads
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=100))]
    read_percent: u64,
    /// Read from the member asked, without asking the leader (may be stale)
    #[arg(long)]
    serializable: bool,
    /// Do not write the keys before reading them
    #[arg(long)]
    no_prepare: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// The system's name in the JSON line, for `summary`
    #[arg(long, default_value = "")]
    label: String,
}

/// What one run measured; also the line that `summary` reads.
#[derive(Clone, Debug, Default, Serialize, serde::Deserialize)]
pub struct Report {
    /// `--label`.
    pub label: String,
    /// `put`, `get` or `mixed`.
    pub kind: String,
    /// `all`, `leader` or `followers`.
    pub target: String,
    /// Requests under way.
    pub clients: u32,
    /// HTTP/2 connections.
    pub connections: u32,
    /// Answered within the measured time.
    pub operations: u64,
    /// The measured time.
    pub seconds: f64,
    /// Operations per second.
    pub per_second: f64,
    /// Latency, µs.
    pub p50_us: f64,
    /// Latency, µs.
    pub p90_us: f64,
    /// Latency, µs.
    pub p99_us: f64,
    /// Latency, µs.
    pub p999_us: f64,
    /// Latency, µs.
    pub max_us: f64,
    /// Processor time that this tool took per operation, µs.
    pub generator_cpu_us: f64,
    /// By how much this tool itself was late at the worst, ms: far beyond the latencies, the
    /// machine stood still and the run is worth nothing.
    #[serde(default)]
    pub generator_late_ms: f64,
    /// By message.
    pub errors: BTreeMap<String, u64>,
}

/// Requests answered so far, for those who watch.
type Answered = Arc<AtomicU64>;

struct Tally {
    late: Duration,
    latency_ns: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// The measured time: from, to.
type Window = (Instant, Instant);

/// `raft-drill load`.
pub fn run(args: &LoadArgs) -> Result<(), String> {
    if args.kind != Kind::Put && !args.no_prepare {
        bulk::runtime().block_on(async {
            let links = bulk::connect(&args.endpoints, args.endpoints.len()).await?;
            bulk::fill(&links, PREFIX, args.keys, args.value_bytes, 8).await
        })?;
    }
    let endpoints = bulk::runtime().block_on(targets(args))?;
    let from = Instant::now() + Duration::from_secs(args.warmup_s);
    let window = (from, from + Duration::from_secs(args.duration_s));
    let answered = Answered::default();
    let (tallies, cpu) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|thread| {
                let mut endpoints = endpoints.clone();
                let first = thread as usize % endpoints.len();
                endpoints.rotate_left(first);
                let answered = answered.clone();
                scope.spawn(move || run_thread(args, thread, &endpoints, window, &answered))
            })
            .collect();
        let mut ticker = output::Ticker::start();
        watch_until(window.0, "warming up", &answered, &mut ticker);
        let cpu_before = cpu_seconds();
        watch_until(window.1, "measuring", &answered, &mut ticker);
        let cpu = cpu_seconds() - cpu_before;
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err("a load thread panicked".to_owned()))
        });
        (joined.collect::<Result<Vec<Tally>, String>>(), cpu)
    });
    let report = report(args, tallies?, cpu);
    if args.json {
        let json = serde_json::to_string(&report).expect("a report is plain data");
        output::line(&json);
    } else {
        print(&report);
    }
    if report.operations == 0 {
        return Err("not one request was answered".to_owned());
    }
    Ok(())
}

/// Waits until `end`, and says at intervals how far the run is.
fn watch_until(end: Instant, what: &str, answered: &Answered, ticker: &mut output::Ticker) {
    loop {
        let next = ticker.next().min(end);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if next == end {
            return;
        }
        let left_s = end.saturating_duration_since(Instant::now()).as_secs();
        let count = answered.load(Ordering::Relaxed);
        ticker.tick(&format!("{what}: {count} requests answered, {left_s} s left"));
    }
}

/// The endpoints that `--target` leaves.
async fn targets(args: &LoadArgs) -> Result<Vec<Endpoint>, String> {
    if args.target == Target::All {
        return Ok(args.endpoints.clone());
    }
    let mut left = Vec::new();
    for link in bulk::connect(&args.endpoints, args.endpoints.len()).await? {
        let status: StatusResponse = link
            .unary(grpc::STATUS, &StatusRequest::default(), REQUEST_DEADLINE)
            .await
            .map_err(|failure| format!("{}: {failure}", link.endpoint()))?;
        let leads = status.header.is_some_and(|header| header.member_id == status.leader);
        if leads == (args.target == Target::Leader) {
            left.push(link.endpoint().clone());
        }
    }
    if left.is_empty() {
        return Err("no such member among the endpoints".to_owned());
    }
    Ok(left)
}

/// How many of `total` things fall to this thread when every thread takes one in turn.
fn share(total: u32, threads: u32, thread: u32) -> u32 {
    total / threads + u32::from(thread < total % threads)
}

/// This thread's share: every `threads`-th client and connection.
fn run_thread(
    args: &LoadArgs,
    thread: u32,
    endpoints: &[Endpoint],
    window: Window,
    answered: &Answered,
) -> Result<Tally, String> {
    let mine = |total: u32| share(total, args.threads, thread);
    let latency_ns = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("valid bounds");
    let (late, errors) = (Duration::ZERO, BTreeMap::new());
    let tally = Arc::new(Mutex::new(Tally { late, latency_ns, errors }));
    bulk::runtime().block_on(async {
        let links = bulk::connect(endpoints, mine(args.connections).max(1) as usize).await?;
        let lag = LagMeter::start();
        let tasks: Vec<_> = (0..mine(args.clients))
            .map(|client| {
                let link = links[client as usize % links.len()].clone();
                let requests = Requests::new(args, u64::from(client * args.threads + thread));
                let (tally, answered) = (tally.clone(), answered.clone());
                tokio::spawn(run_client(link, requests, tally, answered, window))
            })
            .collect();
        for task in tasks {
            task.await.map_err(|stopped| stopped.to_string())?;
        }
        // Beyond the window too: who waits for an answer there waits for one asked for within.
        tally.lock().expect("no client panicked").late = lag.worst(&(window.0..Instant::now()));
        Ok::<(), String>(())
    })?;
    let tally = Arc::try_unwrap(tally).ok().expect("every client has ended");
    Ok(tally.into_inner().expect("no client panicked"))
}

async fn run_client(
    link: Arc<Link>,
    mut requests: Requests,
    tally: Arc<Mutex<Tally>>,
    answered: Answered,
    (from, to): Window,
) {
    loop {
        let started = Instant::now();
        if started >= to {
            return;
        }
        let (path, frame, answer_bytes_min) = requests.next();
        let outcome = match link.call_within(path, frame, REQUEST_DEADLINE).await {
            Ok(answer) if answer.len() < answer_bytes_min => {
                Err(CallError::Malformed("the key that was read is missing"))
            }
            other => other,
        };
        let ended = Instant::now();
        let measured = started >= from && ended <= to;
        let failed = outcome.is_err();
        answered.fetch_add(u64::from(!failed), Ordering::Relaxed);
        if measured || (failed && ended >= from) {
            let mut tally = tally.lock().expect("no client panicked");
            match outcome {
                Ok(_) => {
                    let ns = (ended - started).as_nanos() as u64;
                    tally.latency_ns.saturating_record(ns);
                }
                Err(failure) => *tally.errors.entry(failure.to_string()).or_default() += 1,
            }
        }
        if failed {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

/// One client's requests, cut from two prepared frames.
struct Requests {
    put: Template,
    get: Template,
    keys: u64,
    read_percent: u64,
    value_bytes: usize,
    noise: Noise,
}

impl Requests {
    fn new(args: &LoadArgs, client: u64) -> Self {
        let mut noise = Noise(client);
        let key = bulk::key(PREFIX, 0);
        let value = noise.bytes(args.value_bytes);
        let put = PutRequest { key: key.clone(), value, ..Default::default() };
        let serializable = args.serializable;
        let get = RangeRequest { key: key.clone(), serializable, ..Default::default() };
        Self {
            put: Template::new(&grpc::encode_frame(&put), &key),
            get: Template::new(&grpc::encode_frame(&get), &key),
            keys: args.keys,
            read_percent: match args.kind {
                Kind::Put => 0,
                Kind::Get => 100,
                Kind::Mixed => args.read_percent,
            },
            value_bytes: args.value_bytes,
            noise,
        }
    }

    /// Path, frame, and how short the answer must not be.
    fn next(&mut self) -> (&'static str, Bytes, usize) {
        let rng = self.noise.next();
        let key = (rng >> 8) % self.keys;
        if rng % 100 < self.read_percent {
            (grpc::RANGE, self.get.with_key(key), self.value_bytes)
        } else {
            (grpc::PUT, self.put.with_key(key), 0)
        }
    }
}

struct Template {
    frame: Vec<u8>,
    digits: std::ops::Range<usize>,
}

impl Template {
    fn new(frame: &[u8], key: &[u8]) -> Self {
        let at = frame.windows(key.len()).position(|window| window == key);
        let at = at.expect("the frame holds the key");
        Self { frame: frame.to_vec(), digits: at + PREFIX.len()..at + key.len() }
    }

    fn with_key(&self, mut number: u64) -> Bytes {
        let mut frame = BytesMut::from(&self.frame[..]);
        for digit in frame[self.digits.clone()].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        frame.freeze()
    }
}

fn report(args: &LoadArgs, tallies: Vec<Tally>, cpu_s: f64) -> Report {
    let mut latency_ns: Histogram<u64> =
        Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("valid bounds");
    let mut errors = BTreeMap::new();
    let late = tallies.iter().map(|tally| tally.late).max().unwrap_or_default();
    for tally in tallies {
        latency_ns.add(&tally.latency_ns).expect("the same bounds");
        for (message, count) in tally.errors {
            *errors.entry(message).or_default() += count;
        }
    }
    let operations = latency_ns.len();
    let seconds = args.duration_s as f64;
    let quantile_us = |q: f64| latency_ns.value_at_quantile(q) as f64 / 1e3;
    Report {
        label: args.label.clone(),
        kind: format!("{:?}", args.kind).to_lowercase(),
        target: format!("{:?}", args.target).to_lowercase(),
        clients: args.clients,
        connections: args.connections,
        operations,
        seconds,
        per_second: operations as f64 / seconds,
        p50_us: quantile_us(0.5),
        p90_us: quantile_us(0.9),
        p99_us: quantile_us(0.99),
        p999_us: quantile_us(0.999),
        max_us: latency_ns.max() as f64 / 1e3,
        generator_cpu_us: cpu_s * 1e6 / (operations.max(1) as f64),
        generator_late_ms: late.as_secs_f64() * 1e3,
        errors,
    }
}

fn print(report: &Report) {
    output::line(&format!(
        "{}: {} clients on {} connections to {}, {:.0} s",
        report.kind, report.clients, report.connections, report.target, report.seconds
    ));
    output::line(&format!("  {:.0} operations/s ({})", report.per_second, report.operations));
    output::line(&format!(
        "  latency µs: p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        report.p50_us, report.p90_us, report.p99_us, report.p999_us, report.max_us
    ));
    output::line(&format!(
        "  the generator took {:.1} µs/operation and was late by at most {:.1} ms",
        report.generator_cpu_us, report.generator_late_ms
    ));
    if report.errors.is_empty() {
        output::line("  no errors");
    }
    for (message, count) in &report.errors {
        output::line(&format!("  {count} × {message}"));
    }
}

/// Processor time of this process, all threads; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything but ends with the last parenthesis, user and system
    // time are the twelfth and thirteenth fields.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / CPU_TICKS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn template_changes_the_key_and_nothing_else() {
        let key = bulk::key(PREFIX, 0);
        let put = |key| PutRequest { key, value: Noise(1).bytes(256), ..Default::default() };
        let template = Template::new(&grpc::encode_frame(&put(key.clone())), &key);
        for number in [0, 7, 1_234_567_890] {
            let frame = template.with_key(number);
            let decoded = PutRequest::decode(frame.slice(5..)).unwrap();
            assert_eq!(decoded, put(bulk::key(PREFIX, number)));
        }
    }

    #[test]
    fn threads_share_every_client_once() {
        for (threads, total) in [(1, 64), (2, 3), (3, 256), (4, 1)] {
            let shares = (0..threads).map(|thread| share(total, threads, thread));
            assert_eq!(shares.sum::<u32>(), total);
        }
    }
}
