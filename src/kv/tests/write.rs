//! Revisions, puts and deletions.

use super::*;

#[test]
fn an_empty_store_is_at_revision_1_and_the_first_write_makes_2() {
    let mut node = Node::new();
    assert_eq!(node.revision(), 1);
    assert_eq!(node.machine.store().compacted_revision(), -1);
    assert_eq!(node.put("a", "1"), 2);
    assert_eq!(node.revision(), 2);
}

#[test]
fn create_revision_stays_and_version_counts_until_the_key_is_deleted() {
    let mut node = Node::with(&["a", "a", "a"]);
    let kv = node.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 4, 3));
    node.delete("a", "");
    assert_eq!(node.get("a"), None);
    node.put("a", "again");
    let kv = node.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (6, 6, 1));
}

#[test]
fn a_put_answers_the_previous_pair_only_if_asked_and_if_there_was_one() {
    let mut node = Node::new();
    let asking = |value| Command::Put(PutRequest { prev_kv: true, ..put("a", value) });
    let Ok(Response::Put(first)) = node.apply(asking("1")) else { panic!() };
    assert_eq!((first.revision, first.prev_kv), (2, None));
    let Ok(Response::Put(second)) = node.apply(asking("2")) else { panic!() };
    let prev = second.prev_kv.unwrap();
    assert_eq!((&prev.value[..], prev.mod_revision), (&b"1"[..], 2));
    let Ok(Response::Put(third)) = node.apply(Command::Put(put("a", "3"))) else { panic!() };
    assert_eq!(third.prev_kv, None);
}

#[test]
fn ignore_value_keeps_the_value_and_still_counts_as_a_put() {
    let mut node = Node::with(&["a"]);
    let keep = || PutRequest { ignore_value: true, ..put("a", "") };
    node.apply(Command::Put(keep())).unwrap();
    let kv = node.get("a").unwrap();
    assert_eq!((&kv.value[..], kv.version, kv.mod_revision), (&b"a"[..], 2, 3));
}

#[test]
fn ignore_value_needs_an_existing_key_and_no_value() {
    let mut node = Node::with(&["a"]);
    node.delete("a", "");
    let missing = PutRequest { ignore_value: true, ..put("a", "") };
    assert_eq!(node.apply(Command::Put(missing)), Err(Error::KeyNotFound));
    let both = PutRequest { ignore_value: true, ..put("a", "x") };
    assert_eq!(node.apply(Command::Put(both)), Err(Error::ValueProvided));
    assert_eq!(node.revision(), 3);
}

#[test]
fn no_lease_can_be_found_and_none_can_be_kept() {
    let mut node = Node::with(&["a"]);
    let put = |request| Command::Put(request);
    let leased = PutRequest { lease: 1, ..super::put("a", "x") };
    assert_eq!(node.apply(put(leased.clone())), Err(Error::LeaseNotFound));
    let kept = PutRequest { ignore_lease: true, ..super::put("a", "x") };
    assert_eq!(node.apply(put(kept)), Err(Error::LeaseNotFound));
    let both = PutRequest { ignore_lease: true, ..leased.clone() };
    assert_eq!(node.apply(put(both)), Err(Error::LeaseProvided));
    // etcd looks for the lease first.
    let missing = PutRequest { ignore_value: true, key: bytes("b"), value: Bytes::new(), ..leased };
    assert_eq!(node.apply(put(missing)), Err(Error::LeaseNotFound));
    assert_eq!(node.revision(), 2);
}

#[test]
fn an_empty_key_is_refused() {
    let mut node = Node::new();
    assert_eq!(node.apply(Command::Put(put("", "x"))), Err(Error::EmptyKey));
    assert_eq!(node.apply(Command::DeleteRange(delete("", "x"))), Err(Error::EmptyKey));
    assert_eq!(get("").validate(), Err(Error::EmptyKey));
    assert_eq!(node.revision(), 1);
}

#[test]
fn deleting_nothing_is_no_revision() {
    let mut node = Node::with(&["b"]);
    assert_eq!(node.delete("a", ""), (0, 2));
    assert_eq!(node.delete("c", "z"), (0, 2));
    assert_eq!(node.delete("z", "a"), (0, 2), "an upside-down range is empty");
    assert_eq!(node.revision(), 2);
}

