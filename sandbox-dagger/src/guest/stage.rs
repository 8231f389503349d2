//! Bulk data for the guest: a directory of the host, built, handed to the engine, removed.
//!
//! Invariant: the engine is never given the name of anything else on the host; what is staged can
//! be read by this program's user only; and what a killed program left is removed by the next one.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use sandbox_core::backend::FileLock;
use sandbox_core::{Error, Operation, Result};
use tempfile::TempDir;

/// Prefix of the directories' names, snapshots that go with their provider among them.
const PREFIX: &str = "sandbox-dagger-";
/// Age at which a directory without an owner is removed: a younger one may be about to be locked.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A directory in the temporary directory that goes when it is dropped, or with the next program
/// if this one is killed.
#[derive(Debug)]
pub(crate) struct OwnDir {
    dir: TempDir,
    /// Locked: it shows that the owner lives.
    _lease: FileLock,
}

impl OwnDir {
    /// Makes an empty one.
    pub(crate) fn new() -> std::io::Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| remove_stale(&std::env::temp_dir()));
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let lease = FileLock::exclusive(File::open(dir.path())?)?;
        Ok(Self { dir, _lease: lease })
    }

    /// Path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes directories of owners that do not live any more. What can't be removed now is left to
/// the next program.
fn remove_stale(temporary: &Path) {
    let entries = std::fs::read_dir(temporary).into_iter().flatten().flatten();
    let user = rustix::process::geteuid().as_raw();
    for entry in entries {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            continue;
        }
        // Links are not followed, and other users' directories are their own affair.
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        let age = metadata
            .modified()
            .ok()
            .and_then(|time| time.elapsed().ok());
        let old = age.is_some_and(|age| age > STALE_AFTER);
        if !metadata.is_dir() || metadata.uid() != user || !old {
            continue;
        }
        let lease = File::open(entry.path()).and_then(FileLock::try_exclusive);
        if let Ok(Some(_lease)) = lease {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory that is mounted for one command of the guest.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: OwnDir,
    operation: Operation,
}

impl Stage {
    /// Makes an empty one.
    pub(crate) fn new(operation: Operation) -> Result<Self> {
        let dir = OwnDir::new().map_err(|error| Error::from_io(error, operation))?;
        Ok(Self { dir, operation })
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::from_io(error, self.operation).with_host_path(self.dir.path())
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sum of its files' bytes.
    pub(crate) fn size(&self) -> u64 {
        let entries = std::fs::read_dir(self.path())
            .into_iter()
            .flatten()
            .flatten();
        let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
        sizes.sum()
    }

    /// Adds a file with exactly this mode.
    pub(crate) fn file(&self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.at(name))?;
            file.write_all(content)?;
            // Not by the mode at opening: that is subject to the umask.
            file.set_permissions(Permissions::from_mode(mode))
        };
        write().map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_program_left_is_removed_and_nothing_else() -> std::io::Result<()> {
        let temporary = tempfile::tempdir()?;
        let long_ago = std::time::SystemTime::now() - 2 * STALE_AFTER;
        let make = |name: &str, old: bool| -> std::io::Result<File> {
            let path = temporary.path().join(name);
            std::fs::create_dir(&path)?;
            std::fs::write(path.join("data.tar"), "x")?;
            let dir = File::open(path)?;
            if old {
                dir.set_modified(long_ago)?;
            }
            Ok(dir)
        };
        let _lives = FileLock::exclusive(make("sandbox-dagger-1-lives", true)?)?;
        drop(make("sandbox-dagger-2-dead", true)?);
        drop(make("sandbox-dagger-3-new", false)?);
        drop(make("something-else", true)?);
        std::os::unix::fs::symlink(
            temporary.path().join("something-else"),
            temporary.path().join("sandbox-dagger-4-link"),
        )?;
        remove_stale(temporary.path());
        let mut left: Vec<_> = std::fs::read_dir(temporary.path())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        left.sort();
        assert_eq!(
            left,
            [
                "sandbox-dagger-1-lives",
                "sandbox-dagger-3-new",
                "sandbox-dagger-4-link",
                "something-else"
            ]
        );
        assert!(temporary.path().join("something-else/data.tar").exists());
        Ok(())
    }
}
