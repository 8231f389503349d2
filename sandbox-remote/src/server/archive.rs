//! Directories on their way: what comes as an archive is laid out for the backend to import, and
//! what the backend exported is packed.
//!
//! Invariant: everything is in a directory of its own that only this user may enter, and that is
//! removed however the call ends. An archive is untrusted.

use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;

use sandbox_core::{
    Error, ErrorKind, ExportOptions, ImportOptions, Operation, Result, Sandbox, TransferReport,
    backend::blocking,
};
use sandbox_transfer::{Attributes, pack, remove_tree};

use crate::wire::{Export, Exported, Import, Time};

/// The most entries of an archive.
const ENTRIES: u64 = 10_000_000;

/// Size from which on the holes of a file stay holes in an archive.
const HOLES: u64 = 1 << 20;

/// A directory that is removed when it is dropped.
struct Staging(Option<tempfile::TempDir>);

impl Staging {
    async fn new(operation: Operation) -> Result<Self> {
        let made = blocking(operation, move || {
            let dir = tempfile::Builder::new().prefix("sandbox-remote-").tempdir();
            dir.map_err(|error| Error::from_io(error, operation))
        });
        Ok(Self(Some(made.await?)))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0
            .as_ref()
            .map_or_else(PathBuf::new, |dir| dir.path().join(name))
    }

    /// Removes it. Blocks.
    fn remove(&mut self) {
        if let Some(dir) = self.0.take() {
            let path = dir.keep();
            // Guests close directories to their owner; this opens them.
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(%error, path = %path.display(), "a directory was left");
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else {
            return;
        };
        let mut rest = Self(Some(dir));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || rest.remove())),
            Err(_) => rest.remove(),
        }
    }
}

/// Brings an archive into a directory of a sandbox.
pub(super) async fn import(
    sandbox: Arc<dyn Sandbox>,
    request: Import,
    mut archive: File,
    most: u64,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    let staging = Staging::new(OP).await?;
    let from = staging.at("tree");
    let to = from.clone();
    blocking(OP, move || {
        archive
            .rewind()
            .map_err(|error| Error::from_io(error, OP))?;
        let options = ExportOptions::new().max_bytes(most).max_entries(ENTRIES);
        let mut tree = sandbox_transfer::Export::new(&to, &options)?.every_link();
        tree.unpack(BufReader::new(archive), |_| true)?;
        tree.finish(Attributes {
            mode: 0o700,
            modified: None,
        })
    })
    .await
    .map_err(|error| of_the_archive(error, OP))?;
    let imported = sandbox
        .import_dir(&from, &request.to, request.options)
        .await;
    let mut staging = staging;
    blocking(OP, move || {
        staging.remove();
        Ok(())
    })
    .await?;
    imported.map_err(|error| of_the_archive(error, OP))
}

/// Exports a directory of a sandbox and packs it.
pub(super) async fn export(
    sandbox: Arc<dyn Sandbox>,
    request: Export,
    most: u64,
) -> Result<(Exported, File)> {
    const OP: Operation = Operation::ExportDir;
    let mut staging = Staging::new(OP).await?;
    let to = staging.at("tree");
    let mut options = request.options;
    options.existing = sandbox_core::ExistingDir::MustBeEmpty;
    options.max_bytes = options.max_bytes.min(most);
    let exported = sandbox.export_dir(&request.from, &to, options).await;
    let report = exported.map_err(|error| of_the_archive(error, OP))?;
    let (scan, archive) = blocking(OP, move || {
        let archive = tempfile::tempfile().map_err(|error| Error::from_io(error, OP))?;
        let packed = pack(&to, &ImportOptions::new(), &archive, HOLES);
        staging.remove();
        let (scan, _) = packed?;
        (&archive)
            .rewind()
            .map_err(|error| Error::from_io(error, OP))?;
        Ok((scan, archive))
    })
    .await
    .map_err(|error| of_the_archive(error, OP))?;
    let exported = Exported {
        report,
        mode: scan.top.mode,
        modified: scan.top.modified.map(Time::from),
    };
    Ok((exported, archive))
}

/// Returns the error without the path of the staging directory, under the operation that was asked
/// for.
fn of_the_archive(error: Error, operation: Operation) -> Error {
    if error.host_path().is_none() && error.operation() == operation {
        return error;
    }
    let mut told = Error::new(error.kind(), operation)
        .with_message(error.message())
        .with_retryable(error.is_retryable());
    if let Some(path) = error.path() {
        told = told.with_path(path);
    }
    if let Some(sandbox) = error.sandbox() {
        told = told.with_sandbox(sandbox.clone());
    }
    if let Some(hint) = error
        .hint()
        .filter(|_| error.kind() == ErrorKind::LimitExceeded)
    {
        told = told.with_hint(hint);
    }
    told
}
