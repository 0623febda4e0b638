//! Small histories by hand, each with the fault that its test names, or with none.

use bytes::Bytes;
use raft_node::kv::{
    Command, CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, DeleteRangeResponse, Error, KeyValue, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, Response, ResponseOp, TxnRequest, TxnResponse,
};

use crate::linearizability::{
    Answer, ClientId, Freshness, History, Outcome, Request, Time, Verdict, register, revisions,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A history being told: each line is an operation with its begin and end.
#[derive(Default)]
struct Story(History);

impl Story {
    fn tell(mut self, called: u64, request: Request, outcome: Outcome) -> Self {
        let id = self.0.call(ClientId(0), Time(called), request);
        self.0.operations[id.0].outcome = outcome;
        self
    }

    fn answered(self, (called, at): (u64, u64), request: Request, answer: Answer) -> Self {
        self.tell(called, request, Outcome::Returned { at: Time(at), answer })
    }

    fn put(self, span: (u64, u64), key: &str, value: &str, revision: i64) -> Self {
        let response = PutResponse { revision, prev_kv: None };
        self.answered(span, put(key, value), Answer::Written(Response::Put(response)))
    }

    fn lost_put(self, called: u64, key: &str, value: &str) -> Self {
        self.tell(called, put(key, value), Outcome::Unknown)
    }

    fn get(self, span: (u64, u64), revision: i64, found: Found<'_>) -> Self {
        self.get_so(span, revision, found, Freshness::Linearizable)
    }

    fn get_so(
        self,
        span: (u64, u64),
        revision: i64,
        found: Found<'_>,
        freshness: Freshness,
    ) -> Self {
        let kvs: Vec<KeyValue> = found.1.map(|state| kv(found.0, state)).into_iter().collect();
        let count = i64::try_from(kvs.len()).expect("one at most");
        let response = RangeResponse { revision, kvs, more: false, count };
        let range = RangeRequest { key: bytes(found.0), ..RangeRequest::default() };
        self.answered(span, Request::Range(range, freshness), Answer::Range(response))
    }

    fn delete(self, span: (u64, u64), key: &str, deleted: i64, revision: i64) -> Self {
        let response = DeleteRangeResponse { revision, deleted, prev_kvs: Vec::new() };
        let answer = Answer::Written(Response::DeleteRange(response));
        self.answered(span, delete(key), answer)
    }

    /// Both accept it.
    #[track_caller]
    fn holds(&self) {
        revisions::check(&self.0, None).expect_linearizable();
        register::check(&self.0).expect_linearizable();
    }

    /// The checker by revision sees it.
    #[track_caller]
    fn breaks_the_order(&self) {
        let verdict = revisions::check(&self.0, None);
        assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
    }

    /// The checker by key sees it.
    #[track_caller]
    fn breaks_the_register(&self) {
        let verdict = register::check(&self.0);
        assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
    }

    #[track_caller]
    fn breaks(&self) {
        self.breaks_the_order();
        self.breaks_the_register();
    }
}

/// A key, and what it held: value, creation, modification, version.
type Found<'a> = (&'a str, Option<(&'a str, i64, i64, i64)>);

fn kv(key: &str, (value, create, modified, version): (&str, i64, i64, i64)) -> KeyValue {
    KeyValue {
        key: bytes(key),
        create_revision: create,
        mod_revision: modified,
        version,
        value: bytes(value),
        lease: 0,
    }
}

fn put(key: &str, value: &str) -> Request {
    let put = PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() };
    Request::Write(Command::Put(put))
}

fn delete(key: &str) -> Request {
    let delete = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
    Request::Write(Command::DeleteRange(delete))
}

/// `k` is `a`, then `b`, one after the other.
fn two_writes() -> Story {
    Story::default().put((0, 10), "k", "a", 2).put((20, 30), "k", "b", 3)
}

const A: Found<'_> = ("k", Some(("a", 2, 2, 1)));
const B: Found<'_> = ("k", Some(("b", 2, 3, 2)));
const C: Found<'_> = ("k", Some(("c", 2, 4, 3)));

#[test]
fn an_honest_history_holds() {
    let story = two_writes().get((0, 5), 1, ("k", None)).get((11, 15), 2, A);
    story.get((22, 35), 2, A).get((25, 33), 3, B).get((40, 50), 3, B).holds();
}

#[test]
fn a_stale_read_breaks() {
    two_writes().get((31, 40), 2, A).breaks();
}

#[test]
fn a_read_behind_another_read_breaks() {
    let story = two_writes().put((40, 90), "k", "c", 4);
    story.get((50, 60), 4, C).get((61, 70), 3, B).breaks();
}

#[test]
fn a_lost_write_breaks() {
    two_writes().get((31, 40), 3, A).breaks();
    two_writes().get((31, 40), 3, ("k", None)).breaks();
}

#[test]
fn a_write_done_twice_breaks() {
    let twice = ("k", Some(("a", 2, 4, 3)));
    two_writes().get((31, 40), 4, twice).breaks();
}

#[test]
fn a_value_from_the_future_breaks() {
    let story = Story::default().get((0, 10), 2, A).put((20, 30), "k", "a", 2);
    story.breaks();
}

#[test]
fn a_value_from_nowhere_breaks() {
    two_writes().get((31, 40), 4, ("k", Some(("z", 2, 4, 3)))).breaks();
}

#[test]
fn writes_in_another_order_than_they_were_made_break() {
    let story = Story::default().put((0, 10), "k", "a", 3).put((20, 30), "k", "b", 2);
    story.breaks_the_order();
    two_writes().get((40, 50), 3, A).breaks();
}

#[test]
fn two_writes_of_one_revision_break() {
    two_writes().put((20, 30), "other", "x", 3).breaks_the_order();
}

#[test]
fn a_revision_that_nobody_made_breaks() {
    two_writes().put((40, 50), "k", "c", 5).breaks_the_order();
}

#[test]
fn an_unanswered_write_may_happen_late_or_never_but_once() {
    let story = || two_writes().lost_put(5, "k", "c");
    story().holds();
    story().get((31, 40), 3, B).get((60, 70), 4, C).holds();
    story().get((31, 40), 4, C).get((60, 70), 3, B).breaks();
    let again = ("k", Some(("c", 2, 6, 5)));
    let after = story().get((31, 40), 4, C).put((41, 50), "k", "d", 5);
    after.get((51, 60), 6, again).breaks();
}

#[test]
fn an_unanswered_write_explains_nothing_before_its_call() {
    let story = two_writes().get((31, 40), 4, C).lost_put(50, "k", "c");
    story.breaks();
}

#[test]
fn what_was_refused_for_certain_did_not_happen() {
    let outcome = Outcome::NoEffect { at: Time(25) };
    let story = two_writes().tell(15, put("k", "c"), outcome);
    story.get((31, 40), 4, C).breaks();
}

#[test]
fn unanswered_writes_are_told_apart_by_what_follows() {
    // Revision 4 is of the one or the other; the version of the key afterwards says which.
    let story = || two_writes().lost_put(31, "k", "c").lost_put(31, "other", "x");
    let written = ("k", Some(("d", 2, 5, 4)));
    let passed_by = ("k", Some(("d", 2, 5, 3)));
    story().put((40, 50), "k", "d", 5).get((60, 70), 5, written).holds();
    story().put((40, 50), "k", "d", 5).get((60, 70), 5, passed_by).holds();
    let neither = ("k", Some(("d", 2, 5, 2)));
    story().put((40, 50), "k", "d", 5).get((60, 70), 5, neither).breaks_the_order();
}

#[test]
fn the_log_settles_what_became_of_unanswered_writes() {
    let story = two_writes().lost_put(15, "k", "c").lost_put(16, "k", "d");
    let command = |value: &str| match put("k", value) {
        Request::Write(command) => command,
        other => panic!("{other:?}"),
    };
    let log = |values: &[&str]| -> Vec<(i64, Command)> {
        (2..).zip(values).map(|(revision, value)| (revision, command(value))).collect()
    };
    revisions::check(&story.0, Some(&log(&["a", "b", "d", "c"]))).expect_linearizable();
    for wrong in [
        ["a", "b", "c", "c"].as_slice(),
        &["a", "c", "b"],
        &["a"],
        &["b", "a"],
        &["a", "b", "never asked for"],
    ] {
        let verdict = revisions::check(&story.0, Some(&log(wrong)));
        assert!(matches!(verdict, Verdict::Violation(_)), "{wrong:?}: {verdict:?}");
    }
}

#[test]
fn serializable_reads_may_be_stale_but_not_wrong() {
    let late =
        |revision, found| two_writes().get_so((40, 50), revision, found, Freshness::Serializable);
    late(2, A).holds();
    late(1, ("k", None)).holds();
    late(3, A).breaks_the_order();
    late(2, B).breaks_the_order();
    let early = two_writes().get_so((0, 5), 3, B, Freshness::Serializable);
    early.breaks_the_order();
}

#[test]
fn a_store_with_a_past_may_show_it_to_serializable_reads_alone() {
    let begun = || Story(History { base: 46, ..History::new() });
    let past = ("x", Some(("of another test", 40, 40, 1)));
    let later = |story: Story| story.put((20, 30), "x", "a", 47);
    later(begun().get_so((0, 10), 45, past, Freshness::Serializable)).holds();
    later(begun().get_so((0, 10), 46, ("x", None), Freshness::Serializable)).holds();
    later(begun().get_so((0, 10), 45, past, Freshness::Linearizable)).breaks_the_order();
    later(begun().get_so((0, 10), 46, past, Freshness::Serializable)).breaks_the_order();
}

#[test]
fn deletions_take_effect_once_and_for_all() {
    let gone = || two_writes().delete((40, 50), "k", 1, 4);
    gone().get((60, 70), 4, ("k", None)).delete((80, 90), "k", 0, 4).holds();
    gone().get((60, 70), 4, B).breaks();
    gone().delete((60, 70), "k", 1, 5).breaks();
    gone().put((60, 70), "k", "c", 5).get((80, 90), 5, ("k", Some(("c", 5, 5, 1)))).holds();
    gone().put((60, 70), "k", "c", 5).get((80, 90), 5, C).breaks_the_order();
}

/// If `k` is `expected` then `k` and `other` become `value`.
fn swap(expected: &str, value: &str) -> TxnRequest {
    let write = |key: &str| match put(key, value) {
        Request::Write(Command::Put(put)) => RequestOp::Put(put),
        other => panic!("{other:?}"),
    };
    let compare = Compare {
        key: bytes("k"),
        range_end: Bytes::new(),
        result: CompareResult::Equal,
        target: CompareTarget::Value(bytes(expected)),
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![write("k"), write("other")],
        failure: Vec::new(),
    }
}

fn swapped(revision: i64, succeeded: bool) -> Answer {
    let written = || ResponseOp::Put(PutResponse { revision, prev_kv: None });
    let responses = if succeeded { vec![written(), written()] } else { Vec::new() };
    Answer::Written(Response::Txn(TxnResponse { revision, succeeded, responses }))
}

#[test]
fn a_swap_happens_if_and_only_if_its_comparison_held() {
    let request = |expected| Request::Write(Command::Txn(swap(expected, "c")));
    let done = || two_writes().answered((40, 50), request("b"), swapped(4, true));
    done().get((60, 70), 4, C).get((60, 70), 4, ("other", Some(("c", 4, 4, 1)))).holds();
    two_writes().answered((40, 50), request("a"), swapped(3, false)).get((60, 70), 3, B).holds();
    two_writes().answered((40, 50), request("a"), swapped(4, true)).breaks();
    two_writes().answered((40, 50), request("b"), swapped(3, false)).breaks();
}

#[test]
fn half_a_transaction_breaks() {
    let request = Request::Write(Command::Txn(swap("b", "c")));
    let done = two_writes().answered((40, 50), request, swapped(4, true));
    done.get((60, 70), 4, C).get((60, 70), 4, ("other", None)).breaks();
}

#[test]
fn an_unanswered_swap_happens_where_its_comparison_holds() {
    let story =
        || two_writes().tell(5, Request::Write(Command::Txn(swap("a", "c"))), Outcome::Unknown);
    story().get((31, 40), 3, B).holds();
    // After `b` it finds no `a` to swap.
    story().get((31, 40), 3, B).get((50, 60), 4, C).breaks();
}

#[test]
fn compacted_history_is_refused_and_nothing_else() {
    let past = |revision| RangeRequest { key: bytes("k"), revision, ..RangeRequest::default() };
    let read = |revision| Request::Range(past(revision), Freshness::Linearizable);
    let refused = |error| Answer::Refused { error, revision: None };
    let compacted = || {
        let request = Request::Write(Command::Compact(CompactionRequest { revision: 3 }));
        let response = Response::Compact(CompactionResponse { revision: 3 });
        two_writes().answered((40, 50), request, Answer::Written(response))
    };
    let found = |state: Found<'_>| {
        let kvs = state.1.map(|state_of| kv("k", state_of)).into_iter().collect();
        Answer::Range(RangeResponse { revision: 3, kvs, more: false, count: 1 })
    };
    compacted().answered((60, 70), read(2), refused(Error::Compacted)).holds();
    compacted().answered((60, 70), read(3), found(B)).holds();
    compacted().answered((31, 39), read(2), found(A)).holds();
    compacted().answered((31, 45), read(2), refused(Error::Compacted)).holds();
    compacted().answered((60, 70), read(4), refused(Error::FutureRevision)).holds();
    compacted().answered((60, 70), read(2), found(A)).breaks_the_order();
    compacted().answered((31, 39), read(2), refused(Error::Compacted)).breaks_the_order();
    compacted().answered((60, 70), read(3), refused(Error::Compacted)).breaks_the_order();
    compacted().answered((60, 70), read(3), refused(Error::FutureRevision)).breaks_the_order();
}

