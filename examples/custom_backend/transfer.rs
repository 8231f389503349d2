//! Directories between the host and the map.
//!
//! Invariant: an export is built beside its final name and gets it by a rename.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use sandbox::{ExistingDir, ExportOptions, GuestPath, TransferReport};

use crate::files::{Files, Node};

/// What is below a directory of the host, parents first; a directory has no content.
pub(crate) type Found = Vec<(GuestPath, Option<Bytes>)>;

/// Reads a directory of the host. [`io::ErrorKind::FileTooLarge`] is said for the limit too.
pub(crate) fn read(from: &Path, max_bytes: u64) -> io::Result<(Found, TransferReport)> {
    let (mut found, mut report) = (Found::new(), TransferReport::default());
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(from.join(&dir))? {
            let entry = entry?;
            let name = dir.join(entry.file_name());
            let path = GuestPath::from(name.as_os_str().as_bytes());
            // Of the entry itself: no link is followed.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                report.directories += 1;
                found.push((path, None));
                todo.push(name);
            } else if kind.is_file() {
                report.files += 1;
                report.bytes += entry.metadata()?.len();
                if report.bytes > max_bytes {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                found.push((path, Some(fs::read(entry.path())?.into())));
            } else {
                report.skip(path, "neither a file nor a directory");
            }
        }
    }
    Ok((found, report))
}

/// Writes what is below a directory of the map to the host.
pub(crate) fn write(
    files: &Files,
    from: &GuestPath,
    to: &Path,
    options: &ExportOptions,
) -> io::Result<TransferReport> {
    let there = fs::symlink_metadata(to).is_ok();
    // Listing something else than a directory fails, as it should.
    if there && fs::read_dir(to)?.next().is_some() && options.existing == ExistingDir::Fail {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let beside = to.parent().unwrap_or(Path::new("/"));
    let staging = tempfile::Builder::new()
        .prefix(".export-")
        .tempdir_in(beside)?;
    let new = staging.path().join("new");
    fs::create_dir(&new)?;
    let mut report = TransferReport::default();
    for (path, node) in files.below(from) {
        // No resolved path has "..", so none leads out of the new directory.
        let target = new.join(OsStr::from_bytes(path.as_bytes()));
        match node {
            Node::Dir => report.directories += 1,
            Node::File(content, _) => {
                report.files += 1;
                report.bytes += content.len() as u64;
            }
        }
        let entries = report.files + report.directories;
        if report.bytes > options.max_bytes || entries > options.max_entries {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match node {
            Node::Dir => fs::create_dir(target)?,
            Node::File(content, _) => fs::write(target, content)?,
        }
    }
    match options.existing {
        ExistingDir::Merge if there => merge(&new, to)?,
        ExistingDir::Replace if there => {
            fs::rename(to, staging.path().join("old"))?;
            fs::rename(&new, to)?;
        }
        _ => fs::rename(&new, to)?,
    }
    Ok(report)
}

/// Moves each entry of one directory into another, files over files.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        // A link of the host to a directory is not one to write through.
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
