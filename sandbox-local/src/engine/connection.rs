//! The connection to one agent: requests that go out, and who waits for which reply.
//!
//! Sending must never block the runtime, and no wait may outlive the agent: whatever loses it goes
//! through [`Connection::lose`].

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{RwLock, oneshot, watch};
use tokio::task::AbortHandle;

use super::blank::RunAs;
use super::error::Lost;
use super::outcome::Progress;
use super::wire;
use crate::protocol::{MAX_FORGET, Message, killed, reply, request};
use crate::sys::launch::Launched;

/// Ids collected before they are sent along with the next exec.
const FORGET_BATCH: usize = 32;

/// Longest that an answer may take: the agent gives up a kill after five seconds and a freeze after
/// six. Shorter than the ten seconds that `sandbox-core` waits for a kill.
const ANSWER: Duration = Duration::from_secs(9);

/// Report of the kill of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Killed {
    /// Whether it multiplied faster than it could be searched: then everything in the sandbox
    /// was killed, other execs included.
    pub(crate) everything: bool,
    /// A process whose tree could not be told was killed too.
    pub(crate) unreadable: bool,
    /// Number of killed processes that had not ended after five seconds.
    pub(crate) lingering: u64,
}

/// An answer, and the descriptor that came with it.
pub(super) struct Answer {
    message: Message,
    fd: Option<OwnedFd>,
}

/// Waiters, by what they wait for.
#[derive(Default)]
pub(super) struct State {
    pub(super) lost: Option<Lost>,
    pub(super) execs: HashMap<u64, Arc<Progress>>,
    pub(super) kills: HashMap<u64, Vec<oneshot::Sender<Message>>>,
    pub(super) answers: HashMap<u64, oneshot::Sender<Answer>>,
    /// The agent was killed from here.
    given_up: bool,
    forget: Vec<u64>,
    /// Pipes that are read on after their command, oldest first.
    pub(super) draining: VecDeque<AbortHandle>,
    /// Held for one round of reading them.
    pub(super) drained: Arc<tokio::sync::Mutex<()>>,
}

/// Connection to the agent that all handles of a sandbox share.
pub(crate) struct Connection {
    pub(super) socket: AsyncFd<OwnedFd>,
    pub(super) process: Launched,
    pub(super) state: Mutex<State>,
    pub(super) next: AtomicU64,
    /// User that guests are on the host.
    pub(super) run_as: RunAs,
    pub(super) runtime: Handle,
    /// See [`Engine::new`](super::Engine::new).
    pub(super) grace: Duration,
    pub(super) reaped: watch::Sender<bool>,
    /// Held shared by spawns, alone by a freeze.
    pub(super) gate: Arc<RwLock<()>>,
}

impl Connection {
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

    /// Why there is no answer any more.
    pub(super) fn why(&self) -> Lost {
        self.lock().lost.unwrap_or(Lost::Ended)
    }

    /// Sends a request and waits for its answer, for a bounded time.
    async fn answered<T>(
        &self,
        message: &Message,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, Lost> {
        let answered = async {
            let sent = self.send(message, &[], &[]).await;
            sent.map_err(|_| self.why())?;
            answer.await.map_err(|_| self.why())
        };
        tokio::time::timeout(ANSWER, answered)
            .await
            .unwrap_or(Err(Lost::Silent))
    }

    /// Kills the agent, and with it its pid namespace, because nothing in it is wanted any more.
    pub(super) fn give_up(&self) {
        self.lock().given_up = true;
        self.kill();
    }

    /// Kills the agent, and with it its pid namespace.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.process.pidfd, Signal::KILL);
    }

