//! Writing many keys, and asking every member whether it holds the same bytes.

use crate::grpc::{self, CallError, ENDPOINT, Endpoint, Link};
use crate::output;
use bytes::{Bytes, BytesMut};
use clap::Args;
use raft_node::proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse, request_op,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// etcd refuses more operations than this in one transaction.
const TXN_OPS_MAX: u64 = 128;
/// etcd refuses requests above 1.5 MiB; stay well below.
const TXN_BYTES_MAX: u64 = 1 << 20;
/// How long one write may take: a filled disk queue is no failure.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a member may need until it has applied the revision that is compared.
const CATCH_UP_DEADLINE: Duration = Duration::from_mins(1);
/// How long the first connection may take.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Digits of the number in a key.
const KEY_DIGITS: usize = 10;

/// `fill`'s arguments.
#[derive(Args)]
pub struct FillArgs {
    /// Where the members answer clients
    #[arg(long, value_delimiter = ',', default_value = ENDPOINT, value_name = "HOST:PORT,…")]
    endpoints: Vec<Endpoint>,
    /// How many keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes per value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// What each key begins with
    #[arg(long, default_value = "fill/")]
    prefix: String,
    /// How many transactions are under way at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
}

/// `hash`'s arguments.
#[derive(Args)]
pub struct HashArgs {
    /// Where the members answer clients
    #[arg(long, value_delimiter = ',', default_value = ENDPOINT, value_name = "HOST:PORT,…")]
    endpoints: Vec<Endpoint>,
    /// At which revision; 0: the newest of the cluster
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

/// Numbers without a pattern, the same on every run: splitmix64.
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Bytes that no compression shortens.
    pub fn bytes(&mut self, length: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes.freeze()
    }
}

/// The key with this number.
pub fn key(prefix: &str, number: u64) -> Bytes {
    Bytes::from(format!("{prefix}{number:0KEY_DIGITS$}"))
}

/// Writes keys `0..keys` in transactions, each link with its share of the clients.
pub async fn fill(
    links: &[Arc<Link>],
    prefix: &str,
    keys: u64,
    value_bytes: usize,
    clients: u64,
) -> Result<(), String> {
    let per_txn = (TXN_BYTES_MAX / (value_bytes as u64 + 64)).clamp(1, TXN_OPS_MAX);
    let next = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let telling = tokio::spawn(tell(done.clone(), keys));
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let link = links[client as usize % links.len()].clone();
            let (prefix, next, done) = (prefix.to_owned(), next.clone(), done.clone());
            tokio::spawn(async move {
                let mut noise = Noise(client);
                loop {
                    let from = next.fetch_add(per_txn, Ordering::Relaxed);
                    if from >= keys {
                        return Ok::<(), String>(());
                    }
                    let numbers = from..keys.min(from + per_txn);
                    let count = numbers.end - numbers.start;
                    let puts = numbers.map(|number| put(&prefix, number, value_bytes, &mut noise));
                    let txn = TxnRequest { success: puts.collect(), ..Default::default() };
                    write_patiently(&link, &txn).await?;
                    done.fetch_add(count, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut outcome = Ok(());
    for task in tasks {
        let ended = task.await.map_err(|stopped| stopped.to_string());
        outcome = outcome.and(ended.and_then(|ended| ended));
    }
    telling.abort();
    outcome
}

/// Says how many of `keys` are written, until it is stopped.
async fn tell(done: Arc<AtomicU64>, keys: u64) {
    let (started, mut ticker) = (Instant::now(), output::Ticker::start());
    loop {
        tokio::time::sleep_until(ticker.next().into()).await;
        let written = done.load(Ordering::Relaxed);
        let rate = written as f64 / started.elapsed().as_secs_f64();
        ticker.tick(&format!("{written} of {keys} keys written, {rate:.0} keys/s"));
    }
}

fn put(prefix: &str, number: u64, value_bytes: usize, noise: &mut Noise) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: key(prefix, number),
            value: noise.bytes(value_bytes),
            ..Default::default()
        })),
    }
}

/// The same bytes again until they are accepted: writing them twice does no harm.
async fn write_patiently(link: &Link, txn: &TxnRequest) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match link.unary::<TxnResponse>(grpc::TXN, txn, WRITE_DEADLINE).await {
            Ok(_) => return Ok(()),
            Err(CallError::Status { code: 3, message }) => return Err(message),
            Err(failure) if started.elapsed() > WRITE_DEADLINE => {
                return Err(format!("{}: {failure}", link.endpoint()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One runtime thread: it costs less processor time than several, and the servers need it.
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs nothing but memory and a few descriptors")
}

/// A link to each endpoint, all connected.
pub async fn connect(endpoints: &[Endpoint], count: usize) -> Result<Vec<Arc<Link>>, String> {
    let links: Vec<Arc<Link>> = (0..count)
        .map(|index| Arc::new(Link::open(endpoints[index % endpoints.len()].clone())))
        .collect();
    for link in &links {
        let outcome = link.connected(CONNECT_DEADLINE).await;
        outcome.map_err(|_| format!("{} does not answer", link.endpoint()))?;
    }
    Ok(links)
}

/// `raft-drill fill`.
pub fn run_fill(args: &FillArgs) -> Result<(), String> {
    runtime().block_on(async {
        let links = connect(&args.endpoints, args.endpoints.len()).await?;
        let started = Instant::now();
        fill(&links, &args.prefix, args.keys, args.value_bytes, args.clients).await?;
        let seconds = started.elapsed().as_secs_f64();
        output::line(&format!(
            "{} keys of {} bytes in {seconds:.1} s: {:.0} keys/s",
            args.keys,
            args.value_bytes,
            args.keys as f64 / seconds
        ));
        Ok(())
    })
}

/// `raft-drill hash`.
pub fn run_hash(args: &HashArgs) -> Result<(), String> {
    runtime().block_on(async {
        let links = connect(&args.endpoints, args.endpoints.len()).await?;
        let revision = match args.revision {
            0 => newest_revision(&links[0]).await?,
            given => given,
        };
        let mut rows = Vec::new();
        let mut answers = Vec::new();
        for link in &links {
            let answer = hash_at(link, revision).await?;
            rows.push(vec![
                link.endpoint().to_string(),
                revision.to_string(),
                answer.compact_revision.to_string(),
                format!("{:08x}", answer.hash),
            ]);
            answers.push((answer.hash, answer.compact_revision));
        }
        output::table(&["member", "revision", "compacted", "hash"], &rows);
        if answers.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("the members DISAGREE".to_owned());
        }
        output::line("all members agree");
        Ok(())
    })
}

async fn newest_revision(link: &Link) -> Result<i64, String> {
    let probe = RangeRequest { key: Bytes::from_static(b"\0"), ..Default::default() };
    let answer: Result<RangeResponse, _> = link.unary(grpc::RANGE, &probe, WRITE_DEADLINE).await;
    let answer = answer.map_err(|failure| format!("{}: {failure}", link.endpoint()))?;
    Ok(answer.header.map_or(0, |header| header.revision))
}

/// A member that lags answers "future revision" for a while.
async fn hash_at(link: &Link, revision: i64) -> Result<HashKvResponse, String> {
    let started = Instant::now();
    loop {
        let request = HashKvRequest { revision };
        match link.unary(grpc::HASH_KV, &request, CATCH_UP_DEADLINE).await {
            Ok(answer) => return Ok(answer),
            Err(CallError::Status { code: 11, message })
                if message.contains("future") && started.elapsed() < CATCH_UP_DEADLINE =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(failure) => return Err(format!("{}: {failure}", link.endpoint())),
        }
    }
}
