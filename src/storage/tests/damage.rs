//! Rot, lies and lost files: what was acknowledged is there, or the start says what is wrong.

use super::model::*;
use crate::storage::testing::rng::Rng;
use crate::storage::testing::{Fault, SimDisk};
use crate::storage::{Error, Options, frame};

const LAST_GROUPS: [usize; 3] = [3, 300, 1100];

/// A log of some segments, a snapshot, and a last group of `last_bytes` bytes of data that was
/// acknowledged; with or without a word on the disk that it was. And what the log held before
/// that group, and in the end.
fn small_log(last_bytes: usize, vouched: bool) -> (SimDisk, Model, Model) {
    let disk = SimDisk::new(1);
    let (mut dir, mut model) = recover(&disk, small()).unwrap();
    let groups = [(1, 1, 300), (1, 2, 400), (2, 3, 700), (2, 5, 100), (2, 6, last_bytes)];
    let mut before = model.clone();
    for (at, (term, index, bytes)) in groups.into_iter().enumerate() {
        before = model.clone();
        let first = command(index, term, vec![term as u8; bytes]);
        let second = command(index + 1, term, vec![0; bytes]);
        let hard_state = hard_state(term, 1, index);
        let entries = [first, second];
        dir.wal.append(hard_state, None, &entries).unwrap();
        model.append(hard_state, None, &entries);
        dir.wal.sync().unwrap();
        if at == 3 {
            take_snapshot(&mut dir.wal, &dir.snapshots, &meta(2, 1)).unwrap();
            model.release(&meta(2, 1));
        }
    }
    if vouched {
        dir.wal.vouch().unwrap();
        dir.wal.sync().unwrap();
    }
    drop(dir);
    (disk, before, model)
}

fn newest(disk: &SimDisk) -> String {
    disk.names().into_iter().rfind(|name| name.starts_with("wal-")).unwrap()
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::Version { .. })
}

#[test]
fn any_flipped_bit_is_found_or_does_no_harm() {
    for last_bytes in LAST_GROUPS {
        for vouched in [true, false] {
            let (disk, _, model) = small_log(last_bytes, vouched);
            let names: Vec<_> = disk.names().into_iter().filter(|name| name != "lock").collect();
            let segments = names.iter().filter(|name| name.starts_with("wal-")).count();
            assert!(segments >= 2 && names.len() == segments + 3, "{names:?}");
            for name in names {
                // What comes before the last group is the same in all of them.
                if name != newest(&disk) && (last_bytes, vouched) != (300, true) {
                    continue;
                }
                let content = disk.content(&name).unwrap();
                let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                let mut found = 0;
                for bit in 0..content.len() * 8 {
                    // Far in the blank part one bit is like another.
                    if bit > (used + 1024) * 8 && bit % 37 != 0 {
                        continue;
                    }
                    let damaged = disk.fork();
                    damaged.flip_bit(&name, bit);
                    match recover(&damaged, small()) {
                        Ok((_, recovered)) => {
                            assert_eq!(recovered, model, "bit {bit} of {name}");
                            assert!(bit >= used * 8, "bit {bit} of {name} went unseen");
                        }
                        Err(error) => {
                            assert!(is_damage(&error), "bit {bit} of {name}: {error}");
                            assert!(error.to_string().contains(&name), "{error} names {name}");
                            found += 1;
                        }
                    }
                }
                assert!(found >= used * 8, "{name}: every bit of content counts");
            }
        }
    }
}

