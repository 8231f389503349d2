//! Brings a directory of a plain sandbox to the host.
//!
//! It must never follow a link out, and never leave a half-done export under its final name.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use sandbox_core::{
    Error, ErrorKind, ExistingDir, ExportOptions, FileKind, GuestPath, Operation, Result,
    TransferReport,
};

use super::import::{Cancel, plain_mode, skipped, walk};
use super::tree::{Tree, failed, guest_path};
use super::{copy, os};

const OP: Operation = Operation::ExportDir;

pub(super) fn export(
    tree: &Tree,
    workdir: &GuestPath,
    from: &GuestPath,
    to: &Path,
    options: &ExportOptions,
    cancel: &Cancel,
) -> Result<TransferReport> {
    let place = tree.follow(from, workdir, OP)?;
    if !place.host.is_dir() {
        return Err(failed(
            io::ErrorKind::NotADirectory.into(),
            OP,
            &place.guest,
        ));
    }
    let host = |e, path: &Path| Error::from_io(e, OP).with_host_path(path);
    let to = &std::path::absolute(to).map_err(|e| host(e, to))?;
    let exists = existing(to, options.existing)?;
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|e| host(e, parent))?;
    // Removed when it goes out of scope, with all that is left in it.
    let stage = tempfile::Builder::new()
        .prefix(".sandbox-export-")
        .tempdir_in(parent)
        .map_err(|e| host(e, parent))?;
    let new = stage.path().join("new");
    fs::create_dir(&new).map_err(|e| host(e, &new))?;
    let mut made = Export {
        new: &new,
        report: TransferReport::default(),
        directories: Vec::new(),
        files: Vec::new(),
    };
    made.fill(&place.host, options, cancel)?;
    cancel.check(OP)?;
    if exists && options.existing == ExistingDir::Merge {
        made.merge(to)?;
    } else {
        made.finish_dirs(&new);
        let old = stage.path().join("old");
        if exists {
            fs::rename(to, &old).map_err(|e| host(e, to))?;
        }
        fs::rename(&new, to).map_err(|e| {
            if exists {
                // Back to what was there.
                let _ = fs::rename(&old, to);
            }
            host(e, to)
        })?;
    }
    Ok(made.report)
}

/// Whether something is at the final name that the export may take the place of.
fn existing(to: &Path, existing: ExistingDir) -> Result<bool> {
    let refuse = |kind, why: &str| {
        Err(Error::new(kind, OP)
            .with_message(why)
            .with_host_path(to)
            .with_hint("choose what to do with ExportOptions::existing"))
    };
    let io = |e| Error::from_io(e, OP).with_host_path(to);
    match fs::symlink_metadata(to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io(e)),
        Ok(meta) if !meta.is_dir() && existing != ExistingDir::Fail => {
            refuse(ErrorKind::NotADirectory, "the final name is no directory")
        }
        Ok(meta) => {
            let empty = meta.is_dir() && fs::read_dir(to).map_err(io)?.next().is_none();
            if existing == ExistingDir::Fail && !empty {
                return refuse(ErrorKind::AlreadyExists, "the final name is taken");
            }
            Ok(true)
        }
    }
}

/// An export that is being built.
struct Export<'a> {
    new: &'a Path,
    report: TransferReport,
    /// Relative paths and modes of directories, parents first.
    directories: Vec<(PathBuf, sandbox_core::Mode)>,
    /// Relative paths of files and links.
    files: Vec<PathBuf>,
}

impl Export<'_> {
    fn fill(&mut self, from: &Path, options: &ExportOptions, cancel: &Cancel) -> Result<()> {
        let mut count = 0_u64;
        for entry in walk(from, &options.excludes, false, OP)? {
            let entry = entry.map_err(in_guest)?;
            cancel.check(OP)?;
            count += 1;
            if count > options.max_entries {
                return Err(over(format!("more than {} entries", options.max_entries)));
            }
            let at = self.new.join(&entry.relative);
            let io = |e| failed(e, OP, &guest_path(&entry.path));
            let relative = GuestPath::new(os::bytes(entry.relative.as_os_str()));
            match entry.kind {
                FileKind::Directory => {
                    fs::create_dir(&at).map_err(io)?;
                    self.report.directories += 1;
                    let mode = plain_mode(&entry.meta);
                    self.directories.push((entry.relative, mode));
                }
                FileKind::File => {
                    self.report.bytes = self.report.bytes.saturating_add(entry.meta.len());
                    if self.report.bytes > options.max_bytes {
                        return Err(over(format!("more than {} bytes", options.max_bytes)));
                    }
                    fs::copy(&entry.path, &at).map_err(io)?;
                    copy::set_time(&at, entry.meta.modified());
                    os::set_mode(&at, plain_mode(&entry.meta)).map_err(io)?;
                    self.report.files += 1;
                    self.files.push(entry.relative);
                }
                FileKind::Symlink => {
                    let target = fs::read_link(&entry.path).map_err(io)?;
                    if leads_out(&entry.relative, &target) {
                        self.report.skip(relative, "a link out of the directory");
                        continue;
                    }
                    os::symlink(target.as_os_str(), &at).map_err(io)?;
                    self.report.symlinks += 1;
                    self.files.push(entry.relative);
                }
                kind => self.report.skip(relative, skipped(kind)),
            }
        }
        Ok(())
    }

    /// Puts every file in place, each at once.
    fn merge(&self, to: &Path) -> Result<()> {
        let host = |e, path: &Path| Error::from_io(e, OP).with_host_path(path);
        for (relative, _) in &self.directories {
            let at = to.join(relative);
            match fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_dir() => {}
                // A link there may lead anywhere.
                Ok(_) => return Err(host(io::ErrorKind::NotADirectory.into(), &at)),
                Err(_) => fs::create_dir(&at).map_err(|e| host(e, &at))?,
            }
        }
        for relative in &self.files {
            let at = to.join(relative);
            fs::rename(self.new.join(relative), &at).map_err(|e| host(e, &at))?;
        }
        self.finish_dirs(to);
        Ok(())
    }

    /// Directories get their modes last: one that may not be written would refuse its entries.
    fn finish_dirs(&self, top: &Path) {
        for (relative, mode) in self.directories.iter().rev() {
            // Its owner is this user, who made it.
            let _ = os::set_mode(&top.join(relative), *mode);
        }
    }
}

fn over(why: String) -> Error {
    Error::new(ErrorKind::LimitExceeded, OP).with_message(why)
}

/// The walker speaks of host paths; this one is the guest's.
fn in_guest(error: Error) -> Error {
    match error.host_path().map(guest_path) {
        Some(path) => Error::new(error.kind(), OP)
            .with_message(error.message().to_owned())
            .with_path(path)
            .with_source(error),
        None => error,
    }
}

/// Whether a link at `relative` may point out of the exported directory. Only `..` in front is
/// counted: behind a name that may itself be a link, nobody can tell from the text where it leads.
fn leads_out(relative: &Path, target: &Path) -> bool {
    let mut depth = relative.components().count().saturating_sub(1);
    let mut named = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !named => depth -= 1,
            _ => return true,
        }
    }
    false
}
