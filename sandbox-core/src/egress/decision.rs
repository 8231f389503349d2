//! Decisions about what a sandbox tried to reach.
//!
//! Invariant: a name in a decision is the guest's text, and is never more than a text.

use std::net::IpAddr;
use std::time::SystemTime;

/// Outcome of a decision about a name or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EgressVerdict {
    /// The connection was let through.
    Allowed,
    /// Nothing went out.
    Denied,
    /// Allowed, but the host was not found or did not answer.
    Failed,
}

/// One decision about what a sandbox tried to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressDecision {
    /// Number of the decision in the sandbox's life, from 1.
    pub number: u64,
    /// Time at which it was made.
    pub at: SystemTime,
    /// The name that was asked for, as the guest wrote it where that is all that is known; it is
    /// the guest's text, cut at 255 bytes.
    pub host: String,
    /// The port; `None` for a name that was only asked for.
    pub port: Option<u16>,
    /// Outcome of the decision.
    pub verdict: EgressVerdict,
    /// Why, in words.
    pub reason: String,
    /// The address that was dialled on the host.
    pub address: Option<IpAddr>,
}

impl EgressDecision {
    /// A decision of now, not numbered yet.
    pub fn new(host: impl Into<String>, verdict: EgressVerdict, reason: impl Into<String>) -> Self {
        Self {
            number: 0,
            at: SystemTime::now(),
            host: host.into(),
            port: None,
            verdict,
            reason: reason.into(),
            address: None,
        }
    }

    crate::setters! {
        /// Sets the number.
        number: u64,

        /// The port of the connection.
        port: Some(u16),

        /// The address that was dialled.
        address: Some(IpAddr),
    }
}

/// Decisions of a sandbox, as [`egress_decisions`](crate::Sandbox::egress_decisions) gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressDecisions {
    /// The decisions, in order.
    pub decisions: Vec<EgressDecision>,
    /// Number of earlier decisions that are not kept any more.
    pub missed: u64,
}

impl EgressDecisions {
    /// These decisions, of which so many are missing at the beginning.
    pub fn new(decisions: Vec<EgressDecision>, missed: u64) -> Self {
        Self { decisions, missed }
    }

    /// The number to go on from.
    pub fn last(&self) -> Option<u64> {
        self.decisions.last().map(|decision| decision.number)
    }
}
