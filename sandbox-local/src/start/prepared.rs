//! A run of a sandbox up to where its init serves, before it is used.
//!
//! All of it blocks, and none of it needs a runtime: a thread for blocking work does it, or the
//! pool's ahead of time.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Control, Error, ErrorKind, Operation, Result};
use sandbox_egress::Sockets;

use crate::egress;
use crate::engine::{self, Init, StartConfig, Taken};
use crate::files::{GuestRoot, Outside};
use crate::guest_user::GuestUser;
use crate::images;
use crate::layers::stack::Stack;
use crate::layers::{Layer, WorkDir};
use crate::mutation::{self, Part};
use crate::open_files;
use crate::start::blueprint::Blueprint;
use crate::start::cgroup::Cgroup;
use crate::start::failure;
use crate::start::host::Host;
use crate::start::idmap::Idmaps;
use crate::start::setup::{Setup, Upper};
use crate::walk::Limits;

/// Limit of the time for a set-up; it is a few milliseconds of system calls.
const START: Duration = Duration::from_secs(10);

/// See the module's documentation. Dropping it ends it and waits for that.
pub(crate) struct Prepared {
    // Before all that its mounts hold on to.
    pub(crate) init: Init,
    pub(crate) root: Arc<GuestRoot>,
    pub(crate) cgroup: Arc<Cgroup>,
    pub(crate) stack: Stack,
    pub(crate) writes: Writes,
    /// Sockets of an egress policy.
    pub(crate) sockets: Option<Sockets>,
}

/// Place of the guest's writes.
#[derive(Debug)]
pub(crate) enum Writes {
    /// In a layer on disk, which a fork can freeze.
    Layer {
        upper: Arc<Layer>,
        /// Removed when the mount is no longer needed.
        _work: WorkDir,
    },
    /// In a bounded tmpfs, reached by its directory; a fork copies it.
    Tmpfs(OwnedFd),
}

impl Prepared {
    /// The first run of a new sandbox, with its workdir.
    pub(crate) fn first(host: &Host, blueprint: &Blueprint) -> Result<Self> {
        const OP: Operation = Operation::Create;
        let cgroup = limits(host, blueprint, OP)?;
        let run = Self::start(host, blueprint, cgroup, Stack::default(), OP)?;
        run.root.create_workdir(&blueprint.workdir)?;
        Ok(run)
    }

    /// A run on a stack of layers.
    pub(crate) fn start(
        host: &Host,
        blueprint: &Blueprint,
        cgroup: Arc<Cgroup>,
        stack: Stack,
        operation: Operation,
    ) -> Result<Self> {
        let Inputs {
            config,
            upper,
            guest_user,
        } = Inputs::new(host, blueprint, &stack, &cgroup, operation)?;
        let started =
            engine::start(config).map_err(|error| match blueprint.resources().memory {
                Some(bytes) if failure::is_memory(&error, cgroup.has_killed()) => {
                    failure::memory(bytes, error, operation)
                }
                _ => failure::start(error, operation),
            })?;
        // One that is there already is only renewed.
        if matches!(operation, Operation::Create | Operation::Fork) {
            open_files::check(&started.root, operation)?;
        }
        let missing = |what: &str| {
            let message = format!("the set-up did not hand over {what}");
            Error::new(ErrorKind::Other, operation).with_message(message)
        };
        let mut exported = started.exported.into_iter();
        let writes = match upper {
            Some((upper, work)) => Writes::Layer { upper, _work: work },
            None => {
                let directory = exported.next();
                Writes::Tmpfs(directory.ok_or_else(|| missing("the upper layer"))?)
            }
        };
        let listens = blueprint.egress.is_some() && !mutation::is_off(Part::Network);
        let sockets = match listens {
            true => Some(egress::sockets(exported).ok_or_else(|| missing("the listeners"))?),
            false => None,
        };
        let writable = blueprint.binds.iter().filter(|bind| !bind.read_only);
        let outside = Outside {
            journal: host.state.journal().clone(),
            mounts: writable
                .map(|bind| (bind.guest.clone(), bind.host.clone()))
                .collect(),
        };
        let root = GuestRoot::new(started.root, guest_user)
            .with_outside(outside)
            .with_guest_id(blueprint.guest_id())
            .with_limits(Limits::of(&host.config));
        Ok(Self {
            init: started.init,
            root: Arc::new(root),
            cgroup,
            stack,
            writes,
            sockets,
        })
    }
}

