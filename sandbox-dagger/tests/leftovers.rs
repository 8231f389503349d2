//! Nothing stays in the temporary directory after cases of the kit against the engine double.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::print_stdout)]

mod fixture;
mod support;
#[path = "../../sandbox-testkit/tests/temporary/mod.rs"]
mod temporary;

use std::sync::Arc;

use sandbox_testkit::run_blocking;

/// Cases that copy trees of the host into the engine and out of it, and states of containers.
const GROUPS: [&str; 3] = ["batch::", "fork::a_fork_is", "transfer::import_f"];

#[test]
#[ignore = "started by another test, with a temporary directory of its own"]
fn suites() {
    let double = Arc::from(fixture::all().remove(0));
    let chosen = |name: &str| GROUPS.iter().any(|group| name.starts_with(group));
    let report = run_blocking(double, chosen).expect("a runtime");
    assert!(report.passed() > 5, "{report:?}");
    println!("passed: {}", report.passed());
}

#[test]
fn nothing_is_left_in_the_temporary_directory() {
    temporary::is_empty_after("suites");
}
