//! Talking to an agent: requests go out from any task, and wait for the replies
//! that [`super::listen`] passes on. Sending must never block the runtime, and
//! dropping anything must never wait.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockWriteGuard, watch};

use super::connection::Connection;
use super::error::{Lost, StartError};
use super::listen::{self, Listener};
use super::start::Init;
use crate::protocol::{Message, request};

/// A running sandbox engine. Dropping it kills everything inside, without
/// waiting.
pub(crate) struct Engine {
    pub(super) inner: Arc<Connection>,
}

impl Engine {
    /// Talks to an agent from now on. Does not block; needs the context of a tokio runtime with I/O
    /// and time, which its threads for blocking work have.
    ///
    /// After the end of a main process its streams are read until nothing comes for `grace`.
    pub(crate) fn new(init: Init, grace: Duration) -> Result<Self, StartError> {
        listen::reap_orphans();
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let register = |error: std::io::Error| StartError::Step {
            step: "watch the control socket",
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = crate::sys::watch::watch(init.socket, interest).map_err(register)?;
        let process = init.agent.release().ok_or(StartError::NoRuntime)?;
        let inner = Arc::new(Connection {
            socket,
            process,
            state: Mutex::default(),
            next: AtomicU64::new(1),
            run_as: init.run_as,
            runtime: runtime.clone(),
            grace,
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

    /// Whether the agent is gone, and why.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.inner.lock().lost
    }

    /// Resolves when the agent is gone and reaped.
    pub(crate) async fn gone(&self) {
        let mut reaped = self.inner.reaped.subscribe();
        // The sender lives in `inner`, so this cannot fail.
        let _ = reaped.wait_for(|reaped| *reaped).await;
    }

    /// Whether there is nothing that a restart would lose: no process, no System V shared memory,
    /// semaphores and queues.
    pub(crate) async fn is_idle(&self) -> Result<bool, Lost> {
        Ok(self.inner.ask(request::IDLE, [0; 2]).await?.b == 1)
    }

    /// A TCP socket in the sandbox's network, which does not block.
    pub(crate) async fn tcp_socket(&self, v6: bool) -> Result<Result<OwnedFd, Errno>, Lost> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        self.inner.socket(family.unsigned_abs().into()).await
    }

    /// Stops every process, until the result is thawed or dropped. Spawns wait
    /// meanwhile.
    pub(crate) async fn freeze(&self) -> Result<Frozen, Lost> {
        // A number that no guest can guess.
        let random = || RandomState::new().build_hasher().finish();
        let key = [random(), random()];
        let gate = self.inner.gate.clone().write_owned().await;
        let mut frozen = Frozen {
            inner: Some(self.inner.clone()),
            gate: Some(gate),
            still: false,
        };
        frozen.still = self.inner.ask(request::FREEZE, key).await?.b == 1;
        Ok(frozen)
    }

    /// Keeps the agent from starting anything, until the result is dropped.
    pub(crate) async fn hold(&self) -> Held {
        Held {
            _gate: self.inner.gate.clone().write_owned().await,
        }
    }

    /// Kill handle of this engine's sandbox, usable from wherever it is held.
    pub(crate) fn killer(&self) -> Killer {
        Killer(self.inner.clone())
    }
}

/// Kills everything in a sandbox, whatever holds its engine.
#[derive(Clone)]
pub(crate) struct Killer(Arc<Connection>);

impl Killer {
    /// Kills, without waiting.
    pub(crate) fn kill(&self) {
        self.0.give_up();
    }

    /// Kills, and waits until everything is gone and reaped, at most five seconds; says whether it
    /// is. Works in any runtime, also after the one that started the engine has ended.
    pub(crate) async fn shut_down(&self) -> bool {
        self.0.give_up();
        self.0.lose(Lost::GivenUp);
        let ended = listen::ended(&self.0);
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .unwrap_or(false)
    }
}

impl std::fmt::Debug for Killer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Killer").field(&self.0.process.pid).finish()
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
        self.inner.give_up();
    }
}

/// Nothing is started in a sandbox meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    _gate: OwnedRwLockWriteGuard<()>,
}

/// A sandbox that stands still.
pub(crate) struct Frozen {
    inner: Option<Arc<Connection>>,
    gate: Option<OwnedRwLockWriteGuard<()>>,
    still: bool,
}

impl Frozen {
    /// Whether every process came to rest in time.
    pub(crate) fn is_still(&self) -> bool {
        self.still
    }

    /// Lets the processes go on, and waits until they do. Says whether none of them was executed
    /// since they came to rest.
    pub(crate) async fn thaw(mut self) -> Result<bool, Lost> {
        let Some(inner) = self.inner.clone() else {
            return Ok(false);
        };
        let stood_still = inner.ask(request::THAW, [0; 2]).await?.b == 1;
        self.inner = None;
        Ok(stood_still)
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("still", &self.still)
            .finish_non_exhaustive()
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