/// The inputs of a start: what exists before the agent does.
struct Inputs {
    config: StartConfig,
    upper: Option<(Arc<Layer>, WorkDir)>,
    guest_user: Option<GuestUser>,
}

impl Inputs {
    fn new(
        host: &Host,
        blueprint: &Blueprint,
        stack: &Stack,
        cgroup: &Cgroup,
        operation: Operation,
    ) -> Result<Self> {
        let io = |error: std::io::Error| {
            failure::io(error, operation).with_message("a layer could not be prepared")
        };
        // First, since it may still be on its way.
        let isolate_network = blueprint.has_own_network() && !mutation::is_off(Part::Network);
        // What is ready as root belongs to the host's user namespace, where the plan could not
        // listen.
        let may_be_ready = isolate_network && blueprint.egress.is_none();
        let born_in = cgroup.born_in();
        let taken = match may_be_ready {
            true => host.ready.take(born_in.as_ref()),
            false => None,
        };
        let root_mode = stack.root_mode().map_err(io)?;
        let on_disk = match blueprint.resources().disk {
            Some(_) => None,
            None => {
                let (layer, work) = host.state.writable().map_err(io)?;
                if root_mode != 0o755 {
                    layer.set_mode(root_mode).map_err(io)?;
                }
                Some((layer, work))
            }
        };
        let guest = host.state.guest().map_err(|error| {
            failure::io(error, operation).with_message("no user could be had for the sandbox")
        })?;
        let guest_user = guest.as_ref().map(|guest| guest.guest_user);
        let (view, ready) = guest.map_or((None, None), |guest| (guest.view, guest.images));
        let images = match blueprint.image.as_ref().map(|image| &image.mounted) {
            Some(Some(mounted)) => match (guest_user, &view) {
                (Some(guest_user), Some(_)) => {
                    Some(ready.map_or_else(|| mounted.view(&host.state, guest_user), Ok)?)
                }
                _ => return Err(images::untranslated()),
            },
            _ => None,
        };
        let layers_dir = match view {
            Some(_) => host.state.root().join("layers"),
            None => host.state.layers_dir(),
        };
        let lower_dirs = stack.lower_dirs(&blueprint.base);
        let setup = Setup {
            blueprint,
            guest_user,
            idmaps: &Idmaps::default(),
            devices: host.devices.as_ref().map(AsFd::as_fd),
            layers_dir: &layers_dir,
            lower_dirs: &lower_dirs,
            upper: match (&on_disk, blueprint.resources().disk) {
                (Some((layer, work)), _) => Upper::Layer {
                    name: layer.name(),
                    work: work.relative(),
                },
                (None, bytes) => Upper::Tmpfs {
                    bytes: bytes.unwrap_or_default(),
                    mode: root_mode,
                },
            },
            loopback_is_up: taken.as_ref().is_some_and(Taken::loopback_is_up),
        };
        let plan = setup
            .plan(view, images)
            .map_err(|error| failure::setup(error, operation))?;
        let config = StartConfig {
            plan,
            run_as: GuestUser::run_as(guest_user),
            guest_id: blueprint.guest_id(),
            isolate_network,
            taken,
            born_in,
            timeout: START,
        };
        Ok(Self {
            config,
            upper: on_disk,
            guest_user,
        })
    }
}

/// The least limit on memory, in bytes, that a start is tried with. The thread that starts a process in a
/// group of v1 is in it for a moment. Without room for a page of its own it would wait for ever: the kernel
/// makes room by ending a process, and finds none there.
const LEAST_MEMORY: u64 = 1 << 20;

/// The cgroups of a sandbox; an error if a limit that is required can't be had.
pub(crate) fn limits(
    host: &Host,
    blueprint: &Blueprint,
    operation: Operation,
) -> Result<Arc<Cgroup>> {
    let resources = blueprint.resources();
    if resources.disk.is_some() && blueprint.requires(Control::Disk) {
        failure::check_tmpfs_upper(operation)?;
    }
    if resources.memory.is_none() && resources.cpus.is_none() {
        return Ok(Arc::new(Cgroup::none()));
    }
    if let Some(bytes) = resources.memory.filter(|bytes| *bytes < LEAST_MEMORY) {
        let why = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        return Err(failure::memory(bytes, why, operation));
    }
    let (cgroup, missing) = Cgroup::create(&host.groups, resources);
    match missing
        .into_iter()
        .find(|missing| blueprint.requires(missing.control))
    {
        Some(missing) => Err(failure::no_cgroup(missing, operation)),
        None => Ok(Arc::new(cgroup)),
    }
}
