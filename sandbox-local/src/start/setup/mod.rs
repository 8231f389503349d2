//! Set-up that the agent does before it serves, compiled into a plan of system calls.
//!
//! The order matters and is this: become the guest's user; mount the root; take hold of everything
//! of the host that will be seen, while the host can still be seen; turn round into the root and
//! let go of the host; put things in their places; set limits; give up every right; put up the
//! system call filter. A call that fails ends the sandbox, unless it is marked as tolerated.
//!
//! Must never resolve a path that a guest may have written before the host's root is gone, and
//! after that never through a link.

pub(crate) mod devices;
mod initial;
mod privileges;
mod proc;
mod root;
pub(crate) mod seccomp;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::egress;
use crate::engine::Plan;
use crate::guest_user::GuestUser;
use crate::mutation::{self, Part};
use crate::start::blueprint::Blueprint;
use crate::start::idmap::{IdmapError, Idmaps};

pub(crate) use root::Upper;

/// Everything that the set-up of one run depends on.
pub(crate) struct Setup<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) guest_user: Option<GuestUser>,
    /// For what is mounted for writing.
    pub(crate) idmaps: &'a Idmaps,
    /// A tmpfs made by [`devices::make`].
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

/// A host path that can't be given to the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The mount's host path can't be opened.
    #[error("take hold of {}: {errno}", host.display())]
    Hold {
        /// Which.
        host: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The guest can't be made its owner.
    #[error("mount {} for writing: {source}", host.display())]
    Owner {
        /// Which.
        host: PathBuf,
        /// Cause of the failure.
        source: IdmapError,
    },
}

impl Setup<'_> {
    /// The whole set-up. With a tmpfs as upper layer, its directory is exported. A view of the
    /// provider's directory is mounted where the directory of the layers is expected, and one of the
    /// cache of images in it.
    pub(crate) fn plan(
        &self,
        view: Option<OwnedFd>,
        images: Option<OwnedFd>,
    ) -> Result<Plan, SetupError> {
        let mut plan = Plan::new();
        if self.guest_user.is_some() {
            privileges::become_guest(&mut plan);
        }
        root::mount(&mut plan, self, view, images);
        let system = root::hold_host(&mut plan, self)?;
        let devices = devices::hold(&mut plan, self)?;
        root::turn(&mut plan);
        root::place(&mut plan, system);
        devices::place(&mut plan, devices);
        proc::hide(&mut plan);
        plan.sethostname("set the host name", "sandbox");
        let has_new_network = self.blueprint.has_own_network()
            && !self.loopback_is_up
            && !mutation::is_off(Part::Network);
        if has_new_network {
            plan.loopback_up("bring the sandbox's loopback up");
            if let Some(egress) = &self.blueprint.egress {
                egress::listen(&mut plan, egress);
            }
        }
        initial::set(&mut plan, self);
        privileges::limit_namespace(&mut plan);
        if has_new_network {
            privileges::allow_echo(&mut plan);
        }
        privileges::drop(&mut plan, self.blueprint.writes_to_host());
        Ok(plan)
    }
}
