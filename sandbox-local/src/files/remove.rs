//! Removing an entry.
//!
//! Invariant: the name is literal, the last link is not followed, and nothing mounted goes.

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use sandbox_core::{ErrorKind, GuestPath, Operation, RemoveOptions, Result};

use super::GuestRoot;
use super::place::Place;
use super::stat::stat_at;
use super::tree::remove_tree;
use crate::walk::Cancel;

impl GuestRoot {
    /// See [`Sandbox::remove`](sandbox_core::Sandbox::remove).
    ///
    /// A recursive removal that meets something mounted stops there with `Busy`; what it removed
    /// before that is gone. A directory that the guest's user owns and has shut (mode 000) is
    /// opened by its mode and removed.
    ///
    /// Setting the flag ends a recursive removal soon; what it removed before that is gone.
    pub(crate) fn remove_until(
        &self,
        path: &GuestPath,
        options: &RemoveOptions,
        cancel: Cancel,
    ) -> Result<()> {
        let place = Place::guest(Operation::Remove, path).bounded(self.limits, cancel);
        let _guest = self.as_guest(Operation::Remove)?;
        let (parent, name) = self.open_parent(path, Operation::Remove)?;
        let stat = stat_at(&parent, name).map_err(place.failed())?;
        // The kernel would detach the guest's mount rather than refuse: it minds only the mounts
        // of the caller's own namespace.
        if stat.mounted {
            return Err(place.mounted(b""));
        }
        if !stat.is_dir() {
            return unlinkat(&parent, name, AtFlags::empty()).map_err(|errno| match errno {
                Errno::ISDIR => place.changed(b""),
                errno => place.fail(errno, b""),
            });
        }
        match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(Errno::NOTDIR) => Err(place.changed(b"")),
            Err(Errno::NOTEMPTY | Errno::EXIST) if options.recursive => {
                remove_tree(&parent, name, &place)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(place
                .error(
                    ErrorKind::DirectoryNotEmpty,
                    b"",
                    "the directory is not empty",
                )
                .with_hint("use RemoveOptions::recursive")),
            Err(errno) => Err(place.fail(errno, b"")),
        }
    }
}
