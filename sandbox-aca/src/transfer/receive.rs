//! What comes out of a guest: the host decides what it takes, and checks the archive entry by entry
//! against what was decided.
//!
//! It must never follow a link, write outside of its staging directory, or leave a half-done export
//! under its final name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use sandbox_core::{
    DirEntry, Error, ErrorKind, ExistingDir, ExportOptions, FileKind, GuestPath, Operation, Result,
    TransferReport,
};

use super::{patterns, skipped};

const OP: Operation = Operation::ExportDir;

/// Entries by their path below the directory.
pub(crate) type Wanted = BTreeMap<PathBuf, DirEntry>;

/// What is taken along, by path, and what is left behind.
pub(crate) fn decide(
    entries: Vec<DirEntry>,
    options: &ExportOptions,
) -> Result<(Wanted, TransferReport)> {
    let over = |why: String| Err(Error::new(ErrorKind::LimitExceeded, OP).with_message(why));
    let top = Path::new("/");
    let rules = patterns(top, &options.excludes, OP)?;
    let mut report = TransferReport::default();
    let mut wanted = Wanted::new();
    let mut count = 0_u64;
    for entry in entries {
        let path = PathBuf::from(OsStr::from_bytes(entry.path.as_bytes()));
        let sound = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !sound || path.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Other, OP)
                .with_message("the guest names an entry that can't be")
                .with_path(entry.path));
        }
        let is_dir = entry.metadata.is_dir();
        if rules
            .matched_path_or_any_parents(top.join(&path), is_dir)
            .is_ignore()
        {
            continue;
        }
        count += 1;
        if count > options.max_entries {
            return over(format!("more than {} entries", options.max_entries));
        }
        match entry.metadata.kind {
            FileKind::Directory => report.directories += 1,
            FileKind::File => {
                report.files += 1;
                report.bytes = report.bytes.saturating_add(entry.metadata.size);
                if report.bytes > options.max_bytes {
                    return over(format!("more than {} bytes", options.max_bytes));
                }
            }
            FileKind::Symlink => {
                let target = entry.metadata.link_target.as_ref();
                let target = target.map_or(&b""[..], GuestPath::as_bytes);
                if leads_out(&path, Path::new(OsStr::from_bytes(target))) {
                    report.skip(entry.path, "a link out of the directory");
                    continue;
                }
                report.symlinks += 1;
            }
            kind => {
                report.skip(entry.path, skipped(kind));
                continue;
            }
        }
        wanted.insert(path, entry);
    }
    Ok((wanted, report))
}

/// Whether a link at this relative place points out of the directory.
fn leads_out(at: &Path, target: &Path) -> bool {
    let mut depth = at.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    target.as_os_str().is_empty()
}