#[test]
fn a_search_that_gives_up_is_no_pass() {
    let verdict = register::check_within(&two_writes().get((31, 40), 3, B).0, 1);
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict:?}");
}

#[test]
fn a_failure_names_the_key_and_the_answers_around_it() {
    let story = two_writes().get((31, 40), 2, A).put((50, 60), "k", "later", 4);
    let Verdict::Violation(what) = register::check(&story.0) else {
        panic!("a stale read");
    };
    assert!(what.contains("first 3 answers") && what.contains("b\"k\""), "{what}");
    assert!(!what.contains("later"), "what came after the fault is left out: {what}");
}

/// Revisions 4 to 23 were made by twenty of forty unanswered writes; each is read later, all at
/// once. Looked at only then, there would be more orders than anybody can try.
#[test]
fn reads_of_the_past_tell_unanswered_writes_apart_one_by_one() {
    let mut story = two_writes();
    for number in 0..40 {
        story = story.lost_put(31, &format!("key {number}"), "x");
    }
    for revision in 4..24 {
        let key = format!("key {}", revision * 2 - 8);
        let key = bytes(&key);
        let range = RangeRequest { key, revision, count_only: true, ..RangeRequest::default() };
        let kvs = Vec::new();
        let answer = Answer::Range(RangeResponse { revision: 23, kvs, more: false, count: 1 });
        story = story.answered((50, 60), Request::Range(range, Freshness::Linearizable), answer);
    }
    story.holds();
}
