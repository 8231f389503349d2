//! Sandboxes that are created before they are asked for.
//!
//! One must never be handed out twice, to a session of another shape, or after it has stopped to
//! answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::{GuestPath, Sandbox, SandboxExt as _, SandboxSpec};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Manager;
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
    /// Wakes the task that fills it.
    pub(super) refill: Arc<Notify>,
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
            refill: Arc::default(),
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

async fn is_well(sandbox: &dyn Sandbox, until: Instant) -> bool {
    let root = GuestPath::root();
    let answer = tokio::time::timeout_at(until, sandbox.stat(&root)).await;
    matches!(answer, Ok(Ok(_)))
}

impl Manager {
    /// A sandbox for this specification that is ready and well. However many do not answer, a caller
    /// waits for them as long as for one.
    pub(super) async fn take_from_pool(self: &Arc<Self>, spec: &SandboxSpec) -> Option<Member> {
        let shape = self.shapes.iter().find(|shape| shape.pool.spec == *spec)?;
        let until = Instant::now() + HEALTH;
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
            shape.refill.notify_one();
            let member = member?;
            if is_well(&*member.sandbox, until).await {
                return Some(member);
            }
            tracing::warn!(id = %member.id, "a sandbox of the pool does not answer and is thrown away");
            self.clone().discard(member);
            if Instant::now() >= until {
                return None;
            }
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
        let waiting = self.shapes.iter().enumerate().flat_map(|(shape, pool)| {
            let state = pool.lock();
            let members = state.ready.iter();
            let members = members.map(|m| (shape, m.id.clone(), m.sandbox.clone()));
            members.collect::<Vec<_>>()
        });
        self.some_at_once(
            waiting.collect(),
            |inner, (shape, id, sandbox)| async move {
                if is_well(&*sandbox, Instant::now() + HEALTH).await {
                    return;
                }
                let member = inner.shapes.get(shape).and_then(|shape| {
                    let mut state = shape.lock();
                    let at = state.ready.iter().position(|member| member.id == id);
                    at.and_then(|at| state.ready.remove(at))
                });
                if let Some(member) = member {
                    tracing::warn!(%id, "a sandbox of the pool does not answer and is thrown away");
                    inner.clone().discard(member);
                }
            },
        )
        .await;
        self.refill();
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
                        let id = member.id.clone();
                        state.ready.push_back(member);
                        self.pending().remove(&id);
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

/// Keeps one shape of the pool filled until the sessions are gone or shut down.
pub(super) async fn keep_filled(inner: Weak<Manager>, shape: usize) {
    loop {
        let (refill, clock, again) = {
            let Some(inner) = inner.upgrade() else { return };
            let Some(shape) = inner.shapes.get(shape) else {
                return;
            };
            let again = inner.fill(shape).await;
            if inner.is_down() {
                for member in inner.empty_pool() {
                    inner.clone().discard(member);
                }
                return;
            }
            (shape.refill.clone(), inner.config.clock.clone(), again)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sessions, SessionsConfig};
    use sandbox_testkit::model::ModelProvider;

    /// A sweep destroys what is not known, so there must be no moment in which one is in no list.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_is_handed_out_is_known_at_every_moment() {
        let spec = SandboxSpec::new();
        let config = SessionsConfig::new().pool(Pool::new(spec.clone(), 1));
        let provider = Arc::new(ModelProvider::new());
        let sessions = Sessions::open(provider, config).await.unwrap();
        let inner = sessions.inner.clone();
        let until = Instant::now() + Duration::from_secs(120);
        while inner.shapes[0].ready() == 0 {
            assert!(Instant::now() < until, "the pool is not filled");
            tokio::task::yield_now().await;
        }
        let (id, size) = (inner.shapes[0].ids()[0].clone(), 2_000);
        let hands = tokio::spawn({
            let inner = inner.clone();
            async move {
                for _ in 0..size {
                    let member = inner.take_from_pool(&spec).await.unwrap();
                    let id = member.id.clone();
                    // As the task does that fills it.
                    inner.shapes[0].lock().ready.push_front(member);
                    inner.pending().remove(&id);
                }
            }
        });
        let looks = std::thread::spawn(move || {
            let mut unknown = 0;
            while !hands.is_finished() {
                unknown += usize::from(!inner.knows(&id));
            }
            unknown
        });
        let unknown = tokio::task::spawn_blocking(|| looks.join().unwrap());
        assert_eq!(unknown.await.unwrap(), 0);
    }
}
