//! Creates local sandboxes and finds them again within this process.

mod attach;
mod create;
pub(crate) mod pool;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use sandbox_core::backend::blocking;
use sandbox_core::{
    Capabilities, Error, ErrorKind, Labels, Operation, Provider, Result, Sandbox, SandboxId,
    SandboxInfo, SandboxSpec, Snapshot, SnapshotId,
};

use self::pool::Pool;
use self::turns::Turns;
use crate::config::{LocalConfig, MOST_PREPARED};
use crate::guest_user::GuestUser;
use crate::isolation::Proven;
use crate::lasting;
use crate::layers::{State, base};
use crate::open_files;
use crate::sandbox::capability::CAPABILITIES;
use crate::sandbox::{LocalSandbox, OpenSandboxes};
use crate::start::host::Host;

/// Sandboxes on this machine: Linux namespaces, no daemon, as any user.
///
/// One provider serves any number of sandboxes; making one prepares a few files and starts one
/// thread, as root two, up to three for [`LocalConfig::prepared`], and one more when the first limit
/// on memory or processors is asked for. Its sandboxes live as long as their handles, not as long as
/// the provider.
///
/// ```no_run
/// use sandbox_core::{Provider, SandboxExt, SandboxSpec};
/// use sandbox_local::{LocalConfig, LocalProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sandbox_core::Error> {
/// let sandbox = LocalProvider::new(LocalConfig::default())?.create(SandboxSpec::new()).await?;
/// let output = sandbox.sh("echo hello from $(hostname)").await?;
/// assert_eq!(output.stdout.bytes, "hello from sandbox\n");
/// sandbox.close().await
/// # }
/// ```
///
/// # Runtime
/// Every future of the provider and its sandboxes must be polled in a tokio runtime with I/O and
/// time enabled (`enable_all`); in another one it fails with
/// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput). A sandbox is served by the runtime that it was created in, or
/// forked from, and ends with it; until then it can be used from others too.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    host: Arc<Host>,
    pool: Arc<Pool>,
    proven: Arc<Proven>,
    open: Arc<OpenSandboxes>,
    /// Hosts of the lasting sandboxes that were open here; each holds the sandbox's directory.
    lasting: Arc<Mutex<HashMap<SandboxId, Weak<Host>>>>,
    /// Held by the one that starts a lasting sandbox again, or removes one.
    turns: Arc<Turns>,
}

impl LocalProvider {
    /// Capabilities of local sandboxes; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CAPABILITIES;

    /// A provider with this configuration. Blocks for some milliseconds. Parts of the host's `/etc` are
    /// copied for the first sandbox with the host's programs, which takes longer, unless a provider that is
    /// gone left a copy in the state directory and nothing has changed since.
    ///
    /// # Errors
    /// The state directory can't be made or belongs to someone else.
    pub fn new(config: LocalConfig) -> Result<Self> {
        let dir = config.state_root();
        let failed = |error: std::io::Error| {
            let message = format!("the state directory can't be used: {error}");
            Error::from_io(error, Operation::Connect)
                .with_message(message)
                .with_host_path(&dir)
                .with_hint("choose another with SANDBOX_STATE_DIR or LocalConfig::state_dir")
        };
        if config.all_open_files {
            open_files::raise().map_err(|error| {
                Error::from_io(error, Operation::Connect)
                    .with_message("the limit on open files could not be raised")
            })?;
        }
        base::check_settings(&config.settings)?;
        let guest_user = GuestUser::for_this_host().map_err(failed)?;
        let state = State::create(&dir, guest_user).map_err(failed)?;
        let pool = Pool::new(config.prepared.min(MOST_PREPARED));
        let host = Host::new(config, state, guest_user).map_err(failed)?;
        let host = Arc::new(host);
        pool.fill(&host).map_err(failed)?;
        Ok(Self {
            host,
            pool: Arc::new(pool),
            proven: Arc::default(),
            open: Arc::default(),
            lasting: Arc::default(),
            turns: Arc::default(),
        })
    }

    fn find(&self, id: &SandboxId, operation: Operation) -> Result<Arc<LocalSandbox>> {
        self.open.find(id, operation)
    }
}

#[async_trait]
impl Provider for LocalProvider {
    fn backend(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        Ok(self.create_local(spec).await.map_err(open_files::told)?)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        Ok(self.attach_local(id).await.map_err(open_files::told)?)
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.list_local(labels).await
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        let (host, labels) = (self.host.clone(), labels.clone());
        let list = move || host.snapshots.list(&labels);
        blocking(Operation::ListSnapshots, list).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let (host, id) = (self.host.clone(), id.clone());
        let delete = move || {
            if let Some(sandbox) = lasting::based_on(host.state.root(), &id) {
                let message = format!("the lasting sandbox {sandbox} lies on the snapshot {id}");
                return Err(Error::new(ErrorKind::Conflict, Operation::DeleteSnapshot)
                    .with_message(message)
                    .with_hint("destroy that sandbox first"));
            }
            host.snapshots.delete(&host.images, &host.config, &id)
        };
        blocking(Operation::DeleteSnapshot, delete).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        if !self.open.has(id) && self.remove_lasting(id).await? {
            return Ok(());
        }
        self.find(id, Operation::Destroy)?.close().await
    }
}
