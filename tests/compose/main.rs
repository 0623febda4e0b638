//! The image and the compose file that users get, through what users do to them: `docker stop`,
//! `docker kill`, `docker pause`, `docker network disconnect`, and back.
//!
//! The container names, the networks and the ports are those of `docker-compose.yml`, so there can
//! be only one such cluster on a machine. The tests run one after the other on one cluster, in a
//! project of their own, with volumes of their own, and never touch a cluster that they did not
//! start.
//!
//! Without a docker engine, a compose tool or the base images, the tests are ignored, and a line
//! says why; with `REQUIRE_DOCKER=1` that is a failure. `NODE_IMAGE=name` tests an image that was
//! built before. Neither begins with `RAFT_`: a node would refuse to start with a variable that it
//! does not know.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found")]

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod docker;
mod faults;
mod growth;
mod health;
mod manual;
mod start;
mod traffic;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};

use cluster::Containers;

/// A test: gets the one cluster, which it settles before it does anything to it.
type Story = for<'a> fn(&'a mut Containers) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

const STORIES: [(&str, Story); 20] = [
    ("all_are_healthy_and_one_leads_within_5_s", |c| Box::pin(start::within_five_seconds(c))),
    ("a_container_can_do_no_more_than_it_must", |c| Box::pin(start::confined(c))),
    ("node_proto_is_answered_truly_by_every_member", |c| Box::pin(start::node_registration(c))),
    ("every_probe_agrees_about_every_member", |c| Box::pin(health::all_probes_agree(c))),
    ("stop_of_the_leader", |c| Box::pin(faults::STOP.of_the_leader(c))),
    ("stop_of_a_follower", |c| Box::pin(faults::STOP.of_a_follower(c))),
    ("kill_of_the_leader", |c| Box::pin(faults::KILL.of_the_leader(c))),
    ("kill_of_a_follower", |c| Box::pin(faults::KILL.of_a_follower(c))),
    ("pause_of_the_leader", |c| Box::pin(faults::PAUSE.of_the_leader(c))),
    ("pause_of_a_follower", |c| Box::pin(faults::PAUSE.of_a_follower(c))),
    ("cut_of_the_leader_from_its_peers", |c| Box::pin(faults::CUT.of_the_leader(c))),
    ("cut_of_a_follower_from_its_peers", |c| Box::pin(faults::CUT.of_a_follower(c))),
    ("kill_of_all_at_once", |c| Box::pin(faults::kill_all(c))),
    // These begin with a new cluster each. Last: they use ids up.
    ("from_three_to_five_and_back", |c| Box::pin(growth::to_five_and_back(c))),
    ("all_first_members_are_replaced", |c| Box::pin(growth::all_replaced(c))),
    ("a_leader_that_is_removed_hands_over", |c| Box::pin(growth::leader_removed(c))),
    ("a_member_moves_to_another_address", |c| Box::pin(growth::address_changed(c))),
    ("a_machine_joins_during_a_partition", |c| Box::pin(growth::joined_in_a_partition(c))),
    ("the_readme_grows_shrinks_and_replaces", |c| Box::pin(manual::grow_shrink_replace(c))),
    ("a_machine_joins_while_one_voter_is_down", |c| Box::pin(growth::joined_beside_the_dead(c))),
];

/// The cluster, from the first test that runs until the end.
static CONTAINERS: Mutex<Option<Containers>> = Mutex::new(None);

fn main() {
    let mut arguments = Arguments::from_args();
    // One cluster, one story at a time.
    arguments.test_threads = Some(1);
    let obstacle = if arguments.list { None } else { docker::obstacle() };
    if let Some(why) = &obstacle {
        eprintln!("\n*** The container tests cannot run here: {why}.\n");
        if std::env::var("REQUIRE_DOCKER").is_ok_and(|value| value == "1") {
            eprintln!("*** REQUIRE_DOCKER=1 makes that a failure.");
            std::process::exit(1);
        }
    }
    let trials = STORIES.map(|(name, story)| {
        Trial::test(name, move || run(story)).with_ignored_flag(obstacle.is_some())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    tear_down();
    conclusion.exit();
}

fn run(story: Story) -> Result<(), Failed> {
    // A story that failed poisons the lock; the next one settles the cluster first.
    let mut containers = CONTAINERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if containers.is_none() {
        *containers = Some(Containers::up()?);
    }
    let containers = containers.as_mut().expect("just started");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // A later story may begin with new containers, whose logs tell nothing of this one.
    let told = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story(containers))));
    told.inspect_err(|_| containers.print_logs()).unwrap_or_else(|panic| resume_unwind(panic));
    Ok(())
}

fn tear_down() {
    let mut containers = CONTAINERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(containers) = containers.take() {
        containers.down();
    }
}
