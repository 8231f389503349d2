//! One run of a sandbox: its init and mounted root on a stack of layers, and how it is forked.
//!
//! Must never freeze a layer into which something can still write.

use std::ops::{ControlFlow, DerefMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{
    Changes, Error, ErrorKind, GuestPath, ListOptions, Operation, Result, SandboxId,
};
use sandbox_egress::{Egress, Service};
use sandbox_transfer::changes::ChangeCollector;

use super::kill_switch::KillSwitch;
use super::{lost, processes};
use crate::egress;
use crate::engine::{Engine, Lost};
use crate::files::GuestRoot;
use crate::lasting::kept::{Kept, Unclaimed};
use crate::lasting::record::Record;
use crate::layers::Layer;
use crate::layers::compact;
use crate::layers::copy;
use crate::layers::difference::{Stacks, difference};
use crate::layers::stack::{self, Stack};
use crate::start::blueprint::Blueprint;
use crate::start::cgroup::Cgroup;
use crate::start::failure;
use crate::start::host::Host;
use crate::start::prepared::{Prepared, Writes, limits};
use crate::walk::{Cancel, Limits, Stop};

const OP: Operation = Operation::Fork;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) root: Arc<GuestRoot>,
    pub(crate) cgroup: Arc<Cgroup>,
    stack: Stack,
    /// Layers that the sandbox began with: those of its first run.
    origin: Stack,
    writes: Writes,
    frozen: bool,
    state_dir: PathBuf,
    egress: Option<Arc<Egress>>,
    service: Option<Service>,
    /// The record of a lasting sandbox, which this is the run of.
    kept: Option<Arc<Kept>>,
    /// Nanoseconds of processor time of the runs before this one.
    pub(crate) spent: Arc<AtomicU64>,
}

/// Place of what a sandbox wrote since its beginning.
pub(crate) enum Written {
    Layers(Vec<Arc<Layer>>),
    Tmpfs(OwnedFd),
}

impl Running {
    /// Takes a prepared run into use, in this runtime. Does not block.
    pub(crate) fn new(
        run: Prepared,
        host: &Host,
        egress: Option<Arc<Egress>>,
        operation: Operation,
    ) -> Result<Self> {
        let Prepared {
            init,
            root,
            cgroup,
            stack,
            writes,
            sockets,
        } = run;
        Ok(Self {
            engine: Engine::new(init, host.config.output_grace)
                .map_err(|error| failure::start(error, operation))?,
            root,
            cgroup,
            origin: stack.clone(),
            stack,
            writes,
            frozen: false,
            state_dir: host.state.layers_dir(),
            service: egress::serve(egress.as_ref(), sockets, operation)?,
            egress,
            kept: None,
            spent: Arc::default(),
        })
    }

    /// Counts what was written since these layers as its changes.
    pub(crate) fn begin_with(&mut self, origin: Stack) {
        self.origin = origin;
    }

    /// The layers of this run, the topmost first, the one that is written among them.
    fn layers_in_use(&self) -> Vec<Arc<Layer>> {
        match &self.writes {
            Writes::Layer { upper, .. } if !self.frozen => {
                self.stack.with(upper.clone()).layers().to_vec()
            }
            _ => self.stack.layers().to_vec(),
        }
    }

    /// Writes down the first run of a lasting sandbox. Blocks.
    pub(crate) fn keep_first(
        &mut self,
        host: &Host,
        id: &SandboxId,
        blueprint: &Blueprint,
        settings: &Settings,
    ) -> Result<Unclaimed> {
        let (layers, init) = (self.layers_in_use(), self.engine.pid());
        let record = Record::new(id, &blueprint.spec, settings);
        let (state, image) = (host.state.clone(), blueprint.image.as_ref());
        let (kept, unclaimed) = Kept::create(state, record, image, layers, init)?;
        host.keep(kept.clone());
        self.kept = Some(kept);
        Ok(unclaimed)
    }

