//! What a drill found: a row for each round, and the judgement.

use super::cluster::Fault;
use crate::output;
use crate::probe::{self, Findings, Violations};
use crate::summary::median;
use crate::verdict::{self, Failure, LAG_OF_AN_ELECTION_MS};
use serde::Serialize;

/// One fault, from strike to return.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// Who was struck.
    pub leader: String,
    /// Who led when it was healed.
    pub next_leader: String,
    /// Longest time without an acknowledged write at any member, from strike to healing.
    pub gap_ms: f64,
    /// The same, from healing to the end of the round.
    pub return_gap_ms: f64,
    /// Longest time without an acknowledged write at one of the others, over the round.
    pub survivors_gap_ms: f64,
    /// By how much the probe itself was late at the worst: no gap is more exact than this.
    pub own_lag_ms: f64,
    /// Writes that brought no acknowledgement, those to the struck member included.
    pub failed_writes: u64,
    /// From healing until healthy and caught up.
    pub back_ms: f64,
    /// By how much the term grew through the fault.
    pub terms: u64,
    /// Leader or term changed again while the member was struck.
    pub election_while_held: bool,
    /// Leader or term changed when it returned.
    pub election_on_return: bool,
    /// Linearizable reads that were too old.
    pub stale: u64,
    /// Acknowledged writes of the round that a member lacks.
    pub lost: u64,
    /// Writes of the round that happened twice.
    pub duplicated: u64,
    /// Keys that nobody wrote.
    pub phantom: u64,
}

impl Round {
    /// One line on how it went.
    pub fn describe(&self, of: u32) -> String {
        format!(
            "round {} of {of}: {} struck, {} leads; {:.1} ms without a write, back after {:.0} ms",
            self.number, self.leader, self.next_leader, self.gap_ms, self.back_ms
        )
    }

    /// What of it is held against limits.
    fn outcomes(&self, limits: GapLimits) -> [Result<(), Failure>; 3] {
        let (number, lag_ms) = (self.number, self.own_lag_ms);
        let held = |when: &str, gap_ms, max: Option<u64>| {
            let when = format!("round {number}, {when}, ");
            max.map_or(Ok(()), |max_ms| verdict::gap(&when, gap_ms, lag_ms, max_ms))
        };
        [
            self.calm_return(),
            held("once struck", self.gap_ms, limits.struck_ms),
            held("on return", self.return_gap_ms, limits.return_ms),
        ]
    }

    fn calm_return(&self) -> Result<(), Failure> {
        if !self.election_on_return {
            return Ok(());
        }
        let why = format!("round {}: a member's return caused an election", self.number);
        if self.own_lag_ms < LAG_OF_AN_ELECTION_MS {
            return Err(Failure::Failed(why));
        }
        let lag_ms = self.own_lag_ms;
        Err(Failure::Void(format!("{why}, and this tool itself was late by {lag_ms:.1} ms")))
    }

    fn row(&self) -> Vec<String> {
        let yes_no = |yes: bool| if yes { "YES" } else { "no" }.to_owned();
        vec![
            self.number.to_string(),
            self.leader.clone(),
            self.next_leader.clone(),
            format!("{:.1}", self.gap_ms),
            format!("{:.1}", self.return_gap_ms),
            format!("{:.1}", self.survivors_gap_ms),
            format!("{:.1}", self.own_lag_ms),
            self.failed_writes.to_string(),
            self.terms.to_string(),
            format!("{:.0}", self.back_ms),
            yes_no(self.election_on_return),
            self.lost.to_string(),
            self.stale.to_string(),
        ]
    }
}

/// All rounds, and the read-back after them.
#[derive(Clone, Debug, Serialize)]
pub struct DrillReport {
    /// What befell the leaders.
    pub fault: Fault,
    /// In order.
    pub rounds: Vec<Round>,
    /// Everything that was written, read back once more at the end.
    pub read_back: Findings,
    /// Over all rounds.
    pub stale: Violations,
}

impl DrillReport {
    /// The table and the sums.
    pub fn print(&self) {
        let rows: Vec<Vec<String>> = self.rounds.iter().map(Round::row).collect();
        let head = [
            "round",
            "struck",
            "leads",
            "gap ms",
            "on return",
            "survivor",
            "own lag",
            "failed",
            "terms",
            "back ms",
            "election on return",
            "lost",
            "stale",
        ];
        output::table(&head, &rows);
        let of = |figure: fn(&Round) -> f64| -> (f64, f64) {
            let figures: Vec<f64> = self.rounds.iter().map(figure).collect();
            (median(&figures), figures.iter().copied().fold(0.0, f64::max))
        };
        let say = |what: &str, (median, max): (f64, f64)| {
            output::line(&format!("{what}: median {median:.1} ms, longest {max:.1} ms"));
        };
        output::line(&format!("{} × {}", self.rounds.len(), self.fault.name()));
        say("without an acknowledged write once struck", of(|round| round.gap_ms));
        say("without an acknowledged write on return", of(|round| round.return_gap_ms));
        say("the same at one of the others, whole round", of(|round| round.survivors_gap_ms));
        say("by which the probe itself was late", of(|round| round.own_lag_ms));
        say("until healthy and caught up again", of(|round| round.back_ms));
        output::line(&format!("elections caused by a return: {}", self.elections_on_return()));
        probe::print_violations("stale linearizable reads", &self.stale);
        probe::print_findings(&self.read_back);
    }

