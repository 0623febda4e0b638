//! Snapshot files: whole or not there.

use super::model::*;
use crate::storage::testing::{Fault, SimDisk};
use crate::storage::{CHUNK_BYTES, Error};

#[test]
fn any_length_of_content_comes_back() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let entries: Vec<_> = (1..=9).map(|index| command(index, 1, "")).collect();
    dir.wal.append(hard_state(1, 1, 9), None, &entries).unwrap();
    let lengths = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7];
    for (at, length) in lengths.into_iter().enumerate() {
        let content: Vec<u8> = (0..length).map(|byte| (byte * 7 / 3) as u8).collect();
        let meta = meta(at as u64 + 1, 1);
        let mut writer = dir.snapshots.create(&meta).unwrap();
        for piece in content.chunks(100_000) {
            writer.write(piece).unwrap();
        }
        let info = writer.finish().unwrap();
        dir.wal.release(&meta).unwrap();
        dir.snapshots.adopt(info.clone()).unwrap();
        let mut reader = dir.snapshots.read().unwrap().unwrap();
        assert_eq!(reader.info(), &info);
        let mut read = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_BYTES);
            read.extend_from_slice(&chunk);
        }
        assert_eq!(read, content);
        assert!(reader.next_chunk().unwrap().is_none());
    }
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("snapshot")).count(), 1);
}

#[test]
fn a_snapshot_given_up_leaves_nothing() {
    let disk = SimDisk::new(1);
    let (dir, _) = recover(&disk, small()).unwrap();
    let names = disk.names();
    let mut writer = dir.snapshots.create(&meta(3, 1)).unwrap();
    writer.write(&[1; 1000]).unwrap();
    assert_ne!(disk.names(), names);
    drop(writer);
    assert_eq!(disk.names(), names);
    assert!(dir.snapshots.latest().is_none());
}

#[test]
fn a_disk_too_full_for_a_snapshot_leaves_the_log_well() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    disk.set_capacity(Some(20_000));
    let mut writer = dir.snapshots.create(&meta(3, 1)).unwrap();
    let error = writer.write(&vec![1; CHUNK_BYTES]).unwrap_err();
    assert!(error.is_full(), "{error}");
    drop(writer);
    dir.wal.append(hard_state(1, 1, 0), None, &[command(1, 1, "fits")]).unwrap();
    dir.wal.sync().unwrap();
}

#[test]
fn one_that_the_log_does_not_name_is_ignored_and_removed() {
    let disk = SimDisk::new(1);
    let (mut dir, mut model) = recover(&disk.for_process(), small()).unwrap();
    let entries: Vec<_> = (1..=9).map(|index| command(index, 1, "")).collect();
    dir.wal.append(hard_state(1, 1, 9), None, &entries).unwrap();
    model.append(hard_state(1, 1, 9), None, &entries);
    take_snapshot(&mut dir.wal, &dir.snapshots, &meta(4, 1)).unwrap();
    model.release(&meta(4, 1));
    // A crash before the log heard of it; one half written.
    write_snapshot(&dir.snapshots, &meta(6, 1)).unwrap();
    let mut half = dir.snapshots.create(&meta(7, 1)).unwrap();
    half.write(&[1; 10]).unwrap();
    drop(dir);
    disk.kill();
    drop(half);
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("snapshot")).count(), 3);
    let (dir, recovered) = recover(&disk, small()).unwrap();
    assert_eq!(recovered, model);
    assert_eq!(dir.snapshots.latest().unwrap().meta, meta(4, 1));
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("snapshot")).count(), 1);
}

#[test]
fn an_older_one_that_is_being_read_stays_readable() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    let entries: Vec<_> = (1..=9).map(|index| command(index, 1, "")).collect();
    dir.wal.append(hard_state(1, 1, 9), None, &entries).unwrap();
    take_snapshot(&mut dir.wal, &dir.snapshots, &meta(4, 1)).unwrap();
    let mut reader = dir.snapshots.read().unwrap().unwrap();
    take_snapshot(&mut dir.wal, &dir.snapshots, &meta(8, 1)).unwrap();
    let mut content = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        content.extend_from_slice(&chunk);
    }
    assert_eq!(content, snapshot_content(&meta(4, 1)));
    assert_eq!(dir.snapshots.latest().unwrap().meta, meta(8, 1));
}

#[test]
fn chunks_out_of_place_are_found() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    dir.wal.append(hard_state(1, 1, 1), None, &[command(1, 1, "")]).unwrap();
    let mut writer = dir.snapshots.create(&meta(1, 1)).unwrap();
    for fill in 1..=3 {
        writer.write(&vec![fill; CHUNK_BYTES]).unwrap();
    }
    let info = writer.finish().unwrap();
    dir.wal.release(&meta(1, 1)).unwrap();
    dir.snapshots.adopt(info).unwrap();
    let name = disk.names().into_iter().find(|name| name.starts_with("snapshot")).unwrap();
    let chunk = CHUNK_BYTES + 8;
    let header = disk.content(&name).unwrap().len() - 3 * chunk - 24;
    let swap: fn(&mut Vec<u8>, usize, usize) = |content, header, chunk| {
        let (first, second) = content[header..].split_at_mut(chunk);
        first.swap_with_slice(&mut second[..chunk]);
    };
    let drop_one: fn(&mut Vec<u8>, usize, usize) = |content, header, chunk| {
        content.drain(header..header + chunk);
    };
    let cut: fn(&mut Vec<u8>, usize, usize) = |content, header, chunk| {
        content.truncate(header + 2 * chunk);
    };
    let grow: fn(&mut Vec<u8>, usize, usize) = |content, _, _| content.push(0);
    for damage in [swap, drop_one, cut, grow] {
        let damaged = disk.fork();
        damaged.rot(&name, |content| damage(content, header, chunk));
        let mut reader = open(&damaged, small()).unwrap().read_snapshot().unwrap().unwrap();
        let error = loop {
            match reader.next_chunk() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the damage went unseen"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn anothers_snapshot_is_refused() {
    let disk = SimDisk::new(1);
    let (mut dir, _) = recover(&disk, small()).unwrap();
    dir.wal.append(hard_state(1, 1, 1), None, &[command(1, 1, "")]).unwrap();
    take_snapshot(&mut dir.wal, &dir.snapshots, &meta(1, 1)).unwrap();
    drop(dir);
    let name = disk.names().into_iter().find(|name| name.starts_with("snapshot")).unwrap();
    disk.rot(&name, |content| {
        content[16] ^= 1;
        let bytes = u32::from_le_bytes(content[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c(&content[4..bytes]);
        content[..4].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, Error::ForeignDirectory { .. }), "{error}");
}

/// The name may come to stand without the content only if a sync was left out.
#[test]
fn a_finished_snapshot_survives_a_power_cut() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut dir, _) = recover(&disk, small()).unwrap();
        dir.wal.append(hard_state(1, 1, 1), None, &[command(1, 1, "")]).unwrap();
        let info = write_snapshot(&dir.snapshots, &meta(1, 1)).unwrap();
        dir.wal.release(&meta(1, 1)).unwrap();
        disk.fault_at(disk.operations(), Fault::PowerCut);
        dir.snapshots.adopt(info).ok();
        drop(dir);
        disk.power_cut();
        let (_, model) = recover(&disk, small()).unwrap();
        assert_eq!(model.base, meta(1, 1));
    }
}
