//! Where an export is built and how it gets its final name.
//!
//! Invariant: the final name never stands for a part of an export (except, merging, for whole
//! files of it), and no link at that name is followed or replaced.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    CWD, Mode, OFlags, RawDir, RenameFlags, mkdirat, openat, renameat, renameat_with,
};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{Error, ErrorKind, ExistingDir, Result};

use super::super::place::Place;
use super::super::resolve::{DIR_PATH, DIR_READ, open_beneath, set_mode};
use super::super::stat::find_at;
use super::super::tree::remove_tree;
use super::super::write::random;

/// A place for an export on the host. Dropped before it has landed, it leaves nothing behind.
pub(super) struct Landing {
    parent: OwnedFd,
    name: Vec<u8>,
    how: How,
    place: Place,
}

enum How {
    /// Built beside the final name, where nothing or an empty directory is.
    Fresh { partial: Vec<u8> },
    /// Built beside it, and exchanged with what is there.
    Replace { partial: Vec<u8> },
    /// Written into what is there.
    Merge,
    /// All is done.
    Landed,
}

impl Landing {
    /// Looks at what is there and makes a directory to build in.
    pub(super) fn prepare(to: &Path, existing: ExistingDir, place: &Place) -> Result<Self> {
        let (parent, name) = split(to).ok_or_else(|| {
            place.error(
                ErrorKind::InvalidInput,
                b"",
                "the path does not end in a directory's name",
            )
        })?;
        let flags = DIR_PATH | OFlags::CLOEXEC;
        let parent = openat(CWD, parent, flags, Mode::empty()).map_err(|errno| {
            place
                .fail(errno, b"")
                .with_hint("the directory above it has to exist")
        })?;
        let taken = |message: &str| {
            place
                .fail(Errno::EXIST, b"")
                .with_message(message)
                .with_hint("name another directory, or choose ExistingDir::Merge or Replace")
        };
        let found = find_at(&parent, name).map_err(place.failed())?;
        let how = match (found, existing) {
            (Some(stat), _) if !stat.is_dir() => {
                return Err(taken("something that is not a directory is there"));
            }
            (Some(_), ExistingDir::Fail) if !is_empty(&parent, name).map_err(place.failed())? => {
                return Err(taken("the directory exists and is not empty"));
            }
            (Some(_), ExistingDir::Merge) => How::Merge,
            (Some(_), ExistingDir::Replace) => How::Replace {
                partial: build_beside(&parent, name).map_err(place.failed())?,
            },
            (None, _) | (Some(_), ExistingDir::Fail) => How::Fresh {
                partial: build_beside(&parent, name).map_err(place.failed())?,
            },
        };
        Ok(Self {
            parent,
            name: name.to_vec(),
            how,
            place: place.clone(),
        })
    }

    /// Whether the export is built in a directory of its own.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.how, How::Fresh { .. } | How::Replace { .. })
    }

    /// Opens the directory to write into.
    pub(super) fn open(&self, place: &Place) -> Result<OwnedFd> {
        let name = match &self.how {
            How::Fresh { partial } | How::Replace { partial } => partial,
            How::Merge | How::Landed => &self.name,
        };
        open_beneath(&self.parent, name, DIR_PATH).map_err(place.failed())
    }

    /// Gives the export its final name.
    pub(super) fn land(mut self, mode: u32, place: &Place) -> Result<()> {
        if self.is_new() {
            set_mode(self.open(place)?, mode).map_err(place.failed())?;
        }
        match &self.how {
            How::Fresh { partial } => {
                // Of directories only an empty one is replaced by this.
                renameat(&self.parent, &**partial, &self.parent, &*self.name)
                    .map_err(|errno| occupied(place, errno))?;
                self.how = How::Landed;
            }
            How::Replace { partial } => {
                renameat_with(
                    &self.parent,
                    &**partial,
                    &self.parent,
                    &*self.name,
                    RenameFlags::EXCHANGE,
                )
                .map_err(|errno| occupied(place, errno))?;
                let old = std::mem::replace(&mut self.how, How::Landed);
                if let How::Replace { partial } = old {
                    remove_tree(&self.parent, &partial, place).map_err(|error| {
                        place
                            .error(
                                ErrorKind::Other,
                                b"",
                                "the export is in place, but what was there before could not be \
                                 removed",
                            )
                            .with_hint(format!(
                                "remove {:?} beside it",
                                OsStr::from_bytes(&partial)
                            ))
                            .with_source(error)
                    })?;
                }
            }
            How::Merge | How::Landed => {}
        }
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let How::Fresh { partial } | How::Replace { partial } = &self.how {
            // Nobody is left to tell; the name says what it is.
            let _ = remove_tree(&self.parent, partial, &self.place);
        }
    }
}

/// The directory above, and the last name.
fn split(to: &Path) -> Option<(&Path, &[u8])> {
    let name = to.file_name()?.as_bytes();
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    Some((parent.unwrap_or(Path::new(".")), name))
}

/// Makes a directory of which the name tells where it comes from.
fn build_beside(parent: &OwnedFd, name: &[u8]) -> Sys<Vec<u8>> {
    let tail = format!(".sandbox-partial-{:016x}", random());
    // A name has 255 bytes at most.
    let room = 255 - tail.len() - 1;
    let mut partial = b".".to_vec();
    partial.extend(name.iter().take(room));
    partial.extend_from_slice(tail.as_bytes());
    mkdirat(parent, &*partial, Mode::RWXU)?;
    Ok(partial)
}

fn is_empty(parent: &OwnedFd, name: &[u8]) -> Sys<bool> {
    let dir = open_beneath(parent, name, DIR_READ)?;
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is at the final name has changed while the export was built, or can't be moved.
fn occupied(place: &Place, errno: Errno) -> Error {
    match errno {
        Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR => place.fail(Errno::EXIST, b""),
        Errno::BUSY => place
            .mounted(b"")
            .with_hint("choose ExistingDir::Merge to write into it"),
        errno => place.fail(errno, b""),
    }
}
