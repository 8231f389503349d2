//! Brings a directory of a plain sandbox to the host.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone; no link of the sandbox is followed.

use std::fs;
use std::io;
use std::path::Path;

use sandbox_core::{Error, ExportOptions, FileKind, GuestPath, Operation, Result, TransferReport};
use sandbox_transfer::{Attributes, Export};

use super::import::{Cancel, plain_mode, walk};
use super::os;
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
    let top = fs::metadata(&place.host).map_err(|e| failed(e, OP, &place.guest))?;
    if !top.is_dir() {
        let not_a_dir = io::ErrorKind::NotADirectory.into();
        return Err(failed(not_a_dir, OP, &place.guest));
    }
    let mut export = Export::new(to, options)?;
    for entry in walk(&place.host, &options.excludes, false, OP)? {
        let entry = entry.map_err(in_guest)?;
        cancel.check(OP)?;
        let path = os::bytes(entry.relative.as_os_str());
        let attributes = attributes(&entry.meta);
        let io = |e| failed(e, OP, &guest_path(&entry.path));
        match entry.kind {
            FileKind::Directory => export.directory(&path, attributes)?,
            FileKind::File => {
                let content = fs::File::open(&entry.path).map_err(io)?;
                export.copy(&path, attributes, &content)?;
            }
            FileKind::Symlink => {
                let target = fs::read_link(&entry.path).map_err(io)?;
                let target = os::bytes(target.as_os_str());
                export.symlink(&path, &target, attributes.modified)?;
            }
            kind => export.special(&path, kind)?,
        }
    }
    cancel.check(OP)?;
    export.finish(attributes(&top))
}

fn attributes(meta: &fs::Metadata) -> Attributes {
    Attributes {
        mode: plain_mode(meta).bits(),
        modified: meta.modified().ok(),
    }
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
