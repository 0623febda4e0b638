//! Failover, again and again: find the leader, strike it, see who leads next, heal it, see it back.
//!
//! The probe writes and reads at every member throughout. A round ends when the struck member is
//! healthy and caught up and its return has cost nobody the leadership.

mod cluster;
mod docker;
mod processes;
mod report;
mod survey;

use crate::bulk;
use crate::grpc::Endpoint;
use crate::output;
use crate::probe::{PaceArgs, Probe};
use crate::verdict::Failure;
use clap::Args;
use cluster::{Cluster, Fault};
use docker::Docker;
use processes::{Processes, System};
use report::{DrillReport, GapLimits, Round};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A cluster that has found no leader by then will not find one.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);
/// Docker may need several probes to call a container healthy.
const RETURN_PATIENCE: Duration = Duration::from_secs(90);

/// `drill`'s arguments.
#[derive(Args)]
pub struct DrillArgs {
    /// What befalls the leader
    #[arg(value_enum)]
    fault: Fault,
    /// How many times
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The containers' names, in the order of the endpoints
    #[arg(long, value_delimiter = ',', default_value = "node1,node2,node3")]
    containers: Vec<String>,
    /// Where the containers answer clients
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379",
        value_name = "HOST:PORT,…"
    )]
    endpoints: Vec<Endpoint>,
    /// The network between the members [default: the one whose name ends in _peers]
    #[arg(long)]
    network: Option<String>,
    /// Instead of containers: start three processes of --binary on loopback
    #[arg(long, requires = "binary", conflicts_with_all = ["containers", "endpoints", "network"])]
    processes: bool,
    /// The program to start
    #[arg(long, requires = "processes")]
    binary: Option<PathBuf>,
    /// Whose command line it understands
    #[arg(long, value_enum, default_value_t = System::RaftNode)]
    system: System,
    #[command(flatten)]
    pace: PaceArgs,
    /// How long the leader stays struck once another leads
    #[arg(long, default_value_t = 1500)]
    hold_ms: u64,
    /// How long to watch for an election after its return
    #[arg(long, default_value_t = 1500)]
    settle_ms: u64,
    /// Fail when, once a leader is struck, no member acknowledges a write for longer than this
    #[arg(long)]
    max_gap_ms: Option<u64>,
    /// The same for the time from its healing to the end of the round
    #[arg(long)]
    max_return_gap_ms: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// `raft-drill drill`.
pub fn run(args: &DrillArgs) -> Result<(), Failure> {
    let cluster: Arc<dyn Cluster> = match &args.binary {
        Some(binary) => Arc::new(Processes::start(binary, args.system)?),
        None => Arc::new(Docker::find(&args.containers, &args.endpoints, args.network.as_deref())?),
    };
    let outcome = bulk::runtime().block_on(drill(args, &cluster));
    let report = outcome.inspect_err(|_| show_last_words(cluster.as_ref()))?;
    if args.json {
        output::line(&serde_json::to_string(&report).expect("a report is plain data"));
    } else {
        report.print();
    }
    report.verdict(GapLimits { struck_ms: args.max_gap_ms, return_ms: args.max_return_gap_ms })
}

fn show_last_words(cluster: &dyn Cluster) {
    for member in 0..cluster.endpoints().len() {
        output::progress(&format!("{} said last:", cluster.name(member)));
        output::progress(cluster.last_words(member).trim_end());
    }
}

async fn drill(args: &DrillArgs, cluster: &Arc<dyn Cluster>) -> Result<DrillReport, String> {
    let endpoints = cluster.endpoints();
    let mut probe = Probe::start(&endpoints, &args.pace);
    let everyone: Vec<usize> = (0..endpoints.len()).collect();
    survey::until_steady(probe.links(), &everyone, ELECTION_PATIENCE).await?;
    probe.all_writing(&everyone, ELECTION_PATIENCE).await?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let mut struck = None;
        let outcome = tokio::select! {
            outcome = round(args, cluster, &probe, number, &mut struck) => outcome,
            _interrupted = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        };
        // Whatever went wrong, the member is not left frozen, cut off or down.
        if let (Err(_), Some(member)) = (&outcome, struck) {
            output::progress(&format!("healing {}", cluster.name(member)));
            let _the_first_failure_is_the_one_to_tell = heal(cluster, member, args.fault).await;
        }
        let round = outcome.map_err(|failure| format!("round {number}: {failure}"))?;
        output::progress(&round.describe(args.rounds));
        rounds.push(round);
    }
    probe.stop().await;
    output::progress("reading everything back from every member");
    let all: Vec<Range<u64>> = probe.sent().into_iter().map(|sent| 0..sent).collect();
    let read_back = probe.read_back(&all).await?;
    probe.clean_up().await?;
    Ok(DrillReport { fault: args.fault, rounds, read_back, stale: probe.stale() })
}

