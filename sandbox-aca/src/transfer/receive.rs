//! Receipt of what comes out of a guest: the host decides what it takes, and checks the archive
//! entry by entry against what was decided.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use sandbox_core::{
    DirEntry, Error, ErrorKind, ExportOptions, FileKind, GuestPath, Operation, Result,
    TransferReport, Unreadable,
};
use sandbox_transfer::{ArchiveKind, Attributes, Excludes, Export, read_archive};

const OP: Operation = Operation::ExportDir;

/// Entries by their path below the directory.
pub(crate) type Wanted = BTreeMap<Vec<u8>, DirEntry>;

/// Decides what is taken along, by path. The limits are checked before anything is fetched, and
/// again when it comes.
pub(crate) fn decide(entries: Vec<DirEntry>, options: &ExportOptions) -> Result<Wanted> {
    let over = |why: String| Err(Error::new(ErrorKind::LimitExceeded, OP).with_message(why));
    let rules = Excludes::new(&options.excludes, OP)?;
    let mut wanted = Wanted::new();
    let mut bytes = 0_u64;
    for entry in entries {
        let path = entry.path.as_bytes();
        if rules.excludes(path, entry.metadata.is_dir()) {
            continue;
        }
        if entry.metadata.is_file() {
            bytes = bytes.saturating_add(entry.metadata.size);
            if bytes > options.max_bytes {
                return over(format!("more than {} bytes", options.max_bytes));
            }
        }
        wanted.insert(path.to_vec(), entry);
        if wanted.len() as u64 > options.max_entries {
            return over(format!("more than {} entries", options.max_entries));
        }
    }
    Ok(wanted)
}

/// Builds the export from an archive of files and what was listed of the rest; `closed` are the
/// directories that could not be listed.
pub(crate) fn build(
    to: &Path,
    mut wanted: Wanted,
    closed: &BTreeSet<Vec<u8>>,
    tar: impl Read,
    options: &ExportOptions,
    top: Attributes,
) -> Result<TransferReport> {
    let bad = |why: &str| Error::new(ErrorKind::Other, OP).with_message(why);
    let mut export = Export::new(to, options)?;
    read_archive(tar, |entry| {
        // Those that are wanted, once each, and nothing else.
        let known = wanted.get(&entry.path);
        let known = known.filter(|known| known.metadata.is_file());
        let (Some(known), ArchiveKind::File) = (known, entry.kind) else {
            return Err(bad(
                "the guest's archive has an entry that was not asked for",
            ));
        };
        export.file(&entry.path, attributes(known), entry.content)?;
        wanted.remove(&entry.path);
        Ok(())
    })?;
    for (path, entry) in &wanted {
        match entry.metadata.kind {
            FileKind::Directory if !closed.contains(path) => {
                export.directory(path, attributes(entry))?;
            }
            FileKind::File | FileKind::Directory if options.unreadable == Unreadable::Fail => {
                return Err(Error::new(ErrorKind::PermissionDenied, OP)
                    .with_message("an entry can't be read, or is gone by now")
                    .with_path(&entry.path));
            }
            FileKind::File | FileKind::Directory => {
                export.skip(path, "can't be read, or is gone by now")?
            }
            FileKind::Symlink => {
                let target = entry.metadata.link_target.as_ref();
                let target = target.map_or(&b""[..], GuestPath::as_bytes);
                export.symlink(path, target, entry.metadata.modified)?;
            }
            kind => export.special(path, kind)?,
        }
    }
    export.finish(top)
}

fn attributes(entry: &DirEntry) -> Attributes {
    Attributes {
        mode: entry.metadata.mode.bits(),
        modified: entry.metadata.modified,
    }
}

/// The names of the files, for `tar --null -T`.
pub(crate) fn names(wanted: &Wanted) -> Vec<u8> {
    let mut names = Vec::new();
    for (path, entry) in wanted {
        if entry.metadata.is_file() {
            names.extend_from_slice(b"./");
            names.extend_from_slice(path);
            names.push(0);
        }
    }
    names
}
