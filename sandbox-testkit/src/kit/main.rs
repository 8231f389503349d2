//! The `main` of a conformance test: cases as tests that can be named, filtered and listed.
//!
//! Invariant: listing does no I/O beyond `Fixture::available`, because nextest lists by running
//! the program, and runs it again for each case.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};

use crate::kit::matrix::write_matrix;
use crate::kit::run::UnderTest;
use crate::kit::{CaseReport, IntoFixtures, Outcome, Report, plan};

/// Runs a backend's conformance test: what [`conformance_main!`](crate::conformance_main) expands
/// to.
pub fn main(fixtures: impl IntoFixtures) -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    let mut trials = Vec::new();
    let mut reports = Vec::new();
    for fixture in fixtures.into_fixtures() {
        let name = fixture.name();
        let under_test = UnderTest::new(fixture.clone());
        let cases = Arc::new(Mutex::new(Vec::new()));
        for (index, planned) in plan(&*fixture).into_iter().enumerate() {
            let case = planned.case;
            let outcome = planned
                .skip
                .as_ref()
                .map(|skip| Outcome::Ignored(format!("{}: {}", skip.kind, skip.reason)));
            record(&cases, index, case.name, outcome);
            let (under_test, runtime, cases) =
                (under_test.clone(), runtime.clone(), Arc::clone(&cases));
            let trial = Trial::test(format!("{name}::{}", case.name), move || {
                let outcome = runtime.block_on(under_test.run(case));
                record(&cases, index, case.name, Some(outcome.clone()));
                match outcome {
                    Outcome::Failed(why) => Err(why.into()),
                    Outcome::Passed | Outcome::Ignored(_) => Ok(()),
                }
            });
            trials.push(match planned.skip {
                Some(skip) => trial
                    .with_kind(format!("{}: {}", skip.kind, skip.reason))
                    .with_ignored_flag(true),
                None => trial,
            });
        }
        reports.push((fixture, cases));
    }
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let (false, Some(dir)) = (listing, std::env::var_os("SANDBOX_MATRIX_DIR")) {
        for (fixture, cases) in reports {
            let cases = cases.lock().unwrap_or_else(PoisonError::into_inner);
            let report = Report {
                fixture: fixture.name(),
                cases: cases.iter().flatten().cloned().collect(),
            };
            if let Err(error) = write_matrix(dir.as_ref(), &*fixture, &report) {
                return complain(&format!("the matrix could not be written: {error}"));
            }
        }
    }
    conclusion.exit_code()
}

/// Keeps what came of a case; a case that was filtered out keeps no outcome.
fn record(
    cases: &Mutex<Vec<Option<CaseReport>>>,
    index: usize,
    name: &str,
    outcome: Option<Outcome>,
) {
    let mut cases = cases.lock().unwrap_or_else(PoisonError::into_inner);
    if cases.len() <= index {
        cases.resize(index + 1, None);
    }
    cases[index] = outcome.map(|outcome| CaseReport {
        name: name.to_owned(),
        outcome,
    });
}

fn complain(text: &str) -> ExitCode {
    // Nowhere is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}
