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

    /// Speaks to another Resource Manager: a sovereign cloud's, or an emulator's.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Asks for tokens for this.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Sets where tokens come from.
    #[must_use]
    pub fn credential(mut self, credential: Arc<dyn Credential>) -> Self {
        self.credential = credential;
        self
    }

    /// Trusts this certificate too.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Puts this tag on everything that is made.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Gives up on an operation after so long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks so often whether an operation is done, where the service does not say.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// Looks so long for what a write made whose answer was lost.
    #[must_use]
    pub fn settle(mut self, within: Duration) -> Self {
        self.settle = within;
        self
    }

    /// Queries logs here.
    #[must_use]
    pub fn logs_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.logs_endpoint = endpoint.into();
        self
    }
}
