//! Places in which processes are started: a receive buffer, and what the agent
//! and a new process share until its program runs.
//!
//! A new process borrows the agent's address space (CLONE_VM), but the agent does
//! not wait for it (no CLONE_VFORK): a guest may send SIGSTOP to a process that
//! has not executed its program yet, and must not stop the agent with it. So the
//! buffer, the stack and the job stay untouched until the kernel clears `running`
//! as the process leaves the address space. A busy slot must never be written to.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::arch::nr;
use super::socket::{self, Fds};
use super::{Errno, Result, call, unmap};
use crate::protocol::{INLINE_PAYLOAD, Message};

/// Processes that may be on their way at once; more wait for one of these.
pub(crate) const SLOTS: usize = 16;

pub(super) const STACK: usize = 8 * 1024;
const BUFFER: usize = Message::SIZE + INLINE_PAYLOAD;

/// RLIMIT_NOFILE, and what of it a command has unless it asks for more.
pub(super) const NOFILE: usize = 7;
pub(super) const SOFT_FILES: u64 = 1024;

/// Files that a command may have open: found out once by [`limit_files`].
static FILES: AtomicU64 = AtomicU64::new(0);

/// Gives commands half of the open files that the agent may have.
pub(crate) fn limit_files() -> Result<()> {
    let mut limit = [0_u64; 2];
    // SAFETY: the kernel writes a struct rlimit64, two words.
    unsafe {
        call(
            nr::PRLIMIT64,
            [0, NOFILE, 0, limit.as_mut_ptr() as usize, 0, 0],
        )
    }?;
    let [_, hard] = limit;
    FILES.store(hard / 2, Ordering::Relaxed);
    Ok(())
}

/// Limit that [`limit_files`] found.
pub(super) fn files() -> u64 {
    FILES.load(Ordering::Relaxed)
}

#[repr(C, align(16))]
pub(super) struct Stack([u8; STACK]);

#[repr(C, align(16))]
pub(super) struct Buffer([u8; BUFFER]);

/// Description of a process that is to be started.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) stdin: i32,
    pub(crate) stdout: i32,
    pub(crate) stderr: i32,
    /// Whether standard input is to be the controlling terminal.
    pub(crate) terminal: bool,
    /// A program handed over as a descriptor, instead of the candidates.
    pub(crate) program: Option<i32>,
    /// The sandbox's own proc mount.
    pub(crate) proc: i32,
    pub(crate) arguments: usize,
    pub(crate) environment: usize,
    pub(crate) candidates: usize,
}

impl Job {
    /// All zero, so that it costs no space in the program.
    const EMPTY: Self = Self {
        stdin: 0,
        stdout: 0,
        stderr: 0,
        terminal: false,
        program: None,
        proc: 0,
        arguments: 0,
        environment: 0,
        candidates: 0,
    };

    /// Words of the table at the start of the payload: arguments and
    /// environment, each ended by zero, candidates, working directory.
    pub(super) fn words(&self) -> Option<usize> {
        let ended = self
            .arguments
            .checked_add(1)?
            .checked_add(self.environment)?
            .checked_add(1)?;
        ended.checked_add(self.candidates)?.checked_add(1)
    }
}

/// A payload that came as a memfd.
pub(super) type Mapping = Option<&'static mut [u8]>;

/// See the module's documentation.
#[repr(C)]
pub(crate) struct Slot {
    pub(super) stack: UnsafeCell<Stack>,
    pub(super) buffer: UnsafeCell<Buffer>,
    pub(super) job: UnsafeCell<Job>,
    pub(super) table: UnsafeCell<*const usize>,
    pub(super) mapping: UnsafeCell<Mapping>,
    pub(super) busy: AtomicBool,
    pub(super) running: AtomicU32,
    /// Stage at which the start failed, zero while it did not.
    pub(super) stage: AtomicU32,
    pub(super) errno: AtomicI32,
    /// Inode of the process's UTS namespace: the mark of its tree.
    pub(super) mark: AtomicU64,
}

// SAFETY: the agent is the only thread that calls methods; what a new process
// writes are the atomics, what it reads is not written while `running` is set.
unsafe impl Sync for Slot {}

static ALL: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// All slots.
pub(crate) fn all() -> &'static [Slot; SLOTS] {
    &ALL
}

impl Slot {
    const fn new() -> Self {
        Self {
            stack: UnsafeCell::new(Stack([0; STACK])),
            buffer: UnsafeCell::new(Buffer([0; BUFFER])),
            job: UnsafeCell::new(Job::EMPTY),
            table: UnsafeCell::new(core::ptr::null()),
            mapping: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            running: AtomicU32::new(0),
            stage: AtomicU32::new(0),
            errno: AtomicI32::new(0),
            mark: AtomicU64::new(0),
        }
    }

    /// Whether a start occupies the slot, until [`Self::release`].
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether the process still borrows the agent's memory.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) != 0
    }

    /// The mark of the process's tree, zero while unknown.
    pub(crate) fn mark(&self) -> u64 {
        self.mark.load(Ordering::Acquire)
    }

    /// Stage and errno of a failed start.
    pub(crate) fn failure(&self) -> Option<(u32, i32)> {
        match self.stage.load(Ordering::Acquire) {
            0 => None,
            stage => Some((stage, self.errno.load(Ordering::Acquire))),
        }
    }

    /// Sets what a real process finds out by itself.
    #[cfg(test)]
    pub(super) fn set_mark(&self, mark: u64) {
        self.mark.store(mark, Ordering::Release);
    }

    /// Receives a message into a free slot.
    pub(crate) fn receive(&self, wait: bool) -> Result<(&[u8], Fds)> {
        if self.is_busy() {
            return Err(Errno(super::EAGAIN));
        }
        let buffer = self.buffer.get().cast::<u8>();
        // SAFETY: the slot is free, so no process reads the buffer, and the last
        // message's borrow ended before this one was asked for (one thread, and
        // `serve` handles one message at a time).
        let (len, fds) = unsafe { socket::receive(buffer, BUFFER, wait)? };
        // SAFETY: `len` bytes were just written within the buffer.
        Ok((unsafe { core::slice::from_raw_parts(buffer, len) }, fds))
    }

    /// Waits until the process left the agent's memory, at most `ms`.
    pub(crate) fn wait(&self, ms: u64) {
        const FUTEX_WAIT: usize = 0;
        let time = [ms / 1000, ms % 1000 * 1_000_000];
        let seen = self.running.load(Ordering::Acquire);
        if seen != 0 {
            let word = self.running.as_ptr() as usize;
            // SAFETY: the word is static and the timespec lives through the call.
            let _ = unsafe {
                call(
                    nr::FUTEX,
                    [
                        word,
                        FUTEX_WAIT,
                        seen as usize,
                        time.as_ptr() as usize,
                        0,
                        0,
                    ],
                )
            };
        }
    }

    /// Frees the slot, once the process left it.
    pub(crate) fn release(&self) {
        if self.is_running() {
            return;
        }
        // SAFETY: no process uses the slot, and only the agent touches this field.
        if let Some(mapping) = unsafe { (*self.mapping.get()).take() } {
            unmap(mapping);
        }
        self.busy.store(false, Ordering::Relaxed);
    }
}
