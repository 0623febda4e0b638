//! Data directories that cannot be used: the node says which file and why, and never serves them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use raft_node::proto::etcdserverpb::CompactionRequest;

use crate::common::http::gauge;
use crate::common::{self, Cluster, Member, Options, within};

const DISK: i32 = 74;
const DISK_FULL: i32 = 75;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The end of a process that should not have started.
fn refused(member: &Member) -> Output {
    member.command().output().expect("start raft-node")
}

/// A one-member cluster that has written something and was stopped.
async fn written() -> Cluster {
    let cluster = Cluster::start(Options::single()).await;
    for count in 0..200 {
        let value = format!("value {count} {}", "x".repeat(1000));
        cluster.client(1).surely_put(&format!("key {count}"), value).await;
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_directory_is_refused() {
    let mut cluster = written().await;
    cluster.stop(1).await;
    for (variable, value) in [("RAFT_CLUSTER_TOKEN", "another"), ("RAFT_NODE_ID", "7")] {
        let before = fingerprint(&cluster.member(1).data_dir);
        let member = cluster.member(1);
        let peers = format!("1={0},7=127.0.0.1:1", member.peer_addr);
        if variable == "RAFT_NODE_ID" {
            member.set("RAFT_PEERS", &peers);
        }
        member.set(variable, value);
        let output = refused(member);
        assert_eq!(output.status.code(), Some(DISK), "{output:?}");
        let told = told(&output);
        let directory = member.data_dir.display().to_string();
        assert!(told.contains(&directory) && told.contains("belongs to node 1"), "{told}");
        assert_eq!(fingerprint(&cluster.member(1).data_dir), before, "nothing was touched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_is_refused() {
    let mut cluster = written().await;
    let other = Cluster::prepare(Options::single()).await;
    let (peer, client) = (other.client(1).id, crate::common::free_port());
    assert_eq!(peer, 1);
    let mut second = Member::new(1, other.root(), Vec::new());
    second.set("RAFT_DATA_DIR", &cluster.member(1).data_dir.display().to_string());
    second.set("RAFT_CLIENT_LISTEN", &format!("127.0.0.1:{client}"));
    let output = refused(&second);
    assert_eq!(output.status.code(), Some(DISK), "{output:?}");
    assert!(told(&output).contains("in use by another process"), "{output:?}");
    cluster.client(1).surely_put("k", "v").await;
}

/// The bytes were durable once: to start without them would be to forget acknowledged writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_damaged_in_the_middle_is_refused() {
    let mut cluster = written().await;
    cluster.kill(1);
    let (file, offset) = place_of(&cluster.member(1).data_dir, b"value 100 xxxxxx");
    flip(&file, offset + 20);
    let output = refused(cluster.member(1));
    assert_eq!(output.status.code(), Some(DISK), "{output:?}");
    let told = told(&output);
    let line = told.lines().find(|line| line.contains(&file.display().to_string()));
    let line = line.unwrap_or_else(|| panic!("{} is not in {told}", file.display()));
    let at = line.split("damaged at byte ").nth(1).and_then(|rest| rest.split(':').next());
    let at: u64 = at.and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no offset: {line}"));
    assert!(at <= offset + 20 && offset < at + 4096, "{offset} is not near {at}: {line}");
    assert!(line.contains("RAFT_REPLACES=1"), "the way out is not named: {line}");
    // Mended, it is as good as before: the refusal itself changed nothing.
    flip(&file, offset + 20);
    cluster.restart(1);
    cluster.settled().await;
    for count in 0..200 {
        let value = cluster.client(1).sure_value(&format!("key {count}")).await;
        let value = value.unwrap_or_else(|| panic!("key {count} is lost"));
        assert!(value.starts_with(format!("value {count} x").as_bytes()));
    }
}

/// Root may write wherever permissions forbid it, so the place is one where nobody can.
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused() {
    let mut cluster = Cluster::prepare(Options::single()).await;
    let file = cluster.root().join("a-file");
    fs::write(&file, "not a directory").expect("write");
    for place in [file.join("data"), PathBuf::from("/proc/raft-node")] {
        cluster.member(1).set("RAFT_DATA_DIR", &place.display().to_string());
        let output = refused(cluster.member(1));
        assert_eq!(output.status.code(), Some(DISK), "{output:?}");
        assert!(told(&output).contains(&place.display().to_string()), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_file_system_is_refused() {
    let mut cluster = Cluster::prepare(Options::single()).await;
    let Some(mount) = Mount::tmpfs(cluster.root().join("disk"), "16m,ro") else {
        return;
    };
    cluster.member(1).set("RAFT_DATA_DIR", &mount.path.display().to_string());
    let output = refused(cluster.member(1));
    assert_eq!(output.status.code(), Some(DISK), "{output:?}");
    let told = told(&output);
    assert!(told.contains(&mount.path.display().to_string()), "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
}

/// A member without room waits for some; the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_one_member_until_there_is_room_and_loses_nothing() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    let Some(mount) = Mount::tmpfs(cluster.root().join("disk"), "640m") else {
        return;
    };
    cluster.member(2).set("RAFT_DATA_DIR", &mount.path.display().to_string());
    for id in cluster.ids() {
        cluster.member(id).start();
    }
    cluster.settled().await;
    cluster.client(2).surely_put("before", "v").await;
    mount.fill();
    let addr = cluster.member(2).client_addr.clone();
    let writer = cluster.client(1).clone();
    let filling = tokio::spawn(async move {
        // More than fills a segment, and less than the disk holds once it has room: however slow
        // the machine is, a snapshot of it fits.
        for count in 0..1000 {
            let key = format!("fill/{}", count % 8);
            drop(writer.put(&key, vec![7; 256 << 10]).await);
        }
    });
    // It is no longer ready once its log waits; but it lives, and a restart would not help it.
    within(Duration::from_mins(2), "member 2 to wait for room", async || match common::http::get(
        &addr, "/readyz",
    )
    .await
    .status
    {
        200 => Err("it is ready".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(gauge(&addr, "raft_node_disk_full").await, 1);
    assert_eq!(common::http::get(&addr, "/livez").await.status, 200);
    filling.abort();
    cluster.settled_among(&[1, 3]).await;
    cluster.client(1).surely_put("after", "v").await;
    cluster.member(2).assert_runs();
    // With room again it is a member like the others.
    mount.make_room();
    let lead = cluster.settled().await;
    cluster.caught_up(2, lead.id).await;
    assert_eq!(cluster.client(2).sure_value("after").await, Some(b"v".to_vec()));
    let log = cluster.member(2).log();
    let told = log.lines().filter(|line| line.contains("the disk is full")).count();
    assert!((1..4).contains(&told), "{told} lines: {log}");
    cluster.member(2).assert_runs();
}

/// What fills the disk can be deleted, and then there is room again, without any restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_deletions_and_compactions_and_then_writes_again() {
    let mut cluster = Cluster::prepare(Options::single()).await;
    let Some(mount) = Mount::tmpfs(cluster.root().join("disk"), "256m") else {
        return;
    };
    cluster.member(1).set("RAFT_DATA_DIR", &mount.path.display().to_string());
    cluster.member(1).start();
    cluster.settled().await;
    let client = cluster.client(1).clone();
    let mut refused = None;
    for count in 0..1024 {
        if let Err(status) = client.put(&format!("fill/{count:04}"), vec![7; 256 << 10]).await {
            refused = Some((count, status));
            break;
        }
    }
    let (count, status) = refused.expect("256 MiB do not fit");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
    let addr = cluster.member(1).client_addr.clone();
    assert_eq!(gauge(&addr, "raft_node_disk_full").await, 1);
    assert_eq!(common::http::get(&addr, "/readyz").await.status, 200);
    assert!(client.value("fill/0000").await.expect("reads are served").is_some());
    let mut revision = 0;
    for key in 0..count {
        revision = client.delete(&format!("fill/{key:04}")).await.expect("deletes are taken").0;
    }
    let compact = CompactionRequest { revision, physical: true };
    client.timely(client.kv().compact(compact)).await.expect("compaction is taken");
    within(Duration::from_mins(1), "writes to be taken again", async || {
        client.put("after", "v").await.map_err(|status| status.to_string())
    })
    .await;
    cluster.member(1).assert_runs();
    cluster.kill(1);
    cluster.restart(1);
    cluster.settled().await;
    assert_eq!(client.sure_value("after").await, Some(b"v".to_vec()));
    assert_eq!(client.sure_value("fill/0000").await, None);
}

/// Another start may go well: the code is not that of a broken disk.
#[tokio::test]
async fn a_start_on_a_full_disk_ends_with_a_code_of_its_own() {
    let mut cluster = Cluster::prepare(Options::single()).await;
    let Some(mount) = Mount::tmpfs(cluster.root().join("disk"), "64m") else {
        return;
    };
    mount.fill();
    cluster.member(1).set("RAFT_DATA_DIR", &mount.path.display().to_string());
    let output = refused(cluster.member(1));
    assert_eq!(output.status.code(), Some(DISK_FULL), "{output:?}");
    mount.make_room();
    cluster.member(1).start();
    cluster.settled().await;
    cluster.client(1).surely_put("k", "v").await;
}

/// A file system of a test's own, unmounted at its end.
struct Mount {
    path: PathBuf,
}

impl Mount {
    /// `None`, loudly, where the system does not let us mount.
    fn tmpfs(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).expect("create");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={options}"), "tmpfs"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path }),
            other => {
                crate::common::ignored(&format!("no tmpfs can be mounted: {other:?}"));
                None
            }
        }
    }

    /// Takes all of the room that is left.
    fn fill(&self) {
        let file = fs::File::create(self.path.join("ballast")).expect("create");
        let piece = vec![1; 1 << 16];
        let mut offset = 0;
        while file.write_all_at(&piece, offset).is_ok() {
            offset += piece.len() as u64;
        }
    }

    /// Gives it back.
    fn make_room(&self) {
        fs::remove_file(self.path.join("ballast")).expect("remove");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the processes that still use it end just after.
        Command::new("umount").arg("-l").arg(&self.path).status().ok();
    }
}

/// Every file below `directory` with its bytes.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

/// Names and a checksum of all bytes.
fn fingerprint(directory: &Path) -> Vec<(PathBuf, u32)> {
    files(directory).into_iter().map(|(path, bytes)| (path, crc32fast::hash(&bytes))).collect()
}

/// The file that holds `bytes`, and where.
fn place_of(directory: &Path, bytes: &[u8]) -> (PathBuf, u64) {
    let found = files(directory).into_iter().find_map(|(path, content)| {
        let offset = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, offset as u64))
    });
    found.expect("what was written is on the disk")
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 0x55], offset).expect("write");
}
