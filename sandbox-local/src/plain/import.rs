//! Brings a directory of the host into a plain sandbox, and what import and export share.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone; what is there is replaced by a rename.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox_core::{
    Capability, Error, ErrorKind, FileKind, GuestPath, ImportOptions, Mode, Operation, Result,
    TransferReport,
};
use sandbox_transfer::{ScanKind, scan, skipped, sparse};

use super::files::not_a_dir;
use super::tree::{Tree, failed, guest_path, remove_tree};
use super::{CAPABILITIES, copy, os};

/// Set when the future of a transfer is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn check(&self, op: Operation) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Other, op).with_message("given up by the caller"));
        }
        Ok(())
    }

    pub(super) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

pub(super) struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn import(
    tree: &Tree,
    workdir: &GuestPath,
    from: &Path,
    to: &GuestPath,
    options: &ImportOptions,
    cancel: &Cancel,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    // Nothing is brought of what is refused.
    let mut silently = options.clone();
    silently.progress = None;
    scan(from, &silently, OP, |_| cancel.check(OP))?;
    let place = tree.place(to, workdir, OP)?;
    fs::create_dir_all(&place.host).map_err(|e| failed(not_a_dir(e), OP, &place.guest))?;
    let stage = tree.stage();
    let mut links = Vec::new();
    let mut removed = 0;
    // Modes and times of directories come last: one that may not be written would refuse its
    // entries, and each entry changes its time.
    let mut directories = Vec::new();
    let mut scan = scan(from, options, OP, |entry| {
        cancel.check(OP)?;
        let Some(relative) = relative(&entry.path) else {
            return Ok(());
        };
        let at = place.host.join(&relative);
        let io = |e| failed(e, OP, &guest_path(&at));
        // Where the entry goes, as the guest has it now: its parents may be links.
        tree.place(&guest_path(&at), workdir, OP)?;
        let is_dir = matches!(entry.kind, ScanKind::Directory);
        if options.mirror && stands_in_the_way(&at, is_dir) {
            remove(&at).map_err(io)?;
            removed += 1;
        }
        let mode = Mode::new(entry.attributes.mode);
        match entry.kind {
            ScanKind::Directory => {
                fs::create_dir_all(&at).map_err(|e| io(not_a_dir(e)))?;
                // Its owner is this user, who may have shut it.
                let _ = os::set_mode(&at, Mode::new(mode.bits() | 0o700));
                directories.push((at, mode, entry.attributes.modified));
            }
            ScanKind::File(content, _) => {
                let file = fs::File::create(&stage).map_err(io)?;
                sparse::copy(&content, &file, u64::MAX, &mut || cancel.check(OP).is_ok())
                    .map_err(|e| copy_failed(e, &at))?;
                if let Some(modified) = entry.attributes.modified {
                    let _ = file.set_modified(modified);
                }
                os::set_mode(&stage, mode)
                    .and_then(|()| fs::rename(&stage, &at))
                    .map_err(io)?;
            }
            ScanKind::Symlink(target) if CAPABILITIES.has(Capability::Symlinks) => {
                let target = os::name_of(&target);
                os::symlink(&target, &stage)
                    .and_then(|()| fs::rename(&stage, &at))
                    .map_err(io)?;
            }
            ScanKind::Symlink(_) => links.push(entry.path),
        }
        Ok(())
    })?;
    for path in links {
        scan.report.symlinks -= 1;
        scan.report.skip(path, skipped(FileKind::Symlink));
    }
    if options.mirror {
        let mut gone = Vec::new();
        // What the sandbox has, without looking at what is in its files.
        below(&place.host, &mut Vec::new(), &mut |path, is_dir| {
            if scan.is_gone(path, is_dir) {
                gone.push(path.to_vec());
            }
        })
        .map_err(|e| failed(e, OP, &place.guest))?;
        // Children before parents; a parent that keeps something excluded stays.
        gone.sort_by(|a, b| b.cmp(a));
        for path in gone.iter().filter_map(|path| relative(path)) {
            let path = place.host.join(path);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                removed += u64::from(fs::remove_dir(&path).is_ok());
            } else {
                fs::remove_file(&path).map_err(|e| failed(e, OP, &guest_path(&path)))?;
                removed += 1;
            }
        }
    }
    for (at, mode, modified) in directories.iter().rev() {
        if let Some(modified) = modified {
            copy::set_time(at, Ok(*modified));
        }
        // Its owner is this user, who made it.
        let _ = os::set_mode(at, *mode);
    }
    scan.report.removed = removed;
    Ok(scan.report)
}

/// A path of names as one of the host, if the host can have such names.
fn relative(path: &[u8]) -> Option<PathBuf> {
    path.split(|b| *b == b'/').map(os::name).collect()
}

fn copy_failed(error: sparse::CopyError, at: &Path) -> Error {
    const OP: Operation = Operation::ImportDir;
    match error {
        sparse::CopyError::Read(e) | sparse::CopyError::Write(e) => failed(e, OP, &guest_path(at)),
        _ => Error::new(ErrorKind::Other, OP).with_message("given up by the caller"),
    }
}

/// Everything below a directory, by relative path; no link is followed.
fn below(dir: &Path, path: &mut Vec<u8>, each: &mut dyn FnMut(&[u8], bool)) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&os::bytes(&entry.file_name()));
        let is_dir = entry.file_type()?.is_dir();
        each(path, is_dir);
        if is_dir {
            below(&entry.path(), path, each)?;
        }
        path.truncate(length);
    }
    Ok(())
}

fn stands_in_the_way(at: &Path, is_dir: bool) -> bool {
    fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir() != is_dir)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => remove_tree(path),
        false => fs::remove_file(path),
    }
}
