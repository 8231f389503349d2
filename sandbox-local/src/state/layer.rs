//! One directory of files in an overlay: being written by one sandbox, or frozen and shared.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Removed, State};

/// A layer on disk. Dropping the last reference removes it, in the background.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    path: PathBuf,
    state: Arc<State>,
}

impl Layer {
    /// An empty layer that the guest may write.
    pub(crate) fn create(state: &Arc<State>) -> io::Result<Arc<Self>> {
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        DirBuilder::new().mode(0o755).create(&path)?;
        let layer = Arc::new(Self {
            name,
            path,
            state: state.clone(),
        });
        layer.own(&layer.path)?;
        Ok(layer)
    }

    /// Sets the mode of its top.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }

    /// A layer that is a directory of the host, only read: a link to it. The directory itself
    /// stays when the layer goes.
    pub(crate) fn link(state: &Arc<State>, host: &Path) -> io::Result<Arc<Self>> {
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        std::os::unix::fs::symlink(host, &path)?;
        Ok(Arc::new(Self {
            name,
            path,
            state: state.clone(),
        }))
    }

    /// A fresh work directory for a mount with this layer on top; overlayfs refuses one that was
    /// used by a volatile mount.
    pub(crate) fn fresh_work_dir(&self) -> io::Result<WorkDir> {
        let relative = format!("../work/{}-{}", self.name, self.state.number());
        let path = self.state.layers_dir().join(&relative);
        DirBuilder::new().mode(0o700).create(&path)?;
        let work = WorkDir {
            relative,
            path,
            state: self.state.clone(),
        };
        self.own(&work.path)?;
        Ok(work)
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        self.state
            .identity
            .map_or(Ok(()), |identity| identity.own(path))
    }

    /// Its name, relative to the layers' directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Resolves when everything that was given up before is removed.
    pub(crate) fn settled(state: &Arc<State>) -> Removed {
        state.janitor.settled()
    }
}

/// A work directory of one mount. Dropping it removes it, in the background.
#[derive(Debug)]
pub(crate) struct WorkDir {
    relative: String,
    path: PathBuf,
    state: Arc<State>,
}

impl WorkDir {
    /// Its path relative to the layers' directory.
    pub(crate) fn relative(&self) -> &str {
        &self.relative
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        self.state.janitor.remove(self.path.clone());
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.state.janitor.remove(self.path.clone());
    }
}