    /// Writes down a later run of a lasting sandbox, before anything is done in it. Blocks.
    pub(crate) fn keep(&mut self, kept: Arc<Kept>, operation: Operation) -> Result<()> {
        kept.stacked(self.layers_in_use(), Some(self.engine.pid()), operation)?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Starts a run on a stack of layers. Blocks.
    pub(crate) fn start(
        host: &Host,
        blueprint: &Blueprint,
        cgroup: Arc<Cgroup>,
        stack: Stack,
        egress: Option<Arc<Egress>>,
        operation: Operation,
    ) -> Result<Self> {
        let run = Prepared::start(host, blueprint, cgroup, stack, operation)?;
        Self::new(run, host, egress, operation)
    }

    /// Returns what answers for the sandbox's network, if its spec has an egress policy.
    pub(crate) fn egress(&self) -> Option<&Arc<Egress>> {
        self.egress.as_ref()
    }

    /// Makes a second sandbox with the same files. The caller holds this one alone, even if its
    /// future is dropped, until it is known which files: no file operation is under way and no
    /// command is being started. It is let go of before the second sandbox starts.
    ///
    /// If this run is frozen by it, it stays so until it is [renewed](Running::renew).
    pub(crate) async fn fork(
        mut this: impl DerefMut<Target = Self> + Send + Sync + 'static,
        host: &Arc<Host>,
        blueprint: &Arc<Blueprint>,
    ) -> Result<Self> {
        // What is done on threads for blocking work stops when its result is not wanted any more.
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let child = Child {
            cancel: cancel.clone(),
            host: host.clone(),
            blueprint: blueprint.clone(),
            egress: this.egress.as_ref().map(|egress| egress.fork()),
        };
        if this.may_freeze().await? {
            let start = child.clone();
            // In one piece: each change of threads would cost as much as many of its system calls.
            let frozen = blocking(OP, move || {
                let Some(stack) = this.freeze(&start.host, &start.cancel)? else {
                    return Ok(ControlFlow::Continue(this));
                };
                drop(this);
                start.on(stack).map(ControlFlow::Break)
            });
            match frozen.await? {
                ControlFlow::Break(forked) => return Ok(forked),
                ControlFlow::Continue(held) => this = held,
            }
        }
        let stack = this.copied(host, &cancel).await?;
        drop(this);
        blocking(OP, move || child.on(stack)).await
    }

    /// The layers of this run above what it started from, of one moment, for a snapshot. As with a
    /// fork, this run may be frozen by it, and stays so until it is [renewed](Running::renew).
    pub(crate) async fn layers(
        mut this: impl DerefMut<Target = Self> + Send + Sync + 'static,
        host: &Arc<Host>,
    ) -> Result<Stack> {
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        if this.may_freeze().await? {
            let (host, cancel) = (host.clone(), cancel.clone());
            let (kept, stack) = blocking(OP, move || {
                let stack = this.freeze(&host, &cancel)?;
                Ok((this, stack))
            })
            .await?;
            if let Some(stack) = stack {
                return Ok(stack);
            }
            this = kept;
        }
        this.copied(host, &cancel).await
    }

    /// Whether the upper layer may be frozen: no process would go on writing into it.
    async fn may_freeze(&self) -> Result<bool> {
        match &self.writes {
            Writes::Layer { .. } if self.frozen => Ok(true),
            Writes::Layer { .. } => self.engine.is_idle().await.map_err(|why| self.gone(why)),
            Writes::Tmpfs(_) => Ok(false),
        }
    }

    /// The layers of an idle run, with the upper one on top, which is never written again.
    /// One that is empty needs no freezing: this run goes on. `None` if something is kept in memory
    /// that a restart would lose.
    fn freeze(&mut self, host: &Host, cancel: &Cancel) -> Result<Option<Stack>> {
        let upper = match &self.writes {
            Writes::Layer { upper, .. } if !self.frozen => upper.clone(),
            _ => return Ok(Some(self.stack.clone())),
        };
        let nothing = ListOptions::new().limit(0);
        let is_empty = |dir: &str| match self.root.list_until(
            &GuestPath::from(dir),
            &nothing,
            Cancel::default(),
        ) {
            // A kernel may have no message queues.
            Err(error) => error.kind() == ErrorKind::NotFound,
            Ok(_) => true,
        };
        if !is_empty("/dev/shm") || !is_empty("/dev/mqueue") {
            return Ok(None);
        }
        let untouched = stack::is_untouched(&upper);
        if !untouched.map_err(|error| Error::from_io(error, Operation::Fork))? {
            let stack = shallow(host, self.stack.with(upper), cancel)?;
            if let Some(kept) = &self.kept {
                // Before those that were merged go.
                kept.stacked(stack.layers().to_vec(), None, OP)?;
            }
            self.stack = stack;
            self.frozen = true;
        }
        Ok(Some(self.stack.clone()))
    }

    /// Whether the upper layer lies under a fork: nothing may be done in this run any more.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Starts again on the frozen layers, with a fresh one above them. If that fails nothing is
    /// lost, and it can be tried again. The caller holds this run alone.
    pub(crate) async fn renew(
        &mut self,
        host: &Arc<Host>,
        blueprint: &Arc<Blueprint>,
        kill_switch: &KillSwitch,
        operation: Operation,
    ) -> Result<()> {
        let (host, blueprint) = (host.clone(), blueprint.clone());
        let (stack, cgroup) = (self.stack.clone(), self.cgroup.clone());
        let egress = self.egress.clone();
        let kept = self.kept.clone();
        let start = move || {
            let mut new = Self::start(&host, &blueprint, cgroup, stack, egress, operation)?;
            kept.map_or(Ok(()), |kept| new.keep(kept, operation))?;
            Ok(new)
        };
        let new = blocking(operation, start).await?;
        kill_switch.connect(new.engine.killer());
        let mut old = std::mem::replace(self, new);
        self.spent = std::mem::take(&mut old.spent);
        self.origin = old.origin.clone();
        let spent = self.spent.clone();
        // Who is last to let go of a root pays for every inode that was looked at.
        tokio::task::spawn_blocking(move || {
            if let Some(seen) = processes::processes(old.engine.pid()) {
                let nanos = u64::try_from(seen.cpu.as_nanos()).unwrap_or(u64::MAX);
                spent.fetch_add(nanos, Ordering::Relaxed);
            }
            drop(old);
        });
        Ok(())
    }

    /// A directory of the host that no guest may see.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The stack with a copy of the upper layer on top, taken while every process stands still.
    async fn copied(&self, host: &Arc<Host>, cancel: &Cancel) -> Result<Stack> {
        let from = Arc::new(self.upper()?);
        let state = host.state.clone();
        let (guest_user, limits) = (host.guest_user, Limits::of(&host.config));
        let cancel = cancel.clone();
        let copied = self.while_still(OP, move || {
            let copied = || {
                let to = Layer::create(&state)?;
                copy::layer(&from, to.path(), guest_user, limits, &cancel)?;
                Ok(to)
            };
            copied()
                .map_err(|stop: Stop| stop.into_error(OP, "the sandbox's files can't be copied"))
        });
        Ok(self.stack.with(copied.await?))
    }

    /// The layer that is written.
    fn upper(&self) -> Result<copy::From> {
        match &self.writes {
            Writes::Tmpfs(directory) => directory
                .try_clone()
                .map(copy::From::Opened)
                .map_err(|error| Error::from_io(error, OP)),
            Writes::Layer { upper, .. } => Ok(copy::From::Path(upper.path().to_owned())),
        }
    }

    /// Does `work`, which blocks, while every process stands still. It is done again, by the
    /// freezer of the sandbox's group, where processes that were stopped did not stay so.
    async fn while_still<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl Fn() -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let gone = |why| lost::error(why, &self.cgroup, operation);
        let stopped = self.engine.freeze().await.map_err(gone)?;
        if stopped.is_still() {
            let done = self.unless_gone(operation, work.clone()).await?;
            let stood_still = stopped.thaw().await.map_err(gone)?;
            match done {
                Ok(done) if stood_still => return Ok(done),
                Err(error) if stood_still || error.kind() == ErrorKind::LimitExceeded => {
                    return Err(error);
                }
                // In a tree that changes, it may fail at anything.
                _ => {}
            }
        } else {
            drop(stopped);
        }
        let _held = self.engine.hold().await;
        let (cgroup, init) = (self.cgroup.clone(), self.engine.pid());
        let frozen = match blocking(operation, move || Ok(cgroup.freeze(init))).await? {
            Ok(Some(frozen)) => frozen,
            Ok(None) => return Err(restless(operation)),
            Err(error) => return Err(restless(operation).with_source(error)),
        };
        let done = self.unless_gone(operation, work).await?;
        if !frozen.lasts() {
            return Err(restless(operation));
        }
        done
    }

