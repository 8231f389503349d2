//! The difference between two sandboxes, for backends that keep no beginning of their own.
//!
//! It must never trust a program of the guest for it: what is compared is what the file API gives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sandbox_core::backend::blocking;
use sandbox_core::{
    Change, Changes, ChangesOptions, DirEntry, Error, ExportOptions, FileKind, FileVersion,
    GuestPath, ListOptions, Operation, Result, Sandbox,
};

use super::ChangeCollector;

const OP: Operation = Operation::Changes;

/// The greatest number of entries of a directory that is compared.
const MAX_ENTRIES: usize = 1_000_000;

/// Compares a directory of two sandboxes: `before`, a parent that nothing was done to
/// since, and `after`, its fork.
///
/// It works with every backend and costs a listing and an export of the directory from each; use
/// [`Sandbox::changes`] where there is
/// [`Capability::Changes`](sandbox_core::Capability::Changes), whose cost is that of what was
/// written. The contents of what an export leaves out are not compared, and that is
/// said in [`Changes::skipped`].
///
/// Dropping the future has no effect on the sandboxes.
///
/// ```no_run
/// # use sandbox_core::{ChangesOptions, ForkOptions, Result, Sandbox, SandboxExt as _};
/// # async fn example(parent: &dyn Sandbox) -> Result<()> {
/// use sandbox_transfer::changes::changes_between;
/// let fork = parent.fork(ForkOptions::new()).await?;
/// fork.sh("make").await?;
/// let options = ChangesOptions::new();
/// let changes = changes_between(parent, &*fork, &".".into(), &options).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`list_dir`](Sandbox::list_dir) and [`export_dir`](Sandbox::export_dir);
/// [`LimitExceeded`](sandbox_core::ErrorKind::LimitExceeded) by the options.
pub async fn changes_between(
    before: &dyn Sandbox,
    after: &dyn Sandbox,
    path: &GuestPath,
    options: &ChangesOptions,
) -> Result<Changes> {
    let directory = path.resolve(&after.info().workdir, OP)?;
    let collector = ChangeCollector::new(&directory, options)?;
    let temporary = tempfile::tempdir().map_err(|error| Error::from_io(error, OP))?;
    let mut sides = Vec::new();
    for (sandbox, name) in [(before, "before"), (after, "after")] {
        let list = ListOptions::new().recursive(true).limit(MAX_ENTRIES);
        let listed = sandbox.list_dir(&directory, list).await?;
        let mut export = ExportOptions::new();
        export.excludes = options.excludes.clone();
        let to = temporary.path().join(name);
        sandbox.export_dir(&directory, &to, export).await?;
        let entries: BTreeMap<GuestPath, DirEntry> = listed
            .into_iter()
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        sides.push((entries, to));
    }
    let (Some(new), Some(old)) = (sides.pop(), sides.pop()) else {
        return Ok(collector.finish());
    };
    // Removed there as well, and not on a thread of the runtime.
    blocking(OP, move || {
        let compared = compare_exported(&old, &new, collector);
        drop(temporary);
        compared
    })
    .await
}

/// List of a side's entries, and the directory that the side was exported to.
type Side = (BTreeMap<GuestPath, DirEntry>, PathBuf);

fn compare_exported(
    (old, old_dir): &Side,
    (new, new_dir): &Side,
    mut collector: ChangeCollector,
) -> Result<Changes> {
    let mut differ = |path: &GuestPath| -> Result<()> {
        let (old, new) = (old.get(path), new.get(path));
        let is_dir = [old, new]
            .into_iter()
            .flatten()
            .any(|entry| entry.metadata.is_dir());
        if collector.is_excluded(path.as_bytes(), is_dir) {
            return Ok(());
        }
        let mut old = old.map(version);
        let mut new = new.map(version);
        for (side, dir) in [(&mut old, old_dir), (&mut new, new_dir)] {
            let Some(side) = side.as_mut().filter(|side| side.kind == FileKind::File) else {
                continue;
            };
            let Some((file, size)) = exported(dir, path) else {
                collector.skip(path, "its content could not be brought to the host");
                return Ok(());
            };
            // What came: it may have grown since it was listed.
            collector.reserve(path.as_bytes(), size)?;
            let mut content = Vec::new();
            let read = file.take(size).read_to_end(&mut content);
            read.map_err(|error| Error::from_io(error, OP).with_path(path.clone()))?;
            side.size = content.len() as u64;
            side.content = Some(content.into());
        }
        collector.push(Change::new(path, old, new))
    };
    for path in new.keys() {
        differ(path)?;
    }
    for path in old.keys().filter(|path| !new.contains_key(path)) {
        differ(path)?;
    }
    Ok(collector.finish())
}

fn version(entry: &DirEntry) -> FileVersion {
    let metadata = &entry.metadata;
    let size = match metadata.kind {
        FileKind::File => metadata.size,
        _ => 0,
    };
    let mut version = FileVersion::new(metadata.kind, metadata.mode, size);
    version.link_target = metadata.link_target.clone();
    version
}

/// An exported file and its size. The directory is ours: an export has no link that leads out, and
/// none is followed here.
fn exported(dir: &Path, path: &GuestPath) -> Option<(File, u64)> {
    let mut at = dir.to_owned();
    at.extend(path.components().filter_map(crate::sys::name));
    let metadata = std::fs::symlink_metadata(&at).ok()?;
    let file = metadata.is_file().then(|| File::open(&at).ok()).flatten()?;
    Some((file, metadata.len()))
}
