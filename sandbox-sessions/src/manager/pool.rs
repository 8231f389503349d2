//! Sandboxes that are created before they are asked for.
//!
//! One must never be handed out twice, to a session of another shape, or after it has stopped to
//! answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::{GuestPath, Sandbox, SandboxExt as _, SandboxSpec};

use super::Inner;
use crate::journal::Record;
use crate::{Pool, Result, SessionId};

/// Limit of the time for a sandbox of the pool to answer.
const HEALTH: Duration = Duration::from_secs(10);
/// Number of sandboxes of one shape that are created at once.
const AT_ONCE: usize = 4;

/// One shape with what is ready of it.
#[derive(Debug)]
pub(super) struct Shape {
    pool: Pool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Member>,
    failures: u32,
    not_before: Option<SystemTime>,
}

/// A sandbox that is ready.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: SessionId,
    pub(super) sandbox: Arc<dyn Sandbox>,
}

impl Shape {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.lock().ready.iter().map(|m| m.id.clone()).collect()
    }
}

async fn is_well(sandbox: &dyn Sandbox) -> bool {
    let root = GuestPath::root();
    let answer = tokio::time::timeout(HEALTH, sandbox.stat(&root)).await;
    matches!(answer, Ok(Ok(_)))
}

impl Inner {
    /// A sandbox for this specification that is ready and well.
    pub(super) async fn take_from_pool(self: &Arc<Self>, spec: &SandboxSpec) -> Option<Member> {
        let shape = self.shapes.iter().find(|shape| shape.pool.spec == *spec)?;
        loop {
            let member = {
                let mut state = shape.lock();
                let member = state.ready.pop_front();
                if let Some(member) = &member {
                    // Still known while it is in no list.
                    self.pending().insert(member.id.clone());
                }
                member
            };
            self.refill.notify_one();
            let member = member?;
            if is_well(&*member.sandbox).await {
                return Some(member);
            }
            tracing::warn!(id = %member.id, "a sandbox of the pool does not answer and is thrown away");
            self.clone().discard(member);
        }
    }

    /// Destroys a sandbox of the pool in the background.
    pub(super) fn discard(self: Arc<Self>, member: Member) {
        let handle = self.handle.clone();
        let busy = self.busy();
        self.pending().insert(member.id.clone());
        handle.spawn(async move {
            let _busy = busy;
            let Member { id, sandbox } = member;
            let name = sandbox.info().id;
            self.destroy_and_record(id, Some(sandbox), Some(name), None)
                .await
        });
    }

    /// Looks at what waits in the pool, and throws away what does not answer.
    pub(super) async fn check_pool(self: &Arc<Self>) {
        for shape in &self.shapes {
            let waiting: Vec<(SessionId, Arc<dyn Sandbox>)> = {
                let state = shape.lock();
                let members = state.ready.iter();
                members.map(|m| (m.id.clone(), m.sandbox.clone())).collect()
            };
            for (id, sandbox) in waiting {
                if is_well(&*sandbox).await {
                    continue;
                }
                let member = {
                    let mut state = shape.lock();
                    let at = state.ready.iter().position(|member| member.id == id);
                    at.and_then(|at| state.ready.remove(at))
                };
                if let Some(member) = member {
                    tracing::warn!(%id, "a sandbox of the pool does not answer and is thrown away");
                    self.clone().discard(member);
                }
            }
        }
        self.refill.notify_one();
    }

    /// Takes everything out of the pool.
    pub(super) fn empty_pool(&self) -> Vec<Member> {
        let all = self.shapes.iter();
        all.flat_map(|shape| std::mem::take(&mut shape.lock().ready))
            .collect()
    }

    async fn warm(self: &Arc<Self>, spec: &SandboxSpec) -> Result<Member> {
        let id = SessionId::generate();
        let session = None;
        let creating = Record::Creating {
            id: id.clone(),
            session,
        };
        self.journal.append(creating).await?;
        let sandbox = self.create(&id, spec).await?;
        Ok(Member { id, sandbox })
    }

    /// Brings one shape to its size; gives when to try again if that failed.
    async fn fill(self: &Arc<Self>, shape: &Shape) -> Option<SystemTime> {
        loop {
            let missing = {
                let state = shape.lock();
                if let Some(not_before) = state.not_before
                    && not_before > self.config.clock.now()
                {
                    return Some(not_before);
                }
                shape.pool.size.saturating_sub(state.ready.len())
            };
            if missing == 0 || self.is_down() {
                return None;
            }
            let tasks: Vec<_> = (0..missing.min(AT_ONCE))
                .map(|_| {
                    let (inner, spec) = (self.clone(), shape.pool.spec.clone());
                    self.handle.spawn(async move {
                        let _busy = inner.busy();
                        inner.warm(&spec).await
                    })
                })
                .collect();
            for task in tasks {
                let Ok(made) = task.await else { continue };
                let mut state = shape.lock();
                match made {
                    Ok(member) => {
                        state.failures = 0;
                        state.not_before = None;
                        self.pending().remove(&member.id);
                        state.ready.push_back(member);
                    }
                    Err(error) => {
                        state.failures += 1;
                        let wait = Duration::from_secs(1 << state.failures.min(6));
                        state.not_before = self.config.clock.now().checked_add(wait);
                        tracing::warn!(%error, ?wait, "the pool was not filled; it is tried again");
                    }
                }
            }
        }
    }
}

/// Keeps the pool filled until the sessions are gone or shut down.
pub(super) async fn keep_filled(inner: Weak<Inner>) {
    loop {
        let (refill, clock, again) = {
            let Some(inner) = inner.upgrade() else { return };
            let mut again: Option<SystemTime> = None;
            for shape in &inner.shapes {
                let next = inner.fill(shape).await;
                again = again.into_iter().chain(next).min();
            }
            if inner.is_down() {
                for member in inner.empty_pool() {
                    inner.clone().discard(member);
                }
                return;
            }
            (inner.refill.clone(), inner.config.clock.clone(), again)
        };
        tokio::select! {
            () = refill.notified() => {}
            () = async {
                match again {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
