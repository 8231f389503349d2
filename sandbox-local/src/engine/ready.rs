//! Parts of every start, made ahead of time: agents that wait for a plan,
//! and as root a network namespace.
//!
//! Making that namespace is more than half of making an agent. So as root a thread keeps some that
//! are unused, and starts an agent in one of them when it is asked to. No start may wait for it,
//! and no two agents may share a namespace: a start that finds nothing ready starts an agent by
//! itself.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::blank::{Blank, RunAs};
use super::born::BornIn;
use super::error::StartError;
use crate::sys::network;

/// Number of network namespaces that are kept: a fork and its renewed parent take two.
const NETWORKS: usize = 2;

/// Pause after a start before what it took is replaced: the start itself, and the first command,
/// would have to share the processors.
const PAUSE: Duration = Duration::from_millis(2);

/// Store of what is made ahead for the starts of one provider. Dropping it ends its thread, without
/// waiting for it.
pub(crate) struct Ready {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

type Made = Result<Blank, StartError>;

/// A start that waits for an agent.
struct Asked {
    sender: SyncSender<Made>,
    born_in: Option<BornIn>,
}

#[derive(Default)]
struct State {
    blanks: Vec<Blank>,
    /// Number of network namespaces while the thread waits.
    networks: usize,
    /// An agent is to be started in one of them.
    asked: Option<Asked>,
    /// Starts that took something and are under way.
    starting: usize,
    /// When the last one was over.
    last: Option<Instant>,
    /// The last attempt failed; the next is made with the next request.
    failed: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Time for which nothing more is to be made ahead; `None` while a start is under way.
    fn pause(&self) -> Option<Duration> {
        let over = |last: Instant| PAUSE.saturating_sub(last.elapsed());
        (self.starting == 0).then(|| self.last.map_or(Duration::ZERO, over))
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
    /// Lets what was taken be replaced: meanwhile the start would have had to share the processors.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.starting -= 1;
        state.last = Some(Instant::now());
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Ready {
    /// Keeps `count` agents, with a network of their own, ready for starts of this group.
    pub(crate) fn keep(count: usize, run_as: RunAs) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        // Without rights on the host such a namespace takes another user namespace, and with it
        // another user.
        let wanted = match run_as {
            RunAs::Own => 0,
            RunAs::Mapped { .. } => NETWORKS,
        };
        if count > 0 || wanted > 0 {
            let maker = Maker {
                shared: shared.clone(),
                count,
                run_as,
                networks: Vec::new(),
                wanted,
            };
            thread::Builder::new()
                .name("sandbox-prepare".into())
                .spawn(move || maker.work())?;
        }
        Ok(Self { shared })
    }

    /// An agent in these control groups that waits or is being started, if there is any. Dropping it
    /// has it replaced.
    pub(crate) fn take(&self, born_in: Option<&BornIn>) -> Option<Taken> {
        // Dropped, and with that waited for, when the lock is free again.
        let mut ended = Vec::new();
        let mut state = self.shared.lock();
        state.failed = false;
        let agent = loop {
            // To move one that waits into a group takes longer than a start.
            let blank = match born_in {
                None => state.blanks.pop(),
                Some(_) => None,
            };
            match blank {
                Some(blank) if !blank.waits() => ended.push(blank),
                Some(blank) => break Some(Agent::Waits(Some(blank))),
                None if state.networks > 0 => {
                    let (sender, receiver) = sync_channel(1);
                    state.networks = 0;
                    let born_in = born_in.cloned();
                    state.asked = Some(Asked { sender, born_in });
                    break Some(Agent::Comes(receiver));
                }
                None => break None,
            }
        };
        match agent {
            Some(_) => state.starting += 1,
            None => state.last = Some(Instant::now()),
        }
        drop(state);
        // Whatever was found: an agent is asked for, or is to be made for those who come later.
        self.shared.changed.notify_one();
        let shared = self.shared.clone();
        agent.map(|agent| Taken { agent, shared })
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

/// The thread's own.
struct Maker {
    shared: Arc<Shared>,
    count: usize,
    run_as: RunAs,
    /// Unused ones.
    networks: Vec<OwnedFd>,
    /// Number of agents that are wanted.
    wanted: usize,
}

enum Task {
    /// For a start that waits.
    Start(Asked),
    Network,
    Blank,
    End(Vec<Blank>),
}

impl Maker {
    fn work(mut self) {
        loop {
            match self.next() {
                // If the start was given up the agent ends with the message.
                Task::Start(Asked { sender, born_in }) => {
                    drop(sender.send(self.start(born_in.as_ref())));
                }
                Task::Network => self.make_network(),
                Task::Blank => self.make_blank(),
                // Here, where nothing waits for it: each is killed and reaped.
                Task::End(blanks) => return drop(blanks),
            }
        }
    }

    /// Waits for something to do; what only later starts need, until nothing was started
    /// for a moment.
    fn next(&self) -> Task {
        let mut state = self.shared.lock();
        loop {
            state.networks = 0;
            if let Some(asked) = state.asked.take() {
                return Task::Start(asked);
            }
            if state.closed {
                return Task::End(std::mem::take(&mut state.blanks));
            }
            let task = if state.failed {
                None
            } else if self.networks.len() < self.wanted {
                Some(Task::Network)
            } else if state.blanks.len() < self.count {
                Some(Task::Blank)
            } else {
                None
            };
            let pause = state.pause();
            if let (Some(task), Some(Duration::ZERO)) = (task, pause) {
                return task;
            }
            state.networks = self.networks.len();
            state = match pause {
                Some(left) if !left.is_zero() => {
                    let waited = self.shared.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                _ => {
                    let waited = self.shared.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn make_network(&mut self) {
        let RunAs::Mapped { gid, .. } = self.run_as else {
            return;
        };
        match network::make(gid) {
            Ok(made) => self.networks.push(made),
            // A container's root has no right to; otherwise it may be had later.
            Err(errno) => {
                tracing::debug!(%errno, "no network namespace is made ahead of time");
                match errno {
                    Errno::PERM => self.wanted = 0,
                    _ => self.shared.lock().failed = true,
                }
            }
        }
    }

    fn make_blank(&mut self) {
        let made = self.start(None);
        let mut state = self.shared.lock();
        match made {
            Ok(blank) => state.blanks.push(blank),
            Err(error) => {
                tracing::warn!(%error, "no sandbox could be prepared");
                state.failed = true;
            }
        }
    }

    fn start(&mut self, born_in: Option<&BornIn>) -> Made {
        match self.networks.pop() {
            Some(network) => {
                network::enter(network).map_err(|errno| StartError::Step {
                    step: "enter a network namespace",
                    errno,
                })?;
                Blank::here(born_in)
            }
            // Asked for only while there is one: this is one that is made ahead.
            None => Blank::new(true),
        }
    }
}
