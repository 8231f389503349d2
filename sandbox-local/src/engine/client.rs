//! Talking to an agent: requests go out from any task, and wait for the replies
//! that [`super::listen`] passes on. Sending must never block the runtime, and
//! dropping anything must never wait.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, oneshot, watch};

use super::error::{Lost, StartError};
use super::listen::{self, Listener};
use super::process::Shared;
use super::start::Init;
use super::wire;
use crate::protocol::{MAX_FORGET, Message, killed, request};
use crate::sys::launch::Launched;

/// Ids collected before they are sent along with the next exec.
const FORGET_BATCH: usize = 32;

/// A running sandbox engine. Dropping it kills everything inside, without
/// waiting.
pub(crate) struct Engine {
    pub(super) inner: Arc<Inner>,
}

/// How a tree was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Killed {
    /// It multiplied faster than it could be searched: everything in the sandbox
    /// was killed, other execs included.
    pub(crate) everything: bool,
    /// A process whose tree could not be told was killed too.
    pub(crate) unreadable: bool,
    /// Killed processes had not ended yet after several seconds.
    pub(crate) lingering: bool,
}

/// Who waits for what.
#[derive(Default)]
pub(super) struct State {
    pub(super) lost: bool,
    pub(super) execs: HashMap<u64, Arc<Shared>>,
    pub(super) kills: HashMap<u64, Vec<oneshot::Sender<Message>>>,
    pub(super) answers: HashMap<u64, oneshot::Sender<Message>>,
    forget: Vec<u64>,
}

/// What all handles of a sandbox share.
pub(crate) struct Inner {
    pub(super) socket: AsyncFd<OwnedFd>,
    pub(super) process: Launched,
    state: Mutex<State>,
    next: AtomicU64,
    runtime: Handle,
    pub(super) reaped: watch::Sender<bool>,
    /// Held shared by spawns, alone by a freeze.
    gate: Arc<RwLock<()>>,
}

impl Engine {
    /// Talks to an agent from now on. Does not block; needs the context of a tokio runtime with I/O
    /// and time, which its threads for blocking work have.
    pub(crate) fn new(init: Init) -> Result<Self, StartError> {
        listen::reap_orphans();
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let register = |error: std::io::Error| StartError::Step {
            step: "watch the control socket",
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = crate::sys::watch::watch(init.socket, interest).map_err(register)?;
        let process = init.agent.release().ok_or(StartError::NoRuntime)?;
        let inner = Arc::new(Inner {
            socket,
            process,
            state: Mutex::default(),
            next: AtomicU64::new(1),
            runtime: runtime.clone(),
            reaped: watch::Sender::new(false),
            gate: Arc::default(),
        });
        runtime.spawn(Listener::new(inner.clone()).listen());
        Ok(Self { inner })
    }

    /// The agent's process number on the host.
    pub(crate) fn pid(&self) -> u32 {
        self.inner.process.pid
    }

    /// Whether the agent is gone.
    pub(crate) fn lost(&self) -> bool {
        self.inner.lock().lost
    }

    /// Resolves when the agent is gone and reaped.
    pub(crate) async fn gone(&self) {
        let mut reaped = self.inner.reaped.subscribe();
        // The sender lives in `inner`, so this cannot fail.
        let _ = reaped.wait_for(|reaped| *reaped).await;
    }

    /// Whether no process runs.
    pub(crate) async fn is_idle(&self) -> Result<bool, Lost> {
        Ok(self.inner.ask(request::IDLE).await?.b == 1)
    }

    /// Stops every process, until the result is thawed or dropped. Spawns wait
    /// meanwhile.
    pub(crate) async fn freeze(&self) -> Result<Frozen, Lost> {
        let gate = self.inner.gate.clone().write_owned().await;
        let mut frozen = Frozen {
            inner: Some(self.inner.clone()),
            gate: Some(gate),
            still: false,
        };
        frozen.still = self.inner.ask(request::FREEZE).await?.b == 1;
        Ok(frozen)
    }

    /// Kills everything, without waiting.
    pub(crate) fn kill(&self) {
        self.inner.kill();
    }

    /// Kills everything and waits until it is gone and reaped, at most five
    /// seconds; says whether it is. Works in any runtime, also after the one that
    /// started the engine has ended.
    pub(crate) async fn shutdown(&self) -> bool {
        self.inner.kill();
        self.inner.lose();
        let ended = listen::ended(&self.inner);
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .unwrap_or(false)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inner.kill();
    }
}

/// A sandbox that stands still.
pub(crate) struct Frozen {
    inner: Option<Arc<Inner>>,
    gate: Option<OwnedRwLockWriteGuard<()>>,
    still: bool,
}

impl Frozen {
    /// Whether every process came to rest in time.
    pub(crate) fn is_still(&self) -> bool {
        self.still
    }

