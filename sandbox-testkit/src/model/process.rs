//! Processes of the model: tasks that are born into a group and die with it.
//!
//! Invariant: every task of a command is in the command's group, so that a kill misses none.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use sandbox_core::{
    Error, ErrorKind, Execution, Exit, ExitStatus, Operation, ProcessControl, Result, SandboxId,
    Signal,
};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::shell::pipe::Writer;

/// Everything that one command started.
#[derive(Default)]
pub(crate) struct Group {
    killed: AtomicBool,
    live: AtomicUsize,
    changed: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
    failure: Mutex<Option<ErrorKind>>,
}

struct Alive(Arc<Group>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Group {
    /// Runs a task in the group.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.live.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(self.clone());
        let handle = tokio::spawn(async move {
            let _alive = alive;
            task.await;
        })
        .abort_handle();
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.clone());
        // A task that a dying one started in its last moment dies too.
        if self.killed.load(Ordering::SeqCst) {
            handle.abort();
        }
        handle
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.live.load(Ordering::SeqCst) > 0
    }

    /// Kills without waiting.
    pub(crate) fn kill(&self) {
        let tasks = lock(&self.tasks);
        self.killed.store(true, Ordering::SeqCst);
        for task in tasks.iter() {
            task.abort();
        }
    }

    /// Waits until all tasks are gone.
    pub(crate) async fn gone(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_alive() {
                return;
            }
            changed.await;
        }
    }

    /// Says why the command is not going to end by itself.
    pub(crate) fn fail(&self, kind: ErrorKind) {
        lock(&self.failure).get_or_insert(kind);
    }
}

/// One process.
pub(crate) struct Proc {
    pub(crate) pid: u32,
    pub(crate) end: watch::Sender<Option<ExitStatus>>,
    task: OnceLock<AbortHandle>,
    /// Scripts that signals run; an empty one ignores the signal.
    pub(crate) traps: Mutex<BTreeMap<i32, Vec<u8>>>,
    pub(crate) pending: Mutex<VecDeque<i32>>,
    /// Streams that end with the process, even while other processes hold them.
    streams: Vec<Writer>,
}

impl Proc {
    pub(crate) fn new(pid: u32, streams: Vec<Writer>) -> Arc<Self> {
        Arc::new(Self {
            pid,
            end: watch::Sender::new(None),
            task: OnceLock::new(),
            traps: Mutex::default(),
            pending: Mutex::default(),
            streams,
        })
    }

    pub(crate) fn runs_as(&self, task: AbortHandle) {
        // Set once, right after the process was made.
        let _ = self.task.set(task);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// The process has ended; only the first end counts.
    pub(crate) fn ended(&self, status: ExitStatus) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(status);
            first
        });
        for stream in &self.streams {
            stream.finish();
        }
    }

    /// A signal from elsewhere.
    pub(crate) fn signal(&self, signal: i32) {
        const HARMLESS: [i32; 4] = [0, 17, 18, 28];
        if HARMLESS.contains(&signal) || self.has_ended() {
            return;
        }
        if signal != 9 && lock(&self.traps).contains_key(&signal) {
            lock(&self.pending).push_back(signal);
            return;
        }
        if let Some(task) = self.task.get() {
            task.abort();
        }
        self.ended(ExitStatus::Signal(signal));
    }

    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|status| *status)
            .unwrap_or(ExitStatus::Signal(9))
    }
}

/// The control of a command that the model runs.
pub(crate) struct ModelControl {
    pub(crate) sandbox: SandboxId,
    pub(crate) group: Arc<Group>,
    pub(crate) main: Arc<Proc>,
}

impl std::fmt::Debug for ModelControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelControl")
            .field("sandbox", &self.sandbox)
            .field("pid", &self.main.pid)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessControl for ModelControl {
    async fn wait(&self) -> Result<Exit> {
        let status = self.main.wait().await;
        match *lock(&self.group.failure) {
            Some(kind) => Err(Error::new(kind, Operation::Exec)
                .with_message("the command was cut")
                .with_execution(Execution::Interrupted)
                .with_sandbox(self.sandbox.clone())),
            None => Ok(Exit::new(status)),
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        if !(1..=64).contains(&signal.0) {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Signal)
                .with_message(format!("there is no signal number {}", signal.0))
                .with_sandbox(self.sandbox.clone()));
        }
        self.main.signal(signal.0);
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        self.group.kill();
        self.main.ended(ExitStatus::Signal(9));
        self.group.gone().await;
        Ok(())
    }
}

impl Drop for ModelControl {
    fn drop(&mut self) {
        if !self.main.has_ended() {
            self.group.kill();
            self.main.ended(ExitStatus::Signal(9));
        }
    }
}

/// A lock whose holder can't have left a half-made change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
