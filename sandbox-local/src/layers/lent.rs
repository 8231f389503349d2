//! Rights on a guest's files that the guest took away from itself, lent to the host for as long as
//! it reads them.
//!
//! An ordinary user's guests own their files as that user, and a directory of mode 000 can't be
//! read by its owner. The owner may change the mode, though. Root needs none of this. What was lent
//! is taken back when the value goes, whatever happened in between.
//!
//! Nobody else may change the trees meanwhile: guests stand still or have them only as lower layers.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat};

use crate::identity::Identity;
use crate::layers::copy::{DIR, descend};

/// Rights on the directories of some trees.
#[derive(Debug)]
pub(crate) struct Lent {
    needed: bool,
    tops: Vec<OwnedFd>,
    /// Tree, path in it and mode to give back, in the order of the changes.
    changed: Vec<(usize, Vec<u8>, RawMode)>,
    /// The same modes by device and inode.
    modes: HashMap<(u64, u64), RawMode>,
}

impl Lent {
    pub(crate) fn new(identity: Option<Identity>) -> Self {
        Self {
            needed: identity.is_none(),
            tops: Vec::new(),
            changed: Vec::new(),
            modes: HashMap::new(),
        }
    }

    /// Opens the top of a tree; its number is how many were opened before.
    pub(crate) fn open_top(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let stat = rustix::fs::lstat(path)?;
        let opened = open(CWD, path, &stat, self.wanting(&stat, 0o700))?;
        self.tops.push(opened.try_clone()?);
        self.note(&stat, self.tops.len() - 1, b"");
        Ok(opened)
    }

    /// Takes a top that was opened for reading before the guest could change its mode.
    pub(crate) fn take_top(&mut self, top: OwnedFd) -> io::Result<OwnedFd> {
        let stat = rustix::fs::fstat(&top)?;
        if let Some(mode) = self.wanting(&stat, 0o700) {
            rustix::fs::fchmod(&top, Mode::from_raw_mode(mode))?;
        }
        self.tops.push(top.try_clone()?);
        self.note(&stat, self.tops.len() - 1, b"");
        Ok(top)
    }

    /// Opens a directory of a tree: the entry `name` of `dir`, which is at `path` from the top.
    pub(crate) fn open_dir(
        &mut self,
        tree: usize,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<OwnedFd> {
        let opened = open(dir, name, stat, self.wanting(stat, 0o700))?;
        self.note(stat, tree, path);
        Ok(opened)
    }

    /// What an open directory is, with the mode that it has of its own.
    pub(crate) fn true_stat(&self, dir: impl AsFd) -> io::Result<Stat> {
        let mut stat = rustix::fs::fstat(dir)?;
        if let Some(mode) = self.modes.get(&(stat.st_dev, stat.st_ino)) {
            stat.st_mode = stat.st_mode & !0o7777 | mode;
        }
        Ok(stat)
    }

    fn wanting(&self, stat: &Stat, wanted: RawMode) -> Option<RawMode> {
        let mode = stat.st_mode & 0o7777;
        (self.needed && mode & wanted != wanted).then_some(mode | wanted)
    }

    fn note(&mut self, stat: &Stat, tree: usize, path: &[u8]) {
        if self.wanting(stat, 0o700).is_some() {
            let mode = stat.st_mode & 0o7777;
            self.changed.push((tree, path.to_vec(), mode));
            self.modes.insert((stat.st_dev, stat.st_ino), mode);
        }
    }

    /// Opens a file for reading, for as long as the result lives.
    pub(crate) fn file(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<LentFile> {
        let lent = self.wanting(stat, 0o400);
        let file = open(dir, name, stat, lent)?;
        Ok(LentFile {
            file,
            give_back: lent.map(|_| stat.st_mode & 0o7777),
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Backwards: a directory can be reached as long as those above it are lent.
        for (tree, path, mode) in self.changed.drain(..).rev() {
            let Some(top) = self.tops.get(tree) else {
                continue;
            };
            if let Ok(dir) = descend(top.as_fd(), &path) {
                // The owner may always do this.
                let _ = rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode));
            }
        }
    }
}

/// A file opened for reading.
#[derive(Debug)]
pub(crate) struct LentFile {
    file: OwnedFd,
    give_back: Option<RawMode>,
}

impl AsFd for LentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for LentFile {
    fn drop(&mut self) {
        if let Some(mode) = self.give_back {
            let _ = rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode));
        }
    }
}

fn open<P: rustix::path::Arg + Copy>(
    dir: BorrowedFd<'_>,
    name: P,
    stat: &Stat,
    lent: Option<RawMode>,
) -> io::Result<OwnedFd> {
    let change = |mode| rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty());
    if let Some(mode) = lent {
        change(mode)?;
    }
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => DIR,
        _ => OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
    };
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty());
    if opened.is_err() && lent.is_some() {
        let _ = change(stat.st_mode & 0o7777);
    }
    Ok(opened?)
}
