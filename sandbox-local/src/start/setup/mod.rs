//! Set-up that the agent does before it serves, compiled into a plan of system calls.
//!
//! The order matters and is this: become the guest's user; mount the root; take hold of everything
//! of the host that will be seen, while the host can still be seen; turn round into the root and
//! let go of the host; put things in their places; set limits; give up every right; put up the
//! system call filter. A call that fails ends the sandbox, unless it is marked as tolerated.
//!
//! Must never resolve a path that a guest may have written before the host's root is gone, and
//! after that never through a link.

mod devices;
mod initial;
mod inputs;
mod privileges;
mod proc;
mod root;
pub(crate) mod seccomp;

use std::os::fd::OwnedFd;

use crate::egress;
use crate::engine::Plan;
use crate::mutation::{self, Part};
use crate::start::failure::SetupError;

pub(crate) use inputs::{Setup, Upper};

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
            privileges::become_guest(&mut plan, self.blueprint.guest_id());
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
            let has_egress = self.blueprint.egress.is_some();
            privileges::open_own_network(&mut plan, self.blueprint.guest_id(), has_egress);
        }
        let root = self.blueprint.is_root();
        if root {
            privileges::close_settings(&mut plan);
        }
        privileges::drop(&mut plan, self.blueprint.writes_to_host(), root);
        Ok(plan)
    }
}
