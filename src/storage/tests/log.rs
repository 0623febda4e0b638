//! The log's own rules: what replaces what, what rides along, what is kept and what goes.

use super::model::*;
use crate::raft::types::{Configuration, Entry, Payload};
use crate::storage::testing::SimDisk;
use crate::storage::{Disk, DiskFile, Error, Options, Record, disk::Access};

#[test]
fn a_conflicting_entry_replaces_the_tail() {
    let disk = SimDisk::new(1);
    let (mut dir, mut model) = recover(&disk, small()).unwrap();
    let old: Vec<_> = (1..=5).map(|index| command(index, 1, "old")).collect();
    let new: Vec<_> = (3..=4).map(|index| command(index, 2, "new")).collect();
    for (term, entries) in [(1, &old), (2, &new)] {
        dir.wal.append(hard_state(term, 0, 2), None, entries).unwrap();
        model.append(hard_state(term, 0, 2), None, entries);
    }
    dir.wal.sync().unwrap();
    assert_eq!(dir.wal.last(), id(4, 2));
    drop(dir);
    assert_eq!(recover(&disk, small()).unwrap().1, model);
}

#[test]
fn a_received_snapshot_restarts_the_log_and_frees_what_was_before() {
    let disk = SimDisk::new(1);
    let (mut dir, mut model) = recover(&disk, small()).unwrap();
    for index in 1..=20 {
        let entries = [command(index, 1, vec![1; 900])];
        dir.wal.append(hard_state(1, 0, 3), None, &entries).unwrap();
        model.append(hard_state(1, 0, 3), None, &entries);
        dir.wal.sync().unwrap();
    }
    assert!(segments(&disk) > 5);
    // Below what the log holds: its end is not what the leader has.
    let snapshot = meta(7, 2);
    let info = write_snapshot(&dir.snapshots, &snapshot).unwrap();
    let after = [command(8, 2, "after")];
    dir.wal.append(hard_state(2, 0, 7), Some(&snapshot), &after).unwrap();
    model.append(hard_state(2, 0, 7), Some(&snapshot), &after);
    dir.wal.sync().unwrap();
    dir.snapshots.adopt(info).unwrap();
    assert!(segments(&disk) <= 2, "the segment being written, or the one before it as well");
    assert!(dir.wal.bytes_since_snapshot() < 1000);
    drop(dir);
    let (dir, recovered) = recover(&disk, small()).unwrap();
    assert_eq!(recovered, model);
    assert_eq!(dir.wal.base(), &snapshot);
}

#[test]
fn the_membership_of_the_first_start_is_the_logs_own() {
    let disk = SimDisk::new(1);
    recover(&disk, small()).unwrap();
    let others = Configuration::of_voters([node(5)]);
    let opening = crate::storage::open(&disk, small(), identity(), &others).unwrap();
    assert_eq!(opening.base().config, members());
    assert!(!opening.is_first_start());
}

#[test]
fn every_kind_of_entry_comes_back() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let joint = Configuration {
        voters: [node(1), node(2)].into(),
        outgoing: [node(1), node(3)].into(),
        learners: [node(4), node(u64::MAX)].into(),
        ..Configuration::default()
    };
    let entries = [
        Entry { id: id(1, 1), payload: Payload::Noop },
        command(2, 1, ""),
        command(3, 1, vec![0; 3000]),
        Entry { id: id(4, u64::MAX), payload: Payload::Config(joint) },
    ];
    dir.wal.append(hard_state(u64::MAX, u64::MAX, 2), None, &entries).unwrap();
    dir.wal.sync().unwrap();
    drop(dir);
    let (_, model) = recover(&disk, small()).unwrap();
    assert_eq!(model.entries, entries);
    assert_eq!(model.hard_state, hard_state(u64::MAX, u64::MAX, 2));
}

#[test]
fn the_commit_index_rides_along_and_costs_nothing_alone() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    dir.wal.append(hard_state(1, 1, 0), None, &[command(1, 1, "a")]).unwrap();
    dir.wal.sync().unwrap();
    let before = disk.operations();
    dir.wal.append(hard_state(1, 1, 1), None, &[]).unwrap();
    dir.wal.sync().unwrap();
    assert_eq!(disk.operations(), before);
    dir.wal.append(hard_state(1, 1, 1), None, &[command(2, 1, "b")]).unwrap();
    dir.wal.sync().unwrap();
    assert_eq!(disk.operations(), before + 2, "one write, one sync");
    dir.wal.vouch().unwrap();
    dir.wal.vouch().unwrap();
    assert_eq!(disk.operations(), before + 3, "vouching once is enough");
    drop(dir);
    assert_eq!(recover(&disk, small()).unwrap().1.hard_state, hard_state(1, 1, 1));
}

