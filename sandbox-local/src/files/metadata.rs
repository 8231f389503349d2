//! Describing an entry, and whether a directory can be worked in.
//!
//! Invariant: nothing is opened but by `O_PATH`.

use rustix::fs::{Access, AtFlags, OFlags, accessat};
use sandbox_core::{GuestPath, Metadata, MetadataOptions, Operation, Result};

use super::GuestRoot;
use super::place::Place;
use super::resolve::DIR_PATH;
use super::stat::{metadata_at, stat_fd};

impl GuestRoot {
    /// See [`Sandbox::metadata`](sandbox_core::Sandbox::metadata).
    pub(crate) fn metadata(&self, path: &GuestPath, options: &MetadataOptions) -> Result<Metadata> {
        let place = Place::guest(Operation::Metadata, path);
        let _guest = self.as_guest(Operation::Metadata)?;
        let mut flags = OFlags::PATH;
        if !options.follow {
            flags |= OFlags::NOFOLLOW;
        }
        let handle = self.open(path, flags).map_err(place.failed())?;
        let stat = stat_fd(&handle).map_err(place.failed())?;
        // An empty name is the link that the descriptor itself refers to.
        metadata_at(&handle, c"", &stat, self.owners()).map_err(place.failed())
    }

    /// Whether commands can start in this directory.
    pub(crate) fn check_dir(&self, path: &GuestPath, operation: Operation) -> Result<()> {
        let place = Place::guest(operation, path);
        let _guest = self.as_guest(operation)?;
        let dir = self.open(path, DIR_PATH).map_err(place.failed())?;
        accessat(&dir, c".", Access::EXEC_OK, AtFlags::EACCESS).map_err(place.failed())
    }
}
