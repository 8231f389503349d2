//! One run of a sandbox: its init and mounted root on a stack of layers, and how it is forked.
//!
//! Must never freeze a layer into which somebody can still write.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sandbox_core::{Control, Error, ErrorKind, GuestPath, ListOptions, Network, Operation, Result};

use crate::blueprint::Blueprint;
use crate::cgroup::Cgroup;
use crate::compact;
use crate::copy;
use crate::engine::{Engine, Identity as EngineIdentity, StartConfig};
use crate::failure;
use crate::files::GuestRoot;
use crate::sandbox::blocking;
use crate::setup::{Setup, Upper};
use crate::shared::Shared;
use crate::stack::{self, Stack};
use crate::state::{Layer, WorkDir};

/// How long a set-up may take; it is a few milliseconds of system calls.
const START: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) engine: Engine,
    pub(crate) root: Arc<GuestRoot>,
    pub(crate) cgroup: Arc<Cgroup>,
    stack: Stack,
    writes: Writes,
    state_dir: PathBuf,
}

/// Where the guest's writes are.
#[derive(Debug)]
enum Writes {
    /// In a layer on disk, which a fork can freeze.
    Layer {
        upper: Arc<Layer>,
        /// Removed when the mount is no longer needed.
        _work: WorkDir,
    },
    /// In a bounded tmpfs, reached by its directory; a fork copies it.
    Tmpfs(OwnedFd),
}

impl Live {
    /// The first run of a new sandbox.
    pub(crate) async fn first(
        shared: &Arc<Shared>,
        blueprint: &Arc<Blueprint>,
        name: &str,
    ) -> Result<Self> {
        let cgroup = limits(shared, blueprint, name, Operation::Create).await?;
        Self::start(
            shared,
            blueprint,
            cgroup,
            Stack::default(),
            Operation::Create,
        )
        .await
    }

    async fn start(
        shared: &Arc<Shared>,
        blueprint: &Arc<Blueprint>,
        cgroup: Arc<Cgroup>,
        stack: Stack,
        operation: Operation,
    ) -> Result<Self> {
        let prepare = {
            let (shared, blueprint) = (shared.clone(), blueprint.clone());
            let (stack, cgroup) = (stack.clone(), cgroup.clone());
            move || Prepared::new(&shared, &blueprint, &stack, cgroup, operation)
        };
        let Prepared { config, upper } = blocking(operation, prepare).await?;
        let started = Engine::start(config)
            .await
            .map_err(|error| failure::start(error, operation))?;
        let writes = match (upper, started.exported.into_iter().next()) {
            (Some((upper, work)), _) => Writes::Layer { upper, _work: work },
            (None, Some(directory)) => Writes::Tmpfs(directory),
            (None, None) => {
                return Err(Error::new(ErrorKind::Other, operation)
                    .with_message("the set-up did not hand over the upper layer"));
            }
        };
        Ok(Self {
            engine: started.engine,
            root: Arc::new(GuestRoot::new(started.root, shared.identity)),
            cgroup,
            stack,
            writes,
            state_dir: shared.state.layers_dir(),
        })
    }

    /// Makes a second sandbox with the same files. The caller holds this one alone: no file
    /// operation is under way and no command is being started.
    pub(crate) async fn fork(
        &mut self,
        shared: &Arc<Shared>,
        blueprint: &Arc<Blueprint>,
        name: &str,
    ) -> Result<Self> {
        const OP: Operation = Operation::Fork;
        let cgroup = limits(shared, blueprint, name, OP).await?;
        let start = |stack, cgroup| Self::start(shared, blueprint, cgroup, stack, OP);
        let Some(upper) = self.freezable().await? else {
            let stack = self.copied(shared).await?;
            return start(stack, cgroup).await;
        };
        if stack::is_untouched(&upper).map_err(|error| Error::from_io(error, OP))? {
            return start(self.stack.clone(), cgroup).await;
        }
        let stack = shallow(shared, self.stack.with(upper)).await?;
        let (parent, child) = tokio::join!(
            start(stack.clone(), self.cgroup.clone()),
            start(stack, cgroup)
        );
        // Only now: if either could not be started, this run goes on as it was.
        let (parent, child) = (parent?, child?);
        *self = parent;
        Ok(child)
    }

    /// The upper layer, if it can be frozen: nothing runs, and nothing is kept in memory that a
    /// restart would lose.
    async fn freezable(&self) -> Result<Option<Arc<Layer>>> {
        let Writes::Layer { upper, .. } = &self.writes else {
            return Ok(None);
        };
        let idle = self.engine.is_idle().await.map_err(|lost| {
            Error::new(ErrorKind::Lost, Operation::Fork)
                .with_message("the sandbox's init is gone")
                .with_source(lost)
        })?;
        let root = self.root.clone();
        let in_memory = blocking(Operation::Fork, move || {
            let nothing = ListOptions::default().with_limit(0);
            Ok(root.list(&GuestPath::from("/dev/shm"), &nothing).is_err())
        });
        Ok((idle && !in_memory.await?).then(|| upper.clone()))
    }

