//! File operations on a guest's filesystem, done from the host through one descriptor.
//!
//! Every operation blocks; callers put it on a blocking thread. The guest runs at the same time
//! and is hostile: it may rename, relink and grow whatever it may write, at any moment.
//!
//! Invariants: no guest path is ever resolved other than by `openat2` from the root's descriptor
//! or by a single name from a directory's descriptor, links not followed; nothing that is not a
//! regular file or a directory is ever opened; no mount point is ever removed or renamed (the
//! kernel refuses that only within its own mount namespace, so it is checked here); host paths are
//! touched with the host's rights and guest paths with the guest's, never the other way round.

mod create;
mod inotify;
mod list;
mod metadata;
mod outside;
mod owners;
mod place;
mod read;
mod remove;
mod rename;
mod resolve;
mod stat;
mod stream;
mod terminal;
mod transfer;
mod tree;
mod walk;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};

use self::owners::Owners;
use crate::guest_user::GuestUser;
use crate::layers::base::GUEST_ID;
use crate::sys::fsuid::FsUser;
use crate::walk::Limits;

pub(crate) use outside::Outside;
pub(crate) use stream::Incoming;
pub(crate) use terminal::resize;
pub(crate) use watch::Watched;

/// A guest's whole filesystem.
#[derive(Debug)]
pub(crate) struct GuestRoot {
    root: OwnedFd,
    guest_user: Option<GuestUser>,
    outside: Option<Outside>,
    /// Number of the guest's own user and group inside.
    guest_id: u32,
    /// Limits on what a walk over the guest's trees may cost.
    limits: Limits,
    /// Prefix of the guest's paths, for one that sees the host's: the path of the root.
    prefix: Option<GuestPath>,
    /// Held while a batch is written.
    batches: Mutex<()>,
}

impl GuestRoot {
    /// The filesystem whose `/` this descriptor (`O_PATH | O_DIRECTORY`) is.
    ///
    /// With a guest user, which only a privileged host can take on, everything is done with the
    /// rights of that user; without one, with those of the host process.
    pub(crate) fn new(root: OwnedFd, guest_user: Option<GuestUser>) -> Self {
        Self {
            root,
            guest_user,
            outside: None,
            guest_id: GUEST_ID,
            limits: Limits::DEFAULT,
            prefix: None,
            batches: Mutex::default(),
        }
    }

    /// Sets the number that the guest's own user and group have inside.
    pub(crate) fn with_guest_id(self, guest_id: u32) -> Self {
        Self { guest_id, ..self }
    }

    /// Takes paths as a guest has them that sees the host's: with the path of the root in front.
    pub(crate) fn with_prefix(self, prefix: GuestPath) -> Self {
        Self {
            prefix: Some(prefix),
            ..self
        }
    }

    /// Sets the limits on trees.
    pub(crate) fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Owners as the guest sees them.
    fn owners(&self) -> Owners {
        let (uid, gid) = match self.guest_user {
            Some(GuestUser { uid, gid }) => (uid, gid),
            None => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        };
        Owners::new(uid, gid, self.guest_id)
    }

    /// Takes on the guest's rights for as long as the result lives.
    fn as_guest(&self, operation: Operation) -> Result<Option<FsUser>> {
        self.guest_user
            .map(|GuestUser { uid, gid }| {
                FsUser::assume(uid, gid).map_err(|error| {
                    Error::new(ErrorKind::Other, operation)
                        .with_message("the host may not act as the guest's user")
                        .with_hint("give the host process CAP_SETUID and CAP_SETGID")
                        .with_source(error)
                })
            })
            .transpose()
    }
}
