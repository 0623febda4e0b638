//! On the file system: what the simulated disk cannot show.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use crate::storage::{Error, Identity, Options, RealDisk};

use super::model::*;

#[test]
fn what_is_written_is_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path().join("deep/data")).unwrap();
    let options = Options { segment_bytes: 1 << 20, urgent_segment_bytes: 4096, recycled_max: 1 };
    let (mut data, mut model) = recover(&disk, options).unwrap();
    assert_eq!(model, Model::new());
    for round in 0..40_u64 {
        let term = 1 + round / 10;
        let first = 1 + round * 8;
        let entries: Vec<_> =
            (first..first + 10).map(|index| command(index, term, vec![7; 500])).collect();
        let hard_state = hard_state(term, 1, first - 1);
        data.wal.append(hard_state, None, &entries).unwrap();
        data.wal.sync().unwrap();
        model.append(hard_state, None, &entries);
        if let Some(job) = data.wal.spare_job() {
            let spare = std::thread::spawn(move || job.run()).join().unwrap().unwrap();
            data.wal.add_spare(spare);
        }
        if round % 15 == 14 {
            let meta = meta(first, term);
            take_snapshot(&mut data.wal, &data.snapshots, &meta).unwrap();
            model.release(&meta);
        }
        if round % 7 == 6 {
            drop(data);
            let recovered;
            (data, recovered) = recover(&disk, options).unwrap();
            assert_eq!(recovered, model);
        }
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let (data, _) = recover(&disk, small()).unwrap();
    // A part is enough to hold it.
    let snapshots = data.snapshots.clone();
    drop(data);
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    drop(snapshots);
    open(&disk, small()).unwrap();
}

#[test]
fn anothers_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    recover(&disk, small()).unwrap();
    for foreign in
        [Identity { node_id: node(2), ..identity() }, Identity { cluster_id: 7, ..identity() }]
    {
        let error = crate::storage::open(&disk, small(), foreign, &members()).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::ForeignDirectory { .. }), "{text}");
        assert!(text.contains(&identity().to_string()), "{text}");
        assert!(text.contains(&foreign.to_string()), "{text}");
    }
    recover(&disk, small()).unwrap();
}

#[test]
fn a_directory_without_permission_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    recover(&disk, small()).unwrap();
    fs::set_permissions(dir.path().join("identity"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read it all the same.
    if let Err(error) = open(&disk, small()) {
        let Error::Io { path, op, source } = &error else { panic!("{error}") };
        assert_eq!((source.kind(), *op), (ErrorKind::PermissionDenied, "open"));
        assert_eq!(path, &dir.path().join("identity"));
    }
    let file = dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    let error = RealDisk::open(&file).unwrap_err();
    assert!(error.to_string().starts_with("cannot create the directory"), "{error}");
}