    /// Makes `shared` hear about exec `id`.
    pub(super) fn register(&self, id: u64, shared: &Arc<Progress>) -> Result<(), Lost> {
        let mut state = self.lock();
        if let Some(why) = state.lost {
            return Err(why);
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
    pub(super) fn post(self: &Arc<Self>, message: Message, held: impl Send + 'static) {
        if wire::send(self.socket.get_ref().as_fd(), &message, &[], &[]) == Err(Errno::AGAIN) {
            let inner = self.clone();
            self.runtime.spawn(async move {
                let _ = inner.send(&message, &[], &[]).await;
                drop(held);
            });
        }
    }

    pub(super) async fn ask(&self, kind: u32, [b, c]: [u64; 2]) -> Result<Message, Lost> {
        Ok(self.request(kind, [b, c]).await?.message)
    }

    /// A stream socket of this family, made in the sandbox's network.
    pub(super) async fn socket(&self, family: u64) -> Result<Result<OwnedFd, Errno>, Lost> {
        let Answer { message, fd } = self.request(request::SOCKET, [family, 0]).await?;
        Ok(match (fd, message.b) {
            (Some(fd), 0) => Ok(fd),
            // The host has no descriptor left to receive one.
            (None, 0) => Err(Errno::MFILE),
            (_, errno) => Err(wire::errno(errno)),
        })
    }

    async fn request(&self, kind: u32, [b, c]: [u64; 2]) -> Result<Answer, Lost> {
        let token = self.next_id();
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some(why) = state.lost {
                return Err(why);
            }
            state.answers.insert(token, answer);
        }
        let message = Message {
            kind,
            a: token,
            b,
            c,
            ..Message::default()
        };
        self.answered(&message, answered).await
    }

    pub(super) async fn signal(&self, id: u64, signal: i32) -> Result<(), Lost> {
        let a = u64::from(signal.unsigned_abs());
        let message = Message {
            kind: request::SIGNAL,
            exec: id,
            a,
            ..Message::default()
        };
        self.send(&message, &[], &[]).await.map_err(|_| self.why())
    }

    pub(super) async fn kill_tree(&self, id: u64) -> Result<Killed, Lost> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some(why) = state.lost {
                return Err(why);
            }
            state.kills.entry(id).or_default().push(answer);
        }
        let message = Message {
            kind: request::KILL_TREE,
            exec: id,
            ..Message::default()
        };
        let answer = self.answered(&message, answered).await?;
        let is = |flag| answer.flags & flag != 0;
        Ok(Killed {
            everything: is(killed::EVERYTHING),
            unreadable: is(killed::UNREADABLE),
            lingering: if is(killed::LINGERING) {
                answer.b.max(1)
            } else {
                0
            },
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

    /// Notes that there will be no request about `id` any more.
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

    pub(super) fn dispatch(&self, message: &Message, fd: Option<OwnedFd>) {
        let mut state = self.lock();
        match message.kind {
            reply::STARTED => {
                let exec = state.execs.get(&message.exec).cloned();
                drop(state);
                if let Some(exec) = exec {
                    exec.started();
                }
            }
            reply::EXITED | reply::FAILED => {
                let exec = state.execs.remove(&message.exec);
                drop(state);
                if let Some(exec) = exec {
                    if message.kind == reply::EXITED {
                        exec.exited(message);
                    } else {
                        exec.failed(message);
                    }
                }
            }
            reply::TREE_KILLED => {
                for waiter in state.kills.remove(&message.exec).unwrap_or_default() {
                    let _ = waiter.send(*message);
                }
            }
            _ => {
                if let Some(waiter) = state.answers.remove(&message.a) {
                    let message = *message;
                    let _ = waiter.send(Answer { message, fd });
                }
            }
        }
    }

    /// Tells every waiter that the agent is gone, and why: the first reason stays.
    pub(super) fn lose(&self, why: Lost) {
        let mut state = self.lock();
        let why = if state.given_up { Lost::GivenUp } else { why };
        let why = *state.lost.get_or_insert(why);
        let execs = std::mem::take(&mut state.execs);
        // Dropping the senders is the message.
        state.kills.clear();
        state.answers.clear();
        drop(state);
        execs.into_values().for_each(|exec| exec.lost(why));
    }

    /// Reaps the agent if it has ended.
    pub(super) fn reap(&self) -> bool {
        let pidfd = WaitId::PidFd(self.process.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An error means that it was reaped elsewhere.
        !matches!(
            rustix::process::waitid(pidfd, options),
            Ok(None) | Err(Errno::INTR)
        )
    }
}
