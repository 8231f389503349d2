//! Signals of a command that is started as a child of the C library's.
//!
//! A child ignores what its parent ignores, such as SIGHUP under nohup(1). Between fork and exec it
//! must only make system calls.
//!
//! Reference: signal(7), "Signal dispositions" across execve(2).

use std::ffi::{c_int, c_long};

/// The signals that there are, with the two that the C library keeps for its threads and does not
/// let programs ask for.
const ALL: std::ops::RangeInclusive<c_int> = 1..=64;

/// `struct sigaction` of the kernel: what is done, flags, a way back, a mask. All zero is the default.
type Action = [usize; 4];
const MASK: usize = 8;

/// Lets a command begin with the default action of every signal that this process ignores now. Says
/// whether there are any: then something is to be done between fork and exec.
pub(crate) fn reset(command: &mut tokio::process::Command) -> bool {
    // The standard library resets SIGPIPE itself.
    let ignored: Vec<c_int> = ALL
        .filter(|number| *number != libc::SIGPIPE && is_ignored(*number))
        .collect();
    if ignored.is_empty() {
        return false;
    }
    // SAFETY: the closure only makes system calls, on memory that it holds.
    unsafe {
        command.pre_exec(move || {
            let default: Action = [0; 4];
            for number in &ignored {
                action(*number, &raw const default, std::ptr::null_mut());
            }
            Ok(())
        });
    }
    true
}

fn is_ignored(number: c_int) -> bool {
    let mut found: Action = [0; 4];
    // SAFETY: without a new action the call only fills the memory that it is given.
    let done = unsafe { action(number, std::ptr::null(), &raw mut found) };
    done == 0 && found[0] == libc::SIG_IGN
}

/// # Safety
/// As rt_sigaction(2): both pointers are null or to an action.
unsafe fn action(number: c_int, new: *const Action, old: *mut Action) -> c_long {
    // SAFETY: the caller's.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, number, new, old, MASK) }
}
