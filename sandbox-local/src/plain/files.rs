//! Single files and directories of a plain sandbox: read, list, describe, remove, create, rename.
//!
//! It must never open anything but a regular file or a directory.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use sandbox_core::{
    CreateDirOptions, DirEntry, Error, ErrorKind, FileKind, GuestPath, ListOptions, Metadata,
    MetadataOptions, Operation, ReadOptions, RemoveOptions, RenameOptions, Result,
};

use super::os;
use super::tree::{Tree, failed, remove_tree};

fn error(kind: ErrorKind, op: Operation, why: &str, path: &GuestPath) -> Error {
    Error::new(kind, op).with_message(why).with_path(path)
}

pub(super) fn read(
    tree: &Tree,
    workdir: &GuestPath,
    path: &GuestPath,
    options: &ReadOptions,
) -> Result<Bytes> {
    const OP: Operation = Operation::ReadFile;
    let place = tree.follow(path, workdir, OP)?;
    let io = |e| failed(e, OP, &place.guest);
    let meta = fs::symlink_metadata(&place.host).map_err(io)?;
    match os::kind(meta.file_type()) {
        FileKind::File => {}
        FileKind::Directory => {
            let why = "a directory is not read";
            return Err(error(ErrorKind::IsADirectory, OP, why, &place.guest));
        }
        _ => {
            let why = "not a regular file";
            return Err(error(ErrorKind::NotARegularFile, OP, why, &place.guest));
        }
    }
    let mut content = Vec::new();
    if meta.len() <= options.limit {
        let file = fs::File::open(&place.host).map_err(io)?;
        // One byte more than allowed tells a file that has grown since.
        file.take(options.limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(io)?;
    }
    if meta.len().max(content.len() as u64) > options.limit {
        let why = format!(
            "the file is larger than the limit of {} bytes",
            options.limit
        );
        return Err(error(ErrorKind::LimitExceeded, OP, &why, &place.guest));
    }
    Ok(content.into())
}

pub(super) fn list(
    tree: &Tree,
    workdir: &GuestPath,
    path: &GuestPath,
    options: &ListOptions,
) -> Result<Vec<DirEntry>> {
    const OP: Operation = Operation::ListDir;
    let place = tree.follow(path, workdir, OP)?;
    let io = |e| failed(e, OP, &place.guest);
    let mut entries = Vec::new();
    let mut pending = vec![(place.host.clone(), GuestPath::new(""))];
    while let Some((host, relative)) = pending.pop() {
        for entry in fs::read_dir(&host).map_err(io)? {
            let entry = entry.map_err(io)?;
            let described = entry
                .metadata()
                .and_then(|meta| os::describe(&entry.path(), &meta));
            let metadata = match described {
                // Removed by a running command in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io)?,
            };
            if entries.len() == options.limit {
                let why = format!("more than {} entries", options.limit);
                return Err(error(ErrorKind::LimitExceeded, OP, &why, &place.guest));
            }
            let path = relative.join(os::bytes(&entry.file_name()));
            if options.recursive && metadata.is_dir() {
                pending.push((entry.path(), path.clone()));
            }
            entries.push(DirEntry::new(path, metadata));
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

pub(super) fn metadata(
    tree: &Tree,
    workdir: &GuestPath,
    path: &GuestPath,
    options: &MetadataOptions,
) -> Result<Metadata> {
    const OP: Operation = Operation::Metadata;
    let place = match options.follow {
        true => tree.follow(path, workdir, OP)?,
        false => tree.place(path, workdir, OP)?,
    };
    fs::symlink_metadata(&place.host)
        .and_then(|meta| os::describe(&place.host, &meta))
        .map_err(|e| failed(e, OP, &place.guest))
}

pub(super) fn remove(
    tree: &Tree,
    workdir: &GuestPath,
    path: &GuestPath,
    options: &RemoveOptions,
) -> Result<()> {
    const OP: Operation = Operation::Remove;
    if path.resolve(workdir, OP)? == GuestPath::root() {
        return Err(root_stays(OP, path));
    }
    let place = tree.place(path, workdir, OP)?;
    if place.host == tree.root() {
        return Err(root_stays(OP, &place.guest));
    }
    let io = |e| failed(e, OP, &place.guest);
    let is_dir = fs::symlink_metadata(&place.host).map_err(io)?.is_dir();
    match (is_dir, options.recursive) {
        (true, true) => remove_tree(&place.host),
        (true, false) => fs::remove_dir(&place.host),
        (false, _) => fs::remove_file(&place.host),
    }
    .map_err(io)
}

fn root_stays(op: Operation, path: &GuestPath) -> Error {
    let why = "the root stays where it is";
    error(ErrorKind::InvalidInput, op, why, path)
}

pub(super) fn create_dir(
    tree: &Tree,
    workdir: &GuestPath,
    path: &GuestPath,
    options: &CreateDirOptions,
) -> Result<()> {
    const OP: Operation = Operation::CreateDir;
    let place = tree.place(path, workdir, OP)?;
    let io = |e| failed(e, OP, &place.guest);
    if options.recursive {
        match fs::metadata(&place.host) {
            Ok(meta) if meta.is_dir() => return Ok(()),
            Ok(_) => {
                let why = "something else than a directory is there";
                return Err(error(ErrorKind::AlreadyExists, OP, why, &place.guest));
            }
            Err(_) => {}
        }
        if let Some(parent) = place.host.parent() {
            fs::create_dir_all(parent).map_err(|e| failed(not_a_dir(e), OP, &place.guest))?;
        }
    }
    fs::create_dir(&place.host).map_err(io)?;
    os::set_mode(&place.host, options.mode).map_err(io)
}

/// `create_dir_all` says "exists" where a file stands among the parents.
pub(super) fn not_a_dir(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::new(io::ErrorKind::NotADirectory, error),
        _ => error,
    }
}

pub(super) fn rename(
    tree: &Tree,
    workdir: &GuestPath,
    from: &GuestPath,
    to: &GuestPath,
    options: &RenameOptions,
) -> Result<()> {
    const OP: Operation = Operation::Rename;
    let source = tree.place(from, workdir, OP)?;
    let target = tree.place(to, workdir, OP)?;
    for place in [&source, &target] {
        if place.host == tree.root() {
            return Err(root_stays(OP, &place.guest));
        }
    }
    let from_dir = is_dir(&source.host).map_err(|e| failed(e, OP, &source.guest))?;
    if source.host == target.host {
        return Ok(());
    }
    if target.host.starts_with(&source.host) {
        let why = "a directory does not go into itself";
        return Err(error(ErrorKind::InvalidInput, OP, why, &target.guest));
    }
    let io = |e| failed(e, OP, &target.guest);
    match is_dir(&target.host) {
        Ok(_) if !options.replace => {
            let why = "something has the new name";
            return Err(error(ErrorKind::AlreadyExists, OP, why, &target.guest));
        }
        // Hosts differ in what they say of a file and a directory, so say it first.
        Ok(true) if !from_dir => {
            let why = "a file does not replace a directory";
            return Err(error(ErrorKind::IsADirectory, OP, why, &target.guest));
        }
        Ok(false) if from_dir => {
            let why = "a directory does not replace a file";
            return Err(error(ErrorKind::NotADirectory, OP, why, &target.guest));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    fs::rename(&source.host, &target.host).map_err(io)
}

fn is_dir(path: &Path) -> io::Result<bool> {
    fs::symlink_metadata(path).map(|meta| meta.is_dir())
}
