//! What goes to the guest in bulk: a directory of the host, built, handed over, removed.
//!
//! Invariant: nothing of the host but this directory is ever named to the engine.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sandbox_core::{Error, Operation, Result};
use tempfile::TempDir;

/// A directory that is mounted for one command of the guest.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: TempDir,
    operation: Operation,
}

impl Stage {
    pub(crate) fn new(operation: Operation) -> Result<Self> {
        let dir = TempDir::with_prefix("sandbox-dagger-");
        let dir = dir.map_err(|error| Error::from_io(error, operation))?;
        let stage = Self { dir, operation };
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(stage.dir.path(), open).map_err(|error| stage.failed(error))?;
        Ok(stage)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::from_io(error, self.operation).with_host_path(self.dir.path())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
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
            file.set_permissions(std::fs::Permissions::from_mode(mode))
        };
        write().map_err(|error| self.failed(error))
    }
}
