//! Makes sandboxes of a session pool, finds them again, and ends them.
//!
//! It must never leave behind a session whose creation was given up, and never show an identifier.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, GuestPath, Labels, Operation, Provider, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxSpec, Secret,
};

use super::capability::{CLOSED, OPEN, check};
use super::client::Pool;
use super::config::{AcaSessionConfig, NEWEST};
use super::identifier::public;
use super::sandbox::AcaSession;
use super::shared::{BACKEND, Shared, WORKDIR, missing};
use crate::auth::Tokens;
use crate::guest::handle::variables;
use crate::http::Http;

/// Sandboxes in the dynamic sessions of an Azure Container Apps session pool.
///
/// Each sandbox is one session under a random identifier. Commands, files and transfers of the
/// trait are carried over the executions of a Python or a Shell pool; Python sandboxes also run
/// code with kernel state: see [`AcaSession::run_code`] and
/// [`create_session`](AcaSessionProvider::create_session).
///
/// ```no_run
/// use std::sync::Arc;
/// use sandbox_aca::{AcaSessionConfig, AcaSessionProvider, DefaultCredential, SessionKind};
/// use sandbox_core::{Sandbox, SandboxExt, SandboxSpec};
///
/// # async fn run(endpoint: &str) -> sandbox_core::Result<()> {
/// let config = AcaSessionConfig::new(endpoint, SessionKind::Python);
/// let provider = AcaSessionProvider::new(config.credential(Arc::new(DefaultCredential::new())))?;
/// let sandbox = provider.create_session(SandboxSpec::new()).await?;
/// assert!(sandbox.sh("echo hello").await?.success());
/// let answer = sandbox.run_code("6 * 7", Default::default()).await?;
/// assert_eq!(answer.result.as_deref(), Some("42"));
/// sandbox.close().await
/// # }
/// ```
///
/// # What is needed
/// A pool, and the role *Azure ContainerApps Session Executor* on it:
///
/// ```text
/// az containerapp sessionpool create --name POOL --resource-group GROUP --location REGION \
///   --container-type PythonLTS --max-sessions 100 --cooldown-period 300
/// az containerapp sessionpool show --name POOL --resource-group GROUP \
///   --query properties.poolManagementEndpoint --output tsv
/// az role assignment create --role "Azure ContainerApps Session Executor" --assignee CALLER \
///   --scope /subscriptions/…/resourceGroups/GROUP/providers/Microsoft.App/sessionPools/POOL
/// ```
///
/// # Limits
/// Those of the service, as its documents had them in January 2026; none of them is checked here
/// but by the service's answers:
///
/// - One execution takes at most 220 seconds. A command may take longer: it runs detached and is
///   asked after. A single operation on files (unpacking an import, packing an export or a fork)
///   may not.
/// - One upload has at most 128 MB; larger ones go in parts of 64 MiB.
/// - An idle session ends after the pool's cooldown (300 to 3600 seconds), with all that
///   is in it. The sandbox is then [`Lost`](sandbox_core::ErrorKind::Lost); nothing is ever run in the empty
///   session that the service would put in its place.
/// - A built-in pool has at most 600 sessions. A full pool is [`RateLimited`](sandbox_core::ErrorKind::RateLimited).
/// - Sessions are billed for each one that is allocated, in steps of an hour: close them.
/// - A Python kernel runs one piece of code at a time. Commands do not hold it: it is only asked
///   for moments.
#[derive(Clone, Debug)]
pub struct AcaSessionProvider {
    shared: Arc<Shared>,
}

impl AcaSessionProvider {
    /// Capabilities of its sandboxes if the pool has no egress; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CLOSED;

    /// A provider for this pool, with this source of tokens. Sends nothing yet.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for a configuration that can't be right; what reading the
    /// certificate says.
    pub fn new(config: AcaSessionConfig) -> Result<Self> {
        crate::guest::keep_alive::check(config.keep_alive)?;
        let http = |version: &str| {
            let tokens = Tokens::new(Arc::clone(&config.credential), config.scope.clone());
            Http::new(config.plane(version)?, tokens)
        };
        let old = config.is_old();
        let pool = Pool {
            data: http(&config.api_version)?,
            manage: http(if old { NEWEST } else { &config.api_version })?,
            kind: config.kind,
            old,
        };
        Ok(Self {
            shared: Arc::new(Shared::new(Arc::new(pool), config)),
        })
    }

    /// Identifier as a sandbox of the session with this identifier: a hash, which may be shown.
    pub fn id_of(identifier: &Secret) -> SandboxId {
        public(&String::from_utf8_lossy(identifier.expose()))
    }

    /// [`create`](Provider::create) that gives the session's own type, which also runs code.
    ///
    /// # Errors
    /// Those of [`create`](Provider::create).
    ///
    /// # Cancellation
    /// Dropping the future leaves no session behind.
    pub async fn create_session(&self, spec: SandboxSpec) -> Result<Arc<AcaSession>> {
        const OP: Operation = Operation::Create;
        check(&spec, &self.capabilities())?;
        let workdir = spec.workdir.clone().unwrap_or_else(|| WORKDIR.into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let info = SandboxInfo::new(SandboxId::new(""), BACKEND, workdir)
            .labels(spec.labels.clone())
            .command_timeout(spec.command_timeout);
        let env = variables(&spec.env).collect();
        let made = self.shared.make(OP, info, env).await?;
        Ok(AcaSession::new(made, Arc::clone(&self.shared)))
    }
}

#[async_trait]
impl Provider for AcaSessionProvider {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        match self.shared.config.egress {
            true => OPEN,
            false => CLOSED,
        }
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        Ok(self.create_session(spec).await?)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Attach;
        let found = self.shared.find(OP, id).await?;
        found.open(OP).map_err(|_| missing(OP, id))?;
        Ok(AcaSession::new(found, Arc::clone(&self.shared)))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        Ok(self.shared.list(labels))
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        const OP: Operation = Operation::Destroy;
        let found = self.shared.find(OP, id).await?;
        found.open(OP).map_err(|_| missing(OP, id))?;
        self.shared.close(&found).await
    }
}
