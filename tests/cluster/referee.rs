//! The referee must know a fault when it sees one: each history here has exactly one, but the
//! first, which has none.

use std::time::{Duration, Instant};

use crate::common::history::{History, Read, Write};

/// A moment, in milliseconds of a story.
fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

fn write(start: Instant, value: &str, sent_ms: u64, acked: Option<(u64, i64)>) -> Write {
    Write {
        key: "k".to_owned(),
        value: value.to_owned(),
        sent: at(start, sent_ms),
        acked: acked.map(|(ms, revision)| (at(start, ms), revision)),
    }
}

fn read(start: Instant, sent_ms: u64, revision: i64, found: Option<(&str, i64)>) -> Read {
    Read {
        key: "k".to_owned(),
        sent: at(start, sent_ms),
        answered: at(start, sent_ms + 5),
        revision,
        found: found.map(|(value, since)| (value.to_owned(), since)),
        member: 1,
    }
}

/// `a` written from 0 to 10, `b` from 20 to 30, `c` sent at 40 and never answered.
fn story(start: Instant, reads: Vec<Read>) -> History {
    let writes = vec![
        write(start, "a", 0, Some((10, 2))),
        write(start, "b", 20, Some((30, 3))),
        write(start, "c", 40, None),
    ];
    History { writes, reads }
}

#[test]
fn an_honest_history_has_no_fault() {
    let start = Instant::now();
    let reads = vec![
        read(start, 0, 1, None),
        read(start, 0, 2, Some(("a", 2))),
        read(start, 11, 2, Some(("a", 2))),
        read(start, 22, 3, Some(("b", 3))),
        read(start, 31, 3, Some(("b", 3))),
        read(start, 50, 4, Some(("c", 4))),
    ];
    let history = story(start, reads);
    history.assert_linearizable();
    assert_eq!(history.longest_gap(), Duration::from_millis(20));
    story(start, vec![read(start, 60, 3, Some(("b", 3)))]).assert_linearizable();
}

#[track_caller]
fn caught(history: &History, what: &str) {
    let faults = history.faults();
    assert!(faults.iter().any(|fault| fault.contains(what)), "{what:?} is not in {faults:?}");
}

#[test]
fn a_stale_read_is_caught() {
    let start = Instant::now();
    caught(&story(start, vec![read(start, 31, 2, Some(("a", 2)))]), "stale read");
}

#[test]
fn a_read_behind_another_read_is_caught() {
    let start = Instant::now();
    let reads = vec![read(start, 50, 4, Some(("c", 4))), read(start, 60, 3, Some(("b", 3)))];
    caught(&story(start, reads), "stale read");
}

#[test]
fn a_lost_write_is_caught() {
    let start = Instant::now();
    caught(&story(start, vec![read(start, 31, 3, Some(("a", 2)))]), "but the key held");
    caught(&story(start, vec![read(start, 31, 3, None)]), "but the key held");
}

#[test]
fn a_value_from_nowhere_is_caught() {
    let start = Instant::now();
    let nowhere = "what nobody had written";
    caught(&story(start, vec![read(start, 50, 4, Some(("z", 4)))]), nowhere);
    caught(&story(start, vec![read(start, 31, 4, Some(("c", 4)))]), nowhere);
}

#[test]
fn a_write_done_twice_is_caught() {
    let start = Instant::now();
    let reads = vec![read(start, 50, 4, Some(("c", 4))), read(start, 60, 5, Some(("c", 5)))];
    caught(&story(start, reads), "written twice");
}

#[test]
fn two_writes_of_one_revision_are_caught() {
    let start = Instant::now();
    let mut history = story(start, Vec::new());
    history.writes.push(write(start, "d", 21, Some((31, 3))));
    caught(&history, "is of both");
}

#[test]
fn a_write_before_its_time_is_caught() {
    let start = Instant::now();
    let mut history = story(start, Vec::new());
    history.writes.push(write(start, "d", 31, Some((41, 1))));
    caught(&history, "went back in time");
}
