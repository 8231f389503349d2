//! Whole sandboxes that are started ahead of time.
//!
//! One thread starts them, in the shape that was asked for last. It must never hand out one that
//! differs from what is asked for in anything that is in the sandbox, nor make a creation wait:
//! one that finds none starts one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sandbox_core::{Env, Labels, Operation, Result, SandboxId, SandboxSpec, Source};

use crate::start::blueprint::Blueprint;
use crate::start::host::{Host, new_id};
use crate::start::prepared::Prepared;
use crate::walk::Cancel;

/// Pause after a creation before the next sandbox is started: the first command would have to share
/// the processors.
const PAUSE: Duration = Duration::from_millis(3);

/// The sandboxes that wait in one provider. When it is dropped they end, without waiting for them.
pub(crate) struct Pool {
    inner: Arc<Shared>,
}

struct Shared {
    count: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// A sandbox that is not handed out yet.
pub(crate) struct Pooled {
    pub(crate) id: SandboxId,
    pub(crate) blueprint: Blueprint,
    pub(crate) run: Prepared,
}

#[derive(Default)]
struct State {
    shape: SandboxSpec,
    /// Of that shape.
    waiting: Vec<Pooled>,
    /// To be ended, where nothing waits for it.
    unwanted: Vec<Pooled>,
    /// Another shape, if it was the last that was asked for.
    missed: Option<SandboxSpec>,
    /// The time of the last request.
    asked: Option<Instant>,
    /// The last attempt failed; the next is made with the next request.
    failed: bool,
    closed: bool,
}

/// Part of a spec that is in the sandbox: the rest is kept by its handle. `None` for one with
/// directories of the caller's, which may be others by the time that it is asked for.
fn shape(spec: &SandboxSpec) -> Option<SandboxSpec> {
    if spec.source != Source::Default || !spec.mounts.is_empty() {
        return None;
    }
    let mut shape = spec.clone();
    shape.env = Env::new();
    shape.labels = Labels::new();
    shape.ttl = None;
    shape.command_timeout = None;
    Some(shape)
}

impl State {
    /// One that fits, if there is any.
    fn take(&mut self, spec: &SandboxSpec) -> Option<Pooled> {
        let shape = shape(spec)?;
        self.failed = false;
        self.asked = Some(Instant::now());
        if shape == self.shape {
            self.missed = None;
            while let Some(pooled) = self.waiting.pop() {
                if pooled.run.init.waits() {
                    return Some(pooled);
                }
                self.unwanted.push(pooled);
            }
        } else if self.missed.as_ref() == Some(&shape) {
            // Twice in a row: who changes between two shapes does not have each thrown away.
            self.shape = shape;
            self.missed = None;
            self.unwanted.append(&mut self.waiting);
        } else {
            self.missed = Some(shape);
        }
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Will keep so many.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            inner: Arc::new(Shared {
                count,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Starts the thread.
    pub(crate) fn fill(&self, host: &Arc<Host>) -> std::io::Result<()> {
        if self.inner.count == 0 {
            return Ok(());
        }
        let (inner, host) = (self.inner.clone(), Arc::downgrade(host));
        let work = move || work(&inner, &host);
        let thread = thread::Builder::new().name("sandbox-pool".into());
        thread.spawn(work).map(drop)
    }

    /// One that is as the spec wants it, if there is any. What was taken is replaced.
    pub(crate) fn take(&self, spec: &SandboxSpec) -> Option<Pooled> {
        if self.inner.count == 0 {
            return None;
        }
        let taken = self.inner.lock().take(spec);
        self.inner.changed.notify_one();
        taken
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.inner.lock().waiting.len();
        f.debug_struct("Pool").field("waiting", &waiting).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.lock().closed = true;
        self.inner.changed.notify_one();
    }
}

fn work(inner: &Shared, host: &Weak<Host>) {
    loop {
        let mut state = inner.lock();
        if state.closed {
            state.unwanted.clear();
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            return drop(waiting);
        }
        let unwanted = std::mem::take(&mut state.unwanted);
        if !unwanted.is_empty() {
            drop(state);
            drop(unwanted);
            continue;
        }
        let lacking = state.waiting.len() < inner.count && !state.failed;
        let over = |asked: Instant| PAUSE.saturating_sub(asked.elapsed());
        let pause = state.asked.map_or(Duration::ZERO, over);
        if !lacking {
            drop(inner.changed.wait(state));
        } else if !pause.is_zero() {
            drop(inner.changed.wait_timeout(state, pause));
        } else {
            let shape = state.shape.clone();
            drop(state);
            let Some(host) = host.upgrade() else {
                return;
            };
            keep(inner, start(&host, &shape), &shape);
        }
    }
}

fn start(host: &Host, shape: &SandboxSpec) -> Result<Pooled> {
    let id = new_id(Operation::Create)?;
    let blueprint = Blueprint::new(host, shape.clone(), &Cancel::default())?;
    let run = Prepared::first(host, &blueprint)?;
    Ok(Pooled { id, blueprint, run })
}

fn keep(inner: &Shared, made: Result<Pooled>, shape: &SandboxSpec) {
    let mut state = inner.lock();
    match made {
        Ok(pooled) if state.shape == *shape => state.waiting.push(pooled),
        Ok(pooled) => state.unwanted.push(pooled),
        Err(error) => {
            tracing::warn!(%error, "no sandbox could be prepared");
            state.failed = true;
        }
    }
}
