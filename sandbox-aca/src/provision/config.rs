//! Which subscription and resource group the control plane works in, as whom, and how long it
//! waits.
//!
//! The credential in it never shows its token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Labels;

use crate::auth::{Credential, DefaultCredential};

/// Configuration of a [`ControlPlane`](super::ControlPlane).
///
/// ```
/// use sandbox_aca::provision::ControlPlaneConfig;
/// let config = ControlPlaneConfig::new("SUBSCRIPTION", "resources", "westus2", "acme-sandboxes")
///     .tag("run", "42");
/// assert_eq!(config.owner, "acme-sandboxes");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControlPlaneConfig {
    /// Azure Resource Manager. Default: `https://management.azure.com`.
    pub endpoint: String,
    /// The subscription's identifier.
    pub subscription: String,
    /// The resource group, which must exist.
    pub resource_group: String,
    /// The region that resources are made in, such as `westus2`.
    pub location: String,
    /// Owner of the resources: every resource that this control plane makes has it in its tag
    /// `sandbox-owner`, and one that has another is refused and left alone.
    pub owner: String,
    /// More tags on everything that is made, such as a label of the run.
    pub tags: Labels,
    /// Scope of the tokens. Default: `https://management.azure.com/.default`.
    pub scope: String,
    /// Source of tokens. Default: [`DefaultCredential`].
    pub credential: Arc<dyn Credential>,
    /// A certificate (PEM) to trust beside those of the system: an emulator's.
    pub ca_file: Option<PathBuf>,
    /// Time that an operation may take until it is done. Default: 20 minutes, which is what `az`
    /// waits.
    pub timeout: Duration,
    /// Interval of asking whether an operation is done where the service does not say. Default: 2
    /// s.
    pub poll: Duration,
    /// For how long is looked for what a write made whose answer was lost, before the write is sent
    /// again. Default: 30 s.
    pub settle: Duration,
    /// The query endpoint of Log Analytics. Default: `https://api.loganalytics.io`.
    pub logs_endpoint: String,
}

impl ControlPlaneConfig {
    /// Works in this resource group and region for this owner.
    pub fn new(
        subscription: impl Into<String>,
        resource_group: impl Into<String>,
        location: impl Into<String>,
        owner: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: "https://management.azure.com".into(),
            subscription: subscription.into(),
            resource_group: resource_group.into(),
            location: location.into(),
            owner: owner.into(),
            tags: Labels::new(),
            scope: "https://management.azure.com/.default".into(),
            credential: Arc::new(DefaultCredential::new()),
            ca_file: None,
            timeout: Duration::from_secs(1200),
            poll: Duration::from_secs(2),
            settle: Duration::from_secs(30),
            logs_endpoint: "https://api.loganalytics.io".into(),
        }
    }

    sandbox_core::setters! {
        /// Speaks to another Resource Manager: a sovereign cloud's, or an emulator's.
        endpoint: into String,

        /// Asks for tokens for this.
        scope: into String,

        /// Sets where tokens come from.
        credential: Arc<dyn Credential>,

        /// Trusts this certificate too.
        ca_file: Some(into PathBuf),
    }

    /// Puts this tag on everything that is made.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    sandbox_core::setters! {
        /// Gives up on an operation after so long.
        timeout: Duration,

        /// Asks so often whether an operation is done, where the service does not say.
        poll: Duration,

        /// Looks so long for what a write made whose answer was lost.
        settle: Duration,

        /// Queries logs here.
        logs_endpoint: into String,
    }
}
