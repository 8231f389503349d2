//! The calls of a guest that are told to the host instead of being made.
//!
//! Reference: seccomp_unotify(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `struct seccomp_notif`, with its `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    id: u64,
    /// The thread that made it.
    pub(crate) thread: u32,
    flags: u32,
    /// Number of the call.
    pub(crate) number: i32,
    architecture: u32,
    instruction: u64,
    pub(crate) args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const IS_VALID: u64 = 0x4008_2102;

/// Waits for the next call; `None` when nothing runs under the filter any more.
pub(crate) fn next(listener: BorrowedFd<'_>) -> Result<Option<Call>, Errno> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut on = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut on, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let found = on[0].revents();
        if found.contains(PollFlags::IN) {
            let mut call = Call::default();
            // SAFETY: the structure has the layout of the interface, is zeroed as it has to be, and
            // lives through the call.
            let done = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) };
            match done {
                0.. => return Ok(Some(call)),
                // The thread was killed meanwhile, or a signal came.
                _ => match last() {
                    Errno::NOENT | Errno::INTR => continue,
                    errno => return Err(errno),
                },
            }
        }
        if found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(None);
        }
    }
}

impl Call {
    /// Whether its thread still waits for the answer: if not, its number may be another's.
    pub(crate) fn is_waiting(&self, listener: impl AsFd) -> bool {
        // SAFETY: the number lives through the call.
        let done = unsafe {
            libc::ioctl(
                listener.as_fd().as_raw_fd(),
                IS_VALID as _,
                &raw const self.id,
            )
        };
        done == 0
    }

    /// Answers with success or an error.
    pub(crate) fn answer(&self, listener: impl AsFd, answer: Result<(), Errno>) {
        let mut answer = Answer {
            id: self.id,
            value: 0,
            error: answer.map_or_else(|errno| -errno.raw_os_error(), |()| 0),
            flags: 0,
        };
        // SAFETY: the structure has the layout of the interface and lives through the call. One that
        // no longer waits needs no answer.
        unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND as _, &raw mut answer) };
    }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
