//! Declarations of a fixture and settings of a run: mistakes are refused by name, a case that hangs
//! names its call, a deviation that holds no more is told, and the matrix says what was run.
#![allow(clippy::expect_used)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Capabilities, Operation, Provider, Result, SandboxSpec, async_trait};
use sandbox_testkit::model::{CAPABILITIES, Fault, ModelProvider};
use sandbox_testkit::mutants::{Mutant, MutantProvider};
use sandbox_testkit::{Deviation, Fixture, Outcome, Report, run};

/// The model, with what a test declares.
#[derive(Clone, Default)]
struct Declaring {
    deviations: Vec<Deviation>,
    mutant: Option<Mutant>,
    hangs: Option<Operation>,
}

#[async_trait]
impl Fixture for Declaring {
    fn name(&self) -> String {
        "declaring".into()
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        if let Some(mutant) = self.mutant {
            return Ok(Arc::new(MutantProvider::new(mutant)));
        }
        let mut model = ModelProvider::builder();
        if let Some(operation) = self.hangs {
            model = model.fault_on(operation, [Fault::Hang]);
        }
        Ok(Arc::new(model.build()))
    }

    fn spec(&self) -> SandboxSpec {
        SandboxSpec::new()
    }

    fn deviations(&self) -> Vec<Deviation> {
        self.deviations.clone()
    }

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }

    fn case_timeout(&self) -> Duration {
        match self.hangs {
            Some(_) => Duration::from_millis(300),
            None => Duration::from_secs(60),
        }
    }
}

async fn of(fixture: Declaring, case: &'static str) -> Report {
    run(Arc::new(fixture), move |name| name == case).await
}

fn failure(report: &Report) -> String {
    let mut failed = report.failed();
    let (_, why) = failed.next().expect("a failed entry");
    assert_eq!(failed.count(), 0, "one entry");
    why.to_owned()
}

#[tokio::test]
async fn mistakes_in_deviations_are_refused_before_anything_runs() {
    let known = "files::a_mode_is_kept";
    let declared = |list: &[(&str, &str)]| Declaring {
        deviations: list
            .iter()
            .map(|(case, why)| Deviation::new(*case, *why))
            .collect(),
        ..Declaring::default()
    };
    let wrong = [
        (
            declared(&[("files::a_mode_is_kebt", "why")]),
            "names no case",
        ),
        (declared(&[(known, " ")]), "needs a reason"),
        (
            declared(&[(known, "why"), (known, "why")]),
            "declared twice",
        ),
    ];
    for (fixture, expected) in wrong {
        let report = of(fixture, known).await;
        let why = failure(&report);
        assert!(why.contains(expected), "{expected}: {why}");
        assert_eq!(report.cases.len(), 1, "nothing ran");
    }
    // The names that may have been meant.
    let report = of(declared(&[("files::a_mode_is_kebt", "why")]), known).await;
    assert!(failure(&report).contains(known));
}

#[tokio::test]
async fn a_deviation_is_ignored_with_its_reason_and_told_when_its_case_passes() {
    let case = "streams::stdout_and_stderr_are_apart";
    let deviating = Declaring {
        deviations: vec![Deviation::new(case, "one stream is all it has")],
        mutant: Some(Mutant::StderrMerged),
        ..Declaring::default()
    };
    let report = of(deviating.clone(), case).await;
    let ignored = Outcome::Ignored("deviation: one stream is all it has".into());
    assert_eq!(report.cases[0].outcome, ignored);
    let mended = Declaring {
        mutant: None,
        ..deviating
    };
    let report = of(mended, case).await;
    assert_eq!(report.cases[0].outcome, Outcome::Passed);
}

