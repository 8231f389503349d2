//! Moving a directory that the kernel can't rename.
//!
//! An overlay does not rename a directory that has a part in a lower layer (`EXDEV`), and after a
//! fork everything is in a lower layer. So it is copied, put in place at once, and the original
//! removed, as `mv` does.
//!
//! Invariant: the new name stands for nothing or for the whole; the original goes only when the
//! whole is there.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use sandbox_core::{ErrorKind, Operation, Result, Unreadable};
use sandbox_transfer::Excludes;

use super::super::GuestRoot;
use super::super::create::make_dir;
use super::super::place::Place;
use super::super::resolve::{DIR_READ, open_same_mount, set_mode};
use super::super::stat::stat_fd;
use super::super::tree::remove_tree;
use super::super::write::staged_prefix;
use super::sink::{Destination, receive};
use super::source::{Rules, send};
use super::transfer;
use crate::walk::Cancel;

/// An entry: the directory that it is in, its name there, and what it is called in errors.
pub(in super::super) struct Entry<'a> {
    pub(in super::super) dir: &'a OwnedFd,
    pub(in super::super) name: &'a [u8],
    pub(in super::super) place: &'a Place,
}

impl GuestRoot {
    /// Moves the directory `from` to `to` on the same mount. The caller has the guest's rights.
    pub(in super::super) fn move_by_copy(
        &self,
        from: &Entry<'_>,
        to: &Entry<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let staged = format!("{}m", staged_prefix()).into_bytes();
        let outcome = self.copy_tree(from, to, &staged).and_then(|()| {
            renameat_with(to.dir, &*staged, to.dir, to.name, flags).map_err(|errno| match errno {
                Errno::NOTEMPTY => to.place.error(
                    ErrorKind::DirectoryNotEmpty,
                    b"",
                    "a directory that is not empty is there",
                ),
                errno => to.place.fail(errno, b""),
            })
        });
        if outcome.is_err() {
            let _ = remove_tree(to.dir, &staged, to.place);
        }
        outcome?;
        remove_tree(from.dir, from.name, from.place)
    }

    fn copy_tree(&self, from: &Entry<'_>, to: &Entry<'_>, staged: &[u8]) -> Result<()> {
        let source = open_same_mount(from.dir, from.name, DIR_READ)
            .map_err(|errno| from.place.fail(errno, b""))?;
        let mode = stat_fd(&source)
            .map_err(|errno| from.place.fail(errno, b""))?
            .permissions();
        let top = make_dir(to.dir, staged, 0o700).map_err(|errno| to.place.fail(errno, b""))?;
        let again = top
            .try_clone()
            .map_err(|_| to.place.fail(Errno::MFILE, b""))?;
        let excludes = Excludes::new(&[], Operation::Rename)?;
        let cancel = Cancel::default();
        let rules = Rules {
            excludes: &excludes,
            ignore_files: false,
            confine_links: false,
            refuse_mounts: true,
            max_bytes: None,
            max_entries: None,
            unreadable: Unreadable::Fail,
            cancel: &cancel,
        };
        let report = transfer(
            from.place,
            |events| {
                let _guest = self.as_guest(Operation::Rename)?;
                send(&source, from.place, &rules, events)
            },
            |events| {
                let destination = Destination {
                    place: to.place,
                    source: from.place,
                    unseen: true,
                    keep_times: true,
                    max_bytes: None,
                    prefix: String::new(),
                    cancel: &cancel,
                    progress: None,
                };
                receive(top, &destination, events)
            },
        )?;
        if report.skipped_total > 0 {
            return Err(from
                .place
                .error(
                    ErrorKind::InvalidInput,
                    b"",
                    "a directory of a lower layer that has FIFOs, sockets or devices in it can't \
                     be moved",
                )
                .with_hint("remove them first, or use mv"));
        }
        set_mode(again.as_fd(), mode).map_err(|errno| to.place.fail(errno, b""))
    }
}
