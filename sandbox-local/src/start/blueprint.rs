//! Blueprint of all starts of one sandbox: its spec, checked against this backend.
//!
//! A sandbox is started once when it is created and again when it is frozen for a fork; both use
//! the same blueprint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::{
    Control, Error, ErrorKind, GuestPath, GuestUser, Network, Operation, RequiredIsolation,
    Resources, Result, SandboxSpec, Source,
};
use sandbox_egress::Egress;

use crate::egress;
use crate::images::{self, ImageRoot};
use crate::layers::Layer;
use crate::layers::base::{self, GUEST_ID};
use crate::snapshots::{self, Origin};
use crate::start::failure;
use crate::start::host::Host;
use crate::start::mounts::{self, Bind};
use crate::walk::Cancel;

/// Directory where relative paths and commands start unless the spec says otherwise.
const WORKDIR: &str = "/workspace";

/// A spec, ready to be started any number of times.
#[derive(Debug)]
pub(crate) struct Blueprint {
    pub(crate) spec: SandboxSpec,
    pub(crate) workdir: GuestPath,
    /// Host directories to mount: the system's, then those of the spec.
    pub(crate) binds: Vec<Bind>,
    /// The lowest layers, topmost first.
    pub(crate) base: Vec<Arc<Layer>>,
    /// The egress policy of the spec, ready to be served.
    pub(crate) egress: Option<sandbox_egress::Plan>,
    /// The image that it starts from.
    pub(crate) image: Option<ImageRoot>,
}

impl Blueprint {
    /// Checks what of a valid spec depends on this host. No sandbox exists yet.
    pub(crate) fn new(host: &Host, spec: SandboxSpec, cancel: &Cancel) -> Result<Self> {
        const OP: Operation = Operation::Create;
        let failed = |error: std::io::Error| {
            failure::io(error, OP)
                .with_message("a layer could not be prepared in the state directory")
        };
        let guest_user = host.guest_user;
        let mut binds = Vec::new();
        let mut base = Vec::new();
        let egress = egress::plan(&host.config.connector, &spec.network, OP)?;
        if let Some(plan) = &egress {
            base.push(egress::layer(&host.state, plan, guest_user).map_err(failed)?);
        }
        let mut links = Vec::new();
        let image = image(host, &spec, cancel)?;
        let of_host = is_of_host(&spec.source, image.as_ref());
        if let Some(image) = &image {
            links.extend(image.links.iter().cloned());
        }
        if of_host {
            let is_link = |dir: &&PathBuf| dir.is_symlink();
            links.extend(
                host.config
                    .system_dirs
                    .iter()
                    .filter(is_link)
                    .map(|dir| guest(dir)),
            );
            binds.extend(host.system_dirs.iter().map(|dir| Bind {
                host: dir.clone(),
                guest: guest(dir),
                read_only: true,
                is_guests: false,
            }));
        }
        let mounts = mounts::resolve(&spec.mounts, &binds, &links)?;
        let points = mounts::points(&mounts)?;
        binds.extend(mounts);
        if !points.is_empty() {
            base.push(base::build_mount_points(&host.state, &points, guest_user).map_err(failed)?);
        }
        match &spec.source {
            Source::Default => {
                base.push(host.base_layer().map_err(failed)?);
            }
            Source::RootDir(root) => {
                check_root_dir(root)?;
                base.push(base::build_bare(&host.state, guest_user).map_err(failed)?);
                base.push(Layer::link(&host.state, root).map_err(failed)?);
            }
            Source::Image(_) | Source::Snapshot(_) => {
                let layers = image.iter().flat_map(|image| &image.layers);
                base.extend(layers.cloned());
                if of_host {
                    base.push(host.base_layer().map_err(failed)?);
                }
            }
            // Refused by `SandboxSpec::require` before.
            _ => {
                let why = "the local backend starts from the host's programs or a root directory";
                return Err(Error::unsupported(OP, "this source", why));
            }
        }
        let of_image = image
            .as_ref()
            .map(|image| image.config.working_dir.as_str());
        let of_image = of_image.filter(|workdir| !workdir.is_empty());
        let workdir = spec
            .workdir
            .clone()
            .unwrap_or_else(|| GuestPath::from(of_image.unwrap_or(WORKDIR)));
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        Ok(Self {
            spec,
            workdir,
            binds,
            base,
            egress,
            image,
        })
    }

