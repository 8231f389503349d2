//! Going through a tree of the guest or of the host, with the paths of what is there.
//!
//! Invariant: every step is one of [`crate::walk`]; what the kernel makes up (procfs and the like,
//! mounted below) is not entered.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Result};

use super::place::Place;
use super::resolve::DIR_READ;
use super::stat::{Stat, is_made_up, stat_at, stat_fd};
use crate::walk::{self, At, Cursor, Mounts, Stop};

/// An entry that a walk met.
pub(super) struct Found<'a> {
    /// The directory that it is in.
    pub(super) dir: BorrowedFd<'a>,
    /// Name in its directory.
    pub(super) name: &'a CStr,
    /// Path relative to the top.
    pub(super) path: &'a [u8],
    /// Metadata when it was met.
    pub(super) stat: Stat,
}

/// Visitor of what a walk meets. The entries of a directory come between its `enter` and its
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

    /// An entry can't be looked at or read; says whether to go on without it.
    fn unreadable(&mut self, _path: &[u8], error: Error) -> Result<()> {
        Err(error)
    }

    /// A directory is not entered, because the kernel makes it up.
    fn made_up(&mut self, _path: &[u8]) {}
}

/// Walks the tree below `top`, which is `place`.
pub(super) fn walk(top: &OwnedFd, place: &Place, visitor: &mut impl Visitor) -> Result<()> {
    let own = top.try_clone().map_err(|_| place.fail(Errno::MFILE, b""))?;
    let mut cursor = Cursor::new(own, DIR_READ, Mounts::Enter);
    let mut adapter = Adapter {
        place,
        visitor,
        room: place.room(),
        path: Vec::new(),
        levels: Vec::new(),
    };
    walk::walk(&mut cursor, place.limits(), place.cancel(), &mut adapter)
}

/// Tells a visitor the paths of what the walk meets.
struct Adapter<'a, V> {
    place: &'a Place,
    visitor: &'a mut V,
    room: usize,
    /// Path of the walk's position.
    path: Vec<u8>,
    /// For each directory from the top one.
    levels: Vec<Level>,
}

struct Level {
    /// The length of the path of the directory above.
    above: usize,
    device: (u32, u32),
    /// Whether it is one that the kernel makes up.
    made_up: bool,
}

impl<V: Visitor> walk::Visitor for Adapter<'_, V> {
    type Error = Error;

    fn stopped(&self, stop: Stop) -> Error {
        match stop {
            Stop::Limit { .. } => {
                let message = stop.to_string();
                self.place.error(ErrorKind::LimitExceeded, b"", message)
            }
            Stop::Changed => self.place.changed(&self.path),
            Stop::Cancelled => self.place.error(ErrorKind::Other, b"", "cancelled"),
            Stop::Io(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                self.place.fail(errno, &self.path)
            }
        }
    }

    fn enter(&mut self, cursor: &mut Cursor, name: Option<&[u8]>) -> Result<bool> {
        let above = self.path.len();
        if let Some(name) = name {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
        }
        let fail = |errno| self.place.fail(errno, &self.path);
        let dir = cursor.current().map_err(fail)?;
        let stat = stat_fd(dir).map_err(fail)?;
        let crossed = |level: &Level| level.device != stat.device;
        let made_up = self.levels.last().is_some_and(crossed) && is_made_up(dir).map_err(fail)?;
        self.levels.push(Level {
            above,
            device: stat.device,
            made_up,
        });
        if made_up {
            self.visitor.made_up(&self.path);
        } else {
            self.visitor.enter(dir, &self.path, &stat)?;
        }
        Ok(!made_up)
    }

    fn leave(&mut self, _cursor: &mut Cursor) -> Result<()> {
        if let Some(level) = self.levels.pop() {
            if !level.made_up {
                self.visitor.leave(&self.path)?;
            }
            self.path.truncate(level.above);
        }
        Ok(())
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool> {
        let own = self.path.len();
        if own > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(at.name.to_bytes());
        let descend = self.entry_at_path(at);
        self.path.truncate(own);
        descend
    }

    fn closed(&mut self, _cursor: &Cursor, name: &[u8], errno: Errno) -> Result<()> {
        match errno {
            // Gone, or something else by now.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Ok(()),
            errno => {
                let path = [&self.path, &b"/"[..], name].concat();
                let path = path.strip_prefix(b"/").unwrap_or(&path);
                let error = self.place.fail(errno, path);
                match errno {
                    Errno::ACCESS => self.visitor.unreadable(path, error),
                    _ => Err(error),
                }
            }
        }
    }
}

impl<V: Visitor> Adapter<'_, V> {
    fn entry_at_path(&mut self, at: &At<'_>) -> Result<bool> {
        if self.path.len() > self.room {
            return Err(self.place.error(
                ErrorKind::LimitExceeded,
                b"",
                "the tree is deeper than a path can name (4095 bytes)",
            ));
        }
        let stat = match stat_at(at.dir, at.name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno @ Errno::ACCESS) => {
                let error = self.place.fail(errno, &self.path);
                self.visitor.unreadable(&self.path, error)?;
                return Ok(false);
            }
            Err(errno) => return Err(self.place.fail(errno, &self.path)),
        };
        let found = Found {
            dir: at.dir,
            name: at.name,
            path: &self.path,
            stat,
        };
        Ok(self.visitor.entry(&found)? && stat.is_dir())
    }
}
