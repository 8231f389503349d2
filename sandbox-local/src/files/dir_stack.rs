//! A path of open directories, as deep as a tree goes, with few descriptors.
//!
//! Invariant: a directory is only ever reached from above, by names from the top's descriptor and
//! through no link; never by `..`, which a rename at the same time leads elsewhere.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result as Sys};

use super::resolve::{DIR_PATH, open_beneath, open_same_mount};

/// How many of the innermost directories are held open.
const WINDOW: usize = 16;

/// The deepest tree that is worked on; the work to come back up grows with the depth.
const MAX_DEPTH: usize = 20_000;

/// How long a path the kernel takes at once.
const PATH_MAX: usize = 4095;

/// The directories from a top one down to the one at work.
#[derive(Debug)]
pub(super) struct DirStack {
    top: OwnedFd,
    frames: Vec<Frame>,
    flags: OFlags,
    mounts: Mounts,
}

/// Whether the directories may be on other mounts than the one above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mounts {
    Enter,
    StayOut,
}

#[derive(Debug)]
struct Frame {
    name: Vec<u8>,
    dir: Option<OwnedFd>,
}

impl DirStack {
    /// Starts at this directory; those below it are opened with these flags.
    pub(super) fn new(top: OwnedFd, flags: OFlags, mounts: Mounts) -> Self {
        Self {
            top,
            frames: Vec::new(),
            flags,
            mounts,
        }
    }

    /// How many directories below the top the one at work is.
    pub(super) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// The directory at work.
    pub(super) fn current(&mut self) -> Sys<BorrowedFd<'_>> {
        if self.frames.last().is_some_and(|frame| frame.dir.is_none()) {
            self.refill()?;
        }
        match self.frames.last() {
            None => Ok(self.top.as_fd()),
            Some(Frame { dir: Some(dir), .. }) => Ok(dir.as_fd()),
            Some(Frame { dir: None, .. }) => Err(Errno::BADF),
        }
    }

    /// Goes into a directory of the one at work.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` if the name is none, `EXDEV` if it is on another mount, `EOVERFLOW` if
    /// that would be too deep.
    pub(super) fn push(&mut self, name: &[u8]) -> Sys<()> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Errno::OVERFLOW);
        }
        let (flags, mounts) = (self.flags, self.mounts);
        let dir = open(self.current()?, name, flags, mounts)?;
        self.frames.push(Frame {
            name: name.to_vec(),
            dir: Some(dir),
        });
        if let Some(outside) = self.frames.len().checked_sub(WINDOW + 1) {
            self.frames[outside].dir = None;
        }
        Ok(())
    }

    /// Goes back up, and gives the name of the directory that was left; `None` at the top.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.frames.pop().map(|frame| frame.name)
    }

    /// The path of an entry of the directory at work (of that directory if the name is empty),
    /// relative to the top. For messages: it may be longer than the kernel takes.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for part in self.frames.iter().map(|frame| frame.name.as_slice()) {
            path.extend_from_slice(part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if name.is_empty() {
            path.pop();
        }
        path
    }

    /// Opens the innermost directories again after the window was left upwards.
    fn refill(&mut self) -> Sys<()> {
        let end = self.frames.len();
        let start = end.saturating_sub(WINDOW);
        let mut above = self.descend_to(start)?;
        for index in start..end {
            let from = above.as_ref().map_or(self.top.as_fd(), |dir| dir.as_fd());
            let dir = open(from, &self.frames[index].name, self.flags, self.mounts)?;
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

fn open(from: BorrowedFd<'_>, names: &[u8], flags: OFlags, mounts: Mounts) -> Sys<OwnedFd> {
    match mounts {
        Mounts::Enter => open_beneath(from, names, flags),
        Mounts::StayOut => open_same_mount(from, names, flags),
    }
}
