//! Brings a directory of the host into the model.
//!
//! Invariant: no link of the host is followed, and nothing outside the directory is read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sandbox_core::{
    Error, ErrorKind, GuestPath, ImportOptions, Mode, Operation, Result, TransferReport,
};

use super::core::Core;
use super::tree::Kind;

const OP: Operation = Operation::ImportDir;

/// What is left out: the caller's patterns, then the ignore files from the deepest up.
pub(super) struct Excludes {
    patterns: Gitignore,
    files: Vec<(PathBuf, Gitignore)>,
}

impl Excludes {
    pub(super) fn new(top: &Path, patterns: &[String]) -> Result<Self, ignore::Error> {
        let mut builder = GitignoreBuilder::new(top);
        for pattern in patterns {
            builder.add_line(None, pattern)?;
        }
        Ok(Self {
            patterns: builder.build()?,
            files: Vec::new(),
        })
    }

    fn heed(&mut self, dir: &Path) {
        for name in [".gitignore", ".ignore"] {
            let file = dir.join(name);
            if file.is_file() {
                let mut builder = GitignoreBuilder::new(dir);
                // A line that is no pattern is passed over, as git does.
                let _ = builder.add(&file);
                if let Ok(ignore) = builder.build() {
                    self.files.push((dir.to_path_buf(), ignore));
                }
            }
        }
    }

    /// Whether a path below the top is left out.
    pub(super) fn excludes(&self, path: &Path, is_dir: bool) -> bool {
        let matched = self.patterns.matched(path, is_dir);
        if !matched.is_none() {
            return matched.is_ignore();
        }
        for (dir, ignore) in self.files.iter().rev() {
            if path.starts_with(dir) {
                let matched = ignore.matched(path, is_dir);
                if !matched.is_none() {
                    return matched.is_ignore();
                }
            }
        }
        false
    }
}

pub(super) async fn import(
    core: &Arc<Core>,
    from: &Path,
    to: &GuestPath,
    options: &ImportOptions,
) -> Result<TransferReport> {
    let on_host = |error: io::Error, path: &Path| {
        Error::from_io(error, OP)
            .with_host_path(path)
            .with_sandbox(core.id.clone())
    };
    let in_guest = |kind, path: &GuestPath| core.error(kind, OP, path);
    let top = fs::metadata(from).map_err(|error| on_host(error, from))?;
    if !top.is_dir() {
        return Err(in_guest(ErrorKind::NotADirectory, to).with_host_path(from));
    }
    fs::read_dir(from).map_err(|error| on_host(error, from))?;
    let mut excludes = Excludes::new(from, &options.excludes).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, OP)
            .with_message("an exclude is no pattern")
            .with_sandbox(core.id.clone())
            .with_source(error)
    })?;
    core.change(|tree| tree.make_dir(to, true, Mode::EXECUTABLE))
        .map_err(|kind| in_guest(kind, to))?;
    let mut report = TransferReport::default();
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_path_buf()];
    while let Some(dir) = todo.pop() {
        if options.ignore_files {
            excludes.heed(&dir);
        }
        for entry in fs::read_dir(&dir).map_err(|error| on_host(error, &dir))? {
            tokio::task::yield_now().await;
            let path = entry.map_err(|error| on_host(error, &dir))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(|error| on_host(error, &path))?;
            if excludes.excludes(&path, metadata.is_dir()) {
                continue;
            }
            let relative = path.strip_prefix(from).unwrap_or(&path);
            let relative = relative.as_os_str().as_bytes().to_vec();
            let target = to.join(relative.as_slice());
            let at = |kind| in_guest(kind, &target);
            let kind = metadata.file_type();
            let mode = Mode::new(metadata.permissions().mode() & 0o777);
            if options.mirror {
                clear_the_way(core, &target, kind.is_dir());
            }
            if kind.is_dir() {
                report.directories += 1;
                core.change(|tree| {
                    tree.make_dir(&target, true, mode)?;
                    tree.chmod(&target, mode.bits())
                })
                .map_err(at)?;
                todo.push(path);
            } else if kind.is_symlink() {
                report.symlinks += 1;
                let link = fs::read_link(&path).map_err(|error| on_host(error, &path))?;
                let link = link.as_os_str().as_bytes().to_vec();
                core.change(|tree| {
                    if tree.get(&target, false).is_ok() {
                        tree.remove(&target, false)?;
                    }
                    tree.make(&target, Kind::Link(link))
                })
                .map_err(at)?;
            } else if kind.is_file() {
                report.files += 1;
                report.bytes += metadata.len();
                if options.max_bytes.is_some_and(|max| report.bytes > max) {
                    let max = options.max_bytes.unwrap_or_default();
                    let error = at(ErrorKind::LimitExceeded).with_host_path(from);
                    return Err(error.with_message(format!("more than {max} bytes to import")));
                }
                let content = fs::read(&path).map_err(|error| on_host(error, &path))?;
                core.change(|tree| tree.write(&target, &content, Some(mode), false))
                    .map_err(at)?;
            } else {
                let what = if kind.is_fifo() {
                    "a FIFO"
                } else {
                    "a special file"
                };
                report.skip(relative, what);
                continue;
            }
            seen.insert(relative);
        }
    }
    if options.mirror {
        report.removed = remove_the_rest(core, from, to, &seen, &excludes)?;
    }
    Ok(report)
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

fn remove_the_rest(
    core: &Core,
    from: &Path,
    to: &GuestPath,
    seen: &BTreeSet<Vec<u8>>,
    excludes: &Excludes,
) -> Result<u64> {
    let listed = core.tree().list(to, true, usize::MAX);
    let listed = listed.map_err(|kind| core.error(kind, OP, to))?;
    let mut left_alone: Vec<GuestPath> = Vec::new();
    let mut removed = 0;
    for entry in &listed {
        let path = from.join(OsStr::from_bytes(entry.path.as_bytes()));
        if excludes.excludes(&path, entry.metadata.is_dir()) {
            left_alone.push(entry.path.clone());
        }
    }
    for entry in listed.iter().rev() {
        let kept = |kept: &GuestPath| {
            entry.path.strip_prefix(kept).is_some() || kept.strip_prefix(&entry.path).is_some()
        };
        if seen.contains(entry.path.as_bytes()) || left_alone.iter().any(kept) {
            continue;
        }
        let target = to.join(&entry.path);
        core.change(|tree| tree.remove(&target, true))
            .map_err(|kind| core.error(kind, OP, &target))?;
        removed += 1;
    }
    Ok(removed)
}