/// Whole sectors of zeros look like a write that never arrived. With a word that the group was
/// durable it is known for damage; without, it is cut: `docs/wal.md` says so.
#[test]
fn a_blanked_sector_of_the_last_group_is_told_from_a_torn_one_by_a_voucher() {
    for (vouched, found) in [(true, true), (false, false)] {
        let (disk, before, _) = small_log(1100, vouched);
        let name = newest(&disk);
        let end = disk.content(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        let voucher = if vouched { 128 } else { 0 };
        let sector = (end - voucher) / 512 - 1;
        disk.rot(&name, |content| content[sector * 512..(sector + 1) * 512].fill(0));
        match recover(&disk, small()) {
            Ok((_, recovered)) => {
                assert!(!found);
                assert_eq!(recovered, before);
            }
            Err(error) => assert!(found && is_damage(&error), "{error}"),
        }
    }
}

#[test]
fn a_lost_write_that_was_acknowledged_is_found() {
    for (lie, vouched) in [
        (Fault::LoseWrite, true),
        (Fault::MisdirectWrite { sectors: 4 }, true),
        (Fault::MisdirectWrite { sectors: 1 }, true),
        // Where it arrived instead, it is not taken for what belongs there.
        (Fault::MisdirectWrite { sectors: 2 }, false),
    ] {
        let disk = SimDisk::new(3);
        let options = Options { urgent_segment_bytes: 8192, ..small() };
        let (mut dir, mut model) = recover(&disk, options).unwrap();
        let mut states = vec![model.clone()];
        for index in 1..=4 {
            let entries = [command(index, 1, vec![9; 1100])];
            if index == 3 {
                disk.fault_at(disk.operations(), lie);
            }
            dir.wal.append(hard_state(1, 1, 0), None, &entries).unwrap();
            dir.wal.sync().unwrap();
            model.append(hard_state(1, 1, 0), None, &entries);
            states.push(model.clone());
            if index == 3 && !vouched {
                break;
            }
        }
        drop(dir);
        disk.power_cut();
        match recover(&disk, small()) {
            Err(error) => assert!(is_damage(&error), "{error}"),
            Ok((_, recovered)) => {
                assert!(!vouched, "{lie:?} went unseen");
                assert_eq!(recovered, states[2]);
            }
        }
    }
}

#[test]
fn an_old_group_does_not_resurface_behind_new_ones() {
    // Three groups, unsynced; the first one is lost, and with it the two behind it.
    let disk = SimDisk::new(4);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    dir.wal.append(hard_state(1, 1, 0), None, &[]).unwrap();
    dir.wal.sync().unwrap();
    let name = newest(&disk);
    let end = disk.content(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let end = end.next_multiple_of(64);
    for index in 1..=3 {
        let entries = [command(index, 1, vec![5; 150])];
        dir.wal.append(hard_state(1, 1, 0), None, &entries).unwrap();
    }
    drop(dir);
    let stale = disk.content(&name).unwrap();
    disk.kill();
    disk.rot(&name, |content| content[end..end + 256].fill(0));
    let (mut dir, model) = recover(&disk, small()).unwrap();
    assert!(model.entries.is_empty());
    let rest = &disk.content(&name).unwrap()[end..];
    assert!(frame::is_blank(&rest[128..]), "nothing is left behind the end but the voucher");

    // Another group takes the place of the first, of the same length.
    dir.wal.append(hard_state(2, 2, 0), None, &[command(1, 2, vec![6; 150])]).unwrap();
    dir.wal.sync().unwrap();
    drop(dir);
    let (_, model) = recover(&disk, small()).unwrap();
    assert_eq!(model.last(), id(1, 2));
    // Should the zeros be lost after all, the old groups do not pass for the new one's successors.
    disk.rot(&name, |content| {
        let now = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let now = now.next_multiple_of(64);
        content[now..].copy_from_slice(&stale[now..]);
    });
    match recover(&disk, small()) {
        Ok((_, recovered)) => assert_eq!(recovered, model),
        Err(error) => assert!(is_damage(&error), "{error}"),
    }
}

/// Two members' worth of history under one name: every group is good, each in its right place.
#[test]
fn groups_of_another_history_are_found() {
    let base = SimDisk::new(2);
    let (mut dir, _) = recover(&base, small()).unwrap();
    dir.wal.append(hard_state(1, 1, 0), None, &[]).unwrap();
    dir.wal.sync().unwrap();
    drop(dir);
    let histories = [1_u8, 2].map(|fill| {
        let disk = base.fork();
        let (mut dir, _) = recover(&disk, small()).unwrap();
        for index in 1..=8 {
            let entries = [command(index, 1, vec![fill; 400])];
            dir.wal.append(hard_state(1, 1, 0), None, &entries).unwrap();
            dir.wal.sync().unwrap();
        }
        disk
    });
    let first = "wal-0000000001";
    let one = histories[0].content(first).unwrap();
    let mixed = histories[1].fork();
    mixed.rot(first, |content| content.clone_from(&one));
    assert_corrupt(&mixed, "wal-0000000002", "does not continue the one before");

    let mixed = histories[1].fork();
    let last = newest(&mixed);
    let one = histories[0].content(&last).unwrap();
    let (at, _) = groups(&one).last().unwrap();
    mixed.rot(&last, |content| content[at..].copy_from_slice(&one[at..]));
    assert_corrupt(&mixed, &last, "does not continue the one before");
}

#[test]
fn a_missing_or_foreign_file_is_found() {
    let (disk, ..) = small_log(500, true);
    let segments: Vec<_> =
        disk.names().into_iter().filter(|name| name.starts_with("wal-")).collect();
    assert!(segments.len() >= 2);
    let newest = &segments[segments.len() - 1];
    let first = disk.fork();
    first.lose_file(&segments[0]);
    assert_corrupt(&first, &segments[0], "missing");

    let snapshot = disk.names().into_iter().find(|name| name.starts_with("snapshot")).unwrap();
    let none = disk.fork();
    none.lose_file(&snapshot);
    assert_corrupt(&none, &snapshot, "missing");

    let log = disk.fork();
    for segment in &segments {
        log.lose_file(segment);
    }
    assert_corrupt(&log, "/sim/", "the log is missing");

    let identity = disk.fork();
    identity.lose_file("identity");
    assert_corrupt(&identity, "identity", "is missing, but");

    let swapped = disk.fork();
    let other = disk.content(newest).unwrap();
    swapped.rot(&segments[0], |content| content.clone_from(&other));
    assert_corrupt(&swapped, &segments[0], "here lies the group of segment");

    let short = disk.fork();
    short.rot(newest, |content| content.truncate(1024));
    assert_corrupt(&short, newest, "the file was");
}

/// The last segment lost: an entry in a blank next one must not make the loss look like an end.
#[test]
fn a_hole_before_a_blank_segment_is_found() {
    let (disk, ..) = small_log(500, true);
    let last = newest(&disk);
    let blank = disk.fork();
    blank.rot(&last, |content| content[..512].fill(0));
    // What is left of the segment proves that its beginning was durable.
    assert_corrupt(&blank, &last, "more was durable");
}

#[test]
fn a_log_of_the_future_is_refused_by_name() {
    let (disk, ..) = small_log(30, true);
    let name = newest(&disk);
    disk.rot(&name, |content| {
        content[8..10].copy_from_slice(&7_u16.to_le_bytes());
        let crc = crc32c::crc32c(&content[4..64]);
        content[..4].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, Error::Version { found: 7, supported: 1, .. }), "{error}");

    let (disk, ..) = small_log(30, true);
    let body = "raft-node data directory\nversion 2\nanything\n";
    let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
    disk.rot("identity", |content| *content = text.clone().into_bytes());
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, Error::Version { found: 2, .. }), "{error}");
}

