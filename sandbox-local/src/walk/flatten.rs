//! Removes a tree that a guest has left, of any depth, in constant memory.
//!
//! A guest can nest directories without end, which going up and down would pay for with memory of
//! the host: directories are moved up instead, so that a tree is flat before it is removed. A guest
//! can take its own directories' permission bits away, and overlayfs leaves a directory of mode
//! 000: as an ordinary user both are opened up first. What was begun can be left at any point and
//! taken up again later.

use std::ffi::CStr;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, Result as Sys};

use super::beneath::{DIR_PATH, make_usable, open_dir, open_same_mount, stat_at};

/// Progress of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is left.
    Gone,
    /// The time was up; what is left can be removed later.
    Left,
}

/// Removes a directory with all that is in it, or a link, until `deadline` at most. What is at
/// `keep` in it stays until the rest is gone.
pub(crate) fn remove(
    path: &Path,
    keep: Option<&CStr>,
    deadline: Option<Instant>,
) -> io::Result<Progress> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat(CWD, path, flags, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(Progress::Gone),
        Err(errno) => return Err(errno.into()),
    };
    let mode = rustix::fs::fstat(&found)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Directory {
        std::fs::remove_file(path)?;
        return Ok(Progress::Gone);
    }
    if empty(&found, keep, deadline)? == Progress::Left {
        return Ok(Progress::Left);
    }
    std::fs::remove_dir(path)?;
    Ok(Progress::Gone)
}

/// Removes a directory of a directory with all that is in it.
pub(crate) fn remove_in(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let found = open_same_mount(parent, name.to_bytes(), DIR_PATH)?;
    empty(&found, None, None)?;
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Removes what is in a directory.
fn empty(dir: &OwnedFd, keep: Option<&CStr>, deadline: Option<Instant>) -> io::Result<Progress> {
    make_usable(dir)?;
    let top = open_same_mount(dir, b"", super::DIR_READ)?;
    let mut flat = Flat {
        top: top.as_fd(),
        prefix: format!("{:016x}", RandomState::new().build_hasher().finish()),
        moved: 0,
        keep,
        deadline,
    };
    loop {
        match flat.pass()? {
            Pass::Empty => break,
            Pass::More => {}
            Pass::TimeIsUp => return Ok(Progress::Left),
        }
    }
    if let Some(last) = keep {
        match unlinkat(&top, last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Progress::Gone)
}

/// A tree that is being flattened into its top directory.
struct Flat<'a> {
    top: BorrowedFd<'a>,
    /// Prefix of the names of directories that were moved up: nothing that is there already.
    prefix: String,
    moved: u64,
    keep: Option<&'a CStr>,
    deadline: Option<Instant>,
}

/// Result of a pass over the top directory.
enum Pass {
    Empty,
    More,
    TimeIsUp,
}

impl Flat<'_> {
    fn is_time_up(&self) -> bool {
        self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// Removes the files of the top directory, and its directories after those in them were moved
    /// up.
    fn pass(&mut self) -> Sys<Pass> {
        let mut found = Pass::Empty;
        for entry in Dir::read_from(self.top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) || self.keep == Some(name) {
                continue;
            }
            found = Pass::More;
            if is_dir(self.top, name, entry.file_type())? {
                if !self.directory(name)? {
                    return Ok(Pass::TimeIsUp);
                }
            } else {
                unlinkat(self.top, name, AtFlags::empty())?;
                if self.is_time_up() {
                    return Ok(Pass::TimeIsUp);
                }
            }
        }
        Ok(found)
    }

    /// Says whether the time was enough.
    fn directory(&mut self, name: &CStr) -> Sys<bool> {
        let dir = open_dir(self.top, name.to_bytes(), true)?.dir;
        loop {
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let below = entry.file_name();
                if is_dots(below) {
                    continue;
                }
                if is_dir(dir.as_fd(), below, entry.file_type())? {
                    self.move_up(dir.as_fd(), below)?;
                } else {
                    unlinkat(&dir, below, AtFlags::empty())?;
                }
                if self.is_time_up() {
                    return Ok(false);
                }
            }
            match unlinkat(self.top, name, AtFlags::REMOVEDIR) {
                // A filesystem may leave entries out while others are being removed.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                result => return result.map(|()| true),
            }
        }
    }

    fn move_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> Sys<()> {
        self.moved += 1;
        let to = format!("{}-{}", self.prefix, self.moved);
        match rustix::fs::renameat(from, name, self.top, to.as_str()) {
            // Its own `..` changes, for which it must be writable.
            Err(Errno::ACCESS) => {
                make_usable(open_same_mount(from, name.to_bytes(), DIR_PATH)?)?;
                rustix::fs::renameat(from, name, self.top, to)
            }
            result => result,
        }
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn is_dir(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Sys<bool> {
    match kind {
        FileType::Unknown => {
            let mode = stat_at(parent, name)?.st_mode;
            Ok(FileType::from_raw_mode(mode) == FileType::Directory)
        }
        kind => Ok(kind == FileType::Directory),
    }
}
