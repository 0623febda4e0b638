//! How a run ends: passed, failed, or void.
//!
//! A run on a host that did not let this tool run says nothing about the cluster, neither good nor
//! bad. It must not pass for a failure, nor the other way round: a broken promise (a lost write, a
//! stale read) is never void, since no lateness explains it.

use std::fmt;

/// For how long the host must have kept this tool waiting to have cost a cluster on it an election:
/// less than the default election timeout, since the heartbeats before were late too.
pub const LAG_OF_AN_ELECTION_MS: f64 = 75.0;

/// Why a run did not pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The cluster did not do what it should, or could not be asked.
    Failed(String),
    /// The host was too busy for a judgement.
    Void(String),
}

impl Failure {
    /// 1, or `EX_TEMPFAIL` of sysexits: try again.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Void(_) => 75,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Void(why) => write!(f, "void, this host was too busy: {why}"),
        }
    }
}

/// Holds a gap against the longest that is allowed. What this tool itself was late by may be the
/// part of the gap that is too much.
pub fn gap(when: &str, gap_ms: f64, own_lag_ms: f64, max_ms: u64) -> Result<(), Failure> {
    let excess_ms = gap_ms - max_ms as f64;
    if excess_ms <= 0.0 {
        return Ok(());
    }
    let why = format!(
        "{when}no write was acknowledged for {gap_ms:.1} ms; at most {max_ms} ms are allowed"
    );
    if own_lag_ms >= excess_ms {
        let own = format!("{why}, and this tool itself was late by {own_lag_ms:.1} ms");
        return Err(Failure::Void(own));
    }
    Err(Failure::Failed(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_voids_only_what_it_explains() {
        assert_eq!(gap("", 40.0, 90.0, 50), Ok(()));
        let code = |gap_ms, lag_ms| gap("", gap_ms, lag_ms, 50).map_err(|why| why.exit_code());
        assert_eq!(code(90.0, 10.0), Err(1));
        assert_eq!(code(90.0, 40.0), Err(75));
        assert_eq!(code(500.0, 40.0), Err(1), "the host was late, and the cluster much later");
    }
}
