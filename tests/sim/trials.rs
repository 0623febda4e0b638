//! What a plain `cargo test` runs: a sweep of short worlds, one seed twice, and the instruments
//! themselves, tried on a bug that is known to be there.

use libtest_mimic::{Failed, Trial};
use raft_node::testpoints::{self, Mutant};

use crate::hostile;
use crate::hosts;
use crate::plan::Length;
use crate::run::Run;
use crate::shrink;
use crate::sweep::Sweep;

/// Enough to meet every mark, few enough for an impatient reader.
const SEEDS: u64 = 300;

/// The tests of this binary.
pub fn all() -> Vec<Trial> {
    vec![
        Trial::test("the_instruments_are_in_this_build", || {
            if testpoints::ENABLED { Ok(()) } else { Err("no marks and no mutants".into()) }
        }),
        Trial::test("three_hundred_worlds_keep_every_promise", sweep),
        Trial::test("a_seed_is_one_world", one_world),
        Trial::test("a_world_that_answers_somebody_never_comes_to_an_end", comes_to_an_end),
        Trial::test(
            "loaded_hosts_bear_their_leader_and_calm_ones_replace_it_as_fast_as_ever",
            hosts::loaded_hosts_bear_their_leader_and_calm_ones_replace_it_as_fast_as_ever,
        ),
        Trial::test(
            "a_host_that_is_no_member_moves_nothing",
            hostile::a_host_that_is_no_member_moves_nothing,
        ),
        Trial::test(
            "one_forged_message_does_no_lasting_harm",
            hostile::one_forged_message_does_no_lasting_harm,
        ),
        Trial::test(
            "a_cluster_that_believes_strangers_or_any_term_is_found_out",
            hostile::a_cluster_that_believes_strangers_or_any_term_is_found_out,
        ),
        Trial::test("a_bug_is_found_shrunk_to_a_short_story_and_replayed", shrinks),
    ]
}

fn sweep() -> Result<(), Failed> {
    let sweep = Sweep {
        from: 0,
        seeds: SEEDS,
        threads: 2,
        time_max: None,
        length: Length::Short,
        mutant: None,
        first_only: false,
        progress: false,
    };
    let found = sweep.run();
    if let Some((seed, violation)) = found.violations.first_key_value() {
        let command = shrink::command(&Run::of(*seed, Length::Short));
        return Err(format!("seed {seed}: {violation}\nagain: {command}").into());
    }
    let missed = found.missed();
    if !missed.is_empty() {
        return Err(format!("no simulator met {missed:?}").into());
    }
    Ok(())
}

fn one_world() -> Result<(), Failed> {
    for seed in [1, 2, 3] {
        let run = Run::of(seed, Length::Short);
        let (first, second, other) =
            (run.report(), run.report(), Run::of(seed + 100, Length::Short).report());
        if first.trace_hash != second.trace_hash || first.stats.events != second.stats.events {
            return Err(format!("seed {seed} is two worlds").into());
        }
        if first.trace_hash == other.trace_hash {
            return Err("two seeds are one simulator: the hash sees nothing".into());
        }
    }
    Ok(())
}

/// Who keeps an old membership across a snapshot is left out, and asks for ever: the tries of it,
/// which move the log, must not count as progress for ever.
fn comes_to_an_end() -> Result<(), Failed> {
    let mutant = Some(Mutant::SnapshotKeepsMembership);
    let found = (0..100)
        .filter_map(|seed| Run { mutant, ..Run::of(seed, Length::Short) }.report().violation)
        .any(|violation| violation.contains("liveness"));
    if found { Ok(()) } else { Err("nobody was left without an answer".into()) }
}

fn shrinks() -> Result<(), Failed> {
    let mutant = Mutant::VoteBlind;
    let run_of = |seed| Run { mutant: Some(mutant), ..Run::of(seed, Length::Short) };
    let found = (0..400).map(run_of).find(|run| run.report().violation.is_some());
    let run = found.ok_or("the bug was not found")?;
    let before = crate::plan::Plan::draw(run.seed, run.length, &run.cut).decisions.len();
    let shrunk = shrink::shrink(&run, 120).ok_or("a second run found nothing")?;
    let story = shrink::story(&shrunk);
    let after = shrunk.run.cut.keep.as_ref().map_or(before, Vec::len);
    if after >= before {
        return Err(format!("{before} decisions, and none could go:\n{story}").into());
    }
    let (first, second) = (shrunk.run.report(), shrunk.run.report());
    if first.violation.as_ref() != Some(&shrunk.violation) {
        return Err(format!("the short story cannot be told again: {:?}", first.violation).into());
    }
    if first.trace_hash != second.trace_hash {
        return Err("the short story is two worlds".into());
    }
    Ok(())
}
