//! Streams over a store that the test writes to, with the hub in between.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::kv::{Command, CompactionRequest, DeleteRangeRequest, EventKind, KeySet, Machine};
use crate::kv::{PutRequest, RequestOp, TxnRequest};
use crate::node::clock::Watchdog;
use crate::node::{self, Handle, Limits, RequestError};
use crate::raft::NodeId;

use super::super::{Error, Responses, Server};
use super::*;

/// Generous: what is waited for takes milliseconds.
const PATIENCE: Duration = Duration::from_mins(1);

struct Member {
    machine: Arc<RwLock<Machine>>,
    revisions: watch::Sender<i64>,
    status: watch::Sender<Arc<node::Status>>,
    server: Server,
}

fn member() -> Member {
    let id = NodeId::new(1).expect("positive");
    let status = node::Status::leading(id);
    let (status, statuses) = watch::channel(Arc::new(status));
    let machine = Arc::new(RwLock::new(Machine::new()));
    let limits =
        Limits { request_bytes_max: 1 << 20, quota_bytes: 1 << 30, request_timeout: PATIENCE };
    let requests = mpsc::channel(1).0;
    let (revisions, announced) = watch::channel(1);
    let handle =
        Handle::new(requests, statuses, Watchdog::new(), Arc::clone(&machine), vec![], limits)
            .announcing(announced);
    let work = std::sync::mpsc::sync_channel(1).0;
    let server = Server::new(handle, Responses::new(1 << 20, work));
    tokio::spawn(server.watches().clone().run());
    Member { machine, revisions, status, server }
}

impl Member {
    fn apply(&self, command: Command) -> i64 {
        let mut machine = self.machine.write().expect("no test panics with it");
        let index = machine.applied() + 1;
        let revision = machine.apply(index, command).expect("it is valid");
        drop(machine);
        self.revisions.send_replace(revision);
        revision
    }

    fn put(&self, key: &str, value: &str) -> i64 {
        self.apply(Command::Put(put(key, value)))
    }

    /// Forgets the history before `revision`, also physically.
    fn compact(&self, revision: i64) {
        self.apply(Command::Compact(CompactionRequest { revision }));
        while !self.machine.write().expect("no test panics with it").compact_step(100) {}
    }