    /// Whether the host's programs are its own, so that they are mounted and can only be read.
    pub(crate) fn is_of_host(&self) -> bool {
        is_of_host(&self.spec.source, self.image.as_ref())
    }

    /// Whether its programs are root of the sandbox's own files.
    pub(crate) fn is_root(&self) -> bool {
        self.spec.user == GuestUser::Root
    }

    /// Number of the guest's user and group, inside.
    pub(crate) fn guest_id(&self) -> u32 {
        if self.is_root() { 0 } else { GUEST_ID }
    }

    /// Whether a control must be in force.
    pub(crate) fn requires(&self, control: Control) -> bool {
        match &self.spec.isolation {
            RequiredIsolation::Only(controls) => controls.contains(&control),
            _ => match control {
                Control::Network => self.has_own_network(),
                Control::Memory => self.resources().memory.is_some(),
                Control::Cpu => self.resources().cpus.is_some(),
                Control::Pids => self.resources().pids.is_some(),
                Control::Disk => self.resources().disk.is_some(),
                _ => true,
            },
        }
    }

    /// Whether it has a network of its own, apart from the host's.
    pub(crate) fn has_own_network(&self) -> bool {
        self.spec.network != Network::Open
    }

    /// Whether the guest can leave files on the host.
    pub(crate) fn writes_to_host(&self) -> bool {
        self.binds.iter().any(|bind| !bind.read_only)
    }

    /// The egress of a new sandbox, if its spec has any.
    pub(crate) fn new_egress(&self) -> Option<Arc<Egress>> {
        self.egress.clone().map(Egress::new)
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.spec.resources
    }
}

fn is_of_host(source: &Source, image: Option<&ImageRoot>) -> bool {
    match source {
        Source::Default => true,
        Source::Snapshot(_) => image.is_some_and(|image| image.is_of_host),
        _ => false,
    }
}

/// The image or snapshot that a spec starts from, in use.
fn image(host: &Host, spec: &SandboxSpec, cancel: &Cancel) -> Result<Option<ImageRoot>> {
    let (image, of_host) = match &spec.source {
        Source::Image(reference) => {
            let image = images::take(&host.images, &host.config, reference, cancel)?;
            (image, false)
        }
        Source::Snapshot(id) => {
            let (opened, origin, _in_use) =
                host.snapshots.open(&host.config, &host.system_dirs, id)?;
            let cache = host.images.cache(&host.config)?;
            let name = snapshots::cached_name(id);
            let image = images::unpack(&cache, &host.config, &name, &opened, cancel)?;
            (image, matches!(origin, Origin::Host))
        }
        _ => return Ok(None),
    };
    let root = host
        .images
        .root(&host.config, &host.state, &image, spec, of_host)?;
    Ok(Some(root))
}

fn guest(host: &Path) -> GuestPath {
    use std::os::unix::ffi::OsStrExt;
    GuestPath::from(host.as_os_str().as_bytes())
}

/// A root directory must be a directory with programs in it; what we mount on is made by us, so
/// links that it may have at those places do no harm.
fn check_root_dir(root: &Path) -> Result<()> {
    const OP: Operation = Operation::Create;
    let found = std::fs::metadata(root).map_err(|error| {
        Error::from_io(error, OP)
            .with_message("the root directory can't be used")
            .with_host_path(root)
    })?;
    if !found.is_dir() {
        return Err(Error::new(ErrorKind::NotADirectory, OP)
            .with_message("the root directory is not a directory")
            .with_host_path(root));
    }
    Ok(())
}
