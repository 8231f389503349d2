//! A path of open directories, as deep as a tree goes, with few descriptors.
//!
//! A directory is reached from above by its name, through no link. Back up it is `..` of a
//! directory that is held open, if that is the one that the way down led through; otherwise the way
//! down again. So going through a tree is linear in its directories.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, RawMode, Stat, StatxFlags, statx};
use rustix::io::{Errno, Result as Sys};

use super::beneath::{
    DIR_PATH, make_usable, open_above, open_beneath, open_dir, open_same_mount, set_mode,
};
use super::limits::DEEPEST;

/// Number of the innermost directories that are held open.
const WINDOW: usize = 16;

/// Length of a path that the kernel takes at once.
const PATH_MAX: usize = 4095;

/// Whether the directories may be on other mounts than the one above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// They may: this is a guest's own view, with a guest's rights.
    Enter,
    /// Such a one is an error (`EXDEV`).
    StayOut,
}

/// Treatment of directories that their owner may not read or search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modes {
    /// Nothing: going into one fails (`EACCES`), unless the host is root.
    Keep,
    /// They are opened up for as long as the walk is in them: an ordinary user's guests own their
    /// files as that user, who may do that.
    Guard,
}

/// Which directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Id {
    fn of(dir: BorrowedFd<'_>) -> Sys<Self> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(dir, c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mount: found.stx_mnt_id,
        })
    }
}

/// The directories from a top one down to the one at work. Dropping it gives back the modes that
/// were changed.
#[derive(Debug)]
pub(crate) struct Cursor {
    top: OwnedFd,
    top_closed: Option<RawMode>,
    frames: Vec<Frame>,
    flags: OFlags,
    mounts: Mounts,
    modes: Modes,
    /// Whether the tree stands still meanwhile: what is found again must be the same.
    still: bool,
    window: usize,
}

#[derive(Debug)]
struct Frame {
    name: Box<[u8]>,
    id: Id,
    dir: Option<OwnedFd>,
    /// The mode to give back.
    closed: Option<RawMode>,
}

impl Cursor {
    /// Starts at this directory; those below it are opened with these flags.
    pub(crate) fn new(top: OwnedFd, flags: OFlags, mounts: Mounts) -> Self {
        Self {
            top,
            top_closed: None,
            frames: Vec::new(),
            flags,
            mounts,
            modes: Modes::Keep,
            still: false,
            window: WINDOW,
        }
    }

    /// Starts at the top of a tree that stands still; every directory is opened for reading.
    pub(crate) fn layer(top: &OwnedFd, modes: Modes) -> Sys<Self> {
        let top_closed = match modes {
            Modes::Keep => None,
            Modes::Guard => make_usable(top)?,
        };
        let top = open_same_mount(top, b"", super::DIR_READ)
            .inspect_err(|_| give_back(top, top_closed))?;
        let mut cursor = Self::new(top, super::DIR_READ, Mounts::StayOut);
        cursor.top_closed = top_closed;
        cursor.modes = modes;
        cursor.still = true;
        Ok(cursor)
    }

    /// Makes the walk use fewer descriptors, for many at once.
    pub(crate) fn narrow(mut self) -> Self {
        self.window = 1;
        self
    }

