//! Control groups made ahead of the sandboxes that they limit, and removed behind them.
//!
//! Making and removing one changes directories of the kernel's under a lock that all groups of the
//! machine share, and an entry of the journal on disk. A thread does both; it is started with the
//! first limit that is asked for. No start may wait for it, and no group is ever used twice: what a
//! sandbox was charged with stays on its group.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::place::{self, Dir, Fresh};
use crate::layers::Journal;
use crate::random;

/// Number of spares for each list of controllers that was asked for: a fork and another start.
const KEPT: usize = 2;

/// Pause after a start before spares are made: the start itself, and the first command, would have
/// to share the processors.
const PAUSE: Duration = Duration::from_millis(3);

/// Time that the kernel gets to empty a group whose processes are dead.
const DYING: Duration = Duration::from_secs(5);

/// Pause before a group is tried again that is not empty yet.
const AGAIN: Duration = Duration::from_millis(5);

/// Controllers that some limits need.
pub(super) type Controllers = Vec<&'static str>;

/// The groups of one provider. Dropping it removes its spares, in the background.
#[derive(Debug)]
pub(crate) struct Groups {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    configured: Option<PathBuf>,
    journal: Arc<Journal>,
    /// Beginning of the names of all groups.
    prefix: String,
    next: AtomicU64,
    spares: Mutex<HashMap<Controllers, Vec<Fresh>>>,
    worker: OnceLock<Option<Sender<Job>>>,
}

enum Job {
    Remove(Vec<Dir>),
    Prepare(Weak<Shared>, Controllers),
}

/// Takes groups back once their processes are dead, or dying.
#[derive(Debug)]
pub(super) struct Remover(Option<Sender<Job>>);

impl Remover {
    pub(super) fn remove(&self, dirs: Vec<Dir>) {
        let dirs = match &self.0 {
            None => dirs,
            // Fails only if the thread has ended.
            Some(worker) => match worker.send(Job::Remove(dirs)) {
                Err(error) => match error.0 {
                    Job::Remove(dirs) => dirs,
                    Job::Prepare(..) => return,
                },
                Ok(()) => return,
            },
        };
        for dir in dirs {
            if let Some(busy) = dir.remove() {
                busy.leave();
            }
        }
    }
}

impl Groups {
    /// With a configured parent for all of them, if there is one.
    pub(crate) fn new(configured: Option<PathBuf>, journal: Arc<Journal>) -> io::Result<Self> {
        let random = random::hex()?;
        let process = std::process::id();
        Ok(Self {
            shared: Arc::new(Shared {
                configured,
                journal,
                prefix: format!("sandbox-{process}-{}", random.get(..8).unwrap_or(&random)),
                next: AtomicU64::new(0),
                spares: Mutex::default(),
                worker: OnceLock::new(),
            }),
        })
    }

    /// Groups that were made before, if there are any. What was taken is replaced.
    pub(super) fn spare(&self, controllers: &Controllers) -> Option<Fresh> {
        let spare = self.shared.spares().get_mut(controllers).and_then(Vec::pop);
        if let Some(worker) = self.shared.worker() {
            let shared = Arc::downgrade(&self.shared);
            let _ = worker.send(Job::Prepare(shared, controllers.clone()));
        }
        spare
    }

    /// Makes groups now.
    pub(super) fn make(&self, controllers: &Controllers) -> Fresh {
        self.shared.make(controllers)
    }

    pub(super) fn remover(&self) -> Remover {
        Remover(self.shared.worker())
    }
}

impl Shared {
    fn spares(&self) -> MutexGuard<'_, HashMap<Controllers, Vec<Fresh>>> {
        // Every change is a single call: a panic elsewhere leaves it whole.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread, started with the first call. Without one, groups are made and removed where
    /// they are needed.
    fn worker(&self) -> Option<Sender<Job>> {
        let start = || {
            let (jobs, queue) = channel();
            let thread = thread::Builder::new().name("sandbox-cgroup".into());
            thread.spawn(move || Worker::new(&queue).work()).ok()?;
            Some(jobs)
        };
        self.worker.get_or_init(start).clone()
    }