#[tokio::test]
async fn a_case_that_hangs_says_in_which_call() {
    for (operation, case, said) in [
        (Operation::ReadFile, "files::a_mode_is_kept", None),
        (
            Operation::Exec,
            "exec::output_and_code_come_back",
            Some("exec \"printf hello %s"),
        ),
        (
            Operation::Fork,
            "fork::a_fork_sees_the_parents_files",
            Some("fork"),
        ),
    ] {
        let fixture = Declaring {
            hangs: Some(operation),
            ..Declaring::default()
        };
        let report = of(fixture, case).await;
        let Some(said) = said else {
            // The control: a fault on what the case does not call is none.
            assert_eq!(report.passed(), 1, "{report:?}");
            continue;
        };
        let why = failure(&report);
        assert!(why.contains("took longer than 300ms"), "{why}");
        let call = why.split("calls under way:").nth(1).unwrap_or_default();
        assert!(call.contains(said), "{why}");
    }
}

/// Deaths by a signal that a backend sees as 128 and the signal's number: a deviation says so, and
/// nothing else of the kit minds.
#[tokio::test]
async fn signals_as_codes_are_a_matter_of_declared_cases() {
    let declared = [
        "exec::death_by_signal_is_told_apart",
        "exec::the_cause_of_an_end_is_not_made_up",
        "exec::a_self_sent_term_is_not_a_timeout",
    ];
    let fixture = Declaring {
        deviations: declared
            .iter()
            .map(|case| Deviation::new(*case, "128 and the signal's number"))
            .collect(),
        mutant: Some(Mutant::SignalAsCode),
        ..Declaring::default()
    };
    let report = run(Arc::new(fixture), |name| {
        name.starts_with("exec::") || name.starts_with("kill::")
    })
    .await;
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
    assert!(report.passed() > 40, "{} passed", report.passed());
}

/// Named as the case is in the fixture, so that one filter chooses both: the program below runs it
/// in another process, as a backend's conformance test.
mod declaring {
    pub(super) mod files {
        #[test]
        #[ignore = "started by another test"]
        fn a_mode_is_kept() {
            let code = sandbox_testkit::main(super::super::Declaring::default());
            let success = std::process::ExitCode::SUCCESS;
            assert_eq!(format!("{code:?}"), format!("{success:?}"));
        }
    }
}

/// Runs the test above with one more variable; whether it passed, and what it said.
fn conformance(variable: &str, value: &str) -> (bool, String) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["declaring::files::a_mode_is_kept", "--exact"])
        .args(["--include-ignored", "--nocapture"])
        .env(variable, value)
        .output()
        .expect("it ran");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn bad_settings_fail_the_run_by_name() {
    for (variable, value) in [
        ("SANDBOX_CASE_TIMEOUT", "soon"),
        ("SANDBOX_CASE_TIMEOUT", "0"),
        ("SANDBOX_MATRIX_DIR", ""),
    ] {
        let (passed, said) = conformance(variable, value);
        assert!(!passed && said.contains(variable), "{variable}: {said}");
    }
    let (passed, said) = conformance("SANDBOX_CASE_TIMEOUT", "60");
    assert!(passed, "{said}");
}

#[test]
fn the_matrix_says_version_date_filter_and_durations() {
    let dir = tempfile::tempdir().expect("a directory");
    let (passed, said) = conformance(
        "SANDBOX_MATRIX_DIR",
        dir.path().to_str().expect("a path of text"),
    );
    assert!(passed, "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("the matrix");
    let text = read("conformance-declaring.json");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["kit"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["filter"], "declaring::files::a_mode_is_kept");
    let date = json["date"].as_str().expect("a date");
    let parts: Vec<&str> = date.split('-').collect();
    assert!(parts.len() == 3 && parts[0] >= "2025", "{date}");
    let cases = json["cases"].as_array().expect("cases");
    let case = cases
        .iter()
        .find(|case| case["name"] == "files::a_mode_is_kept");
    let case = case.expect("the case that ran");
    assert_eq!(case["outcome"], "passed");
    assert!(case["seconds"].as_f64().expect("a duration") > 0.0);
    let ran = cases.iter().filter(|case| case["outcome"] == "passed");
    assert_eq!(ran.count(), 1, "what the filter left out did not run");
    let page = read("conformance-declaring.md");
    assert!(page.contains(date) && page.contains("| files::a_mode_is_kept | passed |"));
}
