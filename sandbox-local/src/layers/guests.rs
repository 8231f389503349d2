//! The user that each of root's sandboxes runs as, and the provider's directory as that user sees
//! it.
//!
//! The kernel counts for each user of the host, in all namespaces together, what its processes
//! hold: pages in pipes, epoll watches, descriptors under way in sockets. So each run of a sandbox
//! is a user of its own, and none starves another. Layers are shared by forks and belong to one
//! user on disk; a mount translates between the two. Must never give two sandboxes that live at
//! once the same user.
//!
//! References: mount_setattr(2) "ID-mapped mounts", Documentation/filesystems/idmappings.rst.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::mount::OpenTreeFlags;

use crate::engine;
use crate::guest_user::GuestUser;
use crate::mutation::{self, Part};
use crate::sys::mount::set_idmap;

/// Number of spares that are kept: a fork and its renewed parent take two at once.
const KEPT: usize = 2;

/// Overlays can lie on translated mounts since then.
const SINCE: (u32, u32) = (5, 19);

/// User of one run of a sandbox.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The user and group on the host.
    pub(crate) guest_user: GuestUser,
    /// The provider's directory, as the user's own, mounted nowhere yet; none where all sandboxes
    /// of a provider are the user that its directory belongs to.
    pub(crate) view: Option<OwnedFd>,
    /// The cache of images in the same way, where it was made ahead of time.
    pub(crate) images: Option<OwnedFd>,
}

/// Gives each run a user.
#[derive(Debug)]
pub(super) struct Guests {
    /// Owner of everything on disk.
    disk: GuestUser,
    /// Number of users that were given.
    given: AtomicU32,
    spares: Mutex<Vec<Guest>>,
    translates: bool,
    /// Layers of the cache of images and their owner, once a sandbox was started from one.
    images: OnceLock<(PathBuf, (u32, u32))>,
}

impl Guests {
    /// For a provider's directory that belongs to `disk`.
    pub(super) fn new(dir: &Path, disk: GuestUser) -> Self {
        let mut guests = Self {
            disk,
            given: AtomicU32::new(0),
            spares: Mutex::default(),
            translates: true,
            images: OnceLock::new(),
        };
        let first = if overlays_translate() && !mutation::is_off(Part::Users) {
            guests.make(dir)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        match first {
            Ok(first) => guests.spares().push(first),
            Err(error) => {
                tracing::debug!(%error, "the sandboxes of this provider share one user");
                guests.translates = false;
            }
        }
        guests
    }

    /// Whether no run is the user that everything on disk belongs to.
    pub(super) fn translates(&self) -> bool {
        self.translates
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Guest>> {
        // Every change is a single call: a panic elsewhere leaves it whole.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next run's.
    pub(super) fn next(&self, dir: &Path) -> io::Result<Guest> {
        if !self.translates {
            return Ok(Guest {
                guest_user: self.disk,
                view: None,
                images: None,
            });
        }
        let spare = self.spares().pop();
        spare.map_or_else(|| self.make(dir), Ok)
    }

    /// Makes as many as are missing, for those who come later.
    pub(super) fn make_spares(&self, dir: &Path) -> io::Result<()> {
        while self.translates && self.spares().len() < KEPT {
            let guest = self.make(dir)?;
            self.spares().push(guest);
        }
        Ok(())
    }

    fn make(&self, dir: &Path) -> io::Result<Guest> {
        let guest_user = self
            .disk
            .following(1 + self.given.fetch_add(1, Ordering::Relaxed));
        let view = translated(dir, (self.disk.uid, self.disk.gid), guest_user)?;
        let images = self.images.get();
        // What fails is tried again where it is needed, and told there.
        let images = images.and_then(|(dir, owner)| translated(dir, *owner, guest_user).ok());
        Ok(Guest {
            guest_user,
            view: Some(view),
            images,
        })
    }

    /// Makes the cache of images part of what is made ahead of time.
    pub(super) fn show_images(&self, dir: &Path, owner: (u32, u32)) {
        self.images.get_or_init(|| (dir.to_owned(), owner));
    }
}

/// A directory in which what belongs to `owner` on disk is the guest's own, mounted nowhere yet.
pub(crate) fn translated(
    dir: &Path,
    (uid, gid): (u32, u32),
    guest: GuestUser,
) -> io::Result<OwnedFd> {
    let namespace = engine::idmap_namespace((uid, guest.uid), (gid, guest.gid));
    let namespace = namespace.map_err(|error| {
        // What has run out is told by its number.
        let errno = error.errno();
        errno.map_or_else(|| io::Error::other(error), io::Error::from)
    })?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, dir, flags)?;
    set_idmap(tree.as_fd(), namespace.as_fd())?;
    Ok(tree)
}

/// Whether this kernel's overlays can lie on translated mounts.
fn overlays_translate() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse().ok());
    let (Some(major), Some(minor)) = (number(), number()) else {
        return false;
    };
    (major, minor) >= SINCE
}
