//! The documented check of a real engine, `SANDBOX_REQUIRE=dagger`, runs where there is one. The
//! double stands in for it.
#![cfg(target_os = "linux")]

#[allow(dead_code)]
mod fixture;
mod support;

use std::sync::Arc;

use sandbox_testkit::Outcome as Verdict;
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use support::Outcome;

/// The cases that stand for all.
const CASES: [&str; 2] = [
    "exec::exit_codes_are_exact",
    "files::all_byte_values_come_back",
];

/// Run by the next test as a program of its own, because an environment is a process's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the next test runs it in an environment of its own"]
async fn in_this_environment() -> Outcome {
    let report =
        sandbox_testkit::run(Arc::new(fixture::Engine), |name| CASES.contains(&name)).await;
    assert_eq!(report.cases.len(), CASES.len(), "{report:?}");
    for case in report.cases {
        assert_eq!(case.outcome, Verdict::Passed, "{}", case.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_engine_that_is_there_runs_the_kit() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let status = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "in_this_environment", "--ignored"])
        .env("SANDBOX_REQUIRE", "dagger")
        .env("DAGGER_SESSION_PORT", double.port().to_string())
        .env("DAGGER_SESSION_TOKEN", double.token())
        .env_remove("SANDBOX_DAGGER_IMAGE")
        .status()
        .await?;
    assert!(status.success());
    assert!(double.executions() > 0, "nothing ran on the engine");
    Ok(())
}
