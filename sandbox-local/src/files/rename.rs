//! Renaming an entry.
//!
//! Invariant: no mount point is moved or replaced, and without `replace` nothing is.

use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use sandbox_core::{ErrorKind, GuestPath, Operation, RenameOptions, Result};

use super::GuestRoot;
use super::place::Place;
use super::stat::{find_at, stat_at, stat_fd};
use super::transfer::Entry;

impl GuestRoot {
    /// See [`Sandbox::rename`](sandbox_core::Sandbox::rename). A directory of a lower layer is
    /// copied: its new name appears at once, and then the old one goes.
    pub(crate) fn rename(
        &self,
        from: &GuestPath,
        to: &GuestPath,
        options: &RenameOptions,
    ) -> Result<()> {
        let source = Place::guest(Operation::Rename, from);
        let target = Place::guest(Operation::Rename, to);
        let _guest = self.as_guest(Operation::Rename)?;
        let (from_dir, from_name) = self.open_parent(from, Operation::Rename)?;
        let stat = stat_at(&from_dir, from_name).map_err(source.failed())?;
        if stat.mounted {
            return Err(source.mounted(b""));
        }
        if stat.is_dir() && from != to && to.strip_prefix(from).is_some() {
            return Err(target.error(
                ErrorKind::InvalidInput,
                b"",
                "a directory can't be moved into itself",
            ));
        }
        let (to_dir, to_name) = self.open_parent(to, Operation::Rename)?;
        let existing = find_at(&to_dir, to_name).map_err(target.failed())?;
        if existing.is_some_and(|stat| stat.mounted) {
            return Err(target.mounted(b""));
        }
        let flags = if options.replace {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        let renamed = renameat_with(&from_dir, from_name, &to_dir, to_name, flags);
        let target_mount = stat_fd(&to_dir).map_err(target.failed())?.mount;
        if renamed == Err(Errno::XDEV) && stat.is_dir() && stat.mount == target_mount {
            match existing {
                Some(existing) if !existing.is_dir() => {
                    return Err(target.fail(Errno::NOTDIR, b""));
                }
                _ => {}
            }
            return self.move_by_copy(
                &Entry {
                    dir: &from_dir,
                    name: from_name,
                    place: &source,
                },
                &Entry {
                    dir: &to_dir,
                    name: to_name,
                    place: &target,
                },
                flags,
            );
        }
        renamed.map_err(|errno| match errno {
            Errno::NOENT => source.fail(errno, b""),
            Errno::EXIST if !options.replace => target
                .fail(errno, b"")
                .with_hint("use RenameOptions::replace"),
            Errno::EXIST | Errno::NOTEMPTY => target.error(
                ErrorKind::DirectoryNotEmpty,
                b"",
                "a directory that is not empty is there",
            ),
            Errno::INVAL => target.error(
                ErrorKind::InvalidInput,
                b"",
                "a directory can't be moved into itself",
            ),
            Errno::XDEV => target
                .error(
                    ErrorKind::InvalidInput,
                    b"",
                    "can't be moved there at once: it would cross a mount",
                )
                .with_hint("copy it and remove the original, as mv does"),
            errno => target.fail(errno, b""),
        })
    }
}
