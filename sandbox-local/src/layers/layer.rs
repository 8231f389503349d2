//! One directory of files in an overlay: being written by one sandbox, or frozen and shared.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Dir, FileType, Mode};

use super::spare::Pair;
use super::{Removed, State};
use crate::identity::Identity;
use crate::layers::copy;

/// A layer on disk. Dropping the last reference removes it, in the background.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    path: PathBuf,
    state: Arc<State>,
    /// Asked for only when nothing is written any more.
    small: OnceLock<bool>,
}

/// The most entries of a small layer.
const SMALL: usize = 1024;

impl Layer {
    /// An empty layer that the guest may write.
    pub(crate) fn create(state: &Arc<State>) -> io::Result<Arc<Self>> {
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        make(&path, 0o755, state.identity)?;
        Ok(Arc::new(Self {
            name,
            path,
            state: state.clone(),
            small: OnceLock::new(),
        }))
    }

    /// Directories that were made in advance.
    pub(super) fn of_pair(state: &Arc<State>, pair: Pair) -> (Arc<Self>, WorkDir) {
        let layers = state.layers_dir();
        let work = WorkDir {
            path: layers.join(&pair.work),
            relative: pair.work,
            state: state.clone(),
        };
        let layer = Self {
            path: layers.join(&pair.layer),
            name: pair.layer,
            state: state.clone(),
            small: OnceLock::new(),
        };
        (Arc::new(layer), work)
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
            small: OnceLock::new(),
        }))
    }

    /// Its name, relative to the layers' directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this frozen layer has only a few entries. What can't be looked into counts as empty.
    pub(crate) fn is_small(&self) -> bool {
        let small = || few_below(&self.path).unwrap_or(true);
        *self.small.get_or_init(small)
    }

    /// Resolves when everything that was given up before is removed.
    pub(crate) fn settled(state: &Arc<State>) -> Removed {
        state.janitor.settled()
    }
}

/// Whether there are few entries in a directory and all below it. By descriptor: a guest has given
/// the names.
fn few_below(top: &Path) -> io::Result<bool> {
    let top = rustix::fs::open(top, copy::DIR, Mode::empty())?;
    let mut entries = 0;
    let mut directories = vec![Vec::new()];
    while let Some(path) = directories.pop() {
        let Ok(directory) = copy::descend(top.as_fd(), &path) else {
            continue;
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            entries += 1;
            if entries > SMALL {
                return Ok(false);
            }
            // Where a filesystem does not say what it is, the layer counts as smaller than it is.
            if entry.file_type() == FileType::Directory {
                directories.push([&path, &b"/"[..], name].concat());
            }
        }
    }
    Ok(true)
}

/// Makes a directory of this mode, whatever the process's mask, that belongs to the guest.
pub(super) fn make(path: &Path, mode: u32, identity: Option<Identity>) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    identity.map_or(Ok(()), |identity| identity.own(path))
}

/// A work directory of one mount; overlayfs refuses one that was used by a volatile mount. Dropping
/// it removes it, in the background.
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
