//! Removing a whole tree, in the guest or on the host, even one that changes meanwhile.
//!
//! Invariant: no link is followed, no mount is entered and no mount point removed, whatever is
//! renamed meanwhile; descriptors, stack and memory do not grow with the tree.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, OFlags, RawDir, unlinkat};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{Error, ErrorKind, Result};

use super::place::Place;
use super::resolve::{DIR_PATH, DIR_READ, open_same_mount, set_mode};
use super::stat::{stat_at, stat_fd};
use crate::walk::{Cursor, Mounts};

/// Limit of bytes of names of directories that are still to be removed. Beyond it the
/// directory is read again later.
const PENDING_BYTES: usize = 8 << 20;

/// Number of times that a directory may be found with something new in it before that counts as
/// interference.
const PASSES: u32 = 256;

/// Removes the directory `name` of `parent` with all that is in it.
///
/// A directory that its owner may not read, write or search is made so first, as the owner could.
/// `place` is the directory that is removed.
pub(super) fn remove_tree(parent: impl AsFd, name: &[u8], place: &Place) -> Result<()> {
    let top = open_dir(parent.as_fd(), name).map_err(place.failed())?;
    let mut removal = Removal {
        stack: Cursor::new(top, DIR_READ, Mounts::StayOut),
        levels: vec![Level::default()],
        pending: 0,
        buffer: Vec::new(),
        place,
    };
    removal.run()?;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(place.changed(b"")),
        Err(errno) => Err(place.fail(errno, b"")),
    }
}

struct Removal<'a> {
    stack: Cursor,
    levels: Vec<Level>,
    pending: usize,
    buffer: Vec<u8>,
    place: &'a Place,
}

/// Rest of the work in one directory of the stack.
#[derive(Default)]
struct Level {
    /// Directories seen in it.
    dirs: Vec<Vec<u8>>,
    /// Whether it was read to its end with every directory noted.
    complete: bool,
    passes: u32,
}

impl Removal<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            self.place.check_cancel()?;
            if let Some(name) = level.dirs.pop() {
                self.pending -= name.len();
                self.enter(&name)?;
            } else if !level.complete {
                level.passes += 1;
                if level.passes > PASSES {
                    return Err(self.place.changed(&self.stack.path_of(b"")));
                }
                self.sweep()?;
            } else {
                self.levels.pop();
                if !self.levels.is_empty() {
                    self.leave()?;
                }
            }
        }
        Ok(())
    }

    /// Removes all but directories from the one at work, and notes the directories.
    fn sweep(&mut self) -> Result<()> {
        let Self {
            stack,
            levels,
            pending,
            buffer,
            place,
        } = self;
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        let found = (|| {
            // Opened anew, because a descriptor has one reading position.
            let dir = open_same_mount(stack.current()?, b"", DIR_READ)?;
            buffer.reserve(32 << 10);
            let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
            level.complete = true;
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                if place.cancel().check().is_err() {
                    // The loop above says so.
                    level.complete = false;
                    break;
                }
                let stat = match stat_at(&dir, name) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Ok(Err((errno, name.to_bytes().to_vec()))),
                };
                if stat.mounted {
                    return Ok(Err((Errno::XDEV, name.to_bytes().to_vec())));
                }
                if !stat.is_dir() {
                    match unlinkat(&dir, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(Errno::ISDIR) => level.complete = false,
                        Err(errno) => return Ok(Err((errno, name.to_bytes().to_vec()))),
                    }
                } else if *pending < PENDING_BYTES || level.dirs.is_empty() {
                    // Every level keeps at least one, so that there is progress.
                    *pending += name.to_bytes().len();
                    level.dirs.push(name.to_bytes().to_vec());
                } else {
                    level.complete = false;
                    break;
                }
            }
            Sys::Ok(Ok(()))
        })();
        match found {
            Ok(Ok(())) => Ok(()),
            Ok(Err((errno, name))) => Err(self.fail(errno, &name)),
            Err(errno) => Err(place.fail(errno, &stack.path_of(b""))),
        }
    }

    /// Removes an empty directory, or goes into one that is not.
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        let dir = self
            .stack
            .current()
            .map_err(|errno| self.place.fail(errno, b""))?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR) => {
                // It was a directory a moment ago; the next pass sees what it is now.
                self.again();
                return Ok(());
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(self.fail(errno, name)),
        }
        let entered = make_usable(dir, name).and_then(|()| self.stack.push(name));
        match entered {
            Ok(()) => self.levels.push(Level::default()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.again(),
            Err(errno) => return Err(self.fail(errno, name)),
        }
        Ok(())
    }

    /// Removes the directory that was just emptied from the one above it.
    fn leave(&mut self) -> Result<()> {
        let Some(name) = self.stack.pop() else {
            return Ok(());
        };
        let dir = match self.stack.current() {
            Ok(dir) => dir,
            // It was moved away: what is above is read again, and decides.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                return Err(self.place.changed(&self.stack.path_of(b"")));
            }
            Err(errno) => return Err(self.fail(errno, b"")),
        };
        match unlinkat(dir, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => self.again(),
            Err(errno) => return Err(self.fail(errno, &name)),
        }
        Ok(())
    }

    /// Makes the directory at work be read once more.
    fn again(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.complete = false;
        }
    }

    fn fail(&self, errno: Errno, name: &[u8]) -> Error {
        let path = self.stack.path_of(name);
        match errno {
            Errno::XDEV => self.place.mounted(&path),
            Errno::OVERFLOW => self
                .place
                .error(ErrorKind::LimitExceeded, b"", "the tree is too deep")
                .with_hint("remove it with a command in the sandbox"),
            _ => self.place.fail(errno, &path),
        }
    }
}

fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Sys<std::os::fd::OwnedFd> {
    make_usable(parent, name)?;
    open_same_mount(parent, name, DIR_READ)
}

/// Gives the owner of a directory the right to empty it.
pub(super) fn make_usable(parent: BorrowedFd<'_>, name: &[u8]) -> Sys<()> {
    let dir = open_same_mount(parent, name, DIR_PATH | OFlags::NOFOLLOW)?;
    let stat = stat_fd(&dir)?;
    if stat.mode & 0o700 != 0o700 {
        // Whether that was allowed shows when the directory is used.
        let _ = set_mode(&dir, stat.mode | 0o700);
    }
    Ok(())
}
