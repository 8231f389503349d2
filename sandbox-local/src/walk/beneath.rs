//! The system calls of a walk: opening, looking at and changing the mode of one entry.
//!
//! Must never follow a link, and never name what it changes.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat, inotify, openat, openat2,
};
use rustix::io::{Errno, Result as Sys};

/// The kernel gives up with `EAGAIN` when a rename anywhere comes between; a guest that renames all
/// the time must not hold the host here for ever.
const ATTEMPTS: usize = 256;

/// A directory for the sake of its entries' names.
pub(crate) const DIR_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// A directory to be read.
pub(crate) const DIR_READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path below a directory, not following any link, not even one that stays below.
pub(crate) fn open_beneath(dir: impl AsFd, rel: &[u8], flags: OFlags) -> Sys<OwnedFd> {
    let rel = if rel.is_empty() { b"." } else { rel };
    let flags = flags | OFlags::NOFOLLOW;
    resolve(dir, rel, flags, NO_LINKS | ResolveFlags::BENEATH)
}

/// Opens like [`open_beneath`], and not into another mount either.
pub(crate) fn open_same_mount(dir: impl AsFd, rel: &[u8], flags: OFlags) -> Sys<OwnedFd> {
    let rel = if rel.is_empty() { b"." } else { rel };
    let flags = flags | OFlags::NOFOLLOW;
    let how = NO_LINKS | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    resolve(dir, rel, flags, how)
}

/// Opens the directory above one. A rename may have made it another than the one that led here:
/// the caller compares.
pub(super) fn open_above(dir: impl AsFd, flags: OFlags, same_mount: bool) -> Sys<OwnedFd> {
    let how = match same_mount {
        true => NO_LINKS | ResolveFlags::NO_XDEV,
        false => NO_LINKS,
    };
    resolve(dir, b"..", flags | OFlags::NOFOLLOW, how)
}

/// Calls `openat2(2)`, again where the kernel asks for it.
pub(crate) fn resolve(
    dir: impl AsFd,
    path: &[u8],
    flags: OFlags,
    how: ResolveFlags,
) -> Sys<OwnedFd> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(
            dir.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        );
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// Opens for use what an `O_PATH` descriptor refers to: the same file, whatever has become of its
/// name. The caller has seen that it is a regular file or a directory.
pub(crate) fn reopen(path: impl AsFd, flags: OFlags) -> Sys<OwnedFd> {
    // Without blocking, should anything be odd about it all the same; on a regular file it has no
    // effect.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(CWD, own_link(&path), flags, Mode::empty()).map_err(no_proc)
}

/// Changes the mode of what a descriptor refers to, `O_PATH` or not.
///
/// By the descriptor, because `fchmodat` follows a link in the name's place, out of the tree.
pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> Sys<()> {
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::fchmod(&file, mode) {
        // It is an `O_PATH` descriptor.
        Err(Errno::BADF) => {
            let link = own_link(&file);
            rustix::fs::chmodat(CWD, link, mode, AtFlags::empty()).map_err(no_proc)
        }
        result => result,
    }
}

/// Adds a directory to those that an inotify instance watches; gives its number there.
///
/// By the descriptor, as everything here: of the directory that was opened, whatever has its name.
pub(crate) fn watch_dir(inotify: impl AsFd, dir: impl AsFd, flags: WatchFlags) -> Sys<i32> {
    inotify::add_watch(inotify, own_link(&dir), flags).map_err(no_proc)
}

fn own_link(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// The descriptor is open, so that it can't be the file that is not found.
fn no_proc(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT => Errno::NOSYS,
        other => other,
    }
}

/// Describes an entry; a link itself.
pub(crate) fn stat_at(dir: impl AsFd, name: &CStr) -> Sys<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// An open directory, with the mode that it had if it was changed for that.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dir: OwnedFd,
    /// The mode to give back.
    pub(crate) closed: Option<RawMode>,
}

/// Permission that the owner of a directory needs to read it and to go into it.
const USABLE: RawMode = 0o700;

/// Opens a directory of a directory for reading. With `open_up`, one that its owner may not read
/// or search is made so, as the owner may.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8], open_up: bool) -> Sys<Opened> {
    match open_same_mount(&dir, name, DIR_READ) {
        Err(Errno::ACCESS) if open_up => {
            let found = open_same_mount(&dir, name, DIR_PATH)?;
            let closed = make_usable(&found)?;
            let dir = open_same_mount(&found, b"", DIR_READ).inspect_err(|_| {
                if let Some(mode) = closed {
                    let _ = set_mode(&found, mode);
                }
            })?;
            Ok(Opened { dir, closed })
        }
        Ok(dir) if open_up => Ok(Opened {
            closed: make_usable(&dir)?,
            dir,
        }),
        result => Ok(Opened {
            dir: result?,
            closed: None,
        }),
    }
}

/// Gives the mode that was there before, if it had to be changed.
pub(super) fn make_usable(dir: impl AsFd) -> Sys<Option<RawMode>> {
    let mode = rustix::fs::fstat(&dir)?.st_mode & 0o7777;
    if mode & USABLE == USABLE {
        return Ok(None);
    }
    set_mode(&dir, mode | USABLE)?;
    Ok(Some(mode))
}

/// A file opened for reading, readable to its owner for as long as this lives.
#[derive(Debug)]
pub(crate) struct GuardedFile {
    file: OwnedFd,
    closed: Option<RawMode>,
}

impl AsFd for GuardedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for GuardedFile {
    fn drop(&mut self) {
        if let Some(mode) = self.closed {
            let _ = set_mode(&self.file, mode);
        }
    }
}

/// Opens a regular file of a directory for reading, if it is the one that was looked at.
///
/// # Errors
/// `ESTALE` if something else has its name by now.
pub(crate) fn open_file(
    dir: impl AsFd,
    name: &CStr,
    seen: &Stat,
    open_up: bool,
) -> Sys<GuardedFile> {
    let found = open_same_mount(dir, name.to_bytes(), OFlags::PATH)?;
    let stat = rustix::fs::fstat(&found)?;
    let same = (stat.st_dev, stat.st_ino) == (seen.st_dev, seen.st_ino);
    if !same || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::STALE);
    }
    let mode = stat.st_mode & 0o7777;
    let closed = (open_up && mode & 0o400 == 0).then_some(mode);
    if closed.is_some() {
        set_mode(&found, mode | 0o400)?;
    }
    match reopen(&found, OFlags::RDONLY) {
        Ok(file) => Ok(GuardedFile { file, closed }),
        Err(errno) => {
            if let Some(mode) = closed {
                let _ = set_mode(&found, mode);
            }
            Err(errno)
        }
    }
}
