//! The process group of a command: killed, signalled, and watched until it is empty.
//!
//! It must never signal a group that is known to be empty: its number may be someone else's by
//! then. A group that empties unseen keeps its number until it is looked at again, which happens
//! before every new command; that gap is one more reason why plain mode does not isolate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbox_core::Signal;
use tokio::sync::Notify;

/// Time that a killed group may take to disappear.
const GRACE: Duration = Duration::from_millis(200);
/// Time that it may take where its end is told.
const CERTAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The main process runs.
    Running,
    /// The main process has ended and something that it started has not.
    Background,
    /// Nothing of it is left.
    Gone,
}

/// A way to everything that a command started, also to what left its process group.
pub(crate) trait Reach: std::fmt::Debug + Send + Sync {
    /// Kills all of it, without waiting.
    fn kill(&self);
    /// Whether nothing of it is left.
    fn is_empty(&self) -> bool;
}

/// One command's process group.
#[derive(Debug)]
pub(crate) struct Group {
    pid: Option<u32>,
    /// Way to more than the group.
    reach: Option<Arc<dyn Reach>>,
    state: Mutex<State>,
    killed: Notify,
}

impl Group {
    /// The group of a command that was just started as its leader.
    pub(super) fn new(pid: Option<u32>, reach: Option<Arc<dyn Reach>>) -> Arc<Self> {
        Arc::new(Self {
            pid,
            reach,
            state: Mutex::new(State::Running),
            killed: Notify::new(),
        })
    }

    /// Kills what is in it, without waiting.
    pub(super) fn kill(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Gone {
            match &self.reach {
                Some(reach) => reach.kill(),
                None => imp::kill(self.pid),
            }
            self.killed.notify_one();
        }
    }

    /// Resolves when a kill was asked for, for hosts without groups.
    pub(super) async fn kill_asked(&self) {
        self.killed.notified().await;
    }

    /// Whether the main process runs.
    pub(super) fn is_running(&self) -> bool {
        self.with(|state| *state == State::Running)
    }

    /// Notes that the main process has ended and was waited for.
    pub(super) fn main_ended(&self) {
        self.with(|state| {
            *state = State::Background;
            self.look(state);
        });
    }

    /// Whether nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.with(|state| {
            self.look(state);
            *state == State::Gone
        })
    }

    /// Signals the main process, if it runs.
    pub(super) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        self.with(|state| match state {
            State::Running => imp::signal(self.pid, signal),
            _ => Ok(()),
        })
    }

    /// Waits until nothing of it is left, for a moment: a killed process that is not reaped
    /// stays in the group, dead.
    pub(crate) async fn emptied(&self) {
        let grace = if self.reach.is_some() { CERTAIN } else { GRACE };
        let deadline = tokio::time::Instant::now() + grace;
        while !self.is_gone() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn look(&self, state: &mut State) {
        let is_empty = || match &self.reach {
            Some(reach) => reach.is_empty(),
            None => !imp::exists(self.pid),
        };
        if *state == State::Background && is_empty() {
            *state = State::Gone;
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The groups of a sandbox that may have something in them.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Vec<Arc<Group>>>);

impl Groups {
    /// Adds a group and forgets those that are gone.
    pub(super) fn add(&self, group: &Arc<Group>) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group| !group.is_gone());
        groups.push(Arc::clone(group));
    }

    /// Kills everything in all of them and gives them out.
    pub(crate) fn kill_all(&self) -> Vec<Arc<Group>> {
        let groups = {
            let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *groups)
        };
        groups.iter().for_each(|group| group.kill());
        groups
    }
}

/// The number of a signal on Linux for its number on this host, and back.
#[cfg(unix)]
pub(super) fn linux_number(host: i32) -> i32 {
    imp::SIGNALS
        .iter()
        .find(|(_, signal)| signal.as_raw() == host)
        .map_or(host, |(number, _)| *number)
}

#[cfg(unix)]
mod imp {
    use rustix::process::{
        Pid, Signal as Host, kill_process, kill_process_group, test_kill_process_group,
    };
    use sandbox_core::Signal;

    /// Signals by their number on Linux; other hosts number some of them differently.
    pub(super) const SIGNALS: &[(i32, Host)] = &[
        (1, Host::HUP),
        (2, Host::INT),
        (3, Host::QUIT),
        (4, Host::ILL),
        (5, Host::TRAP),
        (6, Host::ABORT),
        (7, Host::BUS),
        (8, Host::FPE),
        (9, Host::KILL),
        (10, Host::USR1),
        (11, Host::SEGV),
        (12, Host::USR2),
        (13, Host::PIPE),
        (14, Host::ALARM),
        (15, Host::TERM),
        (17, Host::CHILD),
        (18, Host::CONT),
        (19, Host::STOP),
        (20, Host::TSTP),
        (21, Host::TTIN),
        (22, Host::TTOU),
        (23, Host::URG),
        (24, Host::XCPU),
        (25, Host::XFSZ),
        (26, Host::VTALARM),
        (27, Host::PROF),
        (28, Host::WINCH),
        (31, Host::SYS),
    ];

    fn pid(pid: Option<u32>) -> Option<Pid> {
        pid.and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
    }

    pub(super) fn kill(group: Option<u32>) {
        if let Some(group) = pid(group) {
            // It may have ended on its own.
            let _ = kill_process_group(group, Host::KILL);
        }
    }

    pub(super) fn exists(group: Option<u32>) -> bool {
        pid(group)
            .is_some_and(|group| test_kill_process_group(group) != Err(rustix::io::Errno::SRCH))
    }

    pub(super) fn signal(main: Option<u32>, signal: Signal) -> std::io::Result<()> {
        let known = SIGNALS.iter().find(|(number, _)| *number == signal.0);
        match (known, pid(main)) {
            (Some((_, host)), Some(main)) => Ok(kill_process(main, *host)?),
            (None, _) => Err(std::io::ErrorKind::InvalidInput.into()),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use sandbox_core::Signal;

    pub(super) fn kill(_: Option<u32>) {}

    pub(super) fn exists(_: Option<u32>) -> bool {
        false
    }

    pub(super) fn signal(_: Option<u32>, _: Signal) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
