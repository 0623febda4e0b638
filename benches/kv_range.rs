//! What reading costs at one million keys of 16 bytes with values of 256: single keys, pages,
//! counts, the longest hold of the lock in a long scan, hashes and snapshots.
//! `cargo bench --bench kv_range`.
//!
//! One run, no statistics: look at ratios, on a quiet machine.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_node::kv::{
    Command, Machine, PutRequest, RangeRequest, RangeScan, SnapshotCursor, SnapshotImport,
    SortOrder, SortTarget, Store,
};

const KEYS: u64 = 1_000_000;

fn main() {
    let mut machine = Machine::new();
    let value = Bytes::from(vec![b'v'; 256]);
    for n in 0..KEYS {
        let put = PutRequest { key: key(n), value: value.clone(), ..PutRequest::default() };
        machine.apply(n + 1, Command::Put(put)).expect("it is a valid command");
    }
    let store = machine.store();
    reads(store);
    scan(store);
    snapshot(store);
}

type Request<'a> = &'a dyn Fn(u64) -> RangeRequest;

fn reads(store: &Store) {
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let old = store.revision() - 1;
    let page =
        |n| RangeRequest { key: key(n), range_end: Bytes::from_static(b"\0"), ..all.clone() };
    let cases: [(&str, u64, Request<'_>); 7] = [
        ("one key", 300_000, &|n| RangeRequest { key: key(n), ..RangeRequest::default() }),
        ("one key, old revision", 300_000, &|n| RangeRequest {
            key: key(n),
            revision: old,
            ..RangeRequest::default()
        }),
        ("500 of all, and their count", 10, &|n| RangeRequest { limit: 500, ..page(n) }),
        ("count of all", 10, &|_| RangeRequest { count_only: true, ..all.clone() }),
        ("count of all, old revision", 10, &|_| RangeRequest {
            count_only: true,
            revision: old,
            ..all.clone()
        }),
        ("all", 3, &|_| all.clone()),
        ("the 10 last changed of all", 3, &|_| RangeRequest {
            sort_target: SortTarget::Mod,
            sort_order: SortOrder::Descend,
            limit: 10,
            ..all.clone()
        }),
    ];
    for (name, count, request) in cases {
        let requests: Vec<RangeRequest> = (0..count).map(|n| request(n * 7919 % KEYS)).collect();
        let begin = Instant::now();
        for request in &requests {
            store.range(request).expect("the revision is there");
        }
        println!("{name:32} {:10.1} us", begin.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
}

fn scan(store: &Store) {
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let mut scan = RangeScan::new(all, store).expect("now is always there");
    let mut longest = Duration::ZERO;
    loop {
        let begin = Instant::now();
        let done = scan.step(store, 1000).expect("the store is the same");
        longest = longest.max(begin.elapsed());
        if done {
            break;
        }
    }
    println!("{:32} {:10.1} us", "longest of steps of 1000", longest.as_secs_f64() * 1e6);
}

fn snapshot(store: &Store) {
    let begin = Instant::now();
    store.hash(0).expect("now is always there");
    println!("{:32} {:10.1} ms", "hash", begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    let mut cursor = SnapshotCursor::new(store);
    let mut chunks = Vec::new();
    while let Some(chunk) = cursor.next_chunk(store, 64 * 1024).expect("the store is the same") {
        chunks.push(chunk);
    }
    println!("{:32} {:10.1} ms", "snapshot, made", begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    let mut import = SnapshotImport::new();
    for chunk in &chunks {
        import.chunk(chunk).expect("just made");
    }
    import.finish().expect("just made");
    println!(
        "{:32} {:10.1} ms",
        "snapshot, restored and dropped",
        begin.elapsed().as_secs_f64() * 1e3
    );
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}