    /// Lets the processes go on, and waits until they do.
    pub(crate) async fn thaw(mut self) -> Result<(), Lost> {
        match self.inner.clone() {
            Some(inner) => {
                inner.ask(request::THAW).await?;
                self.inner = None;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let gate = self.gate.take();
        if let Some(inner) = self.inner.take() {
            let message = Message {
                kind: request::THAW,
                ..Message::default()
            };
            inner.post(message, gate);
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits out a freeze.
    pub(super) async fn enter(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Kills the agent, and with it its pid namespace.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.process.pidfd, Signal::KILL);
    }

    /// Makes `shared` hear about exec `id`.
    pub(super) fn register(&self, id: u64, shared: &Arc<Shared>) -> Result<(), Lost> {
        let mut state = self.lock();
        if state.lost {
            return Err(Lost);
        }
        state.execs.insert(id, shared.clone());
        Ok(())
    }

    pub(super) fn unregister(&self, id: u64) {
        self.lock().execs.remove(&id);
    }

    pub(super) async fn send(
        &self,
        message: &Message,
        payload: &[u8],
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        loop {
            match wire::send(self.socket.get_ref().as_fd(), message, payload, fds) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
            let ready = self.socket.writable().await;
            let mut guard = ready.map_err(|_| Errno::PIPE)?;
            // Once more before waiting for the next edge.
            match wire::send(self.socket.get_ref().as_fd(), message, payload, fds) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                result => return result,
            }
        }
    }

    /// Sends without waiting; what does not fit is sent by a task. `held` is
    /// dropped once the message is out.
    fn post(self: &Arc<Self>, message: Message, held: impl Send + 'static) {
        if wire::send(self.socket.get_ref().as_fd(), &message, &[], &[]) == Err(Errno::AGAIN) {
            let inner = self.clone();
            self.runtime.spawn(async move {
                let _ = inner.send(&message, &[], &[]).await;
                drop(held);
            });
        }
    }

    async fn ask(&self, kind: u32) -> Result<Message, Lost> {
        let token = self.next_id();
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.lost {
                return Err(Lost);
            }
            state.answers.insert(token, answer);
        }
        let message = Message {
            kind,
            a: token,
            ..Message::default()
        };
        self.send(&message, &[], &[]).await.map_err(|_| Lost)?;
        answered.await.map_err(|_| Lost)
    }

    pub(super) async fn signal(&self, id: u64, signal: i32) -> Result<(), Lost> {
        let a = u64::from(signal.unsigned_abs());
        let message = Message {
            kind: request::SIGNAL,
            exec: id,
            a,
            ..Message::default()
        };
        self.send(&message, &[], &[]).await.map_err(|_| Lost)
    }

    pub(super) async fn kill_tree(&self, id: u64) -> Result<Killed, Lost> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.lost {
                return Err(Lost);
            }
            state.kills.entry(id).or_default().push(answer);
        }
        let message = Message {
            kind: request::KILL_TREE,
            exec: id,
            ..Message::default()
        };
        self.send(&message, &[], &[]).await.map_err(|_| Lost)?;
        let flags = answered.await.map_err(|_| Lost)?.flags;
        Ok(Killed {
            everything: flags & killed::EVERYTHING != 0,
            unreadable: flags & killed::UNREADABLE != 0,
            lingering: flags & killed::LINGERING != 0,
        })
    }

    pub(super) fn kill_tree_detached(self: &Arc<Self>, id: u64) {
        self.post(
            Message {
                kind: request::KILL_TREE,
                exec: id,
                ..Message::default()
            },
            (),
        );
    }

    /// Notes that nobody will ask about `id` again.
    pub(super) fn forget(&self, id: u64) {
        self.lock().forget.push(id);
    }

    /// Tells the agent which execs it need not remember, if they are many.
    pub(super) fn flush_forgotten(&self) {
        let ids = {
            let mut state = self.lock();
            if state.forget.len() < FORGET_BATCH {
                return;
            }
            let from = state.forget.len().saturating_sub(MAX_FORGET);
            state.forget.split_off(from)
        };
        let message = Message {
            kind: request::FORGET,
            a: ids.len() as u64,
            ..Message::default()
        };
        let payload: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        if wire::send(self.socket.get_ref().as_fd(), &message, &payload, &[]).is_err() {
            self.lock().forget.extend(ids);
        }
    }
}
