//! The state of a model sandbox, and its end.
//!
//! Invariant: every operation passes `check` first, so that none works after the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::{
    Env, EnvValue, Error, ErrorKind, Execution, ExitStatus, GuestPath, Labels, Operation, Result,
    SandboxId, SandboxInfo, SandboxStatus, Usage,
};
use tokio::time::Instant;

use super::process::{Group, Proc, lock};
use super::provider::Shared;
use super::sandbox::ModelSandbox;
use super::tree::Tree;

pub(crate) const BACKEND: &str = "model";

/// The life of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Open,
    Closed,
    Expired,
    Lost,
}

/// The mutable state of a sandbox.
pub(crate) struct State {
    pub(crate) tree: Tree,
    /// The tree that it began with.
    pub(crate) origin: Tree,
    pub(crate) workdir: GuestPath,
    pub(crate) env: BTreeMap<Vec<u8>, EnvValue>,
    pub(crate) life: Life,
    pub(crate) used: Instant,
    running: Vec<(Arc<Group>, Arc<Proc>)>,
}

impl State {
    pub(crate) fn new(
        tree: Tree,
        workdir: GuestPath,
        env: BTreeMap<Vec<u8>, EnvValue>,
    ) -> Mutex<Self> {
        Mutex::new(Self {
            origin: tree.clone(),
            tree,
            workdir,
            env,
            life: Life::Open,
            used: Instant::now(),
            running: Vec::new(),
        })
    }
}

/// A lasting sandbox that nothing has open.
pub(crate) struct Stopped {
    pub(crate) info: SandboxInfo,
    pub(crate) ttl: Option<Duration>,
    pub(crate) tree: Tree,
    pub(crate) origin: Tree,
    /// Without secrets.
    pub(crate) env: BTreeMap<Vec<u8>, EnvValue>,
}

/// A sandbox, as its handles and its processes share it.
pub(crate) struct Core {
    pub(crate) id: SandboxId,
    pub(crate) parent: Option<SandboxId>,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) lasting: bool,
    pub(crate) restarted: Option<SystemTime>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Mutex<State>,
    pub(crate) procs: Mutex<BTreeMap<u32, Weak<Proc>>>,
    pub(crate) next_pid: AtomicU32,
    /// The sandbox that users have handles of; set when it is registered.
    pub(crate) handle: Weak<ModelSandbox>,
}

impl Core {
    pub(crate) fn info(&self) -> SandboxInfo {
        let workdir = lock(&self.state).workdir.clone();
        let mut info =
            SandboxInfo::new(self.id.clone(), BACKEND, workdir).labels(self.labels.clone());
        info.parent = self.parent.clone();
        info.created = self.created;
        info.command_timeout = self.command_timeout;
        info.lasting = self.lasting;
        info.restarted = self.restarted;
        info
    }

