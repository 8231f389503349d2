//! Facts of an open sandbox, known without holding it, and the list of those that are open.
//!
//! A sandbox ends, or is stopped, with its last handle. What only looks at one holds its facts, and never
//! a handle for a moment: a caller that drops its own meanwhile would find the sandbox running still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use sandbox_core::backend::{Registry, Settings};
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result, SandboxId, SandboxInfo};

use super::LocalSandbox;
use super::ended::Ended;

/// Facts of one open sandbox, and its use.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(super) id: SandboxId,
    pub(super) parent: Option<SandboxId>,
    pub(super) labels: Labels,
    pub(super) created: SystemTime,
    pub(super) restarted: Option<SystemTime>,
    pub(super) command_timeout: Option<Duration>,
    pub(super) lasting: bool,
    pub(crate) settings: RwLock<Settings>,
    pub(super) handle: Weak<LocalSandbox>,
    pub(super) ended: Arc<Ended>,
    pub(super) usage: Use,
}

impl Facts {
    pub(super) fn info(&self) -> SandboxInfo {
        let workdir = self.settings().workdir;
        let mut info = SandboxInfo::new(self.id.clone(), "local", workdir)
            .labels(self.labels.clone())
            .command_timeout(self.command_timeout)
            .lasting(self.lasting);
        info.parent = self.parent.clone();
        info.created = self.created;
        info.restarted = self.restarted;
        info
    }

    pub(super) fn settings(&self) -> Settings {
        // Settings are replaced whole: a panic elsewhere leaves them valid.
        let settings = self.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// When a sandbox was used last, and whether it is in use.
#[derive(Debug)]
pub(super) struct Use {
    /// Also held by every running command: while one runs the sandbox is in use.
    pub(super) now: Arc<()>,
    /// Milliseconds from `born` to the last use.
    last: AtomicU64,
    born: Instant,
}

impl Use {
    pub(super) fn new() -> Self {
        Self {
            now: Arc::new(()),
            last: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    pub(super) fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Part of this time that is left since the last use.
    pub(super) fn left_of(&self, ttl: Duration) -> Duration {
        if Arc::strong_count(&self.now) > 1 {
            self.touch();
        }
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        last.saturating_add(ttl).saturating_sub(self.born.elapsed())
    }
}

/// The open sandboxes of a provider.
#[derive(Debug, Default)]
pub(crate) struct OpenSandboxes(Registry<Facts>);

impl OpenSandboxes {
    pub(super) fn insert(&self, facts: &Arc<Facts>) {
        self.0.insert(facts.id.clone(), facts);
    }

    pub(super) fn remove(&self, id: &SandboxId) {
        self.0.remove(id);
    }

    /// Facts of the open sandbox with this identifier.
    pub(crate) fn facts(&self, id: &SandboxId) -> Option<Arc<Facts>> {
        self.0.get(id)
    }

    /// A handle of it.
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<LocalSandbox>> {
        self.facts(id)?.handle.upgrade()
    }

    /// The same, for `attach` and `destroy`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn find(&self, id: &SandboxId, operation: Operation) -> Result<Arc<LocalSandbox>> {
        let handle = self.0.find(id, operation)?.handle.upgrade();
        // A look at it, such as a list, holds its facts a moment longer than it is there.
        handle.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation)
                .with_message("its last handle was dropped a moment ago")
                .with_sandbox(id.clone())
        })
    }

    /// Whether there is a handle of it.
    pub(crate) fn has(&self, id: &SandboxId) -> bool {
        let is_held = |facts: Arc<Facts>| facts.handle.strong_count() > 0;
        self.facts(id).is_some_and(is_held)
    }

    /// The open sandboxes that have all of these labels.
    pub(crate) fn list(&self, labels: &Labels) -> Vec<SandboxInfo> {
        let open = self.0.all().into_iter();
        open.filter(|facts| facts.handle.strong_count() > 0)
            .map(|facts| facts.info())
            .filter(|info| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v)))
            .collect()
    }
}
