//! Whether the memory limit ended a command.
//!
//! It must never say so without the kernel having counted a kill while the command ran.

use std::sync::Arc;

use sandbox_core::{Exit, ExitCause, ExitStatus, Signal};

use crate::start::cgroup::Cgroup;

/// The count of a sandbox's processes that were killed for lack of memory, when a command began.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    cgroup: Arc<Cgroup>,
    before: Option<u64>,
}

impl Memory {
    /// The count as it is now.
    pub(crate) fn now(cgroup: Arc<Cgroup>) -> Self {
        let before = cgroup.oom_kills();
        Self { cgroup, before }
    }

    /// The end of the command, with the memory limit as its cause if that is what the kernel says.
    pub(crate) fn explain(&self, exit: Exit) -> Exit {
        // How a shell says that a program of its own was killed.
        let killed = matches!(exit.status, ExitStatus::Code(137))
            || exit.status.signal() == Some(Signal::KILL.0);
        match (killed, self.before) {
            (true, Some(before)) if self.cgroup.oom_kills() > Some(before) => {
                exit.cause(ExitCause::OutOfMemory)
            }
            _ => exit,
        }
    }
}
