//! Nothing stays in the temporary directory after cases of the kit against the emulator: sandboxes
//! of a group, and both kinds of sessions.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::print_stdout)]

// Parts of these are for runs against Azure.
#[allow(dead_code)]
mod fixture;
mod sessions;
#[path = "../../sandbox-testkit/tests/temporary/mod.rs"]
mod temporary;

use std::sync::Arc;

use sandbox_aca::SessionKind;
use sandbox_testkit::{Fixture, run_blocking};

/// Cases that have files on the way in and out, and copies of sandboxes.
const GROUPS: [&str; 3] = ["batch::", "fork::a_fork_is", "transfer::import_f"];

#[test]
#[ignore = "started by another test, with a temporary directory of its own"]
fn suites() {
    let fixtures: [Arc<dyn Fixture>; 3] = [
        Arc::new(fixture::Sandboxes::default()),
        Arc::new(sessions::Sessions::new(SessionKind::Shell)),
        Arc::new(sessions::Sessions::new(SessionKind::Python)),
    ];
    for fixture in fixtures {
        let chosen = |name: &str| GROUPS.iter().any(|group| name.starts_with(group));
        let report = run_blocking(fixture, chosen).expect("a runtime");
        assert!(report.passed() > 5, "{report:?}");
        println!("passed: {}", report.passed());
    }
}

#[test]
fn nothing_is_left_in_the_temporary_directory() {
    temporary::is_empty_after("suites");
}