    /// State that stays of a lasting sandbox that is open; its processes do not.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        if !self.lasting {
            return None;
        }
        let mut info = self.info();
        info.status = SandboxStatus::Stopped;
        let state = lock(&self.state);
        let plain = state.env.iter().filter(|(_, value)| !value.is_secret);
        (state.life == Life::Open).then(|| Stopped {
            info,
            ttl: self.ttl,
            tree: state.tree.clone(),
            origin: state.origin.clone(),
            env: plain
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }

    /// Refuses an operation on a sandbox that has ended; otherwise counts as use.
    pub(crate) fn check(&self, operation: Operation) -> Result<()> {
        self.check_open(operation)?;
        lock(&self.state).used = Instant::now();
        Ok(())
    }

    /// Processes that run, and bytes of files beyond those that it began with.
    pub(crate) fn usage(&self) -> Usage {
        let state = lock(&self.state);
        let running = state.running.iter().filter(|(group, _)| group.is_alive());
        let processes = running.count() as u64;
        let mut usage = Usage::new().processes(processes);
        usage.disk = Some(state.tree.bytes().saturating_sub(state.origin.bytes()));
        usage
    }

    /// Refuses an operation on a sandbox that has ended.
    pub(crate) fn check_open(&self, operation: Operation) -> Result<()> {
        let error = match lock(&self.state).life {
            Life::Open => return Ok(()),
            Life::Closed => Error::closed(operation, &self.id),
            Life::Expired => Error::expired(operation, &self.id),
            Life::Lost => Error::new(ErrorKind::Lost, operation)
                .with_message("the sandbox is gone")
                .with_sandbox(self.id.clone()),
        };
        Err(match operation {
            Operation::Exec | Operation::Spawn | Operation::StartJob => {
                error.with_execution(Execution::NotStarted)
            }
            _ => error,
        })
    }

    /// An error that names this sandbox and a path.
    pub(crate) fn error(&self, kind: ErrorKind, operation: Operation, path: &GuestPath) -> Error {
        let message = match kind {
            ErrorKind::NotFound => "no such file or directory",
            ErrorKind::AlreadyExists => "already exists",
            ErrorKind::NotADirectory => "not a directory",
            ErrorKind::IsADirectory => "is a directory",
            ErrorKind::NotARegularFile => "not a regular file",
            ErrorKind::DirectoryNotEmpty => "the directory is not empty",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::InvalidInput => "not possible with this path",
            _ => "failed",
        };
        Error::new(kind, operation)
            .with_message(message)
            .with_path(path)
            .with_sandbox(self.id.clone())
    }

    /// The absolute path that one names.
    pub(crate) fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        let workdir = lock(&self.state).workdir.clone();
        path.resolve(&workdir, operation)
            .map_err(|error| error.with_sandbox(self.id.clone()))
    }

    pub(crate) fn new_proc(&self, streams: Vec<super::shell::pipe::Writer>) -> Arc<Proc> {
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
        let proc = Proc::new(pid, streams);
        let mut procs = lock(&self.procs);
        procs.retain(|_, proc| proc.strong_count() > 0);
        procs.insert(pid, Arc::downgrade(&proc));
        proc
    }

    pub(crate) fn find_proc(&self, pid: u32) -> Option<Arc<Proc>> {
        let proc = lock(&self.procs).get(&pid)?.upgrade()?;
        (!proc.has_ended()).then_some(proc)
    }

    /// Records a command until every process of it has ended; whether the sandbox is open.
    pub(crate) fn started(&self, group: &Arc<Group>, main: &Arc<Proc>) -> bool {
        let mut state = lock(&self.state);
        state.running.retain(|(group, _)| group.is_alive());
        state.running.push((group.clone(), main.clone()));
        state.life == Life::Open
    }

    /// Whether the main process of a command runs.
    pub(crate) fn is_busy(&self) -> bool {
        let state = lock(&self.state);
        state.running.iter().any(|(_, main)| !main.has_ended())
    }

    /// Ends the sandbox and kills what runs; only the first call sets how it ended. Returns the
    /// process groups that were killed.
    pub(crate) fn end(&self, life: Life) -> Vec<Arc<Group>> {
        self.shared.sandboxes.remove(&self.id);
        let running = {
            let mut state = lock(&self.state);
            if state.life == Life::Open {
                state.life = life;
                state.tree = Tree::new();
                state.origin = Tree::new();
            }
            std::mem::take(&mut state.running)
        };
        let kind = match life {
            Life::Lost => ErrorKind::Lost,
            Life::Expired => ErrorKind::Expired,
            Life::Open | Life::Closed => ErrorKind::Closed,
        };
        for (group, main) in &running {
            if !main.has_ended() {
                group.fail(kind);
            }
            group.kill();
            main.ended(ExitStatus::Signal(9));
        }
        running.into_iter().map(|(group, _)| group).collect()
    }

    /// The environment that a command with these changes gets.
    pub(crate) fn environment(&self, changes: &Env) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut env = lock(&self.state).env.clone();
        changes.apply_to(&mut env);
        env.into_iter()
            .map(|(name, value)| (name, value.value.expose().to_vec()))
            .collect()
    }

    /// Applies a change to the tree: all of it or, on an error, nothing.
    pub(crate) fn change<T, E>(
        &self,
        change: impl FnOnce(&mut Tree) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut state = lock(&self.state);
        let before = state.tree.clone();
        let done = change(&mut state.tree);
        if done.is_err() {
            state.tree = before;
        }
        done
    }

    /// The tree as it is now.
    pub(crate) fn tree(&self) -> Tree {
        lock(&self.state).tree.clone()
    }
}
