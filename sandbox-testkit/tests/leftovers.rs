//! Nothing stays in the temporary directory after a run: the program runs the kit in another
//! process whose temporary directory is new, and counts what is in it afterwards.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::print_stdout)]

mod local;
mod temporary;

use std::sync::Arc;

use local::Local;
use sandbox_testkit::model::ModelFixture;
use sandbox_testkit::mutants::{Mutant, MutantFixture};
use sandbox_testkit::run_blocking;

#[test]
#[ignore = "started by another test, with a temporary directory of its own"]
fn suites() {
    let files = |name: &str| {
        [
            "transfer::",
            "host::",
            "fork::",
            "files::a_",
            "isolation::the_",
        ]
        .iter()
        .any(|group| name.starts_with(group))
    };
    let model = run_blocking(Arc::new(ModelFixture::new()), files).expect("a runtime");
    let local = run_blocking(Arc::new(Local), files).expect("a runtime");
    // A case that fails half way leaves no more than one that passes.
    let mutant = MutantFixture::new(Mutant::ExportLeavesAPart);
    let failing = run_blocking(Arc::new(mutant), files).expect("a runtime");
    assert!(failing.failed().count() > 0);
    println!("passed: {} and {}", model.passed(), local.passed());
}

#[test]
fn nothing_is_left_in_the_temporary_directory() {
    temporary::is_empty_after("suites");
}
