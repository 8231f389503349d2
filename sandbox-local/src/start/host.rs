//! What all sandboxes of a provider share: state directory, skeleton, identity, registry.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sandbox_core::{Error, Labels, Operation, Result, SandboxId, SandboxInfo};

use crate::config::{LocalConfig, MOST_PREPARED};
use crate::engine::Ready;
use crate::identity::Identity;
use crate::isolation::Proven;
use crate::layers::{Layer, State, random_hex};
use crate::provider::pool::Pool;
use crate::sandbox::LocalSandbox;
use crate::start::owner::Owners;
use crate::start::setup::devices;

/// The provider's own, held by every sandbox of it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: LocalConfig,
    pub(crate) state: Arc<State>,
    pub(crate) identity: Option<Identity>,
    pub(crate) owners: Owners,
    /// What all sandboxes of root mount at `/dev`.
    pub(crate) devices: Option<OwnedFd>,
    pub(crate) ready: Ready,
    pub(crate) pool: Pool,
    pub(crate) proven: Proven,
    /// Held by who merges layers.
    pub(crate) merging: Mutex<()>,
    /// The lowest layer of every default root.
    pub(crate) skeleton: Arc<Layer>,
    /// Those of the configured system directories that the host has and that are no links.
    pub(crate) system_dirs: Vec<PathBuf>,
    registry: Mutex<HashMap<SandboxId, Weak<LocalSandbox>>>,
}

impl Shared {
    pub(crate) fn new(
        config: LocalConfig,
        state: Arc<State>,
        identity: Option<Identity>,
        skeleton: Arc<Layer>,
    ) -> io::Result<Self> {
        let is_dir =
            |dir: &&PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
        let system_dirs = config.system_dirs.iter().filter(is_dir).cloned().collect();
        let count = config.prepared.min(MOST_PREPARED);
        let ready = Ready::keep(count, Identity::engine(identity))?;
        let devices = identity.and_then(|_| match devices::make() {
            Ok(tmpfs) => Some(tmpfs),
            Err(error) => {
                tracing::debug!(%error, "each device gets a mount of its own");
                None
            }
        });
        Ok(Self {
            config,
            devices,
            state,
            identity,
            owners: Owners::default(),
            ready,
            pool: Pool::new(count),
            proven: Proven::default(),
            merging: Mutex::default(),
            skeleton,
            system_dirs,
            registry: Mutex::default(),
        })
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, Weak<LocalSandbox>>> {
        // Every change of the map is a single call: a panic elsewhere leaves it whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, id: SandboxId, sandbox: &Arc<LocalSandbox>) {
        self.registry().insert(id, Arc::downgrade(sandbox));
    }

    pub(crate) fn leave(&self, id: &SandboxId) {
        self.registry().remove(id);
    }

    /// An open sandbox.
    pub(crate) fn find(&self, id: &SandboxId) -> Option<Arc<LocalSandbox>> {
        self.registry().get(id).and_then(Weak::upgrade)
    }

    /// The open sandboxes that have these labels, oldest first.
    pub(crate) fn list(&self, labels: &Labels) -> Vec<SandboxInfo> {
        use sandbox_core::Sandbox;
        let sandboxes: Vec<_> = self.registry().values().filter_map(Weak::upgrade).collect();
        let mut found: Vec<SandboxInfo> = sandboxes
            .iter()
            .map(|sandbox| sandbox.info())
            .filter(|info| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v)))
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        found
    }
}

/// An identifier that no sandbox has.
pub(crate) fn new_id(operation: Operation) -> Result<SandboxId> {
    match random_hex() {
        Ok(hex) => Ok(SandboxId::new(&hex[..16])),
        Err(error) => Err(Error::from_io(error, operation)),
    }
}
