//! The process of an agent, until the engine takes it over, and its end. Must never leave a process
//! behind, nor a dead one unreaped.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::sys::launch::Launched;

/// The agent's process; dropping it kills and reaps it, unless taken apart.
pub(super) struct Agent {
    launched: Option<Launched>,
}

impl Agent {
    pub(super) fn new(launched: Launched) -> Self {
        Self {
            launched: Some(launched),
        }
    }

    /// The process, from now on the caller's to kill and reap.
    pub(super) fn release(mut self) -> Option<Launched> {
        self.launched.take()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(launched) = &self.launched {
            end(launched.pidfd.as_fd());
        }
    }
}

pub(super) fn poll_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool, Errno> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&time)) {
            Err(Errno::INTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}

/// Kills and reaps; says how the process ended if it had ended by itself.
pub(super) fn end(pidfd: BorrowedFd<'_>) -> String {
    let options = WaitIdOptions::EXITED;
    let dying = poll_readable(pidfd, Duration::from_millis(100)).unwrap_or(false);
    if !dying {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    }
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => format!("signal {signal}"),
                    _ => "no status".to_owned(),
                };
            }
            _ => return "no status".to_owned(),
        }
    }
}