    fn open(&self) -> WatchStream {
        self.server.watch(false).expect("it does not stop")
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn from(key: &str, range_end: &str, start_revision: i64) -> WatchRequest {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    WatchRequest {
        keys: KeySet::new(bytes(key), bytes(range_end)),
        start_revision,
        id: None,
        prev_kv: false,
        kinds: Kinds { put: true, delete: true },
        progress_notify: false,
        fragment: false,
    }
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    let response = tokio::time::timeout(PATIENCE, stream.next()).await;
    response.expect("it comes in time").expect("the stream goes on")
}

/// The revisions, keys and values of the next events.
async fn events(stream: &mut WatchStream) -> Vec<(i64, String, String)> {
    let response = next(stream).await;
    let WatchResponse::Events { events, .. } = response else { panic!("no events: {response:?}") };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let one = |event: &Arc<kv::Event>| {
        (event.kv.mod_revision, text(&event.kv.key), text(&event.kv.value))
    };
    events.iter().map(one).collect()
}

async fn created(stream: &mut WatchStream) -> i64 {
    let response = next(stream).await;
    let WatchResponse::Created { id, .. } = response else { panic!("not created: {response:?}") };
    id
}

fn seen(revision: i64, key: &str, value: &str) -> (i64, String, String) {
    (revision, key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_watch_is_told_what_comes_and_if_it_wants_what_was() {
    let member = member();
    member.put("a", "0");
    let mut now = member.open();
    now.create(from("a", "", 0));
    let mut past = member.open();
    past.create(from("a", "", 1));
    let mut future = member.open();
    future.create(from("a", "", 4));
    for stream in [&mut now, &mut past, &mut future] {
        assert_eq!(created(stream).await, 0);
    }
    assert_eq!(events(&mut past).await, [seen(2, "a", "0")]);
    member.put("a", "1");
    member.put("a", "2");
    let (third, fourth) = ([seen(3, "a", "1")], [seen(4, "a", "2")]);
    for stream in [&mut now, &mut past] {
        assert_eq!(events(stream).await, third);
        assert_eq!(events(stream).await, fourth);
    }
    assert_eq!(events(&mut future).await, fourth);
}

#[tokio::test]
async fn all_events_of_a_revision_come_together_and_filters_leave_some_out() {
    let member = member();
    let mut stream = member.open();
    stream.create(from("k", "l", 0));
    stream.create(WatchRequest { kinds: Kinds { put: false, delete: true }, ..from("k", "l", 0) });
    stream.create(from("other", "", 0));
    for id in 0..3 {
        assert_eq!(created(&mut stream).await, id);
    }
    member.put("k0", "old");
    let success = vec![
        RequestOp::DeleteRange(DeleteRangeRequest { key: "k0".into(), ..Default::default() }),
        RequestOp::Put(put("k2", "b")),
        RequestOp::Put(put("unwatched", "")),
        RequestOp::Put(put("k1", "a")),
    ];
    member.apply(Command::Txn(TxnRequest { success, ..Default::default() }));
    assert_eq!(events(&mut stream).await, [seen(2, "k0", "old")]);
    let mut told = BTreeMap::new();
    for _ in 0..2 {
        let WatchResponse::Events { id, revision, events, .. } = next(&mut stream).await else {
            panic!("events were to come")
        };
        assert_eq!(revision, 3);
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.kv.key.clone())).collect();
        told.insert(id, kinds);
    }
    let deleted = (EventKind::Delete, Bytes::from("k0"));
    let puts = ["k2", "k1"].map(|key| (EventKind::Put, Bytes::from(key)));
    let all = [vec![deleted.clone()], puts.to_vec()].concat();
    assert_eq!(told, BTreeMap::from([(0, all), (1, vec![deleted])]));
}

#[tokio::test]
async fn ids_and_ranges_are_checked_as_by_etcd() {
    let member = member();
    let mut stream = member.open();
    stream.create(WatchRequest { id: Some(1), ..from("a", "", 0) });
    stream.create(from("a", "", 0));
    stream.create(from("a", "", 0));
    stream.create(WatchRequest { id: Some(2), ..from("a", "", 0) });
    stream.create(from("b", "a", 0));
    stream.create(from("a", "", -1));
    for id in [1, 0, 2] {
        assert_eq!(created(&mut stream).await, id);
    }
    for expected in [
        "mvcc: duplicate watch ID provided on the WatchStream",
        "mvcc: watcher range is empty",
        "etcdserver: mvcc: required revision has been compacted",
    ] {
        let response = next(&mut stream).await;
        let WatchResponse::Rejected { reason, .. } = response else { panic!("{response:?}") };
        assert_eq!(reason, expected);
    }
    stream.cancel(1);
    stream.cancel(99);
    let response = next(&mut stream).await;
    assert!(matches!(response, WatchResponse::Canceled { id: 1, compact_revision: 0, .. }));
    stream.create(from("a", "", 0));
    assert_eq!(created(&mut stream).await, 3);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_nothing_and_holds_little() {
    let member = member();
    let mut stream = member.open();
    stream.create(from("a", "", 0));
    let mut other = member.open();
    other.create(from("a", "", 0));
    assert_eq!((created(&mut stream).await, created(&mut other).await), (0, 0));
    for number in 0..5000 {
        let revision = member.put("a", &number.to_string());
        assert_eq!(events(&mut other).await, [seen(revision, "a", &number.to_string())]);
    }
    let mut expected = 2;
    while expected < 5002 {
        for (revision, _, value) in events(&mut stream).await {
            assert_eq!((revision, value), (expected, (expected - 2).to_string()));
            expected += 1;
        }
    }
    member.put("a", "live");
    assert_eq!(events(&mut stream).await, [seen(5002, "a", "live")]);
}

#[tokio::test]
async fn a_watch_whose_history_is_compacted_is_cancelled_with_the_revision() {
    let member = member();
    for number in 0..10 {
        member.put("a", &number.to_string());
    }
    member.compact(8);
    let mut stream = member.open();
    stream.create(from("a", "", 7));
    stream.create(from("a", "", 8));
    let (mut canceled, mut told) = (None, Vec::new());
    while canceled.is_none() || told.len() < 4 {
        match next(&mut stream).await {
            WatchResponse::Created { .. } => {}
            WatchResponse::Canceled { id, revision, compact_revision } => {
                canceled = Some((id, revision, compact_revision));
            }
            WatchResponse::Events { id: 1, events, .. } => {
                told.extend(events.iter().map(|event| event.kv.mod_revision));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((canceled, told), (Some((0, 0, 8)), vec![8, 9, 10, 11]));
}

#[tokio::test]
async fn a_compaction_comes_between_no_change_and_those_who_watch() {
    let member = member();
    member.put("a", "0");
    let mut stream = member.open();
    stream.create(WatchRequest { prev_kv: true, ..from("a", "", 0) });
    created(&mut stream).await;
    for number in 1..200 {
        // Not a turn for the hub in between.
        member.put("a", &number.to_string());
        let revision = member.put("a", &number.to_string());
        member.compact(revision);
        for revision in [revision - 1, revision] {
            let WatchResponse::Events { events, .. } = next(&mut stream).await else {
                panic!("events were to come")
            };
            let before = events[0].prev_kv.as_ref().expect("it is no creation");
            assert_eq!((events.len(), events[0].kv.mod_revision), (1, revision));
            assert_eq!(before.mod_revision, revision - 1);
        }
    }
    let counts = WatchCounts { streams: 1, watches: 1, behind: 0, events: 398 };
    assert_eq!(member.server.watches().counts(), counts);
    drop(stream);
    assert_eq!(member.server.watches().counts(), WatchCounts { streams: 0, watches: 0, ..counts });
    let revision = member.put("a", "last");
    member.compact(revision);
    let machine = member.machine.read().expect("no test panics with it");
    assert!(!machine.store().compaction_pending(), "nobody holds history any more");
}

#[tokio::test]
async fn progress_is_told_behind_the_events_and_only_when_all_are_synced() {
    let member = member();
    let mut stream = member.open();
    stream.request_progress();
    let response = next(&mut stream).await;
    assert!(matches!(response, WatchResponse::Progress { id: NO_WATCH, revision: 1 }));
    stream.create(from("a", "b", 0));
    created(&mut stream).await;
    for number in 0..50 {
        let revision = member.put("a", &number.to_string());
        stream.request_progress();
        assert_eq!(events(&mut stream).await, [seen(revision, "a", &number.to_string())]);
        let response = next(&mut stream).await;
        let WatchResponse::Progress { id: NO_WATCH, revision: told } = response else {
            panic!("{response:?}")
        };
        assert_eq!(told, revision);
    }
    stream.create(from("a", "", 1000));
    created(&mut stream).await;
    stream.request_progress();
    let revision = member.put("a", "more");
    assert_eq!(events(&mut stream).await, [seen(revision, "a", "more")], "one begins later");
}

#[tokio::test]
async fn an_idle_watch_that_asked_for_it_is_told_its_progress_now_and_then() {
    let member = member();
    let server = member.server.clone().telling_progress(Duration::from_millis(20));
    let mut stream = server.watch(false).expect("it does not stop");
    stream.create(from("a", "", 0));
    stream.create(WatchRequest { progress_notify: true, ..from("a", "", 0) });
    assert_eq!((created(&mut stream).await, created(&mut stream).await), (0, 1));
    member.put("other", "");
    loop {
        let response = next(&mut stream).await;
        match response {
            WatchResponse::Progress { id: 1, revision: 2 } => break,
            WatchResponse::Progress { id: 1, revision: 1 } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_store_that_is_replaced_goes_on_where_the_old_one_was() {
    let member = member();
    member.put("a", "1");
    let mut stream = member.open();
    stream.create(from("a", "", 0));
    created(&mut stream).await;
    let replace = |upto: i64, compacted: Option<i64>| {
        let mut other = Machine::new();
        for revision in 2..=upto {
            let command = Command::Put(put("a", &revision.to_string()));
            other.apply(revision.cast_unsigned(), command).expect("it is valid");
        }
        if let Some(revision) = compacted {
            let compact = Command::Compact(CompactionRequest { revision });
            other.apply(upto.cast_unsigned() + 1, compact).expect("it is valid");
        }
        *member.machine.write().expect("no test panics with it") = other;
        member.revisions.send_replace(upto);
    };
    replace(4, None);
    assert_eq!(events(&mut stream).await, [seen(3, "a", "3")]);
    assert_eq!(events(&mut stream).await, [seen(4, "a", "4")]);
    replace(9, Some(7));
    let response = next(&mut stream).await;
    let WatchResponse::Canceled { id: 0, compact_revision: 7, .. } = response else {
        panic!("5 and 6 are not to be had: {response:?}")
    };
}

#[tokio::test]
async fn streams_end_with_the_member_and_those_that_want_a_leader_without_one() {
    let member = member();
    let change = |change: fn(&mut node::Status)| {
        member.status.send_modify(|status| {
            let mut changed = (**status).clone();
            change(&mut changed);
            *status = Arc::new(changed);
        });
    };
    let mut patient = member.open();
    let mut led = member.server.watch(true).expect("there is a leader");
    change(|status| status.leader = None);
    let end = tokio::time::timeout(PATIENCE, led.next()).await.expect("it ends");
    assert_eq!(end.expect_err("no leader"), Error::Request(RequestError::NoLeader));
    assert!(member.server.watch(true).is_err());
    patient.create(from("a", "", 0));
    created(&mut patient).await;
    change(|status| status.shutting_down = true);
    let end = tokio::time::timeout(PATIENCE, patient.next()).await.expect("it ends");
    assert_eq!(end.expect_err("it stops"), Error::Request(RequestError::Stopped));
    assert!(member.server.watch(false).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_that_begin_anywhere_at_any_time_miss_and_repeat_nothing() {
    const WRITES: i64 = 3000;
    let member = Arc::new(member());
    let writer = {
        let member = Arc::clone(&member);
        tokio::task::spawn_blocking(move || {
            for (number, key) in (0..WRITES).zip(["a", "b", "c"].into_iter().cycle()) {
                member.put(key, &number.to_string());
                if number % 16 == 0 {
                    std::thread::yield_now();
                }
            }
        })
    };
    let watch = |nth: i64, keys: (&'static str, &'static str)| {
        let member = Arc::clone(&member);
        async move {
            let mut stream = member.open();
            let (key, range_end) = keys;
            let start = if nth % 4 == 0 { 0 } else { 1 + nth * 37 % WRITES };
            stream.create(from(key, range_end, start));
            let created = next(&mut stream).await;
            let WatchResponse::Created { revision, .. } = created else { panic!("{created:?}") };
            let first = if start == 0 { revision + 1 } else { start };
            let keys = from(key, range_end, 0).keys.expect("there are some");
            let wanted = |revision: &i64| {
                let number = usize::try_from(*revision - 2).expect("writes begin at 2");
                keys.contains([b"a", b"b", b"c"][number % 3])
            };
            let expected: Vec<i64> = (first.max(2)..WRITES + 2).filter(wanted).collect();
            let mut told = Vec::new();
            while told.len() < expected.len() {
                told.extend(events(&mut stream).await.iter().map(|(revision, ..)| *revision));
            }
            assert_eq!(told, expected, "watch {nth} from {start}");
        }
    };
    let keys = [("a", ""), ("b", "d"), ("", "\0")].into_iter().cycle();
    let watches: Vec<_> =
        (0..24).zip(keys).map(|(nth, keys)| tokio::spawn(watch(nth, keys))).collect();
    for watch in watches {
        watch.await.expect("it was told all");
    }
    writer.await.expect("it wrote all");
}
