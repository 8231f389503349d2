//! Egress by host name: what a sandbox may reach, everything else denied, and what was decided.
//!
//! Invariant: nothing is reached without a rule that names it.

mod decision;
mod host;
mod policy;
mod rule;

pub use decision::{EgressDecision, EgressDecisions, EgressVerdict};
pub use host::{HostPattern, canonical_host};
pub use policy::{EgressLimits, EgressPolicy};
pub use rule::{EgressHeader, EgressProtocol, EgressRule};
