//! Creating directories.
//!
//! Invariant: each directory is made by its one name in its opened parent; an existing one keeps
//! its mode.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{CreateDirOptions, ErrorKind, GuestPath, Operation, Result};

use super::GuestRoot;
use super::place::Place;
use super::resolve::{DIR_PATH, open_beneath, set_mode};
use super::stat::stat_fd;

/// Permission bits of directories that are created along the way.
pub(super) const PARENT_MODE: u32 = 0o755;

impl GuestRoot {
    /// See [`Sandbox::create_dir`](sandbox_core::Sandbox::create_dir).
    pub(crate) fn create_dir(&self, path: &GuestPath, options: &CreateDirOptions) -> Result<()> {
        let _guest = self.as_guest(Operation::CreateDir)?;
        let place = Place::guest(Operation::CreateDir, path);
        if options.recursive {
            return self
                .create_all(path, options.mode.bits(), &place)
                .map(|_dir| ());
        }
        if *path == GuestPath::root() {
            return Err(place.fail(Errno::EXIST, b""));
        }
        let (parent, name) = self.open_parent(path, Operation::CreateDir)?;
        make_dir(&parent, name, options.mode.bits())
            .map(|_dir| ())
            .map_err(place.failed())
    }

    /// Makes the directory that a new sandbox starts in, if it is missing.
    pub(crate) fn create_workdir(&self, path: &GuestPath) -> Result<()> {
        let _guest = self.as_guest(Operation::Create)?;
        let place = Place::guest(Operation::Create, path);
        self.create_all(path, PARENT_MODE, &place).map(drop)
    }

    /// Opens a directory, with its parents created where they are missing.
    ///
    /// The caller has taken on the guest's rights.
    pub(super) fn create_all(&self, path: &GuestPath, mode: u32, place: &Place) -> Result<OwnedFd> {
        // What is removed at the same time is made again, but not for ever.
        for _ in 0..8 {
            match self.try_create_all(path, mode) {
                Err(Errno::NOENT) => {}
                Ok(Some(dir)) => return Ok(dir),
                Ok(None) => {
                    return Err(place.error(
                        ErrorKind::AlreadyExists,
                        b"",
                        "something that is not a directory is there",
                    ));
                }
                Err(errno) => return Err(place.fail(errno, b"")),
            }
        }
        Err(place.changed(b""))
    }

    /// `None` if something else than a directory has the name.
    fn try_create_all(&self, path: &GuestPath, mode: u32) -> Sys<Option<OwnedFd>> {
        match self.open(path, DIR_PATH) {
            Ok(dir) => return Ok(Some(dir)),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => return self.explain_not_dir(path),
            Err(errno) => return Err(errno),
        }
        let names: Vec<&[u8]> = path.components().collect();
        // Upwards to the deepest directory that exists, then downwards from it.
        let mut prefix = path.clone();
        let mut missing = 0;
        let mut dir = loop {
            prefix = prefix.parent().unwrap_or_else(GuestPath::root);
            missing += 1;
            match self.open(&prefix, DIR_PATH) {
                Ok(dir) => break dir,
                Err(Errno::NOENT) if missing < names.len() => {}
                Err(errno) => return Err(errno),
            }
        };
        let first = names.len().saturating_sub(missing);
        for (index, name) in names.iter().enumerate().skip(first) {
            let last = index + 1 == names.len();
            let mode = if last { mode } else { PARENT_MODE };
            dir = match make_dir(&dir, name, mode) {
                Ok(made) => made,
                Err(Errno::EXIST) => match open_beneath(&dir, name, DIR_PATH) {
                    Ok(found) => found,
                    // A link to nothing, or one that came at the same time.
                    Err(Errno::LOOP | Errno::NOTDIR) if last => return Ok(None),
                    Err(Errno::LOOP | Errno::NOTDIR) => return Err(Errno::NOTDIR),
                    Err(errno) => return Err(errno),
                },
                Err(errno) => return Err(errno),
            };
        }
        Ok(Some(dir))
    }

    /// Tells a file at the path itself from one among its parents.
    fn explain_not_dir(&self, path: &GuestPath) -> Sys<Option<OwnedFd>> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW)
            .map(|_file| None)
    }
}

/// Makes a directory with exactly this mode, whatever the umask, and opens it by `O_PATH`.
pub(super) fn make_dir(parent: impl AsFd, name: &[u8], mode: u32) -> Sys<OwnedFd> {
    mkdirat(&parent, name, Mode::from_raw_mode(mode))?;
    let dir = open_beneath(&parent, name, DIR_PATH)?;
    let stat = stat_fd(&dir)?;
    // A setgid directory passes its bit on; that is the parent's affair, not the umask's.
    if stat.mode & !0o2000 != mode & !0o2000 || mode & 0o2000 & !stat.mode != 0 {
        set_mode(&dir, mode | stat.mode & 0o2000)?;
    }
    Ok(dir)
}
