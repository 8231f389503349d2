//! Directories on their way: what comes as an archive is laid out for the backend to import, and
//! what the backend exported is packed.
//!
//! Invariant: everything is in a directory of its own that only this user may enter, and that is
//! removed however the call ends. An archive is untrusted.

use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Error, ErrorKind, ExportOptions, ImportOptions, Operation, Result, Sandbox, TransferReport,
    backend::blocking,
};
use sandbox_transfer::{Attributes, pack, remove_tree};
use tokio::sync::watch;

use crate::wire::{Export, Exported, Import, Time};

/// The most entries of an archive.
const ENTRIES: u64 = 10_000_000;

/// Size from which on the holes of a file stay holes in an archive.
const HOLES: u64 = 1 << 20;

/// Time after which a directory that is written to all the while is left.
const WRITTEN_TO: Duration = Duration::from_secs(10);

/// A directory that goes when everything that uses it has let go of it.
struct Staging(Option<Arc<Dir>>);

/// The directory itself. Dropping it removes it, which blocks.
struct Dir {
    path: PathBuf,
    /// Tells the server when it is removed.
    _staged: watch::Receiver<()>,
}

impl Staging {
    async fn new(operation: Operation, staged: &watch::Sender<()>) -> Result<Self> {
        let _staged = staged.subscribe();
        let made = blocking(operation, move || {
            let dir = tempfile::Builder::new().prefix("sandbox-remote-").tempdir();
            let path = dir
                .map_err(|error| Error::from_io(error, operation))?
                .keep();
            Ok(Dir { path, _staged })
        });
        Ok(Self(Some(Arc::new(made.await?))))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0
            .as_ref()
            .map_or_else(PathBuf::new, |dir| dir.path.join(name))
    }

    /// Keeps the directory while work that nothing can stop uses it.
    fn share(&self) -> Option<Arc<Dir>> {
        self.0.clone()
    }

    /// Gives the directory to work that removes it when it is done.
    fn give(mut self) -> Option<Arc<Dir>> {
        self.0.take()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            // A runtime that ends drops what it does not get to, which removes it as well.
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(dir))),
            Err(_) => drop(dir),
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let start = Instant::now();
        // Guests close directories to their owner; this opens them. A backend whose export was
        // dropped may still write.
        while let Err(error) = remove(&self.path) {
            if start.elapsed() > WRITTEN_TO {
                tracing::warn!(%error, path = %self.path.display(), "a directory was left");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ if path.symlink_metadata().is_ok() => Err(std::io::ErrorKind::DirectoryNotEmpty.into()),
        _ => Ok(()),
    }
}

/// Brings an archive into a directory of a sandbox.
pub(super) async fn import(
    sandbox: Arc<dyn Sandbox>,
    request: Import,
    mut archive: File,
    most: u64,
    staged: &watch::Sender<()>,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    let staging = Staging::new(OP, staged).await?;
    let from = staging.at("tree");
    let (to, dir) = (from.clone(), staging.share());
    blocking(OP, move || {
        let _dir = dir;
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
    let dir = staging.give();
    blocking(OP, move || {
        drop(dir);
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
    staged: &watch::Sender<()>,
) -> Result<(Exported, File)> {
    const OP: Operation = Operation::ExportDir;
    let staging = Staging::new(OP, staged).await?;
    let to = staging.at("tree");
    let mut options = request.options;
    options.existing = sandbox_core::ExistingDir::MustBeEmpty;
    options.max_bytes = options.max_bytes.min(most);
    let exported = sandbox.export_dir(&request.from, &to, options).await;
    let report = exported.map_err(|error| of_the_archive(error, OP))?;
    let dir = staging.give();
    let (scan, archive) = blocking(OP, move || {
        let archive = tempfile::tempfile().map_err(|error| Error::from_io(error, OP))?;
        let packed = pack(&to, &ImportOptions::new(), &archive, HOLES);
        drop(dir);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(path: &Path) {
        let start = Instant::now();
        while path.exists() {
            assert!(start.elapsed() < Duration::from_secs(120), "{path:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_runtime_does_not_get_to_any_more_is_removed_too() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let staged = watch::Sender::new(());
        let staging = runtime.block_on(Staging::new(Operation::ImportDir, &staged));
        let staging = staging.unwrap();
        let path = staging.at("");
        std::fs::create_dir(staging.at("tree")).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (began, begun) = std::sync::mpsc::channel();
        drop(runtime.spawn_blocking(move || {
            began.send(()).unwrap();
            let _ = released.recv();
        }));
        begun.recv().unwrap();
        runtime.block_on(async { drop(staging) });
        runtime.shutdown_background();
        release.send(()).unwrap();
        gone(&path);
    }

    #[tokio::test]
    async fn a_server_knows_when_a_directory_that_is_still_written_to_has_gone() {
        let staged = watch::Sender::new(());
        let staging = Staging::new(Operation::ExportDir, &staged).await.unwrap();
        let (path, out) = (staging.at(""), staging.at("tree"));
        let (began, begun) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut number = 0_u64;
            while stopped.try_recv().is_err() {
                let _ = std::fs::create_dir(&out);
                let _ = std::fs::write(out.join(number.to_string()), "x");
                number += 1;
                let _ = began.send(());
            }
        });
        begun.recv().unwrap();
        drop(staging);
        stop.send(()).unwrap();
        writer.join().unwrap();
        staged.closed().await;
        assert!(!path.exists());
    }
}
