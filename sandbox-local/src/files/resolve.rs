//! Resolution of a guest path to a descriptor, without ever leaving the guest's root.
//!
//! What is below an opened directory is opened by [`crate::walk`].
//!
//! Invariant: `openat2` alone resolves more than one name. It does so within the kernel, so that a
//! rename or a relink at the same time cannot lead out between a check and a use.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{ErrorKind, GuestPath, Operation, Result};

use super::GuestRoot;
use super::place::Place;
use crate::walk::resolve;
pub(super) use crate::walk::{DIR_PATH, DIR_READ, open_beneath, open_same_mount, reopen, set_mode};

impl GuestRoot {
    /// Opens a path, following links within the root.
    pub(super) fn open(&self, path: &GuestPath, flags: OFlags) -> Sys<OwnedFd> {
        let below = match &self.prefix {
            None => path.clone(),
            // What lies outside is not there.
            Some(prefix) => path.strip_prefix(prefix).ok_or(Errno::NOENT)?,
        };
        let below: &[u8] = match below.as_bytes() {
            b"" => b".",
            below => below,
        };
        resolve(
            &self.root,
            below,
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