#[test]
fn a_deletion_is_one_revision_however_many_keys_go() {
    let mut node = Node::with(&["a", "b", "c", "d"]);
    assert_eq!(node.delete("b", "d"), (2, 6));
    assert_eq!(keys(&node.range(&everything()).unwrap()), ["a", "d"]);
    assert_eq!(node.delete("b", "\0"), (1, 7));
    assert_eq!(keys(&node.range(&everything()).unwrap()), ["a"]);
}

#[test]
fn a_deletion_answers_what_it_deleted_by_key_if_asked() {
    let mut node = Node::with(&["c", "a", "b"]);
    let request = DeleteRangeRequest { prev_kv: true, ..delete("\0", "\0") };
    let Ok(Response::DeleteRange(response)) = node.apply(Command::DeleteRange(request)) else {
        panic!()
    };
    let gone: Vec<_> = response.prev_kvs.iter().map(|kv| (&kv.key[..], kv.mod_revision)).collect();
    assert_eq!(gone, [(&b"a"[..], 3), (b"b", 4), (b"c", 2)]);
}

#[test]
fn events_tell_what_each_revision_did_and_what_was_before() {
    let mut node = Node::with(&["a", "b"]);
    node.put("a", "2");
    node.delete("a", "c");
    let first: Vec<_> = node.machine.store().events(2).collect();
    assert_eq!((first.len(), &first[0].kv.key[..], &first[0].prev_kv), (1, &b"a"[..], &None));
    let gone: Vec<_> = node.machine.store().events(5).collect();
    assert_eq!(gone.len(), 2);
    assert_eq!(gone[0].kind, EventKind::Delete);
    let bare = KeyValue { key: bytes("a"), mod_revision: 5, ..KeyValue::default() };
    assert_eq!(gone[0].kv, bare, "a deletion has key and revision only");
    assert_eq!(&gone[0].prev_kv.as_ref().unwrap().value[..], b"2");
    assert_eq!(node.machine.store().events(6).count(), 0);
    assert_eq!(node.machine.store().events(1).count(), 0);
}

#[test]
fn values_do_not_hold_on_to_the_buffer_they_came_in() {
    let mut node = Node::new();
    let buffer = Bytes::from(vec![b'x'; 1 << 20]);
    let request = PutRequest { key: buffer.slice(..3), value: buffer.slice(3..9), ..put("", "") };
    node.apply(Command::Put(request)).unwrap();
    assert!(buffer.is_unique(), "the store has its own copy");
}

#[test]
#[should_panic(expected = "applied 5 already")]
fn a_command_is_applied_once() {
    let mut machine = Machine::new();
    let command = || Command::Put(put("a", "b"));
    machine.apply(5, command()).unwrap();
    let _ = machine.apply(5, command());
}

#[test]
fn equal_commands_make_equal_stores() {
    let build = |sweeping: bool| {
        let mut node = Node::new();
        for round in 0..300_u32 {
            let key = format!("key{}", round * 7 % 50);
            node.put(&key, &round.to_string());
            if round % 40 == 39 {
                node.delete("key1", "key2");
                node.compact(node.revision() - 10).unwrap();
            }
            if sweeping {
                node.machine.compact_step(3);
            }
        }
        node
    };
    let (plain, sweeping) = (build(false), build(true));
    assert_eq!(plain.hash(), sweeping.hash());
    let mut other = build(false);
    other.put("key1", "different");
    assert_ne!(plain.hash(), other.hash());
}

#[test]
fn refusals_speak_etcds_words() {
    let words = [
        (Error::EmptyKey, "key is not provided"),
        (Error::KeyNotFound, "key not found"),
        (Error::ValueProvided, "value is provided"),
        (Error::LeaseProvided, "lease is provided"),
        (Error::LeaseNotFound, "requested lease not found"),
        (Error::TooManyOps, "too many operations in txn request"),
        (Error::DuplicateKey, "duplicate key given in txn request"),
        (Error::Compacted, "mvcc: required revision has been compacted"),
        (Error::FutureRevision, "mvcc: required revision is a future revision"),
    ];
    for (error, text) in words {
        assert_eq!(error.to_string(), text);
    }
}
