//! Brings a directory of the host into the model.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone; what is there is replaced, not written
//! into.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use sandbox_core::{Error, GuestPath, ImportOptions, Mode, Operation, Result, TransferReport};
use sandbox_transfer::{Scan, ScanEntry, ScanKind, scan};

use super::core::Core;
use super::tree::{Kind, Tried};

const OP: Operation = Operation::ImportDir;

pub(super) async fn import(
    core: &Arc<Core>,
    from: &Path,
    to: &GuestPath,
    options: &ImportOptions,
) -> Result<TransferReport> {
    let ours = |error: Error| error.with_sandbox(core.id.clone());
    // Nothing is brought of what is refused.
    let mut silently = options.clone();
    silently.progress = None;
    scan(from, &silently, OP, |_| Ok(())).map_err(ours)?;
    core.change(|tree| tree.make_dir(to, true, Mode::EXECUTABLE))
        .map_err(|kind| core.error(kind, OP, to))?;
    tokio::task::yield_now().await;
    let mut directories = Vec::new();
    let brought = scan(from, options, OP, |entry| {
        if matches!(entry.kind, ScanKind::Directory) {
            directories.push((to.join(&*entry.path), entry.attributes));
        }
        put(core, to, entry, options.mirror)
    });
    let brought = brought.map_err(ours).and_then(|mut scan| {
        if options.mirror {
            scan.report.removed = remove_the_rest(core, to, &scan)?;
        }
        Ok(scan.report)
    });
    // Each entry has changed the time of its directory, which was open for it.
    for (path, attributes) in directories.iter().rev() {
        let done = core.change(|tree| {
            if let Some(at) = attributes.modified {
                tree.set_modified(path, at)?;
            }
            tree.chmod(path, attributes.mode)
        });
        done.map_err(|kind| core.error(kind, OP, path))?;
    }
    brought
}

fn put(core: &Core, to: &GuestPath, entry: ScanEntry, mirror: bool) -> Result<()> {
    let target = to.join(&*entry.path);
    let mode = Mode::new(entry.attributes.mode);
    if mirror {
        clear_the_way(core, &target, matches!(entry.kind, ScanKind::Directory));
    }
    let content = match &entry.kind {
        ScanKind::File(file, size) => Some(read(file, *size).map_err(|error| {
            Error::from_io(error, OP)
                .with_path(&target)
                .with_sandbox(core.id.clone())
        })?),
        _ => None,
    };
    let change = core.change(|tree| -> Tried<()> {
        match (&entry.kind, &content) {
            (ScanKind::Directory, _) => {
                // Open until all is in it.
                let open = mode.bits() | 0o700;
                tree.make_dir(&target, true, Mode::new(open))?;
                tree.chmod(&target, open)?;
            }
            (ScanKind::Symlink(link), _) => {
                if tree.get(&target, false).is_ok() {
                    tree.remove(&target, false)?;
                }
                tree.make(&target, Kind::Link(link.clone()))?;
            }
            (ScanKind::File(..), content) => {
                if tree.get(&target, false).is_ok_and(|there| !there.is_dir()) {
                    tree.remove(&target, false)?;
                }
                let content = content.as_deref().unwrap_or_default();
                tree.write(&target, content, Some(mode), false)?;
            }
        }
        match entry.attributes.modified {
            Some(at) => tree.set_modified(&target, at),
            None => Ok(()),
        }
    });
    change.map_err(|kind| core.error(kind, OP, &target))
}

fn read(file: &File, size: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(size).read_to_end(&mut content)?;
    Ok(content)
}

/// Takes away what a mirrored entry can't be put over.
fn clear_the_way(core: &Core, target: &GuestPath, needs_dir: bool) {
    // Nothing may be there, which is as good.
    let _ = core.change(|tree| {
        if tree.get(target, false)?.is_dir() == needs_dir {
            return Ok(());
        }
        tree.remove(target, true)
    });
}

fn remove_the_rest(core: &Core, to: &GuestPath, scan: &Scan) -> Result<u64> {
    let listed = core.tree().list(to, true, usize::MAX);
    let listed = listed.map_err(|kind| core.error(kind, OP, to))?;
    let mut removed = 0;
    // From the deepest up: a directory that has something excluded in it stays.
    for entry in listed.iter().rev() {
        if !scan.is_gone(entry.path.as_bytes(), entry.metadata.is_dir()) {
            continue;
        }
        let target = to.join(&entry.path);
        if core.change(|tree| tree.remove(&target, false)).is_ok() {
            removed += 1;
        } else if !entry.metadata.is_dir() {
            return Err(core.error(sandbox_core::ErrorKind::PermissionDenied, OP, &target));
        }
    }
    Ok(removed)
}
