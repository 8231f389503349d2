//! State of one server, and what tidies it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sandbox_core::{Capabilities, ErrorKind, Operation, Provider, Result, Sandbox};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::access::Access;
use super::calls::Calls;
use super::config::ServerConfig;
use super::jobs::Jobs;
use super::processes::Processes;
use super::reply::refused;
use super::sandboxes::Sandboxes;

/// Interval of the search for what has no client any more.
const TURN: Duration = Duration::from_millis(500);

pub(super) struct State {
    pub(super) provider: Arc<dyn Provider>,
    /// Capabilities that clients may count on.
    pub(super) capabilities: Capabilities,
    pub(super) access: Arc<dyn Access>,
    pub(super) config: ServerConfig,
    /// Names this start of the server.
    pub(super) instance: String,
    /// The sandbox that the server was started for.
    pub(super) own: Option<String>,
    pub(super) calls: Calls,
    pub(super) processes: Processes,
    pub(super) jobs: Jobs,
    pub(super) sandboxes: Sandboxes,
    pub(super) buffered: Arc<Semaphore>,
    /// Each directory of a transfer that is under way has a receiver of it.
    pub(super) staged: watch::Sender<()>,
    /// Work that no request waits for: a backend may take its time to close a sandbox.
    behind: Mutex<JoinSet<()>>,
    places: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    sandbox_places: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(
        provider: Arc<dyn Provider>,
        own: Option<Arc<dyn Sandbox>>,
        access: Arc<dyn Access>,
        config: ServerConfig,
    ) -> Self {
        let sandboxes = Sandboxes::default();
        let id = own.as_ref().map(|own| own.info().id.as_str().to_owned());
        if let Some(own) = own {
            sandboxes.insert(own, None);
        }
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(MOST)));
        Self {
            capabilities: config.serves(provider.capabilities()),
            provider,
            access,
            instance: uuid::Uuid::new_v4().simple().to_string(),
            own: id,
            calls: Calls::default(),
            processes: Processes::default(),
            jobs: Jobs::default(),
            sandboxes,
            // In KiB, and room for what each request has beyond whole ones.
            buffered: semaphore(config.max_buffered.max(config.max_body) / 1024 + 1),
            staged: watch::Sender::new(()),
            behind: Mutex::default(),
            places: semaphore(config.max_calls),
            commands: semaphore(config.max_commands),
            sandbox_places: semaphore(config.max_sandboxes),
            config,
        }
    }

    /// A place among the calls.
    pub(super) fn place(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        self.take(&self.places, operation, "runs as many calls")
    }

    /// A place among the commands.
    pub(super) fn command_place(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        self.take(&self.commands, operation, "runs as many commands")
    }

    /// A place among the sandboxes.
    pub(super) fn sandbox_place(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        self.take(&self.sandbox_places, operation, "holds as many sandboxes")
    }

    fn take(
        &self,
        places: &Arc<Semaphore>,
        operation: Operation,
        what: &str,
    ) -> Result<OwnedSemaphorePermit> {
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            let why = format!("the server {what} as it may");
            refused(ErrorKind::RateLimited, operation, why)
        })
    }

    /// Closes a sandbox that no client asked to close, unless it lasts.
    pub(super) async fn put_away(&self, sandbox: &dyn Sandbox) {
        if !sandbox.info().lasting {
            self.close(sandbox).await;
        }
    }

    /// Closes a sandbox that no client asked to close.
    pub(super) async fn close(&self, sandbox: &dyn Sandbox) {
        let id = sandbox.info().id;
        if let Err(error) = sandbox.close().await {
            tracing::warn!(%error, "a sandbox was closed with a rest");
        }
        self.sandboxes.closed(id.as_str());
    }

    fn behind(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that nothing waits for but the server's own end. Outside of a runtime, which is
    /// where one ends, it is not done.
    pub(super) fn do_behind(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut behind = self.behind();
            while behind.try_join_next().is_some() {}
            behind.spawn_on(work, &runtime);
        }
    }

    /// Gives up what runs, closes every sandbox, and waits until that is done.
    pub(super) async fn end(self: &Arc<Self>) {
        self.calls.end().await;
        for open in self.sandboxes.drain() {
            let state = Arc::clone(self);
            self.do_behind(async move { state.put_away(&*open.sandbox).await });
        }
        loop {
            let mut behind = std::mem::take(&mut *self.behind());
            if behind.is_empty() {
                return;
            }
            while behind.join_next().await.is_some() {}
        }
    }

    /// Ends what has no client any more, as long as the server lives.
    pub(super) async fn tidy(state: Weak<Self>) {
        loop {
            tokio::time::sleep(TURN).await;
            let Some(state) = state.upgrade() else {
                return;
            };
            state.calls.tidy(state.config.grace);
            state.processes.tidy(state.config.grace);
            state
                .jobs
                .tidy(state.config.grace, |id| state.sandboxes.is_open(id));
            let Some(idle) = state.config.idle else {
                continue;
            };
            for open in state.sandboxes.take_unused(idle) {
                tracing::debug!("a sandbox is closed or stopped: nothing used it");
                let closing = Arc::clone(&state);
                state.do_behind(async move { closing.put_away(&*open.sandbox).await });
            }
        }
    }
}

/// More permits than a semaphore can have.
const MOST: usize = Semaphore::MAX_PERMITS;
