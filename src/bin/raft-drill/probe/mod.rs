//! Writes and reads at every member, all the time, and a ledger of what was promised.
//!
//! It answers three questions: for how long was no write acknowledged, is everything that was
//! acknowledged there afterwards at every member, and did a linearizable read ever return less
//! than what had been acknowledged before it began.

mod ledger;
#[cfg(test)]
mod tests;
mod traffic;

pub use ledger::{Findings, Gap, Outcomes, Violations};
pub use traffic::Pace;

use crate::bulk;
use crate::grpc::{self, ENDPOINT, Endpoint, Link};
use crate::lag::LagMeter;
use crate::output;
use crate::verdict::{self, Failure};
use bytes::Bytes;
use clap::Args;
use ledger::Ledger;
use raft_node::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, RangeRequest, RangeResponse,
};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use traffic::Shared;

/// How long a member may need to answer the read-back.
const READ_BACK_PATIENCE: Duration = Duration::from_mins(1);
const READ_BACK_PAGE: i64 = 1000;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// How the probe writes and reads; shared by `probe` and `drill`.
#[derive(Args, Clone, Debug)]
pub struct PaceArgs {
    /// Between two writes to the same member
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    interval_ms: u64,
    /// Between two linearizable reads from the same member
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    read_interval_ms: u64,
    /// When a write without an answer is given up
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    deadline_ms: u64,
    /// Read from the member asked, without asking the leader: shows that stale reads are found
    #[arg(long)]
    serializable: bool,
    /// Leave the keys in the cluster (they begin with drill/)
    #[arg(long)]
    keep: bool,
}

impl PaceArgs {
    fn pace(&self) -> Pace {
        Pace {
            write_interval: Duration::from_millis(self.interval_ms),
            read_interval: Duration::from_millis(self.read_interval_ms),
            write_deadline: Duration::from_millis(self.deadline_ms),
            serializable: self.serializable,
        }
    }
}

/// `probe`'s arguments.
#[derive(Args)]
pub struct ProbeArgs {
    /// Where the members answer clients
    #[arg(long, value_delimiter = ',', default_value = ENDPOINT, value_name = "HOST:PORT,…")]
    endpoints: Vec<Endpoint>,
    /// How long
    #[arg(long, default_value_t = 30)]
    duration_s: u64,
    #[command(flatten)]
    pace: PaceArgs,
    /// Fail when no member acknowledged a write for longer than this
    #[arg(long)]
    max_gap_ms: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// A running probe.
pub struct Probe {
    shared: Arc<Shared>,
    /// One per member: for the read-back, and free of the traffic's queue.
    links: Vec<Arc<Link>>,
    tasks: Vec<JoinHandle<()>>,
    started: Instant,
    lag: LagMeter,
    keep: bool,
}

#[derive(Serialize)]
struct MemberReport {
    endpoint: String,
    longest_gap_ms: f64,
    writes: Outcomes,
    reads: Outcomes,
}

#[derive(Serialize)]
struct ProbeReport {
    seconds: f64,
    longest_gap_ms: f64,
    longest_gap_at_s: f64,
    own_lag_ms: f64,
    members: Vec<MemberReport>,
    stale: Violations,
    read_back: Findings,
}

impl Probe {
    /// Starts writing and reading at every endpoint.
    pub fn start(endpoints: &[Endpoint], args: &PaceArgs) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("drill/{:x}-{}/", since_epoch.as_millis(), std::process::id());
        let shared = Arc::new(Shared::new(Ledger::new(prefix, endpoints.len())));
        let mut tasks = Vec::new();
        let link = |endpoint: &Endpoint| Arc::new(Link::open(endpoint.clone()));
        for (member, endpoint) in endpoints.iter().enumerate() {
            let (shared, pace) = (&shared, args.pace());
            let writes = traffic::write_loop(shared.clone(), link(endpoint), member, pace);
            let reads = traffic::read_loop(shared.clone(), link(endpoint), member, pace);
            tasks.extend([tokio::spawn(writes), tokio::spawn(reads)]);
        }
        let links = endpoints.iter().map(link).collect();
        Self {
            shared,
            links,
            tasks,
            started: Instant::now(),
            lag: LagMeter::start(),
            keep: args.keep,
        }
    }

