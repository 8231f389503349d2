//! The clone that starts a process in its slot.
//!
//! Must never clone before the slot holds all that the new process reads.

use core::sync::atomic::Ordering;

use super::child;
use super::slot::{Job, Mapping, STACK, Slot};
use super::{Errno, Result};
use crate::protocol::{INLINE_PAYLOAD, Message};

const CLONE_VM: usize = 0x100;
const CLONE_CHILD_CLEARTID: usize = 0x0020_0000;
const CLONE_NEWUTS: usize = 0x0400_0000;
const SIGCHLD: usize = 17;

impl Slot {
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