    /// Does `work` on a thread for it, and does not wait for that when the sandbox has ended: closed
    /// or killed, there is nothing that it would be done for.
    async fn unless_gone<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<Result<T>> {
        tokio::select! {
            done = blocking(operation, work) => Ok(done),
            () = self.engine.gone() => {
                let why = self.engine.lost().unwrap_or(Lost::Ended);
                Err(lost::error(why, &self.cgroup, operation))
            }
        }
    }

    /// Finds the places of what was written since the beginning.
    pub(crate) fn written(&self) -> Result<Written> {
        let mut layers = self.stack.since(&self.origin).to_vec();
        match &self.writes {
            Writes::Tmpfs(directory) => {
                let directory = directory.try_clone();
                let failed = |error| Error::from_io(error, Operation::Usage);
                return directory.map(Written::Tmpfs).map_err(failed);
            }
            Writes::Layer { .. } if self.frozen => {}
            Writes::Layer { upper, .. } => layers.push(upper.clone()),
        }
        Ok(Written::Layers(layers))
    }

    /// Compares a directory with the files that the sandbox began with. The caller holds this run
    /// alone; its processes stand still meanwhile, or are `paused` already.
    pub(crate) async fn changes(
        &self,
        host: &Arc<Host>,
        blueprint: &Blueprint,
        directory: &GuestPath,
        collector: ChangeCollector,
        paused: bool,
    ) -> Result<Changes> {
        const OP: Operation = Operation::Changes;
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let mut changed = Vec::new();
        // A layer that was frozen is the topmost of the stack by now.
        if !self.frozen {
            changed.push(self.upper()?);
        }
        let path = |layer: &Arc<Layer>| copy::From::Path(layer.path().to_owned());
        changed.extend(self.stack.since(&self.origin).iter().map(path));
        let base = self.origin.layers().iter().chain(&blueprint.base);
        let base = base
            .map(|layer| layer.on_host(host.guest_user).to_owned())
            .collect();
        // So that no layer goes meanwhile, even if this future does.
        let held = Arc::new((self.stack.clone(), self.origin.clone()));
        let stacks = Arc::new(Stacks { changed, base });
        let (host, directory) = (host.clone(), directory.clone());
        let compare = move || {
            let _held = held.clone();
            let _alone = host.merging.lock().unwrap_or_else(PoisonError::into_inner);
            let limits = Limits::of(&host.config);
            let (user, mut collector) = (host.guest_user, collector.clone());
            difference(&stacks, &directory, &mut collector, user, limits, &cancel)?;
            Ok(collector.finish())
        };
        if paused {
            return self.unless_gone(OP, compare).await?;
        }
        self.while_still(OP, compare).await
    }

