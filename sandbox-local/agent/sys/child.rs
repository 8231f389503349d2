//! The first steps of a new process, between clone and its program.
//!
//! It shares the agent's memory: it must never write anything but its slot's
//! atomics and its own stack, and must never return.

use core::sync::atomic::Ordering;

use super::arch::nr;
use super::slot::{self, NOFILE, SOFT_FILES, Slot};
use super::{
    EACCES, ENOENT, ENOTDIR, ETXTBSY, Errno, Result, call, inode, pause_ms, plain, set_mask,
};
use crate::protocol::stage;

/// Number of tries for a program that is open for writing, a millisecond apart.
///
/// A process that was just cloned has its parent's descriptors for a moment, also that of a file
/// which is being written: what was just closed may still be open there. Only the process that
/// executes the file can wait for that.
const BUSY_TRIES: u32 = 1000;

/// Runs the slot's job.
///
/// # Safety
/// `slot` must be a static [`Slot`] that was launched.
pub(super) unsafe extern "C" fn run(slot: *const core::ffi::c_void) -> ! {
    // SAFETY: the caller's promise.
    let slot = unsafe { &*slot.cast::<Slot>() };
    let (stage, errno) = prepare_and_exec(slot);
    slot.errno.store(errno.0, Ordering::Release);
    slot.stage.store(stage, Ordering::Release);
    loop {
        let _ = plain(nr::EXIT, [127, 0, 0, 0, 0, 0]);
    }
}

fn prepare_and_exec(slot: &Slot) -> (u32, Errno) {
    // SAFETY: the agent wrote both before the clone and leaves them alone until
    // this process is gone from its memory.
    let (job, table) = unsafe { (*slot.job.get(), *slot.table.get()) };
    match inode(job.proc, c"self/ns/uts") {
        Ok(mark) => slot.mark.store(mark, Ordering::Release),
        Err(errno) => return (stage::SETUP, errno),
    }
    if let Err(errno) = adopt(&[job.stdin, job.stdout, job.stderr], job.terminal) {
        return (stage::SETUP, errno);
    }
    let word = |i: usize| -> usize {
        // SAFETY: `relocate` checked that the table has all the words used here.
        unsafe { *table.add(i) }
    };
    let candidates = job.arguments + 1 + job.environment + 1;
    // SAFETY: `relocate` made this the address of a zero-terminated string.
    if let Err(errno) = unsafe {
        call(
            nr::CHDIR,
            [word(candidates + job.candidates), 0, 0, 0, 0, 0],
        )
    } {
        return (stage::CWD, errno);
    }
    if let Err(errno) = set_mask(0) {
        return (stage::SETUP, errno);
    }
    let argv = table as usize;
    let envp = argv + 8 * (job.arguments + 1);
    if let Some(fd) = job.program {
        const AT_EMPTY_PATH: usize = 0x1000;
        let empty = c"".as_ptr() as usize;
        // SAFETY: argv and envp are zero-ended arrays of strings, see `relocate`.
        let errno = unsafe {
            exec(
                nr::EXECVEAT,
                [fd as usize, empty, argv, envp, AT_EMPTY_PATH, 0],
            )
        };
        return (stage::EXEC, errno);
    }
    let mut last = Errno(ENOENT);
    for i in 0..job.candidates {
        // SAFETY: as above.
        match unsafe { exec(nr::EXECVE, [word(candidates + i), argv, envp, 0, 0, 0]) } {
            // As execvp does: a file that may not be executed is the better
            // explanation than a later directory that does not have it.
            Errno(ENOENT | ENOTDIR) => {}
            Errno(EACCES) => last = Errno(EACCES),
            errno => return (stage::EXEC, errno),
        }
    }
    (stage::EXEC, last)
}

/// Executes a program; only returns why that failed.
///
/// # Safety
/// As for [`call`].
unsafe fn exec(number: usize, args: [usize; 6]) -> Errno {
    let mut tries = 0;
    loop {
        // SAFETY: the caller's promise.
        let errno = unsafe { call(number, args) }.err().unwrap_or(Errno(ENOENT));
        if errno != Errno(ETXTBSY) || tries == BUSY_TRIES {
            return errno;
        }
        tries += 1;
        pause_ms(1);
    }
}

/// A session of its own, the three standard streams, and nothing else across
/// the exec.
fn adopt(streams: &[i32; 3], terminal: bool) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    const TIOCSCTTY: usize = 0x540e;
    limit_files()?;
    plain(nr::SETSID, [0; 6])?;
    for (to, from) in streams.iter().enumerate() {
        plain(nr::DUP3, [*from as usize, to, 0, 0, 0, 0])?;
    }
    if terminal {
        plain(nr::IOCTL, [0, TIOCSCTTY, 0, 0, 0, 0])?;
    }
    plain(
        nr::CLOSE_RANGE,
        [3, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0],
    )?;
    Ok(())
}

/// Half of the agent's open files. The same limit holds for descriptors on their way through
/// sockets, which the kernel counts for all processes of a user together: guests that use up
/// theirs must not keep agents from sending one.
fn limit_files() -> Result<()> {
    let hard = slot::files();
    let limit = [SOFT_FILES.min(hard), hard];
    // SAFETY: the kernel reads a struct rlimit64, two words.
    unsafe { call(nr::PRLIMIT64, [0, NOFILE, limit.as_ptr() as usize, 0, 0, 0]) }?;
    Ok(())
}