    fn make(&self, controllers: &Controllers) -> Fresh {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.prefix);
        place::make(
            &name,
            controllers,
            self.configured.as_deref(),
            &self.journal,
        )
    }

    /// Makes as many as are missing, for those who come later.
    fn make_spares(&self, controllers: &Controllers) {
        while self.spares().get(controllers).map_or(0, Vec::len) < KEPT {
            let fresh = self.make(controllers);
            if !fresh.is_complete() {
                // Who needs them then finds out why.
                Remover(self.worker()).remove(fresh.dirs);
                return;
            }
            self.spares()
                .entry(controllers.clone())
                .or_default()
                .push(fresh);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let spares = std::mem::take(&mut *self.spares());
        let Some(worker) = self.worker.get().cloned() else {
            return;
        };
        let dirs = spares.into_values().flatten().flat_map(|fresh| fresh.dirs);
        Remover(worker).remove(dirs.collect());
    }
}

/// Work of the thread, which ends when every sender is dropped and nothing is left to remove.
struct Worker<'a> {
    queue: &'a Receiver<Job>,
    /// Not empty when they were last looked at, and until when they are tried.
    doomed: VecDeque<(Dir, Instant)>,
    put_off: Vec<(Instant, Weak<Shared>, Controllers)>,
}

impl<'a> Worker<'a> {
    fn new(queue: &'a Receiver<Job>) -> Self {
        Self {
            queue,
            doomed: VecDeque::new(),
            put_off: Vec::new(),
        }
    }

    fn work(mut self) {
        loop {
            match self.receive() {
                Ok(Job::Remove(dirs)) => self.remove(dirs),
                Ok(Job::Prepare(shared, controllers)) => self.put_off(shared, controllers),
                Err(RecvTimeoutError::Timeout) => self.turn(),
                Err(RecvTimeoutError::Disconnected) => {
                    while !self.doomed.is_empty() {
                        thread::sleep(AGAIN);
                        self.turn();
                    }
                    return;
                }
            }
        }
    }

    /// The next job, for as long as there is nothing else to do.
    fn receive(&self) -> Result<Job, RecvTimeoutError> {
        let now = Instant::now();
        let again = (!self.doomed.is_empty()).then_some(AGAIN);
        let due = self.put_off.iter().map(|(due, ..)| *due);
        let due = due.min().map(|due| due.saturating_duration_since(now));
        match again.into_iter().chain(due).min() {
            Some(time) => self.queue.recv_timeout(time),
            None => self.queue.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn remove(&mut self, dirs: Vec<Dir>) {
        let deadline = Instant::now() + DYING;
        let busy = dirs.into_iter().filter_map(Dir::remove);
        self.doomed.extend(busy.map(|dir| (dir, deadline)));
    }

    fn put_off(&mut self, shared: Weak<Shared>, controllers: Controllers) {
        if self.put_off.iter().all(|(.., other)| *other != controllers) {
            let due = Instant::now() + PAUSE;
            self.put_off.push((due, shared, controllers));
        }
    }

    /// Looks once at each group that was not empty, and makes the spares whose time has come.
    fn turn(&mut self) {
        let now = Instant::now();
        for (dir, deadline) in std::mem::take(&mut self.doomed) {
            match dir.remove() {
                Some(dir) if now < deadline => self.doomed.push_back((dir, deadline)),
                // The next start of a provider tries again.
                Some(dir) => dir.leave(),
                None => {}
            }
        }
        let is_due = |(due, ..): &mut (Instant, Weak<Shared>, Controllers)| *due <= now;
        for (_, shared, controllers) in self.put_off.extract_if(.., is_due) {
            if let Some(shared) = shared.upgrade() {
                shared.make_spares(&controllers);
            }
        }
    }
}