    fn gone(&self, why: Lost) -> Error {
        lost::error(why, &self.cgroup, OP)
    }

    /// Kills everything and waits until it is dead, within bounds.
    pub(crate) async fn shut_down(self) {
        let Self {
            engine,
            root,
            service,
            ..
        } = self;
        let killer = engine.killer();
        killer.kill();
        // A socket of it would keep the sandbox's network.
        drop(service);
        // Now, so that it is the dying init that is last to let go of the files.
        drop(root);
        if !killer.shut_down().await {
            tracing::warn!("a sandbox's init did not end within five seconds of being killed");
        }
    }
}

/// A sandbox to be, on the layers of its parent.
#[derive(Clone)]
struct Child {
    cancel: Cancel,
    host: Arc<Host>,
    blueprint: Arc<Blueprint>,
    egress: Option<Arc<Egress>>,
}

impl Child {
    /// Starts it. Blocks.
    fn on(&self, stack: Stack) -> Result<Running> {
        let cgroup = limits(&self.host, &self.blueprint, OP)?;
        let stack = shallow(&self.host, stack, &self.cancel)?;
        let egress = self.egress.clone();
        Running::start(&self.host, &self.blueprint, cgroup, stack, egress, OP)
    }
}

/// A copy would not be of one moment.
fn restless(operation: Operation) -> Error {
    Error::new(ErrorKind::Busy, operation)
        .with_message("the sandbox's processes could not be held still")
        .with_hint("try again, or end the processes that send each other SIGCONT")
        .with_retryable(true)
}

/// The stack, with some of its layers merged into one if it is too deep.
fn shallow(host: &Host, stack: Stack, cancel: &Cancel) -> Result<Stack> {
    if !stack.is_too_deep() {
        return Ok(stack);
    }
    let merged = || {
        let to = Layer::create(&host.state)?;
        let _alone = host.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let range = stack.worth_merging();
        let layers = stack.layers().get(range.clone()).unwrap_or_default();
        compact::merge(
            layers,
            &to,
            host.guest_user,
            Limits::of(&host.config),
            cancel,
        )?;
        Ok(stack.replaced(range, to))
    };
    merged().map_err(|stop: Stop| {
        stop.into_error(Operation::Fork, "the sandbox's layers could not be merged")
    })
}