/// Whether something is at the final name that the export may take the place of.
pub(crate) fn existing(to: &Path, existing: ExistingDir) -> Result<bool> {
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

/// Builds the export from an archive of files beside its final name and puts it there.
pub(crate) fn build(
    to: &Path,
    wanted: &Wanted,
    tar: impl Read,
    options: &ExportOptions,
    mut report: TransferReport,
) -> Result<TransferReport> {
    let host = |e: io::Error, path: &Path| Error::from_io(e, OP).with_host_path(path);
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
    for (path, entry) in wanted {
        if entry.metadata.is_dir() {
            let at = new.join(path);
            fs::create_dir_all(&at).map_err(|e| host(e, &at))?;
        }
    }
    let came = unpack(&new, wanted, tar, options)?;
    for (path, entry) in wanted {
        let at = new.join(path);
        match (&entry.metadata.kind, &entry.metadata.link_target) {
            (FileKind::Symlink, Some(target)) => {
                let target = OsStr::from_bytes(target.as_bytes());
                std::os::unix::fs::symlink(target, &at).map_err(|e| host(e, &at))?;
            }
            (FileKind::File, _) if !came.contains_key(path) => {
                report.files -= 1;
                report.skip(entry.path.clone(), "it was gone when it was to be read");
            }
            _ => {}
        }
    }
    report.bytes = came.values().sum();
    if exists && options.existing == ExistingDir::Merge {
        merge(&new, to, wanted)?;
    } else {
        modes(&new, wanted);
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
    Ok(report)
}

/// Takes files out of the tar: those that are wanted, once each, and nothing else. No link is in
/// the staging directory yet that could lead out of it.
fn unpack(
    new: &Path,
    wanted: &Wanted,
    tar: impl Read,
    options: &ExportOptions,
) -> Result<BTreeMap<PathBuf, u64>> {
    let bad = |why: &str| Error::new(ErrorKind::Other, OP).with_message(why);
    let garbled = |e: io::Error| bad("the guest's archive can't be read").with_source(e);
    let mut came = BTreeMap::new();
    let mut total = 0_u64;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        let path = entry.path().map_err(garbled)?.into_owned();
        let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
        let known = wanted.get(&path).filter(|known| known.metadata.is_file());
        let (Some(known), true) = (known, entry.header().entry_type().is_file()) else {
            return Err(bad(
                "the guest's archive has an entry that nobody asked for",
            ));
        };
        let at = new.join(&path);
        let host = |e: io::Error| Error::from_io(e, OP).with_host_path(&at);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(host)?;
        }
        let mut file = fs::File::create_new(&at).map_err(host)?;
        let left = options.max_bytes.saturating_sub(total);
        let copied =
            io::copy(&mut (&mut entry).take(left.saturating_add(1)), &mut file).map_err(host)?;
        total = total.saturating_add(copied);
        if total > options.max_bytes {
            let why = format!("more than {} bytes", options.max_bytes);
            return Err(Error::new(ErrorKind::LimitExceeded, OP).with_message(why));
        }
        if let Some(modified) = known.metadata.modified {
            // A time that the host can't keep is no loss.
            let _ = file.set_modified(modified);
        }
        let mode = known.metadata.mode.bits() & 0o777;
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(host)?;
        came.insert(path, copied);
    }
    Ok(came)
}

/// Directories get their modes last: one that may not be written would refuse its entries.
fn modes(top: &Path, wanted: &Wanted) {
    for (path, entry) in wanted.iter().rev() {
        if entry.metadata.is_dir() {
            let mode = fs::Permissions::from_mode(entry.metadata.mode.bits() & 0o777);
            // Its owner is this user, who made it.
            let _ = fs::set_permissions(top.join(path), mode);
        }
    }
}

/// Puts every file in place, each at once.
fn merge(new: &Path, to: &Path, wanted: &Wanted) -> Result<()> {
    for (path, entry) in wanted {
        let at = to.join(path);
        let host = |e: io::Error| Error::from_io(e, OP).with_host_path(&at);
        let there = fs::symlink_metadata(&at).ok();
        if entry.metadata.is_dir() {
            match there {
                Some(meta) if meta.is_dir() => {}
                Some(_) => return Err(host(io::ErrorKind::NotADirectory.into())),
                None => fs::create_dir(&at).map_err(host)?,
            }
        } else if there.is_some_and(|meta| meta.is_dir()) {
            return Err(host(io::ErrorKind::IsADirectory.into()));
        } else if fs::symlink_metadata(new.join(path)).is_ok() {
            fs::rename(new.join(path), &at).map_err(host)?;
        }
    }
    modes(to, wanted);
    Ok(())
}

/// The names of the files, for `tar --null -T`.
pub(crate) fn names(wanted: &Wanted) -> Vec<u8> {
    let mut names = Vec::new();
    for (path, entry) in wanted {
        if entry.metadata.is_file() {
            names.extend_from_slice(b"./");
            names.extend_from_slice(path.as_os_str().as_bytes());
            names.push(0);
        }
    }
    names
}
