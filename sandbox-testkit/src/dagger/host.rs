//! Directories of the host as the engine sees them: copied once, then from memory.
//!
//! Invariant: what was copied does not change any more, whatever happens to the original.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sandbox_core::backend::FileLock;
use tempfile::TempDir;

use super::engine::{Failure, lock};

/// A copy of a directory or file of the host.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    _keep: Arc<OwnDir>,
    pub(super) path: PathBuf,
}

/// The directory of everything that the doubles of this process have on disk. It goes with the last
/// that is in it, or, if this process is killed, with the next double that starts.
#[derive(Debug)]
struct Scratch {
    dir: TempDir,
    /// Locked: it shows that the owner lives.
    _lease: FileLock,
}

/// Prefix of the names of doubles' directories.
const PREFIX: &str = "dagger-double-";
/// Age at which a directory without an owner is removed: a younger one may be about to be locked.
const STALE_AFTER: Duration = Duration::from_secs(60);

impl Scratch {
    fn of_this_process() -> io::Result<Arc<Self>> {
        static CURRENT: Mutex<Weak<Scratch>> = Mutex::new(Weak::new());
        let mut current = lock(&CURRENT);
        if let Some(scratch) = current.upgrade() {
            return Ok(scratch);
        }
        remove_stale(&std::env::temp_dir());
        let dir = TempDir::with_prefix(PREFIX)?;
        let lease = FileLock::exclusive(fs::File::open(dir.path())?)?;
        let scratch = Arc::new(Self { dir, _lease: lease });
        *current = Arc::downgrade(&scratch);
        Ok(scratch)
    }
}

/// Removes what killed processes left. What can't be removed now is left to the next double.
fn remove_stale(temporary: &Path) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let metadata = entry.path().symlink_metadata();
        let is_old = metadata.is_ok_and(|metadata| {
            let age = metadata
                .modified()
                .ok()
                .and_then(|time| time.elapsed().ok());
            metadata.is_dir() && age.is_some_and(|age| age > STALE_AFTER)
        });
        if !is_old
            || !entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes())
        {
            continue;
        }
        let lease = fs::File::open(entry.path()).and_then(FileLock::try_exclusive);
        if let Ok(Some(_lease)) = lease {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory on disk that goes when it is dropped.
#[derive(Debug)]
pub(super) struct OwnDir {
    dir: TempDir,
    _scratch: Arc<Scratch>,
}

impl OwnDir {
    /// Makes an empty one.
    pub(super) fn new() -> io::Result<Self> {
        let scratch = Scratch::of_this_process()?;
        let dir = TempDir::new_in(scratch.dir.path())?;
        Ok(Self {
            dir,
            _scratch: scratch,
        })
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Copies made in this session, by path.
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
    let dir = OwnDir::new()?;
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
    let dir = OwnDir::new()?;
    let path = dir.path().join("copy");
    fs::create_dir(&path)?;
    Ok(Copied {
        _keep: Arc::new(dir),
        path,
    })
}
