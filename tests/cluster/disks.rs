//! Data directories that cannot be used: the node says which file and why, and never serves them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{Cluster, Member, Options};

const DISK: i32 = 74;

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

/// The member with the full disk ends; the others do not notice more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_one_member_and_loses_nothing() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    let Some(mount) = Mount::tmpfs(cluster.root().join("disk"), "160m") else {
        return;
    };
    cluster.member(2).set("RAFT_DATA_DIR", &mount.path.display().to_string());
    for id in cluster.ids() {
        cluster.member(id).start();
    }
    cluster.settled().await;
    cluster.client(2).surely_put("before", "v").await;
    mount.fill();
    let writer = cluster.client(1).clone();
    let filling = tokio::spawn(async move {
        let mut acked = 0;
        for count in 0_u64..2000 {
            let key = format!("fill/{}", count % 8);
            if writer.put(&key, vec![7; 256 << 10]).await.is_ok() {
                acked += 1;
            }
        }
        acked
    });
    let status = cluster.member(2).exit(Duration::from_mins(1)).await;
    filling.abort();
    assert_eq!(status.code(), Some(DISK), "{status}");
    let log = cluster.member(2).log();
    assert!(log.contains("No space left on device"), "{log}");
    cluster.settled_among(&[1, 3]).await;
    cluster.client(1).surely_put("after", "v").await;
    // With room again it is a member like the others.
    mount.make_room();
    cluster.restart(2);
    let lead = cluster.settled().await;
    cluster.caught_up(2, lead.id).await;
    assert_eq!(cluster.client(2).sure_value("after").await, Some(b"v".to_vec()));
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