/// One fault from strike to return. `struck` tells the caller whom to heal should this be cut
/// short.
async fn round(
    args: &DrillArgs,
    cluster: &Arc<dyn Cluster>,
    probe: &Probe,
    number: u32,
    struck: &mut Option<usize>,
) -> Result<Round, String> {
    let links = probe.links();
    let everyone: Vec<usize> = (0..links.len()).collect();
    let before = survey::until_steady(links, &everyone, ELECTION_PATIENCE).await?;
    probe.all_writing(&everyone, ELECTION_PATIENCE).await?;
    let member = before.leader;
    let survivors: Vec<usize> = everyone.iter().copied().filter(|other| *other != member).collect();
    let (sent_before, failed_before) = (probe.sent(), probe.failed());
    let stale_before = probe.stale().count;

    let strike_at = Instant::now();
    *struck = Some(member);
    let striking = strike(cluster, member, args.fault);
    let electing = survey::until_steady(links, &survivors, ELECTION_PATIENCE);
    let (striking, electing) = tokio::join!(striking, electing);
    striking?;
    let after = electing?;
    probe.all_writing(&survivors, ELECTION_PATIENCE).await?;
    tokio::time::sleep(Duration::from_millis(args.hold_ms)).await;
    let held = survey::until_steady(links, &survivors, ELECTION_PATIENCE).await?;

    let heal_at = Instant::now();
    heal(cluster, member, args.fault).await?;
    survey::until_back(cluster, links, member, held.leader, RETURN_PATIENCE).await?;
    let back = heal_at.elapsed();
    probe.all_writing(&everyone, ELECTION_PATIENCE).await?;
    *struck = None;
    tokio::time::sleep(Duration::from_millis(args.settle_ms)).await;
    let settled = survey::until_steady(links, &everyone, ELECTION_PATIENCE).await?;
    let end = Instant::now();

    let sent = probe.sent();
    let numbers: Vec<Range<u64>> =
        sent_before.iter().zip(&sent).map(|(before, now)| *before..*now).collect();
    let read_back = probe.read_back(&numbers).await?;
    let survivor_gap = |member: &usize| probe.longest_gap(&(strike_at..end), Some(*member)).length;
    Ok(Round {
        number,
        leader: cluster.name(member),
        next_leader: cluster.name(held.leader),
        gap_ms: ms(probe.longest_gap(&(strike_at..heal_at), None).length),
        return_gap_ms: ms(probe.longest_gap(&(heal_at..end), None).length),
        survivors_gap_ms: ms(survivors.iter().map(survivor_gap).max().unwrap_or_default()),
        own_lag_ms: ms(probe.own_lag(&(strike_at..end))),
        failed_writes: probe.failed() - failed_before,
        back_ms: ms(back),
        terms: held.term.saturating_sub(before.term),
        election_while_held: held != after,
        election_on_return: settled != held,
        stale: probe.stale().count - stale_before,
        lost: read_back.lost.count,
        duplicated: read_back.duplicated.count,
        phantom: read_back.phantom.count,
    })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Beside the traffic's thread: `docker stop` may take seconds.
async fn strike(cluster: &Arc<dyn Cluster>, member: usize, fault: Fault) -> Result<(), String> {
    let cluster = cluster.clone();
    let struck = tokio::task::spawn_blocking(move || cluster.strike(member, fault)).await;
    struck.map_err(|stopped| stopped.to_string())?
}

async fn heal(cluster: &Arc<dyn Cluster>, member: usize, fault: Fault) -> Result<(), String> {
    let cluster = cluster.clone();
    let healed = tokio::task::spawn_blocking(move || cluster.heal(member, fault)).await;
    healed.map_err(|stopped| stopped.to_string())?
}
