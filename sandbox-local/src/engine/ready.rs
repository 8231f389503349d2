//! What a start needs whatever is started, made before anybody asks: agents that wait for a plan,
//! and as root a network namespace.
//!
//! Making that namespace is more than half of making an agent. So as root one thread stands in one
//! that nobody has had, and starts an agent in it when it is asked to; then it moves on into
//! another. It must never make anybody wait, nor two agents share a namespace: who finds nothing
//! ready starts an agent alone.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::error::StartError;
use super::start::{Blank, Identity};
use crate::sys::network;

/// How long after a start what it took is replaced: the start itself, and the first command, would
/// have to share the processors.
const PAUSE: Duration = Duration::from_millis(2);

/// What waits for the starts of one provider. When it is dropped it ends, without waiting for it.
pub(crate) struct Ready {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

type Made = Result<Blank, StartError>;

#[derive(Default)]
struct State {
    blanks: Vec<Blank>,
    /// The thread stands in a namespace that nobody has had, and waits.
    fresh: bool,
    /// An agent is to be started in it.
    asked: Option<SyncSender<Made>>,
    /// Starts that took something and are under way.
    starting: usize,
    /// The last attempt failed; the next is made when somebody asks again.
    failed: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An agent for one start.
pub(crate) struct Taken {
    agent: Agent,
    shared: Arc<Shared>,
}

enum Agent {
    Waits(Option<Blank>),
    /// Being started.
    Comes(Receiver<Made>),
}

impl Taken {
    /// Whether its loopback interface is up already.
    pub(crate) fn loopback_is_up(&self) -> bool {
        match &self.agent {
            Agent::Waits(blank) => blank.as_ref().is_some_and(Blank::loopback_is_up),
            Agent::Comes(_) => true,
        }
    }

    /// The agent; the rest is for when the start is over.
    pub(super) fn blank(&mut self) -> Option<Made> {
        match &mut self.agent {
            Agent::Waits(blank) => blank.take().map(Ok),
            Agent::Comes(made) => Some(made.recv().unwrap_or_else(|_| {
                Err(StartError::Step {
                    step: "hear from the thread that starts the agent",
                    errno: Errno::CANCELED,
                })
            })),
        }
    }
}

impl Drop for Taken {
    /// What was taken is replaced now: meanwhile the start would have had to share the processors.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.starting -= 1;
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Ready {
    /// Keeps `count` agents of this identity, with a network of their own, ready.
    pub(crate) fn keep(count: usize, identity: Identity) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let network = match identity {
            // Who has no rights on the host can't make a namespace without giving up the host's
            // users, which a thread alone can't.
            Identity::Own => Network::Own,
            Identity::Mapped { .. } => Network::Used,
        };
        if count > 0 || network == Network::Used {
            let maker = Maker {
                shared: shared.clone(),
                count,
                identity,
                network,
            };
            thread::Builder::new()
                .name("sandbox-prepare".into())
                .spawn(move || maker.work())?;
        }
        Ok(Self { shared })
    }

    /// An agent that waits or is being started, if there is any. Dropping it has it replaced.
    pub(crate) fn take(&self) -> Option<Taken> {
        // Dropped, and with that waited for, when the lock is free again.
        let mut ended = Vec::new();
        let mut state = self.shared.lock();
        state.failed = false;
        let agent = loop {
            match state.blanks.pop() {
                Some(blank) if !blank.waits() => ended.push(blank),
                Some(blank) => break Agent::Waits(Some(blank)),
                None if state.fresh => {
                    let (sender, receiver) = sync_channel(1);
                    state.fresh = false;
                    state.asked = Some(sender);
                    break Agent::Comes(receiver);
                }
                None => return None,
            }
        };
        state.starting += 1;
        drop(state);
        if matches!(agent, Agent::Comes(_)) {
            self.shared.changed.notify_one();
        }
        Some(Taken {
            agent,
            shared: self.shared.clone(),
        })
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ready = self.shared.lock().blanks.len();
        f.debug_struct("Ready").field("ready", &ready).finish()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

/// Which network the thread's next agent gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// One that is made with it.
    Own,
    /// The one that the thread stands in.
    Fresh,
    /// The thread's belongs to somebody.
    Used,
}

/// The thread's own.
struct Maker {
    shared: Arc<Shared>,
    count: usize,
    identity: Identity,
    network: Network,
}

impl Maker {
    fn work(mut self) {
        loop {
            if self.network == Network::Used {
                self.until_quiet();
                self.network = match network::enter_new() {
                    Ok(()) => Network::Fresh,
                    Err(errno) => {
                        // A container's root, for instance.
                        tracing::debug!(%errno, "no network namespace is made ahead of time");
                        Network::Own
                    }
                };
            }
            let shared = self.shared.clone();
            let mut state = shared.lock();
            // Not while a start is under way that would have to share the processors.
            let full = |state: &State| state.failed || state.blanks.len() >= self.count;
            let idle = |state: &mut State| {
                state.fresh = self.network == Network::Fresh && state.asked.is_none();
                !state.closed && state.asked.is_none() && (state.starting > 0 || full(state))
            };
            state = shared
                .changed
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner);
            state.fresh = false;
            if state.closed {
                let blanks = std::mem::take(&mut state.blanks);
                drop(state);
                // Here, where nobody waits: each is killed and reaped.
                drop(blanks);
                return;
            }
            let asked = state.asked.take();
            drop(state);
            let made = self.start();
            match asked {
                // If nobody listens any more it ends with the message.
                Some(sender) => drop(sender.send(made)),
                None => self.keep(made),
            }
        }
    }

    fn start(&mut self) -> Made {
        match self.network {
            Network::Fresh => {
                // Even if it fails: whatever came of it, nobody else gets this one.
                self.network = Network::Used;
                Blank::here(self.identity)
            }
            _ => Blank::new(self.identity, true),
        }
    }

    fn keep(&self, made: Made) {
        let mut state = self.shared.lock();
        match made {
            Ok(blank) => state.blanks.push(blank),
            Err(error) => {
                tracing::warn!(%error, "no sandbox could be prepared");
                state.failed = true;
            }
        }
    }

    /// Waits until nobody has been starting anything for a moment.
    fn until_quiet(&self) {
        let mut state = self.shared.lock();
        loop {
            let starting = |state: &mut State| !state.closed && state.starting > 0;
            let waited = self.shared.changed.wait_while(state, starting);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            let quiet = |state: &mut State| !state.closed && state.starting == 0;
            let waited = self.shared.changed.wait_timeout_while(state, PAUSE, quiet);
            let (now, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if now.closed || waited.timed_out() {
                return;
            }
            state = now;
        }
    }
}
