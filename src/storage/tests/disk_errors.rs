//! A disk that refuses, fails or fills up: the first error is the last thing the log does.

use std::io::ErrorKind;

use super::life::Life;
use super::model::*;
use crate::storage::Error;
use crate::storage::testing::{Fault, SimDisk};

#[test]
fn any_failure_is_told_and_loses_nothing() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem] {
        for at in 0.. {
            let mut life = Life::new(77);
            life.disk.fault_at(at, Fault::Fail(kind));
            let mut failure = life.start().err();
            for _ in 0..50 {
                if failure.is_none() {
                    failure = life.step().err();
                }
            }
            let Some(failure) = failure else { break };
            let (Error::Io { source, path, .. } | Error::NoRoom { source, path }) = &failure else {
                panic!("{failure}")
            };
            assert_eq!(source.kind(), kind);
            assert!(path.starts_with("/sim"), "{failure}");
            assert_eq!(failure.is_full(), kind == ErrorKind::StorageFull);
            life.stop();
            if at % 2 == 0 {
                life.disk.power_cut();
            } else {
                life.disk.kill();
            }
            life.start().unwrap();
            life.stop();
            life.disk.power_cut();
            life.start().unwrap();
        }
    }
}

#[test]
fn a_failed_log_takes_nothing_more() {
    for fail_sync in [true, false] {
        let disk = SimDisk::new(5);
        let (mut dir, _) = recover(&disk, small()).unwrap();
        let entries = [command(1, 1, "one")];
        let hard_state = hard_state(1, 1, 0);
        disk.fault_at(disk.operations() + u64::from(fail_sync), Fault::Fail(ErrorKind::Other));
        let result = dir.wal.append(hard_state, None, &entries).and_then(|()| dir.wal.sync());
        assert!(matches!(result, Err(Error::Io { .. })));
        let again = [command(2, 1, "two")];
        let poisoned = |result| matches!(result, Err(Error::Poisoned { .. }));
        assert!(poisoned(dir.wal.append(hard_state, None, &again)));
        assert!(poisoned(dir.wal.sync()));
        assert!(poisoned(dir.wal.append(hard_state, None, &[])));
        assert!(dir.wal.spare_job().is_none());
    }
}

#[test]
fn a_full_disk_is_told_and_a_start_with_more_room_goes_on() {
    let mut life = Life::new(6);
    life.start().unwrap();
    for _ in 0..20 {
        life.append().unwrap();
        life.sync().unwrap();
    }
    life.disk.set_capacity(Some(40_000));
    let error = loop {
        if let Err(error) = life.append().and_then(|()| life.sync()) {
            break error;
        }
    };
    assert!(error.is_full(), "{error}");
    life.stop();
    life.disk.kill();
    // A start needs room for a few bytes of its own.
    assert!(life.start().unwrap_err().is_full());
    life.stop();
    life.disk.set_capacity(None);
    life.disk.kill();
    life.start().unwrap();
    life.append().unwrap();
    life.sync().unwrap();
}

#[test]
fn a_failed_read_is_an_error_and_no_damage() {
    let mut life = Life::new(9);
    life.start().unwrap();
    for _ in 0..60 {
        life.step().unwrap();
    }
    life.stop();
    for read in 0.. {
        let disk = life.disk.fork();
        disk.fail_read_at(disk.reads() + read, ErrorKind::Other);
        match recover(&disk, small()) {
            Ok(_) => {
                assert!(read > 5, "a start reads more than that");
                break;
            }
            Err(error) => assert!(matches!(error, Error::Io { op: "read" | "rewrite", .. })),
        }
    }
}
