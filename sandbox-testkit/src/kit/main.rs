//! The `main` of a conformance test: cases as tests that can be named, filtered and listed.
//!
//! Invariant: listing does no I/O beyond `Fixture::available`, because nextest lists by running
//! the program, and runs it again for each case.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};

use crate::kit::matrix::write_matrix;
use crate::kit::plan::begins;
use crate::kit::reaper::Reaper;
use crate::kit::run::{NO_PROCESS_IS_LEFT, UnderTest, nothing_left};
use crate::kit::settings::{Settings, check_deviations};
use crate::kit::{CaseReport, Fixture, IntoFixtures, Outcome, Report, plan};

/// Runs a backend's conformance test: what [`conformance_main!`](crate::conformance_main) expands
/// to.
pub fn main(fixtures: impl IntoFixtures) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(why) => return complain(&why),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    let fixtures = fixtures.into_fixtures();
    let on_this_host: Vec<String> = fixtures
        .iter()
        .filter(|fixture| fixture.is_of_this_host())
        .map(|fixture| fixture.name())
        .collect();
    // Every fixture has to agree.
    let threads = fixtures.iter().map(|fixture| fixture.threads());
    if let (None, Some(Some(threads))) = (arguments.test_threads, threads.min()) {
        arguments.test_threads = Some(threads);
    }
    let listing = arguments.list;
    let reaper = (!listing && !on_this_host.is_empty()).then(Reaper::new);
    let mut trials = Vec::new();
    let mut reports = Vec::new();
    for fixture in fixtures {
        if let Err(why) = check_deviations(&*fixture) {
            return complain(&why);
        }
        let name = fixture.name();
        let under_test = UnderTest::new(fixture.clone(), settings.clone());
        let cases = Arc::new(Mutex::new(Vec::new()));
        for (index, planned) in plan(&*fixture, &settings).into_iter().enumerate() {
            let case = planned.case;
            let outcome = planned
                .skip
                .as_ref()
                .map(|skip| Outcome::Ignored(format!("{}: {}", skip.kind, skip.reason)));
            let ignored = outcome.map(|outcome| CaseReport::new(case.name, outcome));
            record(&cases, index, ignored);
            let (under_test, runtime, cases) =
                (under_test.clone(), runtime.clone(), Arc::clone(&cases));
            let trial = Trial::test(format!("{name}::{}", case.name), move || {
                let started = Instant::now();
                let outcome = runtime.block_on(under_test.run(case));
                let mut report = CaseReport::new(case.name, outcome.clone());
                report.seconds = started.elapsed().as_secs_f64();
                record(&cases, index, Some(report));
                match outcome {
                    Outcome::Failed(why) => Err(why.into()),
                    Outcome::Passed | Outcome::Ignored(_) => Ok(()),
                }
            });
            let trial = match planned.skip {
                Some(skip) => trial
                    .with_kind(format!("{}: {}", skip.kind, skip.reason))
                    .with_ignored_flag(true),
                None => trial,
            };
            trials.push((begins(case.name), trial));
        }
        reports.push((fixture, under_test, cases));
    }
    trials.sort_by_key(|(begins, _)| *begins);
    let trials = trials.into_iter().map(|(_, trial)| trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut code = conclusion.exit_code();
    if listing {
        return code;
    }
    // A deviation whose case passes is found where all cases of the fixture ran.
    let whole = arguments.filter.is_none() && !arguments.exact && !arguments.ignored;
    for (fixture, under_test, _) in &reports {
        if whole && fixture.available().is_ok() {
            for case in runtime.block_on(outdated(fixture, under_test, &settings)) {
                say(&format!(
                    "note: {}: the case {case} passes; its deviation can be taken out",
                    fixture.name()
                ));
            }
        }
    }
    let mut matrices = Vec::new();
    for (fixture, under_test, cases) in reports {
        drop(under_test);
        let cases = std::mem::take(&mut *cases.lock().unwrap_or_else(PoisonError::into_inner));
        let report = Report {
            fixture: fixture.name(),
            cases: cases.into_iter().flatten().collect(),
        };
        matrices.push((fixture, report));
    }
    if let Some(dir) = &settings.matrix_dir {
        for (fixture, report) in &matrices {
            let filter = arguments.filter.as_deref();
            if let Err(error) = write_matrix(dir, &**fixture, report, filter) {
                return complain(&format!(
                    "the matrix could not be written to {}: {error}",
                    dir.display()
                ));
            }
        }
    }
    // Fixtures may hold what serves their sandboxes.
    drop(matrices);
    if let Some(reaper) = reaper
        && let Outcome::Failed(why) = nothing_left(&reaper)
    {
        let fixtures = on_this_host.join(", ");
        code = complain(&format!("{fixtures}: {NO_PROCESS_IS_LEFT}: {why}"));
    }
    code
}

/// The deviations of a fixture whose cases pass by now. They are run side by side, since most of
/// those that do not pass wait for what does not happen.
async fn outdated(
    fixture: &Arc<dyn Fixture>,
    under_test: &UnderTest,
    settings: &Settings,
) -> Vec<&'static str> {
    let mut running = tokio::task::JoinSet::new();
    for planned in plan(&**fixture, settings) {
        if planned.skip.is_some_and(|skip| skip.is_deviation) {
            let (under_test, case) = (under_test.clone(), planned.case);
            running.spawn(async move { (case.name, under_test.run(case).await) });
        }
    }
    let mut passed = Vec::new();
    while let Some(done) = running.join_next().await {
        // A case that panics is one that does not pass.
        if let Ok((name, Outcome::Passed)) = done {
            passed.push(name);
        }
    }
    passed
}

/// Keeps the report of a case; a case that was filtered out keeps none.
fn record(cases: &Mutex<Vec<Option<CaseReport>>>, index: usize, report: Option<CaseReport>) {
    let mut cases = cases.lock().unwrap_or_else(PoisonError::into_inner);
    if cases.len() <= index {
        cases.resize(index + 1, None);
    }
    cases[index] = report;
}

fn complain(text: &str) -> ExitCode {
    say(text);
    ExitCode::FAILURE
}

fn say(text: &str) {
    // Nowhere is left to tell it if stderr is closed.
    drop(writeln!(std::io::stderr(), "{text}"));
}
