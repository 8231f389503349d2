//! The machinery of the kit: fixtures, cases, the runner, the report.
//!
//! Invariant: whether a case runs is decided before anything is listed, without I/O; a case that
//! runs either passes or fails.

mod case;
mod check;
mod context;
mod fixture;
mod host_dir;
mod main;
mod matrix;
mod plan;
mod reaper;
mod run;
mod settings;
mod verdict;
mod watch;

pub use case::{Case, CaseFuture};
pub use check::{Expected, refused, refused_at, same_path};
pub use context::Context;
pub use fixture::{Deviation, Fixture, IntoFixtures, limits_are_granted, mostly_waiting, wrapped};
pub use host_dir::{HostDir, Scratch};
pub use main::main;
pub use run::{CaseReport, Outcome, Report, run, run_blocking};
pub use verdict::{Failed, Verdict};

pub(crate) use case::cases;
pub(crate) use check::{ensure, ensure_eq};
pub(crate) use context::{eventually, patience, sh_on};
pub(crate) use plan::plan;
