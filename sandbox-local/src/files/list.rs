//! Listing a directory.
//!
//! Invariant: entries and their names are bounded before they are kept, not after.

use sandbox_core::{DirEntry, ErrorKind, GuestPath, ListOptions, Operation, Result};

use rustix::io::Errno;

use super::GuestRoot;
use super::owners::Owners;
use super::place::Place;
use super::resolve::DIR_READ;
use super::stat::metadata_at;
use super::walk::{Found, Visitor, walk};
use crate::walk::Cancel;

/// Limit of bytes of paths and link targets in a listing: a guest can make names so long
/// that the number of entries alone bounds nothing.
const MAX_BYTES: usize = 64 << 20;

impl GuestRoot {
    /// See [`Sandbox::list_dir`](sandbox_core::Sandbox::list_dir). A recursive listing shows where
    /// procfs, sysfs and the like are mounted and does not go into them.
    ///
    /// Setting the flag ends it soon, with an error.
    pub(crate) fn list_until(
        &self,
        path: &GuestPath,
        options: &ListOptions,
        cancel: Cancel,
    ) -> Result<Vec<DirEntry>> {
        let place = Place::guest(Operation::ListDir, path).bounded(self.limits, cancel);
        let _guest = self.as_guest(Operation::ListDir)?;
        let top = self.open(path, DIR_READ).map_err(place.failed())?;
        let mut listing = Listing {
            entries: Vec::new(),
            bytes: 0,
            options,
            owners: self.owners(),
            place: &place,
        };
        walk(&top, &place, &mut listing)?;
        let mut entries = listing.entries;
        entries.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        // A directory that changes while it is read may show a name twice.
        entries.dedup_by(|a, b| a.path == b.path);
        Ok(entries)
    }
}

struct Listing<'a> {
    entries: Vec<DirEntry>,
    bytes: usize,
    options: &'a ListOptions,
    owners: Owners,
    place: &'a Place,
}

impl Visitor for Listing<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<bool> {
        if self.entries.len() >= self.options.limit {
            return Err(self
                .place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    format!("more than the limit of {} entries", self.options.limit),
                )
                .with_hint("raise the limit, or list a directory further down"));
        }
        let metadata = match metadata_at(found.dir, found.name, &found.stat, self.owners) {
            Ok(metadata) => metadata,
            // Gone, or no link any more.
            Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(self.place.fail(errno, found.path)),
        };
        let target = metadata.link_target.as_ref();
        self.bytes += found.path.len() + target.map_or(0, |target| target.as_bytes().len());
        if self.bytes > MAX_BYTES {
            return Err(self.place.error(
                ErrorKind::LimitExceeded,
                b"",
                format!("the names are more than {MAX_BYTES} bytes in all"),
            ));
        }
        self.entries.push(DirEntry::new(found.path, metadata));
        Ok(self.options.recursive)
    }
}
