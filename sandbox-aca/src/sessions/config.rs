//! Configuration of a session pool: its address, and the kind of its sessions.
//!
//! The credential in it never shows its token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::auth::{Credential, DefaultCredential};
use crate::guest::handle::OUTPUT_GRACE;
use crate::http::Plane;

/// The version of the interface that is used by default.
pub(crate) const NEWEST: &str = "2025-10-02-preview";
/// Versions whose requests have another shape.
const OLD: &[&str] = &["2024-02-02-preview", "2024-08-02-preview"];
/// The role that the data plane asks for.
const ROLE: &str = "Azure ContainerApps Session Executor";

/// Kind of code that the sessions of a pool run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionKind {
    /// Python code (a pool of type `PythonLTS`); commands are run from it.
    Python,
    /// A shell's commands (a pool of type `Shell`).
    Shell,
}

/// Configuration of an [`AcaSessionProvider`](crate::AcaSessionProvider).
///
/// ```
/// use sandbox_aca::{AcaSessionConfig, SessionKind};
/// let endpoint = "https://westus2.dynamicsessions.io/subscriptions/S/resourceGroups/G/sessionPools/P";
/// let config = AcaSessionConfig::new(endpoint, SessionKind::Python).egress(true);
/// assert_eq!(config.kind, SessionKind::Python);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcaSessionConfig {
    /// The pool's `poolManagementEndpoint`, with its path.
    pub endpoint: String,
    /// Kind of code that the pool's sessions run.
    pub kind: SessionKind,
    /// The version of the service's interface; the shape of requests follows from it.
    /// Default: `2025-10-02-preview`.
    pub api_version: String,
    /// Scope of the tokens. Default: `https://dynamicsessions.io/.default`.
    pub scope: String,
    /// Source of tokens. Default: [`DefaultCredential`].
    pub credential: Arc<dyn Credential>,
    /// A certificate (PEM) to trust beside those of the system: an emulator's.
    pub ca_file: Option<PathBuf>,
    /// Whether the pool was made with `EgressEnabled`. The data plane can't be asked, so this is
    /// taken at its word: a spec that wants it otherwise is refused. Default: no.
    pub egress: bool,
    /// Time for which a 403 is taken for a role that has not arrived yet. Default: not at all.
    pub role_wait: Duration,
    /// A sandbox that has a handle and was not used for so long is touched, so that the pool's
    /// cooldown does not end it: a third of the cooldown is a good choice. It costs two requests
    /// each time, never runs anything, and ends with the handle (closed or dropped). A session
    /// that ended all the same is lost: none is made in its place. Default: nothing is touched,
    /// and the service ends what is idle.
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
}

impl AcaSessionConfig {
    /// The pool behind this management endpoint.
    pub fn new(endpoint: impl Into<String>, kind: SessionKind) -> Self {
        Self {
            endpoint: endpoint.into(),
            kind,
            api_version: NEWEST.into(),
            scope: "https://dynamicsessions.io/.default".into(),
            credential: Arc::new(DefaultCredential::new()),
            ca_file: None,
            egress: false,
            role_wait: Duration::ZERO,
            keep_alive: None,
            output_grace: OUTPUT_GRACE,
        }
    }

    sandbox_core::setters! {
        /// Sets where tokens come from.
        credential: Arc<dyn Credential>,

        /// Trusts this certificate too.
        ca_file: Some(into PathBuf),

        /// Sets what tokens are asked for.
        scope: into String,

        /// Speaks this version of the interface.
        api_version: into String,

        /// Says that the pool's sessions reach the network.
        egress: bool,

        /// Waits so long for a role that was just assigned.
        role_wait: Duration,

        /// Touches sandboxes that were not used for so long: see
        /// [`keep_alive`](Self#structfield.keep_alive).
        keep_alive: into Option<Duration>,

        /// Reads a command's output for this long after its end if nothing comes: see
        /// [`output_grace`](Self#structfield.output_grace).
        output_grace: Duration,
    }

    /// Whether requests have the old shape.
    pub(crate) fn is_old(&self) -> bool {
        OLD.contains(&self.api_version.as_str())
    }

    /// The data plane, spoken to in this version.
    pub(crate) fn plane(&self, version: &str) -> Result<Plane> {
        let invalid =
            |why: &str| Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why);
        if self.is_old() && self.kind == SessionKind::Shell {
            return Err(invalid(
                "this version of the interface has no shell sessions",
            ));
        }
        let Some((_, path)) = self.endpoint.split_once("/subscriptions/") else {
            return Err(invalid("the endpoint is not that of a session pool").with_hint(
                "it is properties.poolManagementEndpoint: az containerapp sessionpool show --query properties.poolManagementEndpoint",
            ));
        };
        let path = path.trim_end_matches('/');
        let resource = path.replace("/sessionPools/", "/providers/Microsoft.App/sessionPools/");
        Ok(Plane {
            endpoint: self.endpoint.clone(),
            prefix: Vec::new(),
            api_version: version.to_owned(),
            ca_file: self.ca_file.clone(),
            role: ROLE,
            resource: format!("/subscriptions/{resource}"),
            role_wait: self.role_wait,
        })
    }
}
