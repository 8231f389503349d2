//! Removing from the guest what the host does not have, for a mirroring import.
//!
//! Invariant: what is excluded stays, with the directories that lead to it; nothing mounted goes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use sandbox_core::Result;
use sandbox_transfer::{Excludes, IgnoreFiles, is_excluded};

use super::super::place::Place;
use super::super::resolve::{DIR_PATH, open_same_mount};
use super::super::tree::make_usable;
use super::super::walk::{Found, Visitor, walk};
use super::source::Inventory;

/// Removes what is below `top` and not in the inventory; gives the number of entries.
pub(super) fn prune(
    top: &OwnedFd,
    place: &Place,
    inventory: &Inventory,
    excludes: &Excludes,
) -> Result<u64> {
    let mut prune = Prune {
        top,
        place,
        inventory,
        excludes,
        doomed: HashSet::new(),
        removed: 0,
    };
    walk(top, place, &mut prune)?;
    Ok(prune.removed)
}

struct Prune<'a> {
    top: &'a OwnedFd,
    place: &'a Place,
    inventory: &'a Inventory,
    excludes: &'a Excludes,
    /// Directories that go when they are empty.
    doomed: HashSet<Vec<u8>>,
    removed: u64,
}

impl Prune<'_> {
    fn is_excluded(&self, path: &[u8], is_dir: bool) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        let above: Vec<&IgnoreFiles> = std::iter::once(0)
            .chain(slashes.map(|(at, _)| at))
            .filter_map(|end| self.inventory.ignore_files.get(path.get(..end)?))
            .collect();
        is_excluded(self.excludes, &above, path, is_dir)
    }
}

impl Visitor for Prune<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<bool> {
        let is_dir = found.stat.is_dir();
        if self.is_excluded(found.path, is_dir) || self.inventory.unreadable.contains(found.path) {
            return Ok(false);
        }
        if is_dir {
            // One that stays gets its mode from the import; if it has changed meanwhile the walk
            // sees so itself.
            let _ = make_usable(found.dir, found.name.to_bytes());
        }
        // What is a directory on one side only is in the way of what comes.
        if self.inventory.entries.get(found.path) == Some(&is_dir) {
            return Ok(is_dir);
        }
        if found.stat.mounted {
            return Err(self.place.mounted(found.path));
        }
        if is_dir {
            self.doomed.insert(found.path.to_vec());
            return Ok(true);
        }
        match unlinkat(found.dir, found.name, AtFlags::empty()) {
            Ok(()) => self.removed += 1,
            Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(self.place.fail(errno, found.path)),
        }
        Ok(false)
    }

    fn leave(&mut self, path: &[u8]) -> Result<()> {
        if !self.doomed.remove(path) {
            return Ok(());
        }
        let split = path.iter().rposition(|b| *b == b'/');
        let (parent, name) = match split {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at + 1..).unwrap_or_default(),
            ),
            None => (&b""[..], path),
        };
        let outcome = open_same_mount(self.top, parent, DIR_PATH)
            .and_then(|parent| unlinkat(&parent, name, AtFlags::REMOVEDIR));
        match outcome {
            Ok(()) => self.removed += 1,
            // Something excluded is in it, or it has changed.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(self.place.fail(errno, path)),
        }
        Ok(())
    }
}
