//! The probe against members with known flaws: it must find each, and nothing where there is none.

use super::*;
use crate::fake::{self, Flaw};

const PATIENCE: Duration = Duration::from_secs(30);

struct Seen {
    stale: Violations,
    findings: Findings,
    writes: Outcomes,
    reads: Outcomes,
}

/// Probes one member until it has tried enough writes and reads, then reads everything back.
async fn probed(flaw: Flaw) -> Seen {
    let endpoint = fake::member(flaw).await;
    let args = PaceArgs {
        interval_ms: 1,
        read_interval_ms: 1,
        deadline_ms: 1000,
        serializable: false,
        keep: true,
    };
    let mut probe = Probe::start(&[endpoint], &args);
    let begun = Instant::now();
    loop {
        let (writes, reads) = {
            let ledger = probe.shared.ledger();
            (ledger.writes[0].clone(), ledger.reads[0].clone())
        };
        let enough = |outcomes: &Outcomes| outcomes.ok + outcomes.failures() >= 100;
        if enough(&writes) && (enough(&reads) || writes.ok == 0) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the probe is stuck: {writes:?} {reads:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    probe.stop().await;
    let findings = match flaw {
        Flaw::Refuses | Flaw::HangsUp => Findings::default(),
        Flaw::None | Flaw::Forgets | Flaw::ReadsThePast | Flaw::WritesTwice => {
            let all: Vec<_> = probe.sent().into_iter().map(|sent| 0..sent).collect();
            probe.read_back(&all).await.expect("the member answers")
        }
    };
    let ledger = probe.shared.ledger();
    let (writes, reads) = (ledger.writes[0].clone(), ledger.reads[0].clone());
    Seen { stale: ledger.stale.clone(), findings, writes, reads }
}

#[tokio::test]
async fn sound_member_passes() {
    let seen = probed(Flaw::None).await;
    assert!(seen.findings.clean(), "{:?}", seen.findings);
    assert!(seen.findings.checked >= 100);
    assert_eq!(seen.stale.count, 0, "{:?}", seen.stale);
    assert!(seen.reads.ok >= 100);
}

#[tokio::test]
async fn forgotten_write_is_found() {
    let seen = probed(Flaw::Forgets).await;
    assert!(seen.findings.lost.count >= 10, "{:?}", seen.findings);
}

#[tokio::test]
async fn stale_read_is_found() {
    let seen = probed(Flaw::ReadsThePast).await;
    assert!(seen.stale.count >= 90, "{:?}", seen.stale);
}

#[tokio::test]
async fn write_that_happened_twice_is_found() {
    let seen = probed(Flaw::WritesTwice).await;
    assert!(seen.findings.duplicated.count >= 10, "{:?}", seen.findings);
}

#[tokio::test]
async fn refusals_are_counted_by_their_message() {
    let seen = probed(Flaw::Refuses).await;
    assert_eq!(seen.writes.ok, 0);
    let message = "etcdserver: no leader (code 14)";
    assert!(seen.writes.failed.contains_key(message), "{:?}", seen.writes);
}

#[tokio::test]
async fn lost_connection_is_dialled_again() {
    let seen = probed(Flaw::HangsUp).await;
    assert!(seen.writes.ok > 2, "{:?}", seen.writes);
    let lost = ["connection lost", "not connected"];
    assert!(lost.iter().any(|why| seen.writes.failed.contains_key(*why)), "{:?}", seen.writes);
}
