//! The kit tested: every mutant of the model is caught, and the model without a fault is not.
//!
//! Mutants that need real programs are in `mutants_of_processes.rs`.

use std::sync::Arc;

use sandbox_testkit::model::ModelFixture;
use sandbox_testkit::mutants::{Mutant, MutantFixture};
use sandbox_testkit::{Outcome, Report, run, run_blocking};

fn of_the_model() -> impl Iterator<Item = Mutant> {
    Mutant::ALL
        .iter()
        .copied()
        .filter(|mutant| !mutant.needs_programs())
}

/// Runs the case that is to catch a mutant, and what that one needs.
async fn alone(mutant: Mutant) -> Report {
    let fixture = Arc::new(MutantFixture::new(mutant));
    run(fixture, |name| {
        name == mutant.caught_by()
            || mutant == Mutant::ProcessLeftOnHost && name == "exec::output_and_code_come_back"
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutant_is_caught_by_the_case_that_is_named_for_it() {
    // At once, for those that are given time to leave something behind; not all, because what is
    // held up looks dead.
    let places = Arc::new(tokio::sync::Semaphore::new(16));
    let running: Vec<_> = of_the_model()
        .map(|mutant| {
            let places = Arc::clone(&places);
            tokio::spawn(async move {
                let _place = places.acquire_owned().await.expect("never closed");
                (mutant, alone(mutant).await)
            })
        })
        .collect();
    let mut escaped = Vec::new();
    for running in running {
        let (mutant, mut report) = running.await.expect("it ends");
        if !report.failed().any(|(name, _)| name == mutant.caught_by()) {
            // What is held up looks dead: once more, alone.
            report = alone(mutant).await;
        }
        let case = report
            .cases
            .iter()
            .find(|case| case.name == mutant.caught_by());
        match case.map(|case| &case.outcome) {
            // A hang is no proof: anything that waits too long is one.
            Some(Outcome::Failed(why)) if !why.contains("took longer than") => {}
            other => escaped.push(format!(
                "{mutant:?} was not caught by {}: {other:?}",
                mutant.caught_by()
            )),
        }
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

#[test]
fn the_model_without_a_fault_passes_what_the_mutants_fail() {
    let catches = |name: &str| of_the_model().any(|mutant| mutant.caught_by() == name);
    let report = run_blocking(Arc::new(ModelFixture::new()), catches).expect("a runtime");
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
    assert!(report.passed() >= 50, "{} passed", report.passed());
}

#[test]
fn a_fault_does_not_spread_to_unrelated_cases() {
    let fixture = Arc::new(MutantFixture::new(Mutant::StderrMerged));
    let report = run_blocking(fixture, |name| {
        name.starts_with("files::") || name.starts_with("transfer::")
    })
    .expect("a runtime");
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
}

#[test]
fn there_are_at_least_sixty_mutants() {
    assert!(Mutant::ALL.len() >= 60, "{}", Mutant::ALL.len());
}