    /// Depth of the directory at work below the top.
    pub(crate) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// The directory at work.
    pub(crate) fn current(&mut self) -> Sys<BorrowedFd<'_>> {
        if self.frames.last().is_some_and(|frame| frame.dir.is_none()) {
            self.refill()?;
        }
        match self.frames.last() {
            None => Ok(self.top.as_fd()),
            Some(Frame { dir: Some(dir), .. }) => Ok(dir.as_fd()),
            Some(Frame { dir: None, .. }) => Err(Errno::BADF),
        }
    }

    /// Metadata of the directory at work, with the mode that it has of its own.
    pub(crate) fn stat(&mut self) -> Sys<Stat> {
        let mut stat = rustix::fs::fstat(self.current()?)?;
        let closed = match self.frames.last() {
            Some(frame) => frame.closed,
            None => self.top_closed,
        };
        if let Some(mode) = closed {
            stat.st_mode = stat.st_mode & !0o7777 | mode;
        }
        Ok(stat)
    }

    /// Goes into a directory of the one at work.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` if the name is none, `EXDEV` if it is on another mount, `EOVERFLOW` if
    /// that would be too deep.
    pub(crate) fn push(&mut self, name: &[u8]) -> Sys<()> {
        if self.frames.len() >= DEEPEST {
            return Err(Errno::OVERFLOW);
        }
        let (flags, mounts, modes) = (self.flags, self.mounts, self.modes);
        let above = self.current()?;
        let (dir, closed) = match modes {
            Modes::Guard => {
                let opened = open_dir(above, name, true)?;
                (opened.dir, opened.closed)
            }
            Modes::Keep => (open(above, name, flags, mounts)?, None),
        };
        let id = Id::of(dir.as_fd()).inspect_err(|_| give_back(&dir, closed))?;
        self.frames.push(Frame {
            name: name.into(),
            id,
            dir: Some(dir),
            closed,
        });
        if let Some(outside) = self.frames.len().checked_sub(self.window + 1) {
            self.frames[outside].dir = None;
        }
        Ok(())
    }

    /// Goes back up, and gives the name of the directory that was left; `None` at the top.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let left = self.frames.pop()?;
        if let Some(above) = self.frames.last_mut()
            && above.dir.is_none()
            && let Some(below) = &left.dir
        {
            // Before its mode is given back, which may take the right to do this.
            let same_mount = self.mounts == Mounts::StayOut;
            above.dir = open_above(below, self.flags, same_mount)
                .ok()
                .filter(|dir| Id::of(dir.as_fd()) == Ok(above.id));
        }
        if let Some(dir) = &left.dir {
            give_back(dir, left.closed);
        }
        Some(left.name.into_vec())
    }

    /// The path of an entry of the directory at work (of that directory if the name is empty),
    /// relative to the top. For messages: it may be longer than the kernel takes.
    pub(crate) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for part in self.frames.iter().map(|frame| &*frame.name) {
            path.extend_from_slice(part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if name.is_empty() {
            path.pop();
        }
        path
    }

    /// Opens the innermost directories again, after what is above one was not what it had been.
    fn refill(&mut self) -> Sys<()> {
        let end = self.frames.len();
        let start = end.saturating_sub(self.window);
        let mut above = self.descend_to(start)?;
        for index in start..end {
            let from = above.as_ref().map_or(self.top.as_fd(), |dir| dir.as_fd());
            let dir = open(from, &self.frames[index].name, self.flags, self.mounts)?;
            if self.still && Id::of(dir.as_fd())? != self.frames[index].id {
                return Err(Errno::STALE);
            }
            above = Some(dir.try_clone().map_err(|_| Errno::MFILE)?);
            self.frames[index].dir = Some(dir);
        }
        Ok(())
    }

    /// Opens the directory at a depth from the top, in steps of what the kernel takes at once;
    /// `None` for the top itself.
    fn descend_to(&self, depth: usize) -> Sys<Option<OwnedFd>> {
        let mut dir: Option<OwnedFd> = None;
        let mut step = Vec::new();
        let mut names = self.frames[..depth].iter().peekable();
        while let Some(frame) = names.next() {
            step.extend_from_slice(&frame.name);
            let next = names.peek().map_or(PATH_MAX, |next| next.name.len());
            if step.len() + 1 + next < PATH_MAX {
                step.push(b'/');
                continue;
            }
            let from = dir.as_ref().map_or(self.top.as_fd(), |dir| dir.as_fd());
            dir = Some(open(from, &step, DIR_PATH, self.mounts)?);
            step.clear();
        }
        Ok(dir)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let changed = |frame: &Frame| frame.closed.is_some();
        if let Some(highest) = self.frames.iter().position(changed) {
            while self.frames.len() > highest {
                self.pop();
            }
        }
        give_back(&self.top, self.top_closed);
    }
}

/// Gives a directory the mode that it had.
fn give_back(dir: &OwnedFd, closed: Option<RawMode>) {
    if let Some(mode) = closed {
        // The owner may always do this.
        let _ = set_mode(dir, mode);
    }
}

fn open(from: BorrowedFd<'_>, names: &[u8], flags: OFlags, mounts: Mounts) -> Sys<OwnedFd> {
    match mounts {
        Mounts::Enter => open_beneath(from, names, flags),
        Mounts::StayOut => open_same_mount(from, names, flags),
    }
}
