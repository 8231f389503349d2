//! Pipe input and output where the safe wrappers do not reach.
//! Must never let a guest that closes its standard input kill the application.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use tokio::io::ReadBuf;

/// Reads at most `limit` bytes into the unfilled part of `buffer`.
pub(crate) fn read(
    fd: BorrowedFd<'_>,
    buffer: &mut ReadBuf<'_>,
    limit: usize,
) -> rustix::io::Result<usize> {
    let limit = limit.min(buffer.remaining());
    // SAFETY: nothing below makes initialised bytes uninitialised.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let (filled, _) = rustix::io::read(fd, &mut unfilled[..limit])?;
    let len = filled.len();
    // SAFETY: the kernel wrote the first `len` unfilled bytes.
    unsafe { buffer.assume_init(len) };
    buffer.advance(len);
    Ok(len)
}

/// Writes to a pipe; one without a reader is `BrokenPipe`, never SIGPIPE.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // Rust's runtime ignores SIGPIPE, but a host in another language may not.
    if ignores_sigpipe() {
        return Ok(rustix::io::write(fd, bytes)?);
    }
    let mut pipe = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are initialised by the first call and the third before
    // anything reads them; blocking a signal in this thread is undone below.
    let blocked_before = unsafe {
        libc::sigemptyset(pipe.as_mut_ptr());
        libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), old.as_mut_ptr());
        libc::sigismember(old.as_ptr(), libc::SIGPIPE) == 1
    };
    let result = rustix::io::write(fd, bytes);
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `pipe`, `old` and `none` are initialised; SIGPIPE from a write is
    // sent to the writing thread, so it can be taken off again here.
    unsafe {
        if result == Err(rustix::io::Errno::PIPE) && !blocked_before {
            libc::sigtimedwait(pipe.as_ptr(), std::ptr::null_mut(), &raw const none);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut());
    }
    Ok(result?)
}

fn ignores_sigpipe() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action the call only writes the current one.
    unsafe {
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
