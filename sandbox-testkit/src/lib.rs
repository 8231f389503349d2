//! The conformance kit for implementations of [`Sandbox`](sandbox_core::Sandbox).
//!
//! A backend's author writes a [`Fixture`] and one line in `tests/conformance.rs`, with
//! `harness = false` in the manifest:
//!
//! ```no_run
//! sandbox_testkit::conformance_main!(sandbox_testkit::model::ModelFixture::new());
//! ```
//!
//! Every promise of the contract is then a named test. What the backend does not declare is shown
//! as ignored with the reason, and checked to be refused.
//!
//! The kit also has the in-memory reference [`model`], which applications use as a mock in their
//! own tests; [`mutants`] that each break one promise, to test the kit itself; a [`property`]
//! harness that compares any provider with the model; and a [`proxy`] that breaks what passes
//! between a client and a service.
//!
//! Architecture invariants: nothing here is needed at run time by a backend or an application; the
//! kit knows no backend; a case never decides at run time that it does not apply.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(feature = "aca-emulator", target_os = "linux"))]
pub mod aca;
pub mod cases;
#[cfg(all(feature = "dagger-double", target_os = "linux"))]
pub mod dagger;
#[cfg(all(
    any(feature = "aca-emulator", feature = "dagger-double"),
    target_os = "linux"
))]
// One double pushes, the other pulls.
#[cfg_attr(
    not(all(feature = "aca-emulator", feature = "dagger-double")),
    allow(dead_code)
)]
mod distribution;
pub mod egress;

pub mod fuzz;
pub mod kit;
#[cfg(all(
    any(feature = "aca-emulator", feature = "dagger-double"),
    target_os = "linux"
))]
// The emulator alone has a provider that waits for long.
#[cfg_attr(not(feature = "aca-emulator"), allow(dead_code))]
mod local;
pub mod model;
pub mod mutants;
pub mod property;
pub mod proxy;

pub use kit::{Deviation, Fixture, Outcome, Report, Scratch, main, run, run_blocking, wrapped};

/// The `main` function of a backend's conformance test.
///
/// Takes a [`Fixture`] or a `Vec<Box<dyn Fixture>>`. The test needs `harness = false`. Settings
/// come from the environment:
///
/// - `SANDBOX_REQUIRE`: fixtures (a comma-separated list, or `all`) that must be available here;
///   without it the cases of one that is not are ignored.
/// - `SANDBOX_CASE_TIMEOUT`: seconds that a case may take; by default what the fixture says, 120 if
///   it does not.
/// - `SANDBOX_MATRIX_DIR`: where the conformance matrix of each fixture is written.
#[macro_export]
macro_rules! conformance_main {
    ($fixtures:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::main($fixtures)
        }
    };
}
