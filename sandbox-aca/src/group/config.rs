//! Configuration of a sandbox group: its address, and what its sandboxes are made of.
//!
//! The credential in it never shows its token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Labels, Result};

use crate::http::{Plane, invalid};

use crate::auth::{Credential, DefaultCredential};
use crate::group::protocol::{DEFAULT, Protocol};
use crate::guest::handle::OUTPUT_GRACE;

/// Configuration of an [`AcaSandboxProvider`](crate::AcaSandboxProvider).
///
/// ```
/// use std::time::Duration;
/// use sandbox_aca::AcaConfig;
/// let endpoint = "https://management.westus2.azuredevcompute.io";
/// let config = AcaConfig::new(endpoint, "SUBSCRIPTION", "resources", "sandboxes")
///     .cpu("1000m")
///     .memory("2048Mi")
///     .auto_delete(Duration::from_secs(3600));
/// assert_eq!(config.sandbox_group, "sandboxes");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcaConfig {
    /// The data plane: `https://management.REGION.azuredevcompute.io`, or an emulator's.
    pub endpoint: String,
    /// The subscription's identifier.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The sandbox group.
    pub sandbox_group: String,
    /// The version of the service's interface: `2026-02-01-preview` (default, the one that
    /// published clients were seen to use) or `2026-09-01-preview`. Another one is refused by
    /// [`AcaSandboxProvider::new`](crate::AcaSandboxProvider::new): the service takes any.
    pub api_version: String,
    /// Scope of the tokens. Default: the one of the version.
    pub scope: Option<String>,
    /// The public disk image of sandboxes whose spec names none. Default: `ubuntu`.
    pub disk_image: String,
    /// Processors of a sandbox as the service writes them. Default: `1000m`.
    pub cpu: String,
    /// Memory of a sandbox as the service writes it. Default: `2048Mi`.
    pub memory: String,
    /// Source of tokens. Default: [`DefaultCredential`].
    pub credential: Arc<dyn Credential>,
    /// A certificate (PEM) to trust beside those of the system: an emulator's.
    pub ca_file: Option<PathBuf>,
    /// After this time without use the service suspends a sandbox that was never closed, which ends
    /// the bill for its processors and memory, and deletes it when the same time has passed again:
    /// a safety net against what a dead host leaves. A service that counts from creation or from
    /// the last use deletes it sooner. Default: one day.
    pub auto_delete: Duration,
    /// Time for which a 403 is taken for a role that has not arrived yet, and a group that is not
    /// found for one that was just made. Default: not at all.
    pub role_wait: Duration,
    /// Limit of the time for a snapshot. Default: 15 minutes.
    pub snapshot_timeout: Duration,
    /// A sandbox that has a handle and was not used for so long is touched, so that neither
    /// `auto_delete` nor another [`Lifecycle`](crate::Lifecycle) takes it for idle. It costs
    /// a request each time, never runs anything, never resumes what is suspended, and ends with the
    /// handle (closed or dropped). Default: nothing is touched.
    pub keep_alive: Option<Duration>,
    /// Time for which the output of a command is still read after its main process has ended and
    /// nothing comes: what the rest of its tree is just writing (`tee` behind a shell's
    /// redirection) is not lost. If something keeps coming or a process of the tree works, ten times
    /// this. A command that leaves nothing behind does not wait at all; one that leaves a program
    /// behind is told to have ended after this time. A command's timeout counts on meanwhile.
    /// Counted in hundredths of a second.
    ///
    /// Default: 100 ms.
    pub output_grace: Duration,
    /// Labels that everything of this provider bears at the service, forks and their snapshots
    /// included: who lists by them finds whatever a run has left. They are not among the labels
    /// that a sandbox shows. A service that takes no labels with a restore gives a fork none; that
    /// is warned of, and `auto_delete` is what is left for it. Default: none.
    pub labels: Labels,
}

impl AcaConfig {
    /// The group of this name, behind this endpoint.
    pub fn new(
        endpoint: impl Into<String>,
        subscription: impl Into<String>,
        resource_group: impl Into<String>,
        sandbox_group: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            subscription: subscription.into(),
            resource_group: resource_group.into(),
            sandbox_group: sandbox_group.into(),
            api_version: DEFAULT.version.into(),
            scope: None,
            disk_image: "ubuntu".into(),
            cpu: "1000m".into(),
            memory: "2048Mi".into(),
            credential: Arc::new(DefaultCredential::new()),
            ca_file: None,
            auto_delete: Duration::from_secs(86_400),
            role_wait: Duration::ZERO,
            snapshot_timeout: Duration::from_secs(900),
            keep_alive: None,
            output_grace: OUTPUT_GRACE,
            labels: Labels::new(),
        }
    }

    sandbox_core::setters! {
        /// Speaks this version of the interface: see [`api_version`](Self#structfield.api_version).
        api_version: into String,

        /// Sets where tokens come from.
        credential: Arc<dyn Credential>,

        /// Sets what tokens are asked for: see [`scope`](Self#structfield.scope).
        scope: Some(into String),

        /// Sets the processors of a sandbox as the service writes them: `500m`.
        cpu: into String,

        /// Sets the memory of a sandbox as the service writes it: `1024Mi`.
        memory: into String,

        /// Sets after which time without use the service suspends a sandbox, and deletes it after the
        /// same time again: see [`auto_delete`](Self#structfield.auto_delete).
        auto_delete: Duration,

        /// Sets how long a snapshot may take.
        snapshot_timeout: Duration,

        /// Trusts this certificate too.
        ca_file: Some(into PathBuf),

        /// Waits so long for a role that was just assigned and for a group that was just made.
        role_wait: Duration,

        /// Touches sandboxes that were not used for so long: see
        /// [`keep_alive`](Self#structfield.keep_alive).
        keep_alive: into Option<Duration>,

        /// Reads a command's output for this long after its end if nothing comes: see
        /// [`output_grace`](Self#structfield.output_grace).
        output_grace: Duration,
    }

    /// Puts this label on everything that the provider makes: see
    /// [`labels`](Self#structfield.labels).
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    sandbox_core::setters! {
        /// Starts sandboxes from this public disk image.
        disk_image: into String,
    }

    /// The plane of a sandbox group.
    pub(crate) fn plane(&self) -> Result<Plane> {
        Protocol::of(&self.api_version)?;
        let AcaConfig {
            subscription,
            resource_group,
            sandbox_group,
            ..
        } = self;
        for (name, value) in [
            ("subscription", subscription),
            ("resource_group", resource_group),
            ("sandbox_group", sandbox_group),
        ] {
            if value.is_empty() || value.contains(['/', '\\']) || value == ".." || value == "." {
                return Err(invalid(format!(
                    "{name} is empty, or has a character that a name can't have"
                )));
            }
        }
        let prefix = [
            "subscriptions",
            subscription,
            "resourceGroups",
            resource_group,
            "sandboxGroups",
            sandbox_group,
        ];
        Ok(Plane {
            endpoint: self.endpoint.clone(),
            prefix: prefix.map(str::to_owned).to_vec(),
            api_version: self.api_version.clone(),
            ca_file: self.ca_file.clone(),
            role: "Container Apps SandboxGroup Data Owner",
            resource: format!(
                "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.App/sandboxGroups/{sandbox_group}"
            ),
            role_wait: self.role_wait,
        })
    }
}
