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
use super::child;
use super::socket::{self, Fds};
use super::{Errno, Result, call, unmap};
use crate::protocol::{INLINE_PAYLOAD, Message};

/// Processes that may be on their way at once; more wait for one of these.
pub(crate) const SLOTS: usize = 16;

const STACK: usize = 8 * 1024;
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

const CLONE_VM: usize = 0x100;
const CLONE_CHILD_CLEARTID: usize = 0x0020_0000;
const CLONE_NEWUTS: usize = 0x0400_0000;
const SIGCHLD: usize = 17;

#[repr(C, align(16))]
struct Stack([u8; STACK]);

#[repr(C, align(16))]
struct Buffer([u8; BUFFER]);

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
    fn words(&self) -> Option<usize> {
        let ended = self
            .arguments
            .checked_add(1)?
            .checked_add(self.environment)?
            .checked_add(1)?;
        ended.checked_add(self.candidates)?.checked_add(1)
    }
}

/// A payload that came as a memfd.
type Mapping = Option<&'static mut [u8]>;

/// See the module's documentation.
#[repr(C)]
pub(crate) struct Slot {
    stack: UnsafeCell<Stack>,
    buffer: UnsafeCell<Buffer>,
    pub(super) job: UnsafeCell<Job>,
    pub(super) table: UnsafeCell<*const usize>,
    mapping: UnsafeCell<Mapping>,
    busy: AtomicBool,
    running: AtomicU32,
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

    /// Starts a process from the payload that was received here after the
    /// message, or from `mapping`. `None`: the payload makes no sense.
    pub(crate) fn launch(&self, job: Job, len: usize, mapping: Mapping) -> Option<Result<i32>> {
        let (base, len) = match mapping {
            Some(mapping) => {
                let found = (mapping.as_mut_ptr(), mapping.len());
                // SAFETY: the slot is free; only the agent touches this field.
                unsafe { *self.mapping.get() = Some(mapping) };
                found
            }
            None => {
                if len > INLINE_PAYLOAD {
                    return None;
                }
                // SAFETY: the buffer is SIZE + INLINE_PAYLOAD bytes long.
                (
                    unsafe { self.buffer.get().cast::<u8>().add(Message::SIZE) },
                    len,
                )
            }
        };
        self.busy.store(true, Ordering::Relaxed);
        // SAFETY: `base` is the start of `len` bytes that the slot owns and that
        // no process reads now; both kinds are at least eight-byte aligned.
        if !unsafe { relocate(base, len, &job) } {
            self.release();
            return None;
        }
        // SAFETY: no process reads these before the clone below.
        unsafe {
            *self.job.get() = job;
            *self.table.get() = base.cast::<usize>();
        }
        self.stage.store(0, Ordering::Relaxed);
        self.errno.store(0, Ordering::Relaxed);
        self.mark.store(0, Ordering::Relaxed);
        self.running.store(1, Ordering::Release);
        let flags = CLONE_VM | CLONE_CHILD_CLEARTID | CLONE_NEWUTS | SIGCHLD;
        // SAFETY: the stack is the slot's own and unused; `child::run` never
        // returns; slots are static, so the argument outlives the process.
        let pid = unsafe {
            let top = self.stack.get().cast::<u8>().add(STACK);
            agent_clone(
                flags,
                top,
                child::run,
                (&raw const *self).cast(),
                self.running.as_ptr(),
            )
        };
        if pid < 0 {
            self.running.store(0, Ordering::Release);
            self.release();
            return Some(Err(Errno(-pid as i32)));
        }
        Some(Ok(pid as i32))
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

/// Turns the offsets in the table into addresses, if every one of them lies
/// behind the table and the payload ends with a zero byte.
///
/// # Safety
/// `base` must be eight-byte aligned and the start of `len` bytes that nothing
/// else reads or writes.
unsafe fn relocate(base: *mut u8, len: usize, job: &Job) -> bool {
    let Some(words) = job.words().filter(|words| *words <= len / 8) else {
        return false;
    };
    let table = words * 8;
    if len <= table {
        return false;
    }
    // SAFETY: within `len`.
    if unsafe { *base.add(len - 1) } != 0 {
        return false;
    }
    for i in 0..words {
        // SAFETY: `words` aligned words fit into `len`.
        let word = unsafe { &mut *base.cast::<usize>().add(i) };
        let end = i == job.arguments || i == job.arguments + 1 + job.environment;
        if end {
            if *word != 0 {
                return false;
            }
        } else if *word < table || *word >= len {
            return false;
        } else {
            *word += base as usize;
        }
    }
    true
}

#[cfg(test)]
use super::fake::agent_clone;

#[cfg(not(test))]
unsafe extern "C" {
    /// Clones, and runs `entry(argument)` on the new stack in the child.
    fn agent_clone(
        flags: usize,
        stack_top: *mut u8,
        entry: unsafe extern "C" fn(*const core::ffi::c_void) -> !,
        argument: *const core::ffi::c_void,
        child_tid: *mut u32,
    ) -> isize;
}