    fn elections_on_return(&self) -> usize {
        self.rounds.iter().filter(|round| round.election_on_return).count()
    }

    /// Success, or the worst reason why not: a broken promise, what the cluster did, and last what
    /// may have been this host's doing.
    pub fn verdict(&self, limits: GapLimits) -> Result<(), Failure> {
        let promises_kept =
            |round: &Round| round.lost + round.duplicated + round.phantom + round.stale == 0;
        let kept = self.rounds.iter().all(promises_kept);
        if !kept || !self.read_back.clean() || self.stale.count > 0 {
            return Err(Failure::Failed("the cluster broke its promises".to_owned()));
        }
        let (mut failed, mut void) = (None, None);
        for outcome in self.rounds.iter().flat_map(|round| round.outcomes(limits)) {
            match outcome {
                Ok(()) => {}
                Err(failure @ Failure::Failed(_)) => failed = failed.or(Some(failure)),
                Err(failure @ Failure::Void(_)) => void = void.or(Some(failure)),
            }
        }
        failed.or(void).map_or(Ok(()), Err)
    }
}

/// How long no member may acknowledge a write; `None`: as long as it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GapLimits {
    /// From the strike to the healing.
    pub struck_ms: Option<u64>,
    /// From the healing to the end of the round.
    pub return_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DrillReport {
        let round = Round {
            number: 1,
            leader: "node1".to_owned(),
            next_leader: "node2".to_owned(),
            gap_ms: 40.0,
            return_gap_ms: 8.0,
            survivors_gap_ms: 45.0,
            own_lag_ms: 1.0,
            failed_writes: 300,
            back_ms: 200.0,
            terms: 1,
            election_while_held: false,
            election_on_return: false,
            stale: 0,
            lost: 0,
            duplicated: 0,
            phantom: 0,
        };
        let stale = Violations::default();
        let read_back = Findings::default();
        DrillReport { fault: Fault::Stop, rounds: vec![round], read_back, stale }
    }

    #[test]
    fn verdict_fails_on_each_broken_promise() {
        assert_eq!(report().verdict(GapLimits::default()), Ok(()));
        let breaks: [fn(&mut DrillReport); 7] = [
            |report| report.rounds[0].lost = 1,
            |report| report.rounds[0].stale = 1,
            |report| report.rounds[0].duplicated = 1,
            |report| report.rounds[0].phantom = 1,
            |report| report.rounds[0].election_on_return = true,
            |report| report.read_back.lost.add("gone".to_owned()),
            |report| report.stale.add("old".to_owned()),
        ];
        for break_it in breaks {
            let mut broken = report();
            break_it(&mut broken);
            assert!(broken.verdict(GapLimits::default()).is_err());
        }
    }

    #[test]
    fn each_gap_has_its_own_limit() {
        let limits = |struck_ms, return_ms| GapLimits { struck_ms, return_ms };
        assert_eq!(report().verdict(limits(Some(40), Some(8))), Ok(()));
        assert!(
            report().verdict(limits(Some(30), None)).unwrap_err().to_string().contains("40.0 ms")
        );
        assert!(
            report().verdict(limits(None, Some(6))).unwrap_err().to_string().contains("8.0 ms")
        );
    }

    #[test]
    fn a_busy_host_voids_a_run_and_hides_no_broken_promise() {
        let mut busy = report();
        busy.rounds[0].own_lag_ms = 120.0;
        busy.rounds[0].election_on_return = true;
        let limits = GapLimits { struck_ms: Some(30), return_ms: None };
        assert_eq!(busy.verdict(limits).map_err(|why| why.exit_code()), Err(75));
        busy.rounds[0].lost = 1;
        assert_eq!(busy.verdict(limits).map_err(|why| why.exit_code()), Err(1));
        let mut other = report();
        other.rounds.push(busy.rounds[0].clone());
        (other.rounds[0].gap_ms, other.rounds[1].lost) = (900.0, 0);
        assert_eq!(other.verdict(limits).map_err(|why| why.exit_code()), Err(1), "a calm round");
    }
}
