//! A process that kills everything in its Landlock domain when it is told to, or when this process
//! is gone.
//!
//! Landlock lets a process signal only what is in its own domain or in one below it, so that
//! `kill(-1)` of a process in a domain reaches exactly the programs that were started in it, daemons
//! that left their group and session among them, and at once: the kernel holds its list of processes
//! meanwhile. It must never kill before it has seen that its domain holds it.
//!
//! It shares this process's memory, so that nothing is copied for it, runs on a stack of its own and
//! executes nothing; its descriptors are its own, and it closes all but one.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::holder::call;
use super::launch::{BlockedSignals, Stack, copied};

/// Dropping it lets it kill, and waits for its end.
pub(crate) struct Keeper {
    pidfd: OwnedFd,
    /// Socket whose closing is the order.
    order: Option<OwnedFd>,
    orders: Box<Orders>,
    stack: Option<Stack>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// Input of the process, on memory that this process keeps until it has ended.
struct Orders {
    socket: RawFd,
    host: c_int,
}

impl Keeper {
    /// Starts one in the Landlock domain of the calling thread.
    ///
    /// # Errors
    /// `PERM` if that thread's domain does not keep it from signalling this process.
    pub(crate) fn start() -> Result<Self, Errno> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let orders = Box::new(Orders {
            socket: theirs.as_raw_fd(),
            host: rustix::process::getpid().as_raw_nonzero().get(),
        });
        let stack = Stack::take()?;
        let mut pidfd: RawFd = -1;
        let held = copied();
        let blocked = BlockedSignals::new();
        // SAFETY: the stack is private, unused and large enough, and stays until the process is
        // reaped, as do its orders; `keep` touches no other memory, and runs with every signal
        // blocked.
        let pid = unsafe {
            libc::clone(
                keep,
                stack.top(),
                libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD,
                std::ptr::from_ref::<Orders>(&orders)
                    .cast_mut()
                    .cast::<c_void>(),
                &raw mut pidfd,
            )
        };
        let errno = Errno::from_io_error(&std::io::Error::last_os_error());
        drop(blocked);
        drop(held);
        if pid < 0 {
            stack.put_back();
            return Err(errno.unwrap_or(Errno::AGAIN));
        }
        drop(theirs);
        let keeper = Self {
            // SAFETY: the kernel stored a new descriptor that has no other owner.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            order: Some(ours),
            orders,
            stack: Some(stack),
        };
        let mut ready = [0];
        loop {
            let order = keeper.order.as_ref().ok_or(Errno::BADF)?;
            match rustix::io::read(order, &mut ready) {
                Ok(1) => return Ok(keeper),
                Err(Errno::INTR) => {}
                // It found that nothing holds it, and ended.
                _ => return Err(Errno::PERM),
            }
        }
    }

    /// Lets it kill everything in its domain, without waiting.
    pub(crate) fn kill(&mut self) {
        self.order = None;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.order = None;
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
            stack => {
                std::mem::forget(stack);
                let orders = Orders {
                    socket: self.orders.socket,
                    host: self.orders.host,
                };
                std::mem::forget(std::mem::replace(&mut self.orders, Box::new(orders)));
            }
        }
    }
}

extern "C" fn keep(orders: *mut c_void) -> c_int {
    // SAFETY: `start` passes orders that live until this process was waited for.
    let Orders { socket, host } = unsafe { &*orders.cast::<Orders>() };
    let (socket, host) = (*socket as usize, *host as usize);
    let kill = libc::SIGKILL as usize;
    let everything = -1_isize as usize;
    let mut byte = 0_u8;
    let at = (&raw mut byte).expose_provenance();
    // SAFETY: these calls take no memory but `byte`, and change nothing but this process's own
    // descriptors, which are not shared.
    unsafe {
        if socket > 0 {
            call(libc::SYS_close_range, [0, socket - 1, 0, 0, 0]);
        }
        call(
            libc::SYS_close_range,
            [socket + 1, c_int::MAX as usize, 0, 0, 0],
        );
        // As long as a signal would reach the host it would reach everything else of its user.
        if call(libc::SYS_kill, [host, 0, 0, 0, 0]) != -(libc::EPERM as isize) {
            return 1;
        }
        if call(libc::SYS_write, [socket, at, 1, 0, 0]) != 1 {
            return 1;
        }
        while call(libc::SYS_read, [socket, at, 1, 0, 0]) == -(libc::EINTR as isize) {}
        call(libc::SYS_kill, [everything, kill, 0, 0, 0]);
    }
    0
}
