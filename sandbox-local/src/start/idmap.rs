//! Lets root's guests act as the owner of a host directory that is mounted for writing.
//!
//! They run as a user that owns nothing on the host, so that they could write nothing there. The
//! mount translates: what belongs to the directory's owner on disk belongs to the guest's user when
//! seen through the mount, and what the guest creates belongs to the owner on disk. Files of other
//! owners in there do not become the guest's. The other side of it is a danger, a set-user-ID
//! program that belongs to the owner, and the system call filter answers it (see `setup/seccomp`).
//!
//! References: mount_setattr(2), user_namespaces(7).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::engine::{self, StartError};
use crate::guest_user::GuestUser;
use crate::sys::mount::set_idmap;

/// One user namespace for each owner that is met in the set-up of one run.
#[derive(Debug, Default)]
pub(crate) struct Idmaps {
    namespaces: Mutex<HashMap<(u32, u32), Arc<OwnedFd>>>,
}

/// Why a mount can't be written as its owner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdmapError {
    /// Whose it is can't be told.
    #[error("find its owner: {0}")]
    Stat(Errno),
    /// No namespace to translate by.
    #[error("make a user namespace for its owner: {0}")]
    Namespace(#[from] StartError),
    /// The kernel, or the filesystem, does not translate.
    #[error("translate its owner: {0}")]
    Translate(Errno),
}

impl Idmaps {
    /// Makes the guest the owner, as seen through this mount, of what belongs to the owner of its
    /// top. The mount must be detached still.
    pub(crate) fn translate(&self, tree: impl AsFd, guest: GuestUser) -> Result<(), IdmapError> {
        // Of the mount itself, not of a path: that may lead elsewhere by now.
        let top = rustix::fs::fstat(&tree).map_err(IdmapError::Stat)?;
        let namespace = self.namespace((top.st_uid, top.st_gid), guest)?;
        set_idmap(tree.as_fd(), namespace.as_fd()).map_err(IdmapError::Translate)
    }

    fn namespace(&self, owner: (u32, u32), guest: GuestUser) -> Result<Arc<OwnedFd>, IdmapError> {
        // Held meanwhile, so that one is made once. Every change is a single call: a panic
        // elsewhere leaves the map whole.
        let mut known = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = known.get(&owner) {
            return Ok(namespace.clone());
        }
        let made = engine::idmap_namespace((owner.0, guest.uid), (owner.1, guest.gid))?;
        let made = Arc::new(made);
        known.insert(owner, made.clone());
        Ok(made)
    }
}
