//! What applying costs the state machine: time per command at one million keys of 16 bytes with
//! values of 256, and memory against their bytes. `cargo bench --bench kv_apply`.
//!
//! One run, no statistics: look at ratios, on a quiet machine.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_node::kv::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, Machine,
    PutRequest, RequestOp, TxnRequest,
};

const KEYS: u64 = 1_000_000;
const SAMPLES: u64 = 200_000;
const PAYLOAD_BYTES: u64 = KEYS * (16 + 256);

fn main() {
    for (name, random) in [("random keys", true), ("ascending keys", false)] {
        println!("{name}");
        bench(random);
    }
}

fn bench(random: bool) {
    let before = resident_bytes();
    let mut log = Log { machine: Machine::new(), index: 0 };
    let value = Bytes::from(vec![b'v'; 256]);
    let put = |n| PutRequest { key: key(n, random), value: value.clone(), ..PutRequest::default() };
    log.run("put, new key", KEYS, |n| Command::Put(put(n)));
    let held = resident_bytes().saturating_sub(before);
    println!("  {:28} {:8.2} x payload", "resident", held as f64 / PAYLOAD_BYTES as f64);
    log.run("put, existing key", SAMPLES, |n| Command::Put(put(n * 5)));
    log.run("compare and put", SAMPLES, |n| {
        let compare = Compare {
            key: key(n * 5, random),
            range_end: Bytes::new(),
            result: CompareResult::Greater,
            target: CompareTarget::Mod(0),
        };
        let success = vec![RequestOp::Put(put(n * 5))];
        Command::Txn(TxnRequest { compare: vec![compare], success, failure: Vec::new() })
    });
    log.run("delete one key", SAMPLES, |n| {
        let key = key(n * 5, random);
        Command::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
    });
    let revision = log.machine.store().revision();
    log.run("compact", 1, |_| Command::Compact(CompactionRequest { revision }));
    let (begin, mut steps) = (Instant::now(), 1);
    while !log.machine.compact_step(1000) {
        steps += 1;
    }
    let micros = begin.elapsed().as_micros() / steps;
    println!("  {:28} {micros:8} us", "compaction step of 1000");
}

/// A machine fed with encoded commands, as from the log.
struct Log {
    machine: Machine,
    index: u64,
}

impl Log {
    /// Applies `count` commands and prints what decoding and applying one takes.
    fn run(&mut self, name: &str, count: u64, command: impl Fn(u64) -> Command) {
        let mut taken = Duration::ZERO;
        for chunk in (0..count).step_by(10_000) {
            let numbers = chunk..count.min(chunk + 10_000);
            let encoded: Vec<Bytes> = numbers.map(|n| command(n).encode()).collect();
            let begin = Instant::now();
            for bytes in &encoded {
                self.index += 1;
                let command = Command::decode(bytes).expect("just encoded");
                self.machine.apply(self.index, command).expect("it is a valid command");
            }
            taken += begin.elapsed();
        }
        println!("  {name:28} {:8.0} ns", taken.as_nanos() as f64 / count as f64);
    }
}

fn key(n: u64, random: bool) -> Bytes {
    let n = if random { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { n };
    Bytes::from(format!("{n:016x}"))
}

/// What the process holds in memory, from the kernel; 0 where it does not say.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
