//! What durability costs: appending 256-byte entries to the log and syncing, against the plainest
//! possible log (one write at the end of a growing file, one `fdatasync`), in alternating rounds
//! on the same disk; then reading the log back.
//!
//! `cargo bench --bench wal_append`, with the directory to use as an optional argument. Figures of
//! one machine mean little; the ratios do.

#![expect(clippy::print_stdout, reason = "a bench's figures are its output")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use raft_node::raft::types::{
    Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, Proposal, RequestId, Term,
};
use raft_node::storage::{self, Error, Identity, Options, RealDisk, Record, Wal};

const ENTRY_BYTES: usize = 256;
const ROUNDS: usize = 5;
const REPLAY_BYTES: usize = 300 << 20;

fn main() {
    let chosen = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let root = PathBuf::from(chosen.unwrap_or_else(|| "target/bench-wal".to_owned()));
    std::fs::remove_dir_all(&root).ok();
    println!("batch  ours p50   p99      plain p50  p99      ratio p50  entries/s");
    for batch in [1, 8, 64, 512] {
        let syncs = (4000 / batch).clamp(60, 600);
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let dir = root.join(format!("{batch}-{round}"));
            let mut log = Ours { wal: open(&dir, &mut |_| {}), last: 0 };
            let mut file = Plain::create(&dir);
            // One of each in turn: both meet the same neighbours.
            for _ in 0..syncs {
                ours.push(log.append(batch));
                plain.push(file.append(batch));
            }
            drop(log);
            std::fs::remove_dir_all(&dir).expect("the bench's directory can be removed");
        }
        let seconds: f64 = ours.iter().map(Duration::as_secs_f64).sum();
        let rate = (batch * ours.len()) as f64 / seconds;
        let (ours, plain) = (quantiles(ours), quantiles(plain));
        println!(
            "{batch:>5} {:>7.0} us {:>6.0} us {:>7.0} us {:>6.0} us {:>9.2} {rate:>10.0}",
            ours.0,
            ours.1,
            plain.0,
            plain.1,
            ours.0 / plain.0
        );
    }
    replay(&root.join("replay"));
    std::fs::remove_dir_all(&root).expect("the bench's directory can be removed");
}

struct Ours {
    wal: Wal<RealDisk>,
    last: u64,
}

impl Ours {
    fn append(&mut self, batch: usize) -> Duration {
        let entries = entries(self.last, batch);
        self.last += batch as u64;
        let began = Instant::now();
        self.wal.append(hard_state(self.last), None, &entries).expect("the disk takes it");
        self.wal.sync().expect("the disk takes it");
        let elapsed = began.elapsed();
        provide_spare(&mut self.wal);
        elapsed
    }
}

/// No checksum, no frame, no room made ahead: only what a log cannot do without.
struct Plain {
    file: File,
    end_bytes: u64,
}

impl Plain {
    fn create(dir: &Path) -> Self {
        let file = File::create_new(dir.join("plain")).expect("the bench's directory is writable");
        Self { file, end_bytes: 0 }
    }

    fn append(&mut self, batch: usize) -> Duration {
        let group = vec![0xa5; batch * (ENTRY_BYTES + 38) + 96];
        let began = Instant::now();
        self.file.write_all_at(&group, self.end_bytes).expect("the disk takes it");
        self.file.sync_data().expect("the disk takes it");
        self.end_bytes += group.len() as u64;
        began.elapsed()
    }
}

fn replay(dir: &Path) {
    let mut wal = open(dir, &mut |_| {});
    let mut last = 0;
    let mut slowest_roll = Duration::ZERO;
    while (last as usize) * ENTRY_BYTES < REPLAY_BYTES {
        let entries = entries(last, 64);
        last += 64;
        let began = Instant::now();
        wal.append(hard_state(last), None, &entries).expect("the disk takes it");
        slowest_roll = slowest_roll.max(began.elapsed());
        if last % (64 * 64) == 0 {
            wal.sync().expect("the disk takes it");
            provide_spare(&mut wal);
        }
    }
    wal.sync().expect("the disk takes it");
    drop(wal);
    let (mut count, mut bytes) = (0_u64, 0);
    let began = Instant::now();
    drop(open(dir, &mut |record| {
        if let Record::Entry(entry) = record {
            count += 1;
            bytes += entry.size_bytes();
        }
    }));
    let elapsed = began.elapsed();
    assert_eq!(count, last);
    println!(
        "replay: {count} entries, {} MB, in {:.2} s; slowest append while writing them {:.1} ms",
        bytes / 1_000_000,
        elapsed.as_secs_f64(),
        slowest_roll.as_secs_f64() * 1000.0
    );
}

fn open(dir: &Path, visit: &mut dyn FnMut(Record)) -> Wal<RealDisk> {
    let node_id = NodeId::new(1).expect("1 is not 0");
    let identity = Identity { cluster_id: 1, node_id };
    let disk = RealDisk::open(dir).expect("the bench's directory can be made");
    let first = Configuration::of_voters([node_id]);
    let opening = storage::open(&disk, Options::default(), identity, &first).expect("opens");
    let data = opening.replay(|record| {
        visit(record);
        Ok::<(), Error>(())
    });
    data.expect("the log is whole").wal
}

/// On this thread, between the measurements: what the node does on another.
fn provide_spare(wal: &mut Wal<RealDisk>) {
    if let Some(job) = wal.spare_job() {
        wal.add_spare(job.run().expect("the disk has room for a segment"));
    }
}

fn entries(after: u64, count: usize) -> Vec<Entry> {
    let origin = NodeId::new(1).expect("1 is not 0");
    let entry = |index: u64| Entry {
        id: EntryId { index: Index(index), term: Term(1) },
        payload: Payload::Command(Proposal {
            id: RequestId { origin, sequence: index },
            data: vec![index as u8 | 1; ENTRY_BYTES].into(),
        }),
    };
    (after + 1..=after + count as u64).map(entry).collect()
}

fn hard_state(commit: u64) -> HardState {
    HardState { term: Term(1), vote: NodeId::new(1), commit: Index(commit) }
}

/// Median and 99th percentile, in microseconds.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}
