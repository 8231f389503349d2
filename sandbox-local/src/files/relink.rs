//! Moving a directory that the kernel can't move at once: one that lies in a lower layer.
//!
//! The directories are made anew beside the target, with the files linked into them, and put in
//! place at once; then the original is removed. If something fails before that, the original is as
//! it was. As with `mv` between filesystems, what a guest creates in the original meanwhile goes
//! with it.
//!
//! Invariant: nothing is linked that is on another mount, and only new names are created.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Timespec, Timestamps, linkat, utimensat};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::Result;

use super::create::make_dir;
use super::place::Place;
use super::resolve::{DIR_PATH, DIR_READ, open_beneath, open_same_mount, set_mode};
use super::stat::{Stat, stat_fd};
use super::tree::remove_tree;
use super::walk::{Found, Visitor, walk};

/// A name in a directory, and how errors tell of it.
pub(super) struct Entry<'a> {
    pub(super) dir: &'a OwnedFd,
    pub(super) name: &'a [u8],
    pub(super) place: &'a Place,
}

/// Moves a directory within a mount; `put` puts the new one, by its name beside the target, in
/// place.
pub(super) fn move_dir(
    from: &Entry<'_>,
    to: &Entry<'_>,
    put: impl FnOnce(&[u8]) -> Result<()>,
) -> Result<()> {
    let top = open_same_mount(from.dir, from.name, DIR_READ).map_err(from.place.failed())?;
    let random = crate::state::random_hex().map_err(|_| to.place.fail(Errno::IO, b""))?;
    let staged = format!(".sandbox-move-{random}").into_bytes();
    let copy = make_dir(to.dir, &staged, 0o700).map_err(to.place.failed())?;
    if let Err(error) = relink(&top, copy, from.place).and_then(|()| put(&staged)) {
        // Who is told of the first failure needs no second.
        let _ = remove_tree(to.dir, &staged, to.place);
        return Err(error);
    }
    remove_tree(from.dir, from.name, from.place)
}

fn relink(top: &OwnedFd, copy: OwnedFd, place: &Place) -> Result<()> {
    let mount = stat_fd(top).map_err(place.failed())?.mount;
    let mut relink = Relink { top: copy, at: None, mount, place, open: Vec::new() };
    walk(top, place, &mut relink)
}

struct Relink<'a> {
    /// The directory that is filled.
    top: OwnedFd,
    /// The one below it that is at work.
    at: Option<OwnedFd>,
    mount: u64,
    place: &'a Place,
    /// The directories from the top to the one at work: mode and time of change of the original.
    open: Vec<Stat>,
}

impl Relink<'_> {
    fn make(&mut self, path: &[u8]) -> Sys<()> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let parent = open_beneath(&self.top, parent, DIR_PATH)?;
        self.at = Some(make_dir(parent, name, 0o700)?);
        Ok(())
    }
}

impl Visitor for Relink<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<bool> {
        if found.stat.mounted || found.stat.mount != self.mount {
            return Err(self.place.mounted(found.path));
        }
        if !found.stat.is_dir() {
            let dir = self.at.as_ref().unwrap_or(&self.top);
            linkat(found.dir, found.name, dir, found.name, AtFlags::empty())
                .map_err(|errno| self.place.fail(errno, found.path))?;
        }
        Ok(true)
    }

    fn enter(&mut self, _dir: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Result<()> {
        self.open.push(*stat);
        if path.is_empty() {
            return Ok(());
        }
        self.make(path).map_err(|errno| self.place.fail(errno, path))
    }

    fn leave(&mut self, path: &[u8]) -> Result<()> {
        let Some(stat) = self.open.pop() else { return Ok(()) };
        // Modes and times last: filling a directory needs and changes them.
        open_beneath(&self.top, path, DIR_PATH)
            .and_then(|dir| finish(dir.as_fd(), &stat))
            .map_err(|errno| self.place.fail(errno, path))
    }
}

fn finish(dir: BorrowedFd<'_>, stat: &Stat) -> Sys<()> {
    let (tv_sec, nanoseconds) = stat.modified();
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let last_modification = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: now, last_modification };
    utimensat(dir, c"", &times, AtFlags::EMPTY_PATH)?;
    set_mode(dir, stat.mode)
}
