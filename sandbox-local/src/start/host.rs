//! Parts that the starts of all sandboxes of a provider share: state directory, base layer, guest
//! user, and what was made ahead of time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sandbox_core::{Error, ErrorKind, Operation, Result, SandboxId};

use crate::config::{LocalConfig, MOST_PREPARED};
use crate::engine::Ready;
use crate::guest_user::GuestUser;
use crate::images::Images;
use crate::lasting::kept::Kept;
use crate::layers::{Layer, State, base};
use crate::random;
use crate::snapshots::Snapshots;
use crate::start::cgroup::Groups;
use crate::start::dev;

/// See the module's documentation; held by every sandbox.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: LocalConfig,
    pub(crate) state: Arc<State>,
    pub(crate) guest_user: Option<GuestUser>,
    /// Filesystem that all sandboxes of root mount at `/dev`.
    pub(crate) devices: Option<OwnedFd>,
    pub(crate) ready: Ready,
    /// Control groups of sandboxes with limits.
    pub(crate) groups: Groups,
    pub(crate) images: Images,
    pub(crate) snapshots: Snapshots,
    /// The record of the lasting sandbox that this is for; its forks share the host and have none.
    kept: OnceLock<Arc<Kept>>,
    /// Held while layers are merged.
    pub(crate) merging: Mutex<()>,
    /// The lowest layer of every default root, from the first one on.
    base_layer: Mutex<Option<Arc<Layer>>>,
    /// Configured system directories that the host has and that are not links.
    pub(crate) system_dirs: Vec<PathBuf>,
}

impl Host {
    pub(crate) fn new(
        config: LocalConfig,
        state: Arc<State>,
        guest_user: Option<GuestUser>,
    ) -> io::Result<Self> {
        let is_dir =
            |dir: &&PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
        let system_dirs = config.system_dirs.iter().filter(is_dir).cloned().collect();
        let ready = Ready::keep(
            config.prepared.min(MOST_PREPARED),
            GuestUser::run_as(guest_user),
        )?;
        let devices = guest_user.and_then(|_| match dev::make() {
            Ok(tmpfs) => Some(tmpfs),
            Err(error) => {
                tracing::debug!(%error, "each device gets a mount of its own");
                None
            }
        });
        let groups = Groups::new(config.cgroup.clone(), state.journal().clone())?;
        let images = Images::new(&config, &state);
        let snapshots = Snapshots::new(&config, &state);
        Ok(Self {
            images,
            snapshots,
            config,
            devices,
            state,
            guest_user,
            ready,
            kept: OnceLock::new(),
            groups,
            merging: Mutex::default(),
            base_layer: Mutex::default(),
            system_dirs,
        })
    }

    /// The base layer. The first call makes it, or takes over that of a provider that is gone: parts of the
    /// host's `/etc` are copied, which takes longer than a start, and not every host has a sandbox with such
    /// a root. Blocks.
    pub(crate) fn base_layer(&self) -> io::Result<Arc<Layer>> {
        // It is set whole: a panic elsewhere leaves it valid.
        let made = self.base_layer.lock();
        let mut made = made.unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = &*made {
            return Ok(layer.clone());
        }
        let (dirs, settings) = (&self.config.system_dirs, &self.config.settings);
        let layer = base::build(&self.state, dirs, settings, self.guest_user)?;
        Ok(made.insert(layer).clone())
    }

    /// Takes the record of the lasting sandbox that this is for.
    pub(crate) fn keep(&self, kept: Arc<Kept>) {
        // Once, by the one that made this.
        let _ = self.kept.set(kept);
    }

    /// The record of the lasting sandbox that this is for.
    pub(crate) fn kept(&self, operation: Operation) -> Result<Arc<Kept>> {
        let kept = self.kept.get().cloned();
        kept.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation).with_message("the sandbox does not last")
        })
    }
}

/// An identifier that no sandbox has.
pub(crate) fn new_id(operation: Operation) -> Result<SandboxId> {
    match random::hex() {
        Ok(hex) => Ok(SandboxId::new(&hex[..16])),
        Err(error) => Err(Error::from_io(error, operation)),
    }
}
