//! Brings a directory of the host into a plain sandbox, and what import and export share.
//!
//! It must never follow a link of the host, and never open a FIFO, socket or device.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ignore::WalkBuilder;
use ignore::gitignore::GitignoreBuilder;
use sandbox_core::{
    Capability, Error, ErrorKind, FileKind, GuestPath, ImportOptions, Mode, Operation, Result,
    TransferReport,
};

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

/// An entry to transfer.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) relative: PathBuf,
    pub(super) kind: FileKind,
    pub(super) meta: fs::Metadata,
}

/// What is below `top` and not left out, parents first.
pub(super) fn walk(
    top: &Path,
    excludes: &[String],
    ignore_files: bool,
    op: Operation,
) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
    let mut patterns = GitignoreBuilder::new(top);
    for pattern in excludes {
        patterns.add_line(None, pattern).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, op)
                .with_message(format!("not a pattern of gitignore: {pattern:?}"))
                .with_source(e)
        })?;
    }
    let patterns = patterns.build().map_err(|e| {
        Error::new(ErrorKind::InvalidInput, op)
            .with_message("the patterns do not fit together")
            .with_source(e)
    })?;
    let walker = WalkBuilder::new(top)
        .standard_filters(false)
        .ignore(ignore_files)
        .git_ignore(ignore_files)
        .require_git(false)
        .filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0 || !patterns.matched(entry.path(), is_dir).is_ignore()
        })
        .build();
    let top = top.to_path_buf();
    let entries = walker.map(move |entry| {
        let entry = entry.map_err(|e| walk_error(e, op, &top))?;
        let meta = entry.metadata().map_err(|e| walk_error(e, op, &top))?;
        Ok(Entry {
            relative: entry
                .path()
                .strip_prefix(&top)
                .unwrap_or(&top)
                .to_path_buf(),
            kind: os::kind(meta.file_type()),
            path: entry.into_path(),
            meta,
        })
    });
    Ok(
        entries
            .filter(|entry| !matches!(entry, Ok(entry) if entry.relative.as_os_str().is_empty())),
    )
}

fn walk_error(error: ignore::Error, op: Operation, top: &Path) -> Error {
    let mut path = top;
    let mut inner = &error;
    loop {
        match inner {
            ignore::Error::WithPath { path: at, err } => {
                path = at;
                inner = err;
            }
            ignore::Error::WithDepth { err, .. } => inner = err,
            _ => break,
        }
    }
    let path = path.to_path_buf();
    match error.io_error().map(std::io::Error::kind) {
        Some(kind) => Error::from_io(kind.into(), op),
        None => Error::new(ErrorKind::Other, op).with_message("the directory can't be walked"),
    }
    .with_host_path(path)
    .with_source(error)
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
    let host = |e, path: &Path| Error::from_io(e, OP).with_host_path(path);
    fs::read_dir(from).map_err(|e| host(e, from))?;
    let from = &os::canonical(from).map_err(|e| host(e, from))?;
    let place = tree.place(to, workdir, OP)?;
    let mut report = TransferReport::default();
    let mut entries = Vec::new();
    for entry in walk(from, &options.excludes, options.ignore_files, OP)? {
        let entry = entry?;
        cancel.check(OP)?;
        if entry.kind == FileKind::File {
            report.bytes = report.bytes.saturating_add(entry.meta.len());
        }
        entries.push(entry);
    }
    if let Some(limit) = options.max_bytes.filter(|limit| report.bytes > *limit) {
        return Err(Error::new(ErrorKind::LimitExceeded, OP)
            .with_message(format!("more than {limit} bytes"))
            .with_host_path(from));
    }
    fs::create_dir_all(&place.host).map_err(|e| failed(not_a_dir(e), OP, &place.guest))?;
    let stage = tree.stage();
    let mut brought = BTreeSet::new();
    for entry in entries {
        cancel.check(OP)?;
        let at = place.host.join(&entry.relative);
        let guest = || guest_path(&at);
        // Where the entry goes, as the guest has it now: its parents may be links.
        tree.place(&guest(), workdir, OP)?;
        if options.mirror && stands_in_the_way(&at, entry.kind) {
            remove(&at).map_err(|e| failed(e, OP, &guest()))?;
            report.removed += 1;
        }
        let relative = GuestPath::new(os::bytes(entry.relative.as_os_str()));
        match entry.kind {
            FileKind::Directory => {
                fs::create_dir_all(&at).map_err(|e| failed(not_a_dir(e), OP, &guest()))?;
                report.directories += 1;
            }
            FileKind::File => {
                fs::copy(&entry.path, &stage).map_err(|e| host(e, &entry.path))?;
                copy::set_time(&stage, entry.meta.modified());
                os::set_mode(&stage, plain_mode(&entry.meta))
                    .and_then(|()| fs::rename(&stage, &at))
                    .map_err(|e| failed(e, OP, &guest()))?;
                report.files += 1;
            }
            FileKind::Symlink if CAPABILITIES.has(Capability::Symlinks) => {
                let target = fs::read_link(&entry.path).map_err(|e| host(e, &entry.path))?;
                os::symlink(target.as_os_str(), &stage)
                    .and_then(|()| fs::rename(&stage, &at))
                    .map_err(|e| failed(e, OP, &guest()))?;
                report.symlinks += 1;
            }
            kind => report.skip(relative, skipped(kind)),
        }
        brought.insert(entry.relative);
    }
    if options.mirror {
        let mut gone = Vec::new();
        for entry in walk(&place.host, &options.excludes, options.ignore_files, OP)? {
            let entry = entry?;
            if !brought.contains(&entry.relative) {
                gone.push(entry.path);
            }
        }
        // Children before parents; a parent that keeps something excluded stays.
        for path in gone.iter().rev() {
            if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                report.removed += u64::from(fs::remove_dir(path).is_ok());
            } else {
                fs::remove_file(path).map_err(|e| failed(e, OP, &guest_path(path)))?;
                report.removed += 1;
            }
        }
    }
    set_dir_modes(from, &place.host, &brought);
    Ok(report)
}

/// Directories get their modes last: one that may not be written would refuse its entries.
fn set_dir_modes(from: &Path, to: &Path, brought: &BTreeSet<PathBuf>) {
    for relative in brought.iter().rev() {
        if let Ok(meta) = fs::symlink_metadata(from.join(relative))
            && meta.is_dir()
        {
            // Its owner is this user, who made it.
            let _ = os::set_mode(&to.join(relative), plain_mode(&meta));
        }
    }
}

fn stands_in_the_way(at: &Path, kind: FileKind) -> bool {
    fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir() != (kind == FileKind::Directory))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => remove_tree(path),
        false => fs::remove_file(path),
    }
}

/// Permission bits without setuid, setgid and sticky.
pub(super) fn plain_mode(meta: &fs::Metadata) -> Mode {
    Mode::new(os::mode(meta).bits() & 0o777)
}

/// Why an entry of this kind is left behind.
pub(super) fn skipped(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::Device => "a device",
        FileKind::Symlink => "a link, which the host does not have",
        _ => "of no kind that can be moved",
    }
}
