//! A backend as a toy that keeps files in memory, with the conformance kit run on it.
//!
//! `backend` has the provider and what it declares, `toy` the sandbox, `files` the map it is made
//! of, `transfer` the ways in and out. A backend of its own crate has the kit in its tests instead
//! of a `main`: `sandbox_testkit::conformance_main!(ToyFixture);`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

mod backend;
mod files;
mod toy;
mod transfer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use sandbox::{Capabilities, Provider, Result, async_trait};
use sandbox_testkit::{Deviation, Fixture, Outcome, run_blocking};

/// Source of sandboxes for the kit.
struct ToyFixture;

#[async_trait]
impl Fixture for ToyFixture {
    fn name(&self) -> String {
        backend::BACKEND.into()
    }

    fn capabilities(&self) -> Capabilities {
        backend::CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(backend::ToyProvider))
    }

    /// No capability stands for filters, so what the toy lacks of the contract is named here.
    fn deviations(&self) -> Vec<Deviation> {
        [
            "transfer::import_takes_excludes",
            "transfer::import_heeds_ignore_files_when_asked",
            "transfer::import_takes_ignore_before_gitignore",
            "transfer::import_mirrors_deletions_when_asked",
            "transfer::import_mirror_leaves_what_is_excluded",
            "transfer::export_takes_excludes",
        ]
        .map(|case| Deviation::new(case, "the toy refuses filters, to stay short"))
        .into()
    }
}

fn main() -> ExitCode {
    let report = match run_blocking(Arc::new(ToyFixture), |_| true) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("custom_backend: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut ignored: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &report.cases {
        if let Outcome::Ignored(reason) = &case.outcome {
            *ignored.entry(reason).or_default() += 1;
        }
    }
    println!("{:>5}  passed", report.passed());
    println!("{:>5}  failed", report.failed().count());
    for (case, why) in report.failed() {
        println!("{:>12}  {case}: {why}", "");
    }
    println!("{:>5}  ignored", ignored.values().sum::<usize>());
    for (reason, count) in ignored {
        println!("{count:>12}  {reason}");
    }
    ExitCode::from(u8::from(report.failed().next().is_some()))
}
