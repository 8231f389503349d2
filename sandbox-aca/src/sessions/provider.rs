//! Makes sandboxes of a session pool, finds them again, and ends them.
//!
//! It must never leave behind a session that nobody got, and never show an identifier.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Error, ErrorKind, GuestPath, Labels, Operation, Provider, Result, Sandbox,
    SandboxId, SandboxInfo, SandboxSpec, Secret,
};

use super::capability::{CLOSED, OPEN, check};
use super::carry::beginning;
use super::client::{Pool, Session};
use super::config::{AcaSessionConfig, NEWEST};
use super::identifier::{Identifier, public};
use super::sandbox::AcaSession;
use crate::auth::{Credential, Tokens};
use crate::guest::carrier::Carrier as _;
use crate::guest::handle::{Inner, Kept};
use crate::guest::script::Script;
use crate::http::Http;

const BACKEND: &str = "aca-sessions";
const WORKDIR: &str = "/workspace";

/// A sandbox that was made here and not closed.
#[derive(Debug)]
struct Known {
    identifier: Identifier,
    info: SandboxInfo,
    handle: Weak<AcaSession>,
}

/// What a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) pool: Arc<Pool>,
    pub(super) egress: bool,
    keep_alive: Option<Duration>,
    known: Mutex<BTreeMap<String, Known>>,
}

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
/// let provider = AcaSessionProvider::new(config, Arc::new(DefaultCredential::new()))?;
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
/// - A session that nobody uses ends after the pool's cooldown (300 to 3600 seconds), with all that
///   is in it. The sandbox is then [`Lost`](ErrorKind::Lost); nothing is ever run in the empty
///   session that the service would put in its place.
/// - A built-in pool has at most 600 sessions. A full pool is [`ErrorKind::RateLimited`].
/// - Sessions are billed for each one that is allocated, in steps of an hour: close them.
/// - A Python kernel runs one piece of code at a time. Commands do not hold it: it is only asked
///   for moments.
#[derive(Clone, Debug)]
pub struct AcaSessionProvider {
    registry: Arc<Registry>,
}

impl AcaSessionProvider {
    /// What its sandboxes can do if the pool has no egress; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CLOSED;

    /// A provider for this pool, with this source of tokens. Talks to nobody yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration that can't be right; what reading the
    /// certificate says.
    pub fn new(config: AcaSessionConfig, credential: Arc<dyn Credential>) -> Result<Self> {
        crate::guest::keep::check(config.keep_alive)?;
        let http = |version: &str| {
            let tokens = Tokens::new(Arc::clone(&credential), config.scope.clone());
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
            registry: Arc::new(Registry {
                pool: Arc::new(pool),
                egress: config.egress,
                keep_alive: config.keep_alive,
                known: Mutex::default(),
            }),
        })
    }

    /// What a session with this identifier is called as a sandbox: a hash, which may be shown.
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
        let mut env = BTreeMap::new();
        for (name, value) in spec.env.iter() {
            env.insert(name.to_vec(), value.map(|value| value.value.clone()));
        }
        self.registry.make(OP, info, env).await
    }
}

