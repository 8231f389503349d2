//! From a guest path to a descriptor, without ever leaving the guest's root.
//!
//! Invariant: `openat2` alone resolves more than one name. It does so within the kernel, so that a
//! rename or a relink at the same time cannot lead out between a check and a use.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{ErrorKind, GuestPath, Operation, Result};

use super::GuestRoot;
use super::place::Place;

/// The kernel gives up with `EAGAIN` when a rename anywhere comes between a `..`; a guest that
/// renames all the time must not hold the host here for ever.
const ATTEMPTS: usize = 256;

/// A directory for the sake of its entries' names.
pub(super) const DIR_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// A directory to be read.
pub(super) const DIR_READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl GuestRoot {
    /// Opens a path, following links within the root.
    pub(super) fn open(&self, path: &GuestPath, flags: OFlags) -> Sys<OwnedFd> {
        open(
            &self.root,
            path.as_bytes(),
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens the directory that holds a path's last name, and gives that name.
    ///
    /// The root has no name, which is invalid for every operation that needs one.
    pub(super) fn open_parent<'a>(
        &self,
        path: &'a GuestPath,
        operation: Operation,
    ) -> Result<(OwnedFd, &'a [u8])> {
        let place = Place::guest(operation, path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(place.error(
                ErrorKind::InvalidInput,
                b"",
                "not possible for the root directory",
            ));
        };
        let parent = self.open(&parent, DIR_PATH).map_err(place.failed())?;
        Ok((parent, name))
    }
}

/// Opens a path below a directory, not following any link, not even one that stays below.
pub(super) fn open_beneath(dir: impl AsFd, rel: &[u8], flags: OFlags) -> Sys<OwnedFd> {
    let rel = if rel.is_empty() { b"." } else { rel };
    open(dir, rel, flags | OFlags::NOFOLLOW, BENEATH)
}

/// As [`open_beneath`], and not into another mount either.
pub(super) fn open_same_mount(dir: impl AsFd, rel: &[u8], flags: OFlags) -> Sys<OwnedFd> {
    let rel = if rel.is_empty() { b"." } else { rel };
    open(
        dir,
        rel,
        flags | OFlags::NOFOLLOW,
        BENEATH | ResolveFlags::NO_XDEV,
    )
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

fn open(dir: impl AsFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Sys<OwnedFd> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(
            dir.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        );
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// Opens for use what an `O_PATH` descriptor refers to: the same file, whatever has become of its
/// name. The caller has seen that it is a regular file or a directory.
pub(super) fn reopen(path: impl AsFd, flags: OFlags) -> Sys<OwnedFd> {
    // Without blocking, should anything be odd about it all the same; on a regular file it has no
    // effect.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(CWD, own_link(&path), flags, Mode::empty()).map_err(no_proc)
}

/// Changes the mode of what an `O_PATH` descriptor refers to.
///
/// By the descriptor, because `fchmodat` follows a link in the name's place, out of the root.
pub(super) fn set_mode(path: impl AsFd, mode: u32) -> Sys<()> {
    rustix::fs::chmodat(
        CWD,
        own_link(&path),
        Mode::from_raw_mode(mode),
        rustix::fs::AtFlags::empty(),
    )
    .map_err(no_proc)
}

fn own_link(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// The descriptor is open, so that it can't be the file that is not found.
fn no_proc(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT => Errno::NOSYS,
        other => other,
    }
}
