//! Against sets that are scanned, and against what was written.

use proptest::prelude::*;

use super::super::command::Command;
use super::super::machine::Machine;
use super::super::types::{CompactionRequest, DeleteRangeRequest, EventKind, PutRequest};
use super::*;

fn keys(key: &[u8], range_end: &[u8]) -> Option<KeySet> {
    KeySet::new(Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end))
}

fn put(machine: &mut Machine, key: &str, value: &str) {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    machine.apply(machine.applied() + 1, Command::Put(put)).expect("it is valid");
}

fn compact(machine: &mut Machine, revision: i64) {
    let compact = Command::Compact(CompactionRequest { revision });
    machine.apply(machine.applied() + 1, compact).expect("it is valid");
    while !machine.compact_step(10) {}
}

fn read(follower: &mut Follower, machine: &Machine) -> Vec<(i64, Vec<Event>)> {
    let mut all = Vec::new();
    while let Some(read) = follower.next(machine.store(), |_| true).expect("it is pinned") {
        all.push(read);
    }
    all
}

#[test]
fn sets_of_keys_are_etcds() {
    assert!(keys(b"a", b"").unwrap().contains(b"a"));
    assert!(!keys(b"a", b"").unwrap().contains(b"aa"));
    assert!(keys(b"a", b"c").unwrap().contains(b"b"));
    assert!(!keys(b"a", b"c").unwrap().contains(b"c"));
    assert!(keys(b"b", b"\0").unwrap().contains(b"zz"));
    assert!(!keys(b"b", b"\0").unwrap().contains(b"a"));
    assert!(keys(b"", b"\0").unwrap().contains(b"\0"), "no key means the first of all");
    assert_eq!(keys(b"b", b"b"), None);
    assert_eq!(keys(b"b", b"a"), None);
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..4, 0..4)
}

proptest! {
    #[test]
    fn the_index_finds_whom_a_scan_finds(
        sets in prop::collection::vec((key(), key()), 1..60),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        wanted in prop::collection::vec(key(), 1..20),
    ) {
        let mut index = KeySetIndex::default();
        let mut all: Vec<Option<KeySet>> = Vec::new();
        for (who, (key, end)) in sets.iter().enumerate() {
            let keys = keys(key, end);
            if let Some(keys) = &keys {
                index.insert(keys, who);
            }
            all.push(keys);
        }
        for one in gone {
            let who = one.index(all.len());
            if let Some(keys) = all[who].take() {
                index.remove(&keys, who);
            }
        }
        for key in wanted {
            let mut found = Vec::new();
            index.visit(&key, |who| found.push(who));
            found.sort_unstable();
            let has = |keys: &Option<KeySet>| keys.as_ref().is_some_and(|keys| keys.contains(&key));
            let expected: Vec<usize> = (0..all.len()).filter(|who| has(&all[*who])).collect();
            prop_assert_eq!(index.is_wanted(&key), !expected.is_empty());
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_follower_reads_every_change_with_what_was_before_it_whatever_is_compacted() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "0");
    let mut follower = Follower::begin(machine.store());
    for value in ["1", "2", "3"] {
        put(&mut machine, "a", value);
    }
    let now = machine.store().revision();
    compact(&mut machine, now);
    let all = read(&mut follower, &machine);
    let seen: Vec<_> = all
        .iter()
        .flat_map(|(revision, events)| events.iter().map(move |event| (*revision, event)))
        .map(|(revision, event)| {
            let before = event.prev_kv.as_ref().expect("it was pinned");
            assert_eq!((event.kind, event.kv.mod_revision), (EventKind::Put, revision));
            (revision, before.value.clone(), event.kv.value.clone())
        })
        .collect();
    let expected =
        [(3, "0", "1"), (4, "1", "2"), (5, "2", "3")].map(|(r, b, v)| (r, b.into(), v.into()));
    assert_eq!(seen, expected);
    assert!(read(&mut follower, &machine).is_empty());
    while !machine.compact_step(10) {}
    assert!(!machine.store().compaction_pending(), "nothing is held any more");
}

#[test]
fn a_follower_of_a_store_that_was_replaced_goes_on_or_says_what_it_missed() {
    let restored = |upto: i64, compacted: Option<i64>| {
        let mut machine = Machine::new();
        for number in 2..=upto {
            put(&mut machine, "a", &number.to_string());
        }
        if let Some(compacted) = compacted {
            compact(&mut machine, compacted);
        }
        machine
    };
    let begin = || Follower::begin(restored(4, None).store());
    let revisions = |follower: &mut Follower, machine: &Machine| {
        read(follower, machine).iter().map(|(revision, _)| *revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions(&mut begin(), &restored(6, None)), [5, 6]);
    assert_eq!(revisions(&mut begin(), &restored(6, Some(5))), [5, 6]);
    let later = restored(9, Some(7));
    let mut follower = begin();
    let missed = follower.next(later.store(), |_| true);
    assert_eq!(missed.expect_err("5 and 6 are gone"), Compacted { revision: 7 });
    assert_eq!(follower.revision(), 9);
}

#[test]
fn history_is_read_in_whole_revisions_and_not_below_a_compaction() {
    let mut machine = Machine::new();
    for number in 0..6 {
        put(&mut machine, ["a", "b"][number % 2], &number.to_string());
    }
    let delete = DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() };
    machine.apply(7, Command::DeleteRange(delete)).expect("it is valid");
    let one = keys(b"a", b"").unwrap();
    let store = machine.store();
    let part = store.history(&one, 2, 4, usize::MAX).expect("nothing is compacted");
    assert!(part.next > 2 && part.next < 8 && part.revision == 8, "{part:?}");
    let whole = store.history(&one, 2, usize::MAX, usize::MAX).expect("nothing is compacted");
    let revisions: Vec<i64> = whole.events.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!((revisions, whole.next), (vec![2, 4, 6, 8], 9));
    compact(&mut machine, 8);
    let store = machine.store();
    let gone = store.history(&one, 7, usize::MAX, usize::MAX);
    assert_eq!(gone.expect_err("it is compacted"), Compacted { revision: 8 });
    let last = store.history(&one, 8, usize::MAX, usize::MAX).expect("that is kept");
    assert_eq!(last.events.len(), 1, "the tombstone at the compacted revision");
}
