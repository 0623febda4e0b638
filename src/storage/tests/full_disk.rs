//! A disk without room: the log goes on in its reserve, then waits, and takes nothing that others
//! need.

use super::model::*;
use crate::storage::testing::SimDisk;
use crate::storage::{DataDir, Error, Options};

/// A log with its next segment and its reserve made.
fn ready(disk: &SimDisk) -> DataDir<SimDisk> {
    let (mut dir, _) = recover(disk, small()).unwrap();
    while let Some(job) = dir.wal.spare_job() {
        let blank = job.run().unwrap();
        dir.wal.add_spare(blank);
    }
    assert!(dir.wal.has_spare() && dir.wal.has_reserve());
    dir
}

/// Appends one entry after the other until there is no room; how many are in.
fn fill(dir: &mut DataDir<SimDisk>) -> u64 {
    for index in dir.wal.last().index.0 + 1.. {
        let entry = [command(index, 1, "x".repeat(200))];
        match dir.wal.append(hard_state(1, 1, 0), None, &entry).and_then(|()| dir.wal.sync()) {
            Ok(()) => {}
            Err(error) => {
                assert!(error.may_be_tried_again() && error.is_full(), "{error}");
                return index - 1;
            }
        }
    }
    unreachable!("no disk is that large")
}

#[test]
fn a_log_without_room_goes_on_in_its_reserve_and_then_waits() {
    let disk = SimDisk::new(5);
    let mut dir = ready(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    let count = fill(&mut dir);
    assert!(!dir.wal.has_reserve() && !disk.names().contains(&"reserve".to_owned()));
    assert_eq!(fill(&mut dir), count, "and it is not broken");
    // What was said to be durable is.
    let after_cut = disk.fork();
    after_cut.power_cut();
    after_cut.set_capacity(None);
    let (found, _) = recover(&after_cut, small()).unwrap();
    assert_eq!(found.wal.last().index.0, count);
    // With room it goes on as if nothing had happened.
    disk.set_capacity(Some(disk.used_bytes() + 2 * small().urgent_segment_bytes));
    assert!(fill(&mut dir) > count);
    disk.set_capacity(None);
    let entry = [command(dir.wal.last().index.0 + 1, 1, "more")];
    dir.wal.append(hard_state(1, 1, 0), None, &entry).unwrap();
    dir.wal.sync().unwrap();
}

#[test]
fn a_segment_made_ahead_of_need_never_takes_the_last_room() {
    let Options { segment_bytes, .. } = small();
    let disk = SimDisk::new(6);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let used_bytes = disk.used_bytes();
    disk.set_capacity(Some(used_bytes + segment_bytes + small().reserve_bytes() - 1));
    let operations = disk.operations();
    let error = dir.wal.spare_job().unwrap().run().err().expect("too little is left");
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    assert_eq!(
        (disk.operations(), disk.used_bytes()),
        (operations, used_bytes),
        "nothing is tried"
    );
    dir.wal.spare_failed();
    // The reserve comes first then.
    let reserve = dir.wal.spare_job().unwrap().run().unwrap();
    dir.wal.add_spare(reserve);
    assert!(dir.wal.has_reserve() && !dir.wal.has_spare());
}

#[test]
fn a_reserve_is_found_again_and_needs_no_room() {
    let disk = SimDisk::new(7);
    drop(ready(&disk));
    disk.kill();
    disk.set_capacity(Some(disk.used_bytes() + 1024));
    let (mut dir, _) = recover(&disk, small()).unwrap();
    while let Some(job) = dir.wal.spare_job() {
        match job.run() {
            Ok(blank) => dir.wal.add_spare(blank),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(dir.wal.has_reserve());
}

#[test]
fn a_start_without_room_takes_what_it_needs_from_the_reserve() {
    let disk = SimDisk::new(8);
    drop(ready(&disk));
    disk.kill();
    disk.set_capacity(Some(disk.used_bytes()));
    let (dir, _) = recover(&disk, small()).unwrap();
    assert!(!dir.wal.has_reserve() && !disk.names().contains(&"reserve".to_owned()));
}
