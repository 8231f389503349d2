//! The kit tested: every fake is caught, and the model without a fault is not.

use std::sync::Arc;

use sandbox_testkit::fakes::{FakeFixture, Fault};
use sandbox_testkit::model::ModelFixture;
use sandbox_testkit::{Outcome, run, run_blocking};

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_caught_by_the_case_that_is_named_for_it() {
    // At once: those that leave processes are given time to end them.
    let running: Vec<_> = Fault::ALL
        .iter()
        .map(|fault| {
            let fixture = Arc::new(FakeFixture::new(*fault));
            tokio::spawn(async move {
                let report = run(fixture, |name| name == fault.caught_by()).await;
                (fault, report)
            })
        })
        .collect();
    for run in running {
        let (fault, report) = run.await.expect("it ends");
        assert_eq!(
            report.cases.len(),
            1,
            "{fault:?}: no case {}",
            fault.caught_by()
        );
        assert!(
            matches!(report.cases[0].outcome, Outcome::Failed(_)),
            "{fault:?} was not caught by {}: {:?}",
            fault.caught_by(),
            report.cases[0].outcome
        );
    }
}

#[test]
fn the_model_without_a_fault_passes_what_the_fakes_fail() {
    let catches = |name: &str| Fault::ALL.iter().any(|fault| fault.caught_by() == name);
    let report = run_blocking(Arc::new(ModelFixture::new()), catches).expect("a runtime");
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
    assert!(report.passed() >= 20, "{} passed", report.passed());
}

#[test]
fn a_fault_does_not_spread_to_unrelated_cases() {
    let fixture = Arc::new(FakeFixture::new(Fault::StderrMerged));
    let report = run_blocking(fixture, |name| {
        name.starts_with("files::") || name.starts_with("transfer::")
    })
    .expect("a runtime");
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
}
