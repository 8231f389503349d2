//! Walking a tree from its top, in bounded memory and with two descriptors.
//!
//! Invariant: every directory is opened from the top's descriptor, through no link; what the
//! kernel makes up (procfs and the like, mounted below) is not entered.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;
use sandbox_core::{ErrorKind, Result};

use super::place::Place;
use super::resolve::{DIR_READ, open_beneath};
use super::stat::{Stat, is_made_up, stat_at, stat_fd};

/// How many bytes of names of directories may wait for their turn.
const PENDING_BYTES: usize = 64 << 20;

/// An entry that a walk met.
pub(super) struct Found<'a> {
    /// The directory that it is in.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(super) name: &'a CStr,
    /// Its path relative to the top.
    pub(super) path: &'a [u8],
    /// What it was when it was met.
    pub(super) stat: Stat,
}

/// What to do with what a walk meets. The entries of a directory come between its `enter` and its
/// `leave`, first all of them, then the directories among them one after another.
pub(super) trait Visitor {
    /// An entry; says whether to go into it if it is a directory.
    fn entry(&mut self, found: &Found<'_>) -> Result<bool>;

    /// A directory was opened. The top's path is empty.
    fn enter(&mut self, _dir: BorrowedFd<'_>, _path: &[u8], _stat: &Stat) -> Result<()> {
        Ok(())
    }

    /// All of a directory was walked.
    fn leave(&mut self, _path: &[u8]) -> Result<()> {
        Ok(())
    }

    /// A directory is not entered, because the kernel makes it up.
    fn made_up(&mut self, _path: &[u8]) {}
}

/// A directory that waits for its turn.
struct Pending {
    depth: usize,
    name: Vec<u8>,
    device: (u32, u32),
}

/// Walks the tree below `top`, which is `place`.
pub(super) fn walk(top: &OwnedFd, place: &Place, visitor: &mut impl Visitor) -> Result<()> {
    let mut walk = Walk {
        place,
        room: place.room(),
        pending: Vec::new(),
        pending_bytes: 0,
        path: Vec::new(),
        lengths: Vec::new(),
        buffer: Vec::new(),
    };
    let device = stat_fd(top).map_err(place.failed())?.device;
    // It may have been walked before, and a descriptor has one reading position.
    rustix::fs::seek(top, SeekFrom::Start(0)).map_err(place.failed())?;
    walk.read(top, device, 0, visitor)?;
    while let Some(next) = walk.pending.pop() {
        walk.pending_bytes -= next.name.len();
        walk.leave_to(next.depth, visitor)?;
        walk.lengths.push(walk.path.len());
        if !walk.path.is_empty() {
            walk.path.push(b'/');
        }
        walk.path.extend_from_slice(&next.name);
        if !walk.go_into(top, &next, visitor)? {
            walk.step_up();
        }
    }
    walk.leave_to(0, visitor)?;
    visitor.leave(b"")
}

struct Walk<'a> {
    place: &'a Place,
    room: usize,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Where the walk is.
    path: Vec<u8>,
    /// The length of `path` at each directory above.
    lengths: Vec<usize>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Opens and reads a directory; `false` if it is not entered.
    fn go_into(
        &mut self,
        top: &OwnedFd,
        next: &Pending,
        visitor: &mut impl Visitor,
    ) -> Result<bool> {
        let dir = match open_beneath(top, &self.path, DIR_READ) {
            Ok(dir) => dir,
            // Gone, or something else by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(self.place.fail(errno, &self.path)),
        };
        let fail = |errno| self.place.fail(errno, &self.path);
        let stat = stat_fd(&dir).map_err(fail)?;
        if stat.device != next.device && is_made_up(&dir).map_err(fail)? {
            visitor.made_up(&self.path);
            return Ok(false);
        }
        self.read(&dir, stat.device, next.depth + 1, visitor)?;
        Ok(true)
    }

    /// Gives out the entries of a directory.
    fn read(
        &mut self,
        dir: &OwnedFd,
        device: (u32, u32),
        depth: usize,
        visitor: &mut impl Visitor,
    ) -> Result<()> {
        use std::os::fd::AsFd as _;
        let stat = stat_fd(dir).map_err(|errno| self.place.fail(errno, &self.path))?;
        visitor.enter(dir.as_fd(), &self.path, &stat)?;
        let own = self.path.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve(32 << 10);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let name = match &entry {
                Ok(entry) => entry.file_name(),
                // Removed while it was read.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(self.place.fail(*errno, &self.path)),
            };
            if name == c"." || name == c".." {
                continue;
            }
            if own > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if self.path.len() > self.room {
                self.path.truncate(own);
                return Err(self.place.error(
                    ErrorKind::LimitExceeded,
                    b"",
                    "the tree is deeper than a path can name (4095 bytes)",
                ));
            }
            match stat_at(dir, name) {
                Ok(stat) => {
                    let found = Found {
                        dir: dir.as_fd(),
                        name,
                        path: &self.path,
                        stat,
                    };
                    if visitor.entry(&found)? && stat.is_dir() {
                        self.note(name, depth, device)?;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.place.fail(errno, &self.path)),
            }
            self.path.truncate(own);
        }
        self.buffer = buffer;
        Ok(())
    }

    fn note(&mut self, name: &CStr, depth: usize, device: (u32, u32)) -> Result<()> {
        let name = name.to_bytes().to_vec();
        self.pending_bytes += name.len();
        if self.pending_bytes > PENDING_BYTES {
            return Err(self.place.error(
                ErrorKind::LimitExceeded,
                b"",
                "too many directories side by side",
            ));
        }
        self.pending.push(Pending {
            depth,
            name,
            device,
        });
        Ok(())
    }

    /// Leaves directories until `depth` of them are above.
    fn leave_to(&mut self, depth: usize, visitor: &mut impl Visitor) -> Result<()> {
        while self.lengths.len() > depth {
            visitor.leave(&self.path)?;
            self.step_up();
        }
        Ok(())
    }

    fn step_up(&mut self) {
        let length = self.lengths.pop().unwrap_or(0);
        self.path.truncate(length);
    }
}
