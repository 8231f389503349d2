//! Directories between the host and the map.
//!
//! Invariant: no link of the host is followed.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use sandbox::{ExportOptions, GuestPath, TransferReport};
use sandbox_transfer::{Attributes, Export};

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

/// Writes what is below a directory of the map to the host. All that can go wrong there is the
/// affair of `sandbox-transfer`, as for every other backend.
pub(crate) fn write(
    files: &Files,
    from: &GuestPath,
    to: &Path,
    options: &ExportOptions,
) -> sandbox::Result<TransferReport> {
    let mut export = Export::new(to, options)?;
    for (path, node) in files.below(from) {
        let path = path.as_bytes();
        let metadata = node.metadata();
        let attributes = Attributes {
            mode: metadata.mode.bits(),
            modified: metadata.modified,
        };
        match node {
            Node::Dir => export.directory(path, attributes)?,
            Node::File(content, _) => export.file(path, attributes, &mut &content[..])?,
        }
    }
    export.finish(Attributes {
        mode: 0o755,
        modified: None,
    })
}