    /// Waits until every one of `members` has acknowledged a write begun after this call.
    pub async fn all_writing(&self, members: &[usize], within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let silent = {
                let ledger = self.shared.ledger();
                let fresh =
                    |member: &&usize| ledger.last_ack(**member).is_some_and(|at| at > begun);
                members.iter().find(|member| !fresh(member)).copied()
            };
            match silent {
                None => return Ok(()),
                Some(member) if begun.elapsed() > within => {
                    let endpoint = self.links[member].endpoint();
                    return Err(format!("{endpoint} acknowledges no writes"));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// A link to each member, for questions beside the traffic.
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// The longest time without an acknowledged write, of all members or of one.
    pub fn longest_gap(&self, window: &Range<Instant>, member: Option<usize>) -> Gap {
        self.shared.ledger().longest_gap(window, member)
    }

    /// By how much this process itself was late, at the worst.
    pub fn own_lag(&self, window: &Range<Instant>) -> Duration {
        self.lag.worst(window)
    }

    /// How many writes were begun so far, by member.
    pub fn sent(&self) -> Vec<u64> {
        self.shared.ledger().sent()
    }

    /// Writes begun, acknowledged and failed so far, over all members.
    pub fn failed(&self) -> u64 {
        self.shared.ledger().writes.iter().map(Outcomes::failures).sum()
    }

    /// Stale reads so far.
    pub fn stale(&self) -> Violations {
        self.shared.ledger().stale.clone()
    }

    /// Ends the traffic and waits for the answers that are still to come.
    pub async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("the traffic does not panic");
        }
    }

    /// Reads the writes `numbers` (by writer) back from every member, linearizably, and judges.
    pub async fn read_back(&self, numbers: &[Range<u64>]) -> Result<Findings, String> {
        let mut findings = Findings::default();
        for (reader, link) in self.links.iter().enumerate() {
            for (writer, numbers) in numbers.iter().enumerate() {
                let promised = self.shared.ledger().promised(writer, numbers.clone());
                let found = self.read_range(link, writer, numbers).await?;
                self.shared.ledger().judge(reader, promised, &found, &mut findings);
            }
        }
        Ok(findings)
    }

    async fn read_range(
        &self,
        link: &Link,
        member: usize,
        numbers: &Range<u64>,
    ) -> Result<Vec<raft_node::proto::mvccpb::KeyValue>, String> {
        let key = |number| self.shared.ledger().key(ledger::WriteId { member, number });
        let (mut from, to) = (key(numbers.start), key(numbers.end));
        let mut found = Vec::new();
        while from < to {
            let request = RangeRequest {
                key: from,
                range_end: to.clone(),
                limit: READ_BACK_PAGE,
                ..Default::default()
            };
            let page = patiently::<RangeResponse>(link, grpc::RANGE, &request).await?;
            let last = page.kvs.last().map(|kv| kv.key.clone());
            found.extend(page.kvs);
            match last {
                Some(last) if page.more => from = Bytes::from([&last[..], b"\0"].concat()),
                Some(_) | None => break,
            }
        }
        Ok(found)
    }

    /// Removes what the probe wrote, unless it is to stay.
    pub async fn clean_up(&self) -> Result<(), String> {
        if self.keep {
            return Ok(());
        }
        let key = Bytes::from(self.shared.ledger().prefix().to_owned());
        let mut range_end = key.to_vec();
        *range_end.last_mut().expect("the prefix is not empty") += 1;
        let range_end = Bytes::from(range_end);
        let request = DeleteRangeRequest { key, range_end, prev_kv: false };
        patiently::<DeleteRangeResponse>(&self.links[0], grpc::DELETE_RANGE, &request).await?;
        Ok(())
    }

    fn report(&self, window: &Range<Instant>, read_back: Findings) -> ProbeReport {
        let ledger = self.shared.ledger();
        let ms = |gap: Gap| gap.length.as_secs_f64() * 1e3;
        let members = self.links.iter().enumerate().map(|(member, link)| MemberReport {
            endpoint: link.endpoint().to_string(),
            longest_gap_ms: ms(ledger.longest_gap(window, Some(member))),
            writes: ledger.writes[member].clone(),
            reads: ledger.reads[member].clone(),
        });
        let longest = ledger.longest_gap(window, None);
        ProbeReport {
            seconds: (window.end - window.start).as_secs_f64(),
            longest_gap_ms: ms(longest),
            longest_gap_at_s: (longest.from - self.started).as_secs_f64(),
            own_lag_ms: self.own_lag(window).as_secs_f64() * 1e3,
            members: members.collect(),
            stale: ledger.stale.clone(),
            read_back,
        }
    }
}

async fn patiently<A: prost::Message + Default>(
    link: &Link,
    path: &'static str,
    request: &impl prost::Message,
) -> Result<A, String> {
    let begun = Instant::now();
    loop {
        match link.unary(path, request, REQUEST_DEADLINE).await {
            Ok(answer) => return Ok(answer),
            Err(failure) if begun.elapsed() > READ_BACK_PATIENCE => {
                return Err(format!("{}: {failure}", link.endpoint()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// `raft-drill probe`.
pub fn run(args: &ProbeArgs) -> Result<(), Failure> {
    bulk::runtime().block_on(async {
        bulk::connect(&args.endpoints, args.endpoints.len()).await?;
        let mut probe = Probe::start(&args.endpoints, &args.pace);
        let everyone: Vec<usize> = (0..args.endpoints.len()).collect();
        probe.all_writing(&everyone, bulk::CONNECT_DEADLINE).await?;
        let start = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.duration_s)) => {}
            _interrupted = tokio::signal::ctrl_c() => {}
        }
        let window = start..Instant::now();
        probe.stop().await;
        output::progress("reading everything back from every member");
        let all: Vec<Range<u64>> = probe.sent().into_iter().map(|sent| 0..sent).collect();
        let findings = probe.read_back(&all).await?;
        let report = probe.report(&window, findings);
        probe.clean_up().await?;
        if args.json {
            let json = serde_json::to_string(&report).expect("a report is plain data");
            output::line(&json);
        } else {
            print(&report);
        }
        verdict(&report, args.max_gap_ms)
    })
}

fn print(report: &ProbeReport) {
    let rows: Vec<Vec<String>> = report
        .members
        .iter()
        .map(|member| {
            vec![
                member.endpoint.clone(),
                member.writes.ok.to_string(),
                member.writes.failures().to_string(),
                format!("{:.1}", member.longest_gap_ms),
                member.reads.ok.to_string(),
                member.reads.failures().to_string(),
            ]
        })
        .collect();
    let head = ["member", "writes", "failed", "longest gap ms", "reads", "failed"];
    output::table(&head, &rows);
    for member in &report.members {
        for (what, outcomes) in [("writes", &member.writes), ("reads", &member.reads)] {
            for (message, count) in &outcomes.failed {
                output::line(&format!("  {} {what}: {count} × {message}", member.endpoint));
            }
        }
    }
    output::line(&format!(
        "longest time without an acknowledged write: {:.1} ms, {:.1} s into the run of {:.1} s",
        report.longest_gap_ms, report.longest_gap_at_s, report.seconds
    ));
    output::line(&format!("the probe itself was late by at most {:.1} ms", report.own_lag_ms));
    print_violations("stale linearizable reads", &report.stale);
    print_findings(&report.read_back);
}

/// Counts, and a few examples where there is something to show.
pub fn print_violations(what: &str, violations: &Violations) {
    output::line(&format!("{what}: {}", violations.count));
    for example in &violations.examples {
        output::line(&format!("  {example}"));
    }
}

/// What the read-back found.
pub fn print_findings(findings: &Findings) {
    let checked = findings.checked;
    output::line(&format!("acknowledged writes read back, over all members: {checked}"));
    print_violations("lost acknowledged writes", &findings.lost);
    print_violations("writes that happened twice", &findings.duplicated);
    print_violations("writes that nobody sent", &findings.phantom);
}

fn verdict(report: &ProbeReport, max_gap_ms: Option<u64>) -> Result<(), Failure> {
    if !report.read_back.clean() || report.stale.count > 0 {
        return Err(Failure::Failed("the cluster broke its promises".to_owned()));
    }
    max_gap_ms
        .map_or(Ok(()), |max_ms| verdict::gap("", report.longest_gap_ms, report.own_lag_ms, max_ms))
}
