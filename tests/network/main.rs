//! Real members in network namespaces of their own, with the network between them under control:
//! delay, loss, one-way cuts, and ports that nobody can dial.
//!
//! The test process moves into a network namespace of its own first, so that nothing outside is
//! touched and no address outside is used. Each member gets one more, with two ways out of it: a
//! plain link on which its clients reach it, which no fault touches, and a network for the peers,
//! every packet of which passes through [`wire::Wire`]. To write a test: [`room::Room::new`], its
//! `cluster`, a [`beside::Beside`] where a well-behaved client is to be watched, and a line in
//! [`STORIES`].
//!
//! Without the right to make namespaces, or without the tools (`unshare`, `nsenter`, `ip`), the
//! tests are ignored, and a line says why; with `REQUIRE_NETWORK=1` that is a failure. They run
//! one after the other: latencies are compared.

#![allow(dead_code, reason = "the network can do more than each test asks of it")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found")]

#[path = "../common/mod.rs"]
mod common;

mod beside;
mod delays;
mod dials;
mod nemesis;
mod packet;
mod room;
mod still;
mod wire;

use std::pin::Pin;
use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Trial};

/// A test.
type Story = fn() -> Pin<Box<dyn Future<Output = ()>>>;

const STORIES: [(&str, Story); 7] = [
    ("the_network_does_what_it_is_told", || Box::pin(still::as_told())),
    ("lost_packets_cost_time_and_no_answers", || Box::pin(still::loss())),
    ("followers_serve_while_the_leader_rejects_connections", || Box::pin(dials::rejected())),
    ("followers_serve_while_what_is_dialled_to_the_leader_is_lost", || Box::pin(dials::silent())),
    ("everything_works_at_a_round_trip_of_80_ms", || Box::pin(delays::of_a_continent())),
    ("everything_works_at_a_round_trip_of_200_ms", || Box::pin(delays::of_an_ocean())),
    ("everything_at_once_loses_nothing_and_ends_nobody", || Box::pin(nemesis::everything())),
];

/// Set in the process that runs in the namespace.
const INSIDE: &str = "NETWORK_INSIDE";

/// Moves a process into new namespaces: as root, and as another user where that is permitted.
const UNSHARE: [&[&str]; 2] = [&["--net", "--"], &["--user", "--map-root-user", "--net", "--"]];

/// Fails where a member's networks cannot be made.
const TRIAL: &str = "ip link set lo up && ip link add v0 type veth peer name v1 \
    && ip link add v2 type vxlan id 1 remote 127.0.0.1 dstport 4789 \
    && unshare --net nsenter --net=/proc/self/ns/net true";

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let inside = std::env::var_os(INSIDE).is_some();
    let mut obstacle = None;
    if !inside && !arguments.list {
        match way_in() {
            Ok(words) => std::process::exit(again(words)),
            Err(why) => obstacle = Some(why),
        }
    }
    if let Some(why) = &obstacle {
        eprintln!("\n*** No network namespaces can be made here: {why}.\n");
        if std::env::var("REQUIRE_NETWORK").is_ok_and(|value| value == "1") {
            eprintln!("*** REQUIRE_NETWORK=1 makes that a failure.");
            std::process::exit(1);
        }
    }
    let trials = STORIES.map(|(name, story)| {
        let trial = move || {
            run(story);
            Ok(())
        };
        Trial::test(name, trial).with_ignored_flag(obstacle.is_some())
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// How `unshare` is called here, or what it says where no way works.
fn way_in() -> Result<&'static [&'static str], String> {
    let mut why = String::new();
    for words in UNSHARE {
        let mut command = Command::new("unshare");
        match command.args(words).args(["sh", "-c", TRIAL]).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(words),
            Ok(output) => why = format!("unshare: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => why = format!("unshare: {error}"),
        }
    }
    Err(why)
}

/// Runs this very program in a new namespace; gives its exit code.
fn again(unshare: &[&str]) -> i32 {
    let own = std::env::current_exe().expect("a program has a path");
    let mut command = Command::new("unshare");
    command.args(unshare).arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    command.status().expect("it just worked").code().unwrap_or(1)
}

fn run(story: Story) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(story());
}
