//! Changes of modes and times by path, which Landlock has no right for: the host makes them in the
//! guest's place, below the sandbox's root and nowhere else.
//!
//! A guest may change its memory and rename directories meanwhile: each argument is read once, and
//! what a path leads to is held by a descriptor from the moment that it is looked at. It must never
//! let a call through as it stands.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2};
use rustix::io::{Errno, Result as Sys};

use crate::sys::notify::{Call, next};
use crate::walk::set_mode;

/// Numbers that the same call has on every architecture.
const SYS_FCHMODAT2: i64 = 452;
/// The longest path that the kernel takes, with its end.
const PATH_MAX: usize = 4096;

/// Answers until nothing runs under the filter any more.
pub(super) fn answer_until_empty(listener: BorrowedFd<'_>, root: &Path) {
    while let Ok(Some(call)) = next(listener) {
        let done = answer(&call, listener, root);
        call.answer(listener, done);
    }
}

/// Change that a call asks for.
enum Asked {
    Mode(u32),
    Times(Option<Timestamps>),
}

fn answer(call: &Call, listener: BorrowedFd<'_>, root: &Path) -> Sys<()> {
    let memory = File::open(format!("/proc/{}/mem", call.thread)).map_err(|_| Errno::PERM)?;
    let number = i64::from(call.number);
    let [first, second, third, fourth, ..] = call.args;
    let (dir, path, asked, flags) = match number {
        libc::SYS_fchmodat => (first as i32, second, Asked::Mode(third as u32), 0),
        SYS_FCHMODAT2 => (first as i32, second, Asked::Mode(third as u32), fourth),
        libc::SYS_utimensat => {
            let times = times(&memory, third)?;
            (first as i32, second, Asked::Times(times), fourth)
        }
        // chmod(2), which only some architectures have.
        _ => (libc::AT_FDCWD, first, Asked::Mode(second as u32), 0),
    };
    let flags = flags as u32;
    let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    if flags & !known.cast_unsigned() != 0 {
        return Err(Errno::INVAL);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() == 0;
    let path = text(&memory, path)?;
    let at = place(call.thread, dir)?;
    // Only now is it certain that all this was of the thread that asks.
    if !call.is_waiting(listener) {
        return Err(Errno::SRCH);
    }
    let found = if path.is_empty() {
        if flags & libc::AT_EMPTY_PATH.cast_unsigned() == 0 {
            return Err(Errno::NOENT);
        }
        at
    } else {
        let mut how = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            how |= OFlags::NOFOLLOW;
        }
        openat2(&at, &*path, how, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?
    };
    if !is_below(&found, root)? {
        return Err(Errno::PERM);
    }
    match asked {
        Asked::Mode(mode) if mode & 0o6000 != 0 => Err(Errno::PERM),
        Asked::Mode(mode) => set_mode(&found, mode & 0o1777),
        Asked::Times(times) => {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_NOW,
            };
            let times = times.unwrap_or(Timestamps {
                last_access: now,
                last_modification: now,
            });
            rustix::fs::utimensat(&found, c"", &times, AtFlags::EMPTY_PATH)
        }
    }
}

/// The directory that a path of the guest's begins at.
fn place(thread: u32, dir: i32) -> Sys<OwnedFd> {
    let link = match dir {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        dir if dir >= 0 => format!("/proc/{thread}/fd/{dir}"),
        _ => return Err(Errno::BADF),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, link, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Errno::BADF,
        errno => errno,
    })
}

/// Whether it lies below the root, by the name that the kernel has for it now. A guest can move it
/// nowhere else: Landlock lets it make and rename only there.
fn is_below(found: &OwnedFd, root: &Path) -> Sys<bool> {
    let link = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    let name = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(Path::new(OsStr::from_bytes(name.as_bytes())).starts_with(root))
}

/// A path in the guest's memory.
fn text(memory: &File, at: u64) -> Sys<Vec<u8>> {
    let mut text = Vec::new();
    // A page at a time: what comes after the end may not be there.
    while text.len() < PATH_MAX {
        let from = at.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let mut page = vec![0; 4096 - (from % 4096) as usize];
        let read = memory.read_at(&mut page, from).map_err(|_| Errno::FAULT)?;
        if read == 0 {
            return Err(Errno::FAULT);
        }
        page.truncate(read);
        if let Some(end) = page.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&page[..end]);
            return Ok(text);
        }
        text.extend_from_slice(&page);
    }
    Err(Errno::NAMETOOLONG)
}

/// Two times in the guest's memory; none for now.
fn times(memory: &File, at: u64) -> Sys<Option<Timestamps>> {
    if at == 0 {
        return Ok(None);
    }
    let mut bytes = [0; 32];
    memory
        .read_exact_at(&mut bytes, at)
        .map_err(|_| Errno::FAULT)?;
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        i64::from_ne_bytes(word)
    };
    let time = |at| Timespec {
        tv_sec: word(at),
        tv_nsec: word(at + 8) as _,
    };
    Ok(Some(Timestamps {
        last_access: time(0),
        last_modification: time(16),
    }))
}
