//! Signals of a command that is started as an ordinary child.
//!
//! A child ignores what its parent ignores, such as SIGHUP under nohup(1). Between fork and exec it
//! must only make system calls.
//!
//! Reference: signal(7), "Signal dispositions" across execve(2).

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// The signals that there are.
const ALL: std::ops::RangeInclusive<c_int> = 1..=64;

/// Lets a command begin with the default action of every signal that this process ignores now.
pub(crate) fn reset(command: &mut tokio::process::Command) {
    // The standard library resets SIGPIPE itself, and starts a command without such a step faster.
    let ignored: Vec<c_int> = ALL
        .filter(|number| *number != libc::SIGPIPE && is_ignored(*number))
        .collect();
    if ignored.is_empty() {
        return;
    }
    // SAFETY: the closure only makes system calls, on memory that it holds.
    unsafe {
        command.pre_exec(move || {
            for number in &ignored {
                libc::signal(*number, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

fn is_ignored(number: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills the structure, or says that it has not.
    unsafe {
        libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
