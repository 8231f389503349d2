//! Brings a directory of the model to the host.
//!
//! Invariant: what is built has another name until it is complete; the final name gets it by a
//! rename.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::{
    Error, ErrorKind, ExistingDir, ExportOptions, GuestPath, Operation, Result, TransferReport,
};
use tempfile::TempDir;

use super::core::Core;
use super::import::Excludes;
use super::tree::{Kind, Node, Tree};

const OP: Operation = Operation::ExportDir;

pub(super) async fn export(
    core: &Arc<Core>,
    from: &GuestPath,
    to: &Path,
    options: &ExportOptions,
) -> Result<TransferReport> {
    let tree = core.tree();
    let top = tree
        .get(from, true)
        .map_err(|kind| core.error(kind, OP, from))?;
    if !top.is_dir() {
        return Err(core.error(ErrorKind::NotADirectory, OP, from));
    }
    let on_host = |error: io::Error| {
        Error::from_io(error, OP)
            .with_host_path(to)
            .with_sandbox(core.id.clone())
    };
    let taken = match fs::symlink_metadata(to) {
        Err(_) => false,
        Ok(metadata) if !metadata.is_dir() => true,
        Ok(_) => {
            options.existing == ExistingDir::Fail
                && fs::read_dir(to).map_err(on_host)?.next().is_some()
        }
    };
    if taken {
        return Err(Error::new(ErrorKind::AlreadyExists, OP)
            .with_message("the directory exists already")
            .with_host_path(to)
            .with_sandbox(core.id.clone()));
    }
    let beside = to.parent().unwrap_or(Path::new("/"));
    let staging = TempDir::with_prefix_in(".export-", beside).map_err(on_host)?;
    let built = staging.path().join("new");
    let mut job = Job {
        core,
        tree,
        from,
        options,
        report: TransferReport::default(),
        entries: 0,
        // The patterns are relative to the directory, wherever it is.
        excludes: Excludes::new(Path::new("/"), &options.excludes)
            .map_err(|error| on_host(io::Error::other(error)))?,
    };
    fs::create_dir(&built).map_err(on_host)?;
    job.dir(&top, PathBuf::new(), &built).await?;
    match options.existing {
        ExistingDir::Merge if to.exists() => merge(&built, to).map_err(on_host)?,
        ExistingDir::Replace if to.exists() => {
            fs::rename(to, staging.path().join("old")).map_err(on_host)?;
            fs::rename(&built, to).map_err(on_host)?;
        }
        _ => fs::rename(&built, to).map_err(on_host)?,
    }
    Ok(job.report)
}

struct Job<'a> {
    core: &'a Core,
    tree: Tree,
    from: &'a GuestPath,
    options: &'a ExportOptions,
    report: TransferReport,
    entries: u64,
    excludes: Excludes,
}

impl Job<'_> {
    fn limit(&self, what: &str) -> Error {
        self.core
            .error(ErrorKind::LimitExceeded, OP, self.from)
            .with_message(format!("more to export than the limit of {what}"))
    }

    async fn dir(&mut self, top: &Arc<Node>, below: PathBuf, to: &Path) -> Result<()> {
        let on_host = |error: io::Error| Error::from_io(error, OP);
        let mut todo = vec![(top.clone(), below, to.to_path_buf())];
        // Modes last and from the inside out: a directory may not be writable.
        let mut modes = Vec::new();
        while let Some((node, below, to)) = todo.pop() {
            let Kind::Dir(names) = &node.kind else {
                continue;
            };
            modes.push((to.clone(), node.mode));
            for (name, node) in names {
                tokio::task::yield_now().await;
                let name = OsStr::from_bytes(name);
                let (relative, target) = (below.join(name), to.join(name));
                if self
                    .excludes
                    .excludes(&Path::new("/").join(&relative), node.is_dir())
                {
                    continue;
                }
                self.entries += 1;
                if self.entries > self.options.max_entries {
                    return Err(self.limit(&format!("{} entries", self.options.max_entries)));
                }
                match &node.kind {
                    Kind::Dir(_) => {
                        self.report.directories += 1;
                        fs::create_dir(&target).map_err(on_host)?;
                        todo.push((node.clone(), relative, target));
                    }
                    Kind::File(content) => {
                        self.report.files += 1;
                        self.report.bytes += content.len() as u64;
                        if self.report.bytes > self.options.max_bytes {
                            return Err(self.limit(&format!("{} bytes", self.options.max_bytes)));
                        }
                        fs::write(&target, content).map_err(on_host)?;
                        set_mode(&target, node.mode).map_err(on_host)?;
                    }
                    Kind::Link(link) => match leads_out(&relative, link) {
                        Some(why) => self.skip(&relative, why),
                        None => {
                            self.report.symlinks += 1;
                            std::os::unix::fs::symlink(OsStr::from_bytes(link), &target)
                                .map_err(on_host)?;
                        }
                    },
                    Kind::Fifo => self.skip(&relative, "a FIFO"),
                }
            }
        }
        for (dir, mode) in modes.into_iter().rev() {
            set_mode(&dir, mode).map_err(on_host)?;
        }
        // The tree was only kept so that the export sees one moment of it.
        let _ = &self.tree;
        Ok(())
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.report.skip(path.as_os_str().as_bytes(), why);
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))
}

/// Why a link at this place may not be brought out, if it may not.
fn leads_out(at: &Path, target: &[u8]) -> Option<&'static str> {
    if target.starts_with(b"/") {
        return Some("an absolute link");
    }
    let mut depth = at.components().count() as i64 - 1;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Some("a link out of the directory");
        }
    }
    None
}

/// Moves each entry of one directory into another, replacing files.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let both = entry.file_type()?.is_dir()
            && fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_dir());
        if both {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), &target)?;
        }
    }
    Ok(())
}