/// A bug of some writer, or a forger: the checksums are good, the records are nonsense.
#[test]
fn nonsense_under_a_good_checksum_is_an_error_and_no_panic() {
    let (disk, _, model) = small_log(1100, false);
    let mut rng = Rng::new(12);
    let mut refused = 0;
    for name in disk.names().into_iter().filter(|name| name.starts_with("wal-")) {
        let content = disk.content(&name).unwrap();
        for _ in 0..3000 {
            let forged = disk.fork();
            let which = rng.below(4);
            let group = groups(&content).cycle().nth(which as usize).unwrap();
            let body_bytes = group.1.body_bytes as usize;
            let mut bytes = content[group.0..group.0 + 64 + body_bytes].to_vec();
            for _ in 0..=rng.below(3) {
                let at = 64 + rng.below(body_bytes as u64) as usize;
                let values = [0, 1, 0x7f, 0xff, rng.next() as u8];
                bytes[at] = values[rng.below(5) as usize];
            }
            frame::seal(&mut bytes, group.1.place, group.1.durable_bytes);
            forged.rot(&name, |content| {
                content[group.0..group.0 + bytes.len()].copy_from_slice(&bytes);
            });
            // Whatever it says: an answer.
            match crate::storage::open(&forged, small(), identity(), &members()) {
                Err(_) => refused += 1,
                Ok(opening) => match opening.replay(|_| Ok::<(), Error>(())) {
                    Err(_) => refused += 1,
                    Ok(dir) => drop(dir),
                },
            }
        }
    }
    assert!(refused > 1000, "{refused} of them were told from {model:?}");
}

/// Where the groups of a segment are, with their headers.
fn groups(content: &[u8]) -> impl Iterator<Item = (usize, frame::Header)> + Clone + '_ {
    (0..content.len()).step_by(64).filter_map(|at| {
        match frame::Header::decode(content[at..at + 64].try_into().unwrap()) {
            frame::HeaderBytes::Valid(header) if header.mask == 0 => Some((at, header)),
            _ => None,
        }
    })
}

fn assert_corrupt(disk: &SimDisk, file: &str, what: &str) {
    let error = recover(disk, small()).err().expect("damage is found");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(file) && text.contains(what), "{text}");
}
