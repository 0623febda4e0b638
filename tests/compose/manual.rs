//! The README's own commands on how a cluster grows, shrinks and replaces a machine, as they stand
//! there, from top to bottom.

use std::path::Path;

use crate::cluster::Containers;
use crate::common::{eventually, within};
use crate::docker::{PROJECT, typed};

const README: &str = include_str!("../../README.md");
const COMPOSE_FILE: &str = include_str!("../../docker-compose.yml");

/// The section, by its heading.
const SECTION: &str = "## Membership: grow, shrink, replace";

/// The voters after each command that changes the membership, in the order of the README.
const VOTERS: [(&str, &[u64]); 4] = [
    ("up -d node4 node5", &[1, 2, 3, 4, 5]),
    ("member remove 5", &[1, 2, 3, 4]),
    ("up -d node5", &[1, 3, 4, 6]),
    ("up -d node2", &[1, 3, 4, 6, 7]),
];

const ENDPOINTS: &str = "127.0.0.1:2379,127.0.0.1:32379,127.0.0.1:42379";

/// What the section tells the reader to type, but for a node without docker.
fn commands() -> Vec<&'static str> {
    let section = README.split(SECTION).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("a part");
    let typed = section.lines().filter_map(|line| line.strip_prefix("$ "));
    typed.filter(|command| !command.contains("RAFT_")).collect()
}

/// The users' file, with election timeouts that no busy machine reaches: this is about commands.
fn patient_compose_file() -> String {
    const ANCHOR: &str = "  RAFT_CLUSTER_TOKEN: compose\n";
    assert!(COMPOSE_FILE.contains(ANCHOR), "the file has its environment");
    let timeouts = "  RAFT_HEARTBEAT_INTERVAL_MS: 100\n  \
                    RAFT_ELECTION_TIMEOUT_MIN_MS: 3000\n  \
                    RAFT_ELECTION_TIMEOUT_MAX_MS: 6000\n";
    COMPOSE_FILE.replacen(ANCHOR, &format!("{ANCHOR}{timeouts}"), 1)
}

/// Runs them in a directory of the project's name, whose `.env` is nobody else's.
pub async fn grow_shrink_replace(containers: &mut Containers) {
    containers.create_anew().expect("new containers");
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join(PROJECT);
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::write(directory.join("docker-compose.yml"), patient_compose_file()).expect("a file");
    run("docker compose up -d --no-build", &directory).await;
    containers.voters(&[1, 2, 3], 1).await;
    eventually("a write", async || {
        let put = containers.client(1).put("kept", "through it all").await;
        put.map_err(|status| status.to_string())
    })
    .await;
    let mut changes = VOTERS.iter();
    for command in commands() {
        println!("    $ {command}");
        run(command, &directory).await;
        if command.contains("member remove 5") {
            containers.stays_down(5).await;
        }
        if !(command.contains("up -d") || command.contains("member remove")) {
            continue;
        }
        let (change, voters) = changes.next().expect("a change that this test knows");
        assert!(command.contains(change), "{command:?}, where {change:?} was to come");
        containers.voters(voters, 1).await;
    }
    assert!(changes.next().is_none(), "the README ends before {VOTERS:?} does");
    for machine in [1, 2, 3, 4, 5] {
        eventually(&format!("machine {machine} to hold what was written"), async || {
            let kept = containers.client(machine).get("kept").await;
            let kept = kept.map_err(|status| status.to_string())?;
            if kept.kvs.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    // The ids are in `.env`: the same command again changes nothing.
    let created = |machine| containers.inspect(machine, "{{.Id}}");
    let before = [created(2), created(5)];
    run("docker compose --profile grow up -d node2 node5", &directory).await;
    assert_eq!([created(2), created(5)], before, "machines were made anew");
}

/// A member may still be on its way in, or a leader be elected: etcdctl is asked again then.
async fn run(command: &str, directory: &Path) {
    let shell =
        [("ETCDCTL_API", "3"), ("ETCDCTL_ENDPOINTS", ENDPOINTS), ("COMPOSE_PROJECT_NAME", PROJECT)];
    if command.starts_with("etcdctl") {
        let minute = std::time::Duration::from_mins(1);
        within(minute, command, async || typed(command, directory, &shell)).await;
        return;
    }
    typed(command, directory, &shell).unwrap_or_else(|error| panic!("{error}"));
}
