//! Brings a directory of a plain sandbox to the host.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone; no link of the sandbox is followed.

use std::io;
use std::path::Path;

use sandbox_core::{
    Error, ExportOptions, GuestPath, ImportOptions, Operation, Result, TransferReport,
};
use sandbox_transfer::{Export, ScanKind, scan};

use super::import::Cancel;
use super::tree::{Tree, failed, guest_path};

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
        let not_a_dir = io::ErrorKind::NotADirectory.into();
        return Err(failed(not_a_dir, OP, &place.guest));
    }
    let mut export = Export::new(to, options)?;
    let mut rules = ImportOptions::new().unreadable(options.unreadable);
    rules.excludes.clone_from(&options.excludes);
    let found = scan(&place.host, &rules, OP, |entry| {
        cancel.check(OP)?;
        let (path, attributes) = (&*entry.path, entry.attributes);
        match entry.kind {
            ScanKind::Directory => export.directory(path, attributes),
            ScanKind::File(content, _) => export.copy(path, attributes, &content),
            ScanKind::Symlink(target) => export.symlink(path, &target, attributes.modified),
        }
    });
    let found = found.map_err(|error| in_guest(error, to))?;
    for skipped in found.report.skipped {
        export.skip(skipped.path.as_bytes(), &skipped.reason)?;
    }
    cancel.check(OP)?;
    export.finish(found.top)
}

/// The scan speaks of host paths; those outside of the export are the guest's.
fn in_guest(error: Error, to: &Path) -> Error {
    match error.host_path() {
        Some(path) if !path.starts_with(to) => Error::new(error.kind(), OP)
            .with_message(error.message().to_owned())
            .with_path(guest_path(path))
            .with_source(error),
        _ => error,
    }
}