#[test]
fn full_segments_are_used_again_and_their_number_stays_bounded() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let mut created = 0;
    for index in 1..=400 {
        dir.wal.append(hard_state(1, 1, index), None, &[command(index, 1, vec![3; 700])]).unwrap();
        dir.wal.sync().unwrap();
        if let Some(job) = dir.wal.spare_job() {
            let names = disk.names().len();
            let spare = job.run().unwrap();
            created += disk.names().len() - names;
            dir.wal.add_spare(spare);
        }
        if index % 10 == 0 {
            take_snapshot(&mut dir.wal, &dir.snapshots, &meta(index - 3, 1)).unwrap();
        }
        assert!(disk.names().len() < 12, "{:?}", disk.names());
    }
    let used = disk.names().iter().filter_map(|name| name.strip_prefix("wal-")?.parse().ok()).max();
    let used: usize = used.unwrap();
    assert!(used > 80 && created < used * 2 / 3, "{created} files for {used} segments");
}

#[test]
fn a_recycled_segment_is_blank_before_it_is_written() {
    let disk = SimDisk::new(1);
    let file = disk.open("spare-0000000042", Access::Create).unwrap();
    file.write_at(&[0xaa; 4096], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    drop(file);
    recover(&disk, small()).unwrap();
    assert!(!disk.names().contains(&"spare-0000000042".to_owned()), "a first start takes no gifts");

    let file = disk.open("spare-0000000042", Access::Create).unwrap();
    file.write_at(&[0xaa; 4096], 0).unwrap();
    drop(file);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let spare = dir.wal.spare_job().unwrap().run().unwrap();
    dir.wal.add_spare(spare);
    let reserve = dir.wal.spare_job().unwrap().run().unwrap();
    dir.wal.add_spare(reserve);
    assert!(dir.wal.has_spare() && dir.wal.has_reserve());
    assert!(dir.wal.spare_job().is_none(), "one of each is enough");
    for index in 1..=4 {
        dir.wal.append(hard_state(1, 1, 0), None, &[command(index, 1, vec![3; 700])]).unwrap();
    }
    dir.wal.sync().unwrap();
    let second = disk.content("wal-0000000002").unwrap();
    assert_eq!(second.len(), 4096);
    assert!(!second.contains(&0xaa));
}

#[test]
fn replay_stops_at_the_visitors_first_error() {
    #[derive(Debug)]
    struct Unknown;
    impl From<Error> for Unknown {
        fn from(error: Error) -> Self {
            panic!("the disk is well: {error}")
        }
    }
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let entries: Vec<_> = (1..=9).map(|index| command(index, 1, "x")).collect();
    dir.wal.append(hard_state(1, 1, 0), None, &entries).unwrap();
    dir.wal.sync().unwrap();
    drop(dir);
    let mut seen = 0;
    let result = open(&disk, small()).unwrap().replay(|record| match record {
        Record::Entry(entry) if entry.id.index.0 == 4 => Err(Unknown),
        Record::Entry(_) => {
            seen += 1;
            Ok(())
        }
        Record::HardState(_) | Record::Restart => Ok(()),
    });
    assert!(matches!(result, Err(Unknown)) && seen == 3);
}

#[test]
fn the_volume_since_the_snapshot_is_known_across_restarts() {
    let disk = SimDisk::new(1);
    let options = Options { segment_bytes: 1 << 20, urgent_segment_bytes: 1 << 19, ..small() };
    let (mut dir, _) = recover(&disk, options).unwrap();
    for index in 1..=100 {
        dir.wal
            .append(hard_state(1, 1, index), None, &[command(index, 1, vec![3; 60_000])])
            .unwrap();
    }
    dir.wal.sync().unwrap();
    let all = dir.wal.bytes_since_snapshot();
    assert!((6_000_000..6_200_000).contains(&all), "{all}");
    take_snapshot(&mut dir.wal, &dir.snapshots, &meta(50, 1)).unwrap();
    let half = dir.wal.bytes_since_snapshot();
    assert!((3_000_000..4_100_000).contains(&half), "{half}");
    drop(dir);
    let (dir, _) = recover(&disk, options).unwrap();
    let again = dir.wal.bytes_since_snapshot();
    assert!((3_000_000..5_200_000).contains(&again), "{again}");
}

#[test]
#[should_panic(expected = "one vote in a term")]
fn a_second_vote_in_a_term_is_a_bug() {
    let (mut dir, _) = recover(&SimDisk::new(1), small()).unwrap();
    dir.wal.append(hard_state(4, 1, 0), None, &[]).unwrap();
    dir.wal.append(hard_state(4, 2, 0), None, &[]).ok();
}

#[test]
#[should_panic(expected = "entries continue the log")]
fn a_gap_in_the_log_is_a_bug() {
    let (mut dir, _) = recover(&SimDisk::new(1), small()).unwrap();
    dir.wal.append(hard_state(1, 1, 0), None, &[command(2, 1, "")]).ok();
}

fn segments(disk: &SimDisk) -> usize {
    disk.names().iter().filter(|name| name.starts_with("wal-")).count()
}
