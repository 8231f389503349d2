//! Going through a whole tree, depth first, and saying what is there.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

use super::cursor::Cursor;
use super::limits::{Cancel, Limits, Stop};

/// Visitor of what a walk meets. The entries of a directory come between its `enter` and its
/// `leave`, first all of them, then the directories among them one after another.
pub(crate) trait Visitor {
    /// Why this walk ends before its end.
    type Error;

    /// The walk's own reason to end, with what the directory at work is called.
    fn stopped(&self, stop: Stop) -> Self::Error;

    /// An entry; says whether to go into it later. `cursor` is at its directory.
    fn entry(&mut self, at: &At<'_>) -> Result<bool, Self::Error>;

    /// A directory was opened: `cursor` is there. The top has no name. Says whether to read it.
    fn enter(&mut self, _cursor: &mut Cursor, _name: Option<&[u8]>) -> Result<bool, Self::Error> {
        Ok(true)
    }

    /// All of the directory was walked where `cursor` is, and it is about to be left.
    fn leave(&mut self, _cursor: &mut Cursor) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A directory of the one where `cursor` is could not be opened; `Ok` passes it over.
    fn closed(&mut self, _cursor: &Cursor, _name: &[u8], errno: Errno) -> Result<(), Self::Error> {
        Err(self.stopped(stop(errno)))
    }
}

/// Location of an entry.
pub(crate) struct At<'a> {
    /// Directory of the entry, open for reading.
    pub(crate) dir: BorrowedFd<'a>,
    /// Name in its directory.
    pub(crate) name: &'a CStr,
}

/// Walks the tree below the cursor's top.
///
/// # Errors
/// Those of the visitor, and [`Stop`] of the walk's own.
pub(crate) fn walk<V: Visitor>(
    cursor: &mut Cursor,
    limits: Limits,
    cancel: &Cancel,
    visitor: &mut V,
) -> Result<(), V::Error> {
    let mut walk = Walk {
        limits,
        cancel,
        entries: 0,
        pending: Names::default(),
        levels: Vec::new(),
        buffer: Vec::with_capacity(32 << 10),
    };
    walk.levels.push(0);
    if visitor.enter(cursor, None)? {
        walk.read(cursor, visitor)?;
    }
    while let Some(before) = walk.levels.last().copied() {
        if walk.pending.count() == before {
            visitor.leave(cursor)?;
            walk.levels.pop();
            if !walk.levels.is_empty() {
                cursor.pop();
            }
            continue;
        }
        let name = walk.pending.pop();
        if let Err(errno) = cursor.push(&name) {
            visitor.closed(cursor, &name, errno)?;
            continue;
        }
        let allowed = limits.check_depth(walk.levels.len());
        allowed.map_err(|stop| visitor.stopped(stop))?;
        walk.levels.push(walk.pending.count());
        if visitor.enter(cursor, Some(&name))? {
            walk.read(cursor, visitor)?;
        }
    }
    Ok(())
}

/// Reason to stop from the system's answer to a walk.
fn stop(errno: Errno) -> Stop {
    match errno {
        // It was a directory a moment ago.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Stop::Changed,
        errno => errno.into(),
    }
}

struct Walk<'a> {
    limits: Limits,
    cancel: &'a Cancel,
    entries: u64,
    /// Directories that wait for their turn.
    pending: Names,
    /// For each directory from the top: how many waited when it was entered.
    levels: Vec<usize>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Gives out the entries of the directory at work.
    fn read<V: Visitor>(&mut self, cursor: &mut Cursor, visitor: &mut V) -> Result<(), V::Error> {
        let failed = |visitor: &V, errno| visitor.stopped(stop(errno));
        let dir = cursor.current().map_err(|errno| failed(visitor, errno))?;
        // It may have been read before, and a descriptor has one reading position.
        rustix::fs::seek(dir, SeekFrom::Start(0)).map_err(|errno| failed(visitor, errno))?;
        let mut entries = RawDir::new(dir, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // Removed while it was read.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(failed(visitor, errno)),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            let allowed = self.cancel.check().and(self.limits.check(self.entries));
            allowed.map_err(|stop| visitor.stopped(stop))?;
            let at = At { dir, name };
            if visitor.entry(&at)? {
                let noted = self.pending.push(name.to_bytes(), self.limits.names);
                noted.map_err(|stop| visitor.stopped(stop))?;
            }
        }
        Ok(())
    }
}

/// A stack of names, which takes up little more than they do.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    lengths: Vec<u8>,
}

impl Names {
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// # Errors
    /// [`Stop::Limit`] if the names would be more than `most` bytes.
    pub(crate) fn push(&mut self, name: &[u8], most: usize) -> Result<(), Stop> {
        // The kernel's names have at most 255 bytes.
        let length = u8::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        if self.bytes.len() + self.lengths.len() + name.len() >= most {
            return Err(Stop::Limit {
                what: "bytes of names of directories side by side",
                limit: most as u64,
            });
        }
        self.bytes.extend_from_slice(name);
        self.lengths.push(length);
        Ok(())
    }

    /// The last one; empty if there is none.
    pub(crate) fn pop(&mut self) -> Vec<u8> {
        let length = usize::from(self.lengths.pop().unwrap_or_default());
        let start = self.bytes.len().saturating_sub(length);
        self.bytes.split_off(start)
    }
}