impl Registry {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, id: &SandboxId) {
        self.known().remove(id.as_str());
    }

    /// A new sandbox. Runs to its end even if nobody waits; then the session is deleted.
    pub(super) async fn make(
        self: &Arc<Self>,
        op: Operation,
        info: SandboxInfo,
        env: BTreeMap<Vec<u8>, Option<Secret>>,
    ) -> Result<Arc<AcaSession>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let made = registry.begin(op, info, env).await;
            if let Err(Ok(unwanted)) = sender.send(made) {
                drop(unwanted.close().await);
            }
        });
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, op).with_message("the creation ended"))
        })
    }

    async fn begin(
        self: Arc<Self>,
        op: Operation,
        mut info: SandboxInfo,
        env: BTreeMap<Vec<u8>, Option<Secret>>,
    ) -> Result<Arc<AcaSession>> {
        let identifier = Identifier::random();
        info.id = identifier.public();
        let session = Session::new(Arc::clone(&self.pool), identifier.clone());
        let made = self.handle(session, info, env);
        let begun = Self::workdir(op, &made.inner).await;
        if let Err(error) = begun {
            // What may have been allocated is not left behind; the first error is the one to tell.
            let _ = made.close().await;
            return Err(error);
        }
        made.inner.http.begun.store(true, Ordering::Release);
        made.inner.keep(self.keep_alive);
        Ok(made)
    }

    /// The first line: the marker and the workdir.
    async fn workdir(op: Operation, inner: &Inner<Session>) -> Result<()> {
        let workdir = inner.workdir();
        let (dir, _) = crate::guest::handle::fresh(Session::STAGING);
        let script = Script::default().text(&beginning());
        let script = script
            .text(crate::guest::script::COMMON)
            .text(crate::guest::script::FILES);
        let script = script
            .text("x=$(LC_ALL=C mkdir -p --")
            .word(workdir.as_bytes());
        let script = script.text(" 2>&1) || denied \"$x\"\necho OK\n");
        let minutes = Duration::from_secs(120);
        let said = inner.run(op, &script, &dir, true, minutes).await;
        let said = said.map_err(|failure| inner.named(failure.error))?;
        inner.verdict(op, &said, &[&workdir])
    }

    fn handle(
        self: &Arc<Self>,
        session: Session,
        info: SandboxInfo,
        env: BTreeMap<Vec<u8>, Option<Secret>>,
    ) -> Arc<AcaSession> {
        let identifier = session.identifier.clone();
        let id = info.id.clone();
        let known = info.clone();
        let inner = Inner::new(Arc::new(session), Kept::new(info, env));
        let made = Arc::new(AcaSession::new(inner, Arc::clone(self)));
        let known = Known {
            identifier,
            info: known,
            handle: Arc::downgrade(&made),
        };
        self.known().insert(id.as_str().to_owned(), known);
        made
    }

    /// A handle to a session that was made here, or that the service knows.
    async fn find(self: &Arc<Self>, op: Operation, id: &SandboxId) -> Result<Arc<AcaSession>> {
        let known = {
            let known = self.known();
            known.get(id.as_str()).map(|known| {
                let handle = known.handle.upgrade();
                (handle, known.identifier.clone(), known.info.clone())
            })
        };
        let (identifier, info) = match known {
            Some((Some(handle), ..)) => return Ok(handle),
            Some((None, identifier, info)) => (identifier, info),
            None => {
                let all = self.pool.identifiers(op).await;
                let all = all.map_err(|failure| failure.error)?;
                let found = all.into_iter().find(|one| one.public() == *id);
                let found = found.ok_or_else(|| missing(op, id))?;
                let info = SandboxInfo::new(id.clone(), BACKEND, GuestPath::from(WORKDIR));
                (found, info)
            }
        };
        let session = Session::new(Arc::clone(&self.pool), identifier);
        session.begun.store(true, Ordering::Release);
        let found = self.handle(session, info, BTreeMap::new());
        found.inner.keep(self.keep_alive);
        Ok(found)
    }
}

fn missing(op: Operation, id: &SandboxId) -> Error {
    Error::new(ErrorKind::NotFound, op)
        .with_message("the pool has no such session")
        .with_sandbox(id.clone())
}

#[async_trait]
impl Provider for AcaSessionProvider {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        match self.registry.egress {
            true => OPEN,
            false => CLOSED,
        }
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        Ok(self.create_session(spec).await?)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Attach;
        let found = self.registry.find(OP, id).await?;
        found.inner.open(OP).map_err(|_| missing(OP, id))?;
        Ok(found)
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let known = self.registry.known();
        let fits = |info: &SandboxInfo| {
            let mut wanted = labels.iter();
            wanted.all(|(key, value)| info.labels.get(key) == Some(value))
        };
        let all = known.values().map(|known| &known.info);
        let mut all: Vec<SandboxInfo> = all.filter(|info| fits(info)).cloned().collect();
        all.sort_by_key(|info| info.created);
        Ok(all)
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        const OP: Operation = Operation::Destroy;
        let found = self.registry.find(OP, id).await?;
        found.inner.open(OP).map_err(|_| missing(OP, id))?;
        found.close().await
    }
}
