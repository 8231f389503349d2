//! Directories of the host as the engine sees them: copied once, then from memory.
//!
//! Invariant: what was copied does not change any more, whatever happens to the original.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::engine::{Failure, lock};

/// A copy of a directory or file of the host.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    _keep: Arc<TempDir>,
    pub(super) path: PathBuf,
}

/// What was copied in this session, by path.
#[derive(Debug, Default)]
pub(super) struct HostCache(Mutex<HashMap<PathBuf, Copied>>);

impl HostCache {
    /// A copy of what is at `path`; an old one if there is one and `cached` says so.
    pub(super) async fn read(&self, path: &Path, cached: bool) -> Result<Copied, Failure> {
        if cached && let Some(copied) = lock(&self.0).get(path) {
            return Ok(copied.clone());
        }
        let from = path.to_owned();
        let copied = tokio::task::spawn_blocking(move || copy_of(&from))
            .await
            .map_err(Failure::text)??;
        lock(&self.0).insert(path.to_owned(), copied.clone());
        Ok(copied)
    }

    /// Keeps a copy under its own path.
    pub(super) fn pin(&self, copied: Copied) {
        lock(&self.0).insert(copied.path.clone(), copied);
    }
}

fn copy_of(from: &Path) -> Result<Copied, Failure> {
    let dir = TempDir::with_prefix("dagger-double-")?;
    let to = dir.path().join("copy");
    copy(from, &to)
        .map_err(|error| Failure::text(format_args!("lstat {}: {error}", from.display())))?;
    Ok(Copied {
        _keep: Arc::new(dir),
        path: to,
    })
}

/// Copies a tree: files, directories and links, with modes.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_file() {
        return fs::copy(from, to).map(drop);
    }
    if !metadata.is_dir() {
        return Ok(());
    }
    if !to.is_dir() {
        fs::create_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    let mode = metadata.permissions().mode() & 0o777;
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o700))
}

/// An empty directory to put a tree together in.
pub(super) fn empty() -> io::Result<Copied> {
    let dir = TempDir::with_prefix("dagger-double-")?;
    let path = dir.path().join("copy");
    fs::create_dir(&path)?;
    Ok(Copied {
        _keep: Arc::new(dir),
        path,
    })
}
