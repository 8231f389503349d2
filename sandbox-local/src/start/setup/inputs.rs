//! Everything that the set-up of one run depends on. It decides nothing.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::guest_user::GuestUser;
use crate::start::blueprint::Blueprint;
use crate::start::idmap::Idmaps;

/// Everything that the set-up of one run depends on.
pub(crate) struct Setup<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) guest_user: Option<GuestUser>,
    /// For what is mounted for writing.
    pub(crate) idmaps: &'a Idmaps,
    /// A tmpfs made by [`dev::make`](crate::start::dev::make).
    pub(crate) devices: Option<BorrowedFd<'a>>,
    /// The directory that layers are named relative to; where there is a view, within it.
    pub(crate) layers_dir: &'a Path,
    /// `lowerdir=` of the root.
    pub(crate) lower_dirs: &'a str,
    /// Place of the guest's writes.
    pub(crate) upper: Upper<'a>,
    /// Whether the agent comes with a network namespace in which nothing is left to do.
    pub(crate) loopback_is_up: bool,
}

/// Place of the guest's writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Upper<'a> {
    /// A layer on disk and its fresh work directory, relative to the layers' directory.
    Layer {
        /// The layer's name.
        name: &'a str,
        /// Work directory.
        work: &'a str,
    },
    /// A tmpfs of this many bytes, with this mode of the root directory.
    Tmpfs {
        /// Limit of its bytes.
        bytes: u64,
        /// The permission bits of `/`.
        mode: u32,
    },
}
