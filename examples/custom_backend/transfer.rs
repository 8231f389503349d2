//! Directories between the host and the map.
//!
//! Invariant: no link of the host is followed.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use sandbox::{Error, ExportOptions, GuestPath, ImportOptions, Operation, TransferReport};
use sandbox_transfer::{Attributes, Export, ScanKind, scan};

use crate::files::{Files, Node};

/// Entries below a directory of the host, parents first; a directory has no content.
pub(crate) type Found = Vec<(GuestPath, Option<Bytes>)>;

/// Reads a directory of the host.
pub(crate) fn read(
    from: &Path,
    options: &ImportOptions,
) -> sandbox::Result<(Found, TransferReport)> {
    const OP: Operation = Operation::ImportDir;
    let mut found = Found::new();
    let mut links = Vec::new();
    let scan = scan(from, options, OP, |entry| {
        let content = match entry.kind {
            ScanKind::Directory => None,
            ScanKind::File(mut file, size) => {
                let mut content = Vec::new();
                let read = (&mut file).take(size).read_to_end(&mut content);
                read.map_err(|error| Error::from_io(error, OP).with_host_path(from))?;
                Some(content.into())
            }
            ScanKind::Symlink(_) => {
                links.push(entry.path);
                return Ok(());
            }
        };
        found.push((entry.path.into(), content));
        Ok(())
    })?;
    let mut report = scan.report;
    for path in links {
        report.symlinks -= 1;
        report.skip(path, "a link, which this backend does not have");
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