    /// A directory of the host that no guest may see.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The stack with a copy of the upper layer on top, taken while every process stands still.
    async fn copied(&self, shared: &Arc<Shared>) -> Result<Stack> {
        const OP: Operation = Operation::Fork;
        let lost = |lost| {
            Error::new(ErrorKind::Lost, OP)
                .with_message("the sandbox's init is gone")
                .with_source(lost)
        };
        let frozen = self.engine.freeze().await.map_err(lost)?;
        if !frozen.is_still() {
            return Err(Error::new(ErrorKind::Busy, OP)
                .with_message("the sandbox's processes could not be stopped for a copy")
                .with_hint("end them, or try again")
                .with_retryable(true));
        }
        let from = match &self.writes {
            Writes::Tmpfs(directory) => directory.try_clone().map(copy::From::Opened),
            Writes::Layer { upper, .. } => Ok(copy::From::Path(upper.path().to_owned())),
        };
        let from = from.map_err(|error| Error::from_io(error, OP))?;
        let state = shared.state.clone();
        let identity = shared.identity;
        let copy = blocking(OP, move || {
            let copied = move || {
                let to = Layer::create(&state)?;
                copy::layer(from, to.path(), identity)?;
                Ok(to)
            };
            copied().map_err(|error| {
                Error::from_io(error, OP).with_message("the sandbox's files could not be copied")
            })
        });
        let copied = copy.await;
        frozen.thaw().await.map_err(lost)?;
        shallow(shared, self.stack.with(copied?)).await
    }

    /// Kills everything, without waiting.
    pub(crate) fn kill(&self) {
        self.engine.kill();
    }

    /// Kills everything and waits until it is dead, within bounds.
    pub(crate) async fn shut_down(self) {
        if !self.engine.shutdown().await {
            tracing::warn!("a sandbox's init did not end within five seconds of being killed");
        }
    }
}

/// What is prepared on a thread for blocking work before the agent is started.
struct Prepared {
    config: StartConfig,
    upper: Option<(Arc<Layer>, WorkDir)>,
}

impl Prepared {
    fn new(
        shared: &Shared,
        blueprint: &Blueprint,
        stack: &Stack,
        cgroup: Arc<Cgroup>,
        operation: Operation,
    ) -> Result<Self> {
        let io = |error: std::io::Error| {
            Error::from_io(error, operation).with_message("a layer could not be prepared")
        };
        let root_mode = stack.root_mode().map_err(io)?;
        let on_disk = match blueprint.resources().disk {
            Some(_) => None,
            None => {
                let layer = Layer::create(&shared.state).map_err(io)?;
                layer.set_mode(root_mode).map_err(io)?;
                let work = layer.fresh_work_dir().map_err(io)?;
                Some((layer, work))
            }
        };
        let lower_dirs = stack.lower_dirs(&blueprint.base);
        let setup = Setup {
            blueprint,
            identity: shared.identity,
            owners: &shared.owners,
            layers_dir: &shared.state.layers_dir(),
            lower_dirs: &lower_dirs,
            upper: match (&on_disk, blueprint.resources().disk) {
                (Some((layer, work)), _) => Upper::Layer {
                    name: layer.name(),
                    work: work.relative(),
                },
                (None, bytes) => Upper::Tmpfs {
                    bytes: bytes.unwrap_or_default(),
                    mode: root_mode,
                },
            },
        };
        let plan = setup
            .plan()
            .map_err(|error| failure::setup(error, operation))?;
        let identity = match shared.identity {
            Some(identity) => EngineIdentity::Mapped {
                uid: identity.uid,
                gid: identity.gid,
            },
            None => EngineIdentity::Own,
        };
        let config = StartConfig {
            plan,
            identity,
            isolate_network: blueprint.spec.network == Network::Off,
            hook: Some(Box::new(move |pid| cgroup.attach(pid))),
            timeout: START,
        };
        Ok(Self {
            config,
            upper: on_disk,
        })
    }
}

/// The cgroups of a sandbox; an error if a limit that is required can't be had.
async fn limits(
    shared: &Arc<Shared>,
    blueprint: &Arc<Blueprint>,
    name: &str,
    operation: Operation,
) -> Result<Arc<Cgroup>> {
    let resources = blueprint.resources();
    if resources.disk.is_some() && blueprint.requires(Control::Disk) {
        failure::check_tmpfs_upper(operation)?;
    }
    if resources.memory.is_none() && resources.cpus.is_none() {
        return Ok(Arc::new(Cgroup::none()));
    }
    let (shared, blueprint, name) = (shared.clone(), blueprint.clone(), name.to_owned());
    blocking(operation, move || {
        let configured = shared.config.cgroup.as_deref();
        let (cgroup, missing) = Cgroup::create(&name, blueprint.resources(), configured);
        match missing
            .into_iter()
            .find(|missing| blueprint.requires(missing.control))
        {
            Some(missing) => Err(failure::no_cgroup(missing, operation)),
            None => Ok(Arc::new(cgroup)),
        }
    })
    .await
}

/// The stack, merged into one layer if it is too deep.
async fn shallow(shared: &Arc<Shared>, stack: Stack) -> Result<Stack> {
    const OP: Operation = Operation::Fork;
    if !stack.is_too_deep() {
        return Ok(stack);
    }
    let shared = shared.clone();
    let identity = shared.identity;
    blocking(OP, move || {
        let merged = || {
            let to = Layer::create(&shared.state)?;
            let _alone = shared
                .merging
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            compact::merge(stack.layers(), &to, identity)?;
            Ok(Stack::default().with(to))
        };
        merged().map_err(|error| {
            Error::from_io(error, OP).with_message("the sandbox's layers could not be merged")
        })
    })
    .await
}
