//! A process that does nothing but hold a user namespace open, for which the kernel has no other
//! way.
//!
//! It shares this process's memory and descriptors, so that nothing is copied for it, runs on a
//! stack of its own, and executes nothing: it only makes system calls, without the C library, whose
//! `errno` belongs to the thread that goes on here. Must never outlive that thread.

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use super::launch::{BlockedSignals, Stack};

/// Dropping it ends it and waits for that.
pub(crate) struct Holder {
    /// Process number, which nothing else has as long as this is there.
    pub(crate) pid: u32,
    pidfd: OwnedFd,
    stack: Option<Stack>,
}

impl Holder {
    /// Starts one in a user namespace of its own, without any map yet.
    pub(crate) fn new() -> Result<Self, Errno> {
        let stack = Stack::take()?;
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::CLONE_NEWUSER;
        let mut pidfd: RawFd = -1;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let blocked = BlockedSignals::new();
        // SAFETY: the stack is private, unused and large enough, and stays until the process is
        // reaped; `hold` touches no memory but that stack, and runs with every signal blocked.
        let pid = unsafe {
            libc::clone(
                hold,
                stack.top(),
                flags | libc::SIGCHLD,
                std::ptr::without_provenance_mut::<c_void>(own.cast_unsigned() as usize),
                &raw mut pidfd,
            )
        };
        let errno = Errno::from_io_error(&std::io::Error::last_os_error());
        drop(blocked);
        if pid < 0 {
            stack.put_back();
            return Err(errno.unwrap_or(Errno::AGAIN));
        }
        Ok(Self {
            pid: pid.unsigned_abs(),
            // SAFETY: the kernel stored a new descriptor that has no other owner.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            stack: Some(stack),
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
        let reaped = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                // Reaped elsewhere, if the host waits for any child: then it has ended too.
                Ok(_) | Err(Errno::CHILD) => break true,
                Err(_) => break false,
            }
        };
        match self.stack.take() {
            Some(stack) if reaped => stack.put_back(),
            // It might run on it still.
            stack => std::mem::forget(stack),
        }
    }
}

/// Ends when `parent` does, or is killed.
extern "C" fn hold(parent: *mut c_void) -> c_int {
    let kill = libc::SIGKILL as usize;
    // SAFETY: these calls take no memory.
    unsafe {
        call(
            libc::SYS_prctl,
            [libc::PR_SET_PDEATHSIG as usize, kill, 0, 0, 0],
        );
        // It may have ended before it was asked for the signal.
        while call(libc::SYS_getppid, [0; 5]) == parent.addr().cast_signed() {
            // Until a signal that is not blocked: that is one only.
            call(libc::SYS_ppoll, [0; 5]);
        }
    }
    0
}

/// A system call that leaves `errno` alone.
///
/// # Safety
/// As of the call.
#[inline(always)]
pub(super) unsafe fn call(number: c_long, args: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller's; registers are as the kernel leaves them.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            options(nostack),
        );
    }
    result
}
