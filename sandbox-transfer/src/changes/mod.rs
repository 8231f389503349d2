//! Changes of a sandbox, away from the sandbox: collecting them, showing them as a patch, and
//! putting them in place on the host or in another sandbox.
//!
//! What changed was written by untrusted code. A path, link or mode of it must never reach the host
//! before it was judged, and nothing is written before everything was compared.

mod automation;
mod between;
mod carry;
mod collect;
mod host;
mod lines;
mod patch;
mod plan;

#[cfg(all(test, unix))]
mod tests;

pub use automation::is_automation;
pub use between::changes_between;
pub use carry::apply_to_sandbox;
pub use collect::{ChangeCollector, compare};
pub use host::apply_to_dir;
pub use patch::{GitPatch, git_patch};
pub use plan::{ApplyOptions, ApplyReport, Conflict};
