//! Histories of the production store by chance: as they are, both judges accept them; with one
//! answer altered, the one that sees such things refuses them.

use raft_node::testpoints;

use crate::linearizability::{Verdict, register, revisions};
use crate::rooms::{self, store};

const SEEDS: u64 = 120;

#[test]
fn what_the_store_did_is_accepted_with_its_log_and_without() {
    for seed in 0..SEEDS {
        store::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// Most are decided; where too many writes are unanswered the search may give up, but never err.
#[test]
fn without_a_log_unanswered_writes_are_found_by_what_they_did() {
    let mut decided = 0;
    for seed in 0..SEEDS {
        let told = store::tell(seed).expect("the copies agree");
        match revisions::check(&told.history, None) {
            Verdict::Linearizable => decided += 1,
            Verdict::Undecided(_) => {}
            Verdict::Violation(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(decided * 10 >= SEEDS * 9, "only {decided} of {SEEDS} were decided");
}

#[test]
fn one_altered_answer_is_refused() {
    let mut registers = 0;
    for seed in 0..SEEDS {
        let mut told = store::tell(seed).expect("the copies agree");
        assert!(store::spoil(&mut told, seed), "there is always something to alter");
        let verdict = revisions::check(&told.history, Some(&told.log));
        assert!(matches!(verdict, Verdict::Violation(_)), "seed {seed}: {verdict:?}");
        registers += u64::from(register::check(&told.history) != Verdict::Linearizable);
    }
    assert!(registers > 0, "values that nobody wrote are seen without revisions too");
}

#[test]
fn every_bug_of_the_store_is_seen() {
    for mutant in rooms::STORE {
        let kill = rooms::kill(*mutant, 300);
        let kill = kill.unwrap_or_else(|| panic!("{mutant:?} survived"));
        let first = kill.how.lines().next().unwrap_or_default();
        println!("{mutant:?}: seed {}: {first}", kill.seed);
    }
}

#[test]
fn every_bug_of_the_door_for_votes_is_seen() {
    for seed in 0..300 {
        rooms::door::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    for mutant in rooms::DOOR {
        let kill = rooms::kill(*mutant, 300);
        let kill = kill.unwrap_or_else(|| panic!("{} survives", mutant.name()));
        println!("{:24} seed {:4}: {}", mutant.name(), kill.seed, kill.how);
    }
}

#[test]
fn a_change_that_would_give_the_quorum_up_is_refused_and_no_other() {
    for seed in 0..300 {
        rooms::quorum::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    for mutant in rooms::QUORUM {
        let kill = rooms::kill(*mutant, 300);
        let kill = kill.unwrap_or_else(|| panic!("{} survives", mutant.name()));
        println!("{:24} seed {:4}: {}", mutant.name(), kill.seed, kill.how);
    }
}

#[test]
fn a_host_that_is_no_member_changes_nothing() {
    for seed in 0..300 {
        rooms::strangers::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    for mutant in rooms::STRANGERS {
        let kill = rooms::kill(*mutant, 300);
        let kill = kill.unwrap_or_else(|| panic!("{} survives", mutant.name()));
        println!("{:24} seed {:4}: {}", mutant.name(), kill.seed, kill.how);
    }
}

#[test]
fn what_nobody_can_read_is_neither_proposed_nor_adopted() {
    for seed in 0..200 {
        rooms::poison::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    for mutant in rooms::POISON {
        let kill = rooms::kill(*mutant, 100);
        let kill = kill.unwrap_or_else(|| panic!("{} survives", mutant.name()));
        println!("{:24} seed {:4}: {}", mutant.name(), kill.seed, kill.how);
    }
}

#[test]
fn a_member_is_known_by_its_first_number_and_nobody_else_is() {
    for seed in 0..100 {
        rooms::callers::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    for mutant in rooms::CALLERS {
        let kill = rooms::kill(*mutant, 100);
        let kill = kill.unwrap_or_else(|| panic!("{} survives", mutant.name()));
        println!("{:24} seed {:4}: {}", mutant.name(), kill.seed, kill.how);
    }
}

#[test]
fn every_bug_of_the_disks_room_is_seen() {
    for mutant in rooms::DISK {
        let kill = rooms::kill(*mutant, 3000);
        let kill = kill.unwrap_or_else(|| panic!("{mutant:?} survived"));
        let first = kill.how.lines().next().unwrap_or_default();
        println!("{mutant:?}: seed {}: {first}", kill.seed);
    }
}

#[test]
fn the_rare_paths_of_both_rooms_are_taken() {
    use raft_node::testpoints::Mark;
    testpoints::take_hits();
    for seed in 0..300 {
        store::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        rooms::disk::judge(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    let hits = testpoints::take_hits();
    let missed: Vec<&Mark> = rooms::MARKS.iter().filter(|mark| !hits.contains_key(mark)).collect();
    assert!(missed.is_empty(), "never taken: {missed:?} of {hits:?}");
}
