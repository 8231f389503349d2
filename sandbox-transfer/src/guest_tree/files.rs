//! Single entries: read, list, describe, remove, create, rename.
//!
//! Invariant: no more is read or listed than the options allow.

use std::ffi::OsStr;
use std::io::{self, Read as _};

use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags, Stat, fstat, readlinkat, statat};
use sandbox_core::{
    CreateDirOptions, DirEntry, Error, ErrorKind, FileKind, GuestPath, ListOptions, Metadata,
    MetadataOptions, Mode, Operation, ReadOptions, RemoveOptions, RenameOptions, Result,
};

use super::{GuestTree, at, reopen};
use crate::descent::{DEPTH, Descent, is_gone};
use crate::export::NAMES;
use crate::sys::{Dir, kind_of, system_time};

fn refused(kind: ErrorKind, operation: Operation, path: &GuestPath, why: &str) -> Error {
    Error::new(kind, operation)
        .with_message(why.to_owned())
        .with_path(path)
}

impl GuestTree {
    /// Reads a file whole. See [`Sandbox::read_file`](sandbox_core::Sandbox::read_file).
    ///
    /// # Errors
    /// Those of that method.
    pub fn read(&self, path: &GuestPath, options: &ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let io = |error| at(error, OP, path);
        let found = self.find(path).map_err(io)?;
        let stat = fstat(&found).map_err(|errno| io(errno.into()))?;
        match kind_of(&stat) {
            FileKind::File => {}
            FileKind::Directory => {
                return Err(refused(ErrorKind::IsADirectory, OP, path, "is a directory"));
            }
            _ => {
                let kind = ErrorKind::NotARegularFile;
                return Err(refused(kind, OP, path, "not a regular file"));
            }
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut content = Vec::new();
        if size <= options.limit {
            // One byte more than allowed tells a file that grows.
            reopen(&found, OFlags::RDONLY)
                .and_then(|file| {
                    file.take(options.limit.saturating_add(1))
                        .read_to_end(&mut content)
                })
                .map_err(io)?;
        }
        if size.max(content.len() as u64) > options.limit {
            let why = format!(
                "the file is larger than the limit of {} bytes",
                options.limit
            );
            let hint = "raise the limit, or read a part of it with a command";
            return Err(refused(ErrorKind::LimitExceeded, OP, path, &why).with_hint(hint));
        }
        Ok(content.into())
    }

    /// Lists a directory, sorted by bytes. See [`Sandbox::list_dir`](sandbox_core::Sandbox::list_dir).
    ///
    /// # Errors
    /// Those of that method.
    pub fn list(&self, path: &GuestPath, options: &ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let io = |error| at(error, OP, path);
        let top = self.dir(path).map_err(io)?;
        let limit = |why: String| {
            let hint = "raise the limit, or list a directory further down";
            refused(ErrorKind::LimitExceeded, OP, path, &why).with_hint(hint)
        };
        let too_many = || limit(format!("more than the limit of {} entries", options.limit));
        // What may still come: the guest decides how much there is.
        let mut left = options.limit as u64;
        let mut room = NAMES;
        let names = top.names_within(left).map_err(io)?.ok_or_else(too_many)?;
        left -= names.len() as u64;
        let mut entries = Vec::new();
        // What is still to be looked at in each directory.
        let mut descent = Descent::new(top, (GuestPath::new(""), names)).map_err(io)?;
        while let Some((above, names)) = descent.of() {
            let Some(name) = names.pop() else {
                descent.pop();
                continue;
            };
            let relative = above.join(name.as_bytes());
            let depth = descent.depth();
            let dir = match descent.dir() {
                // Taken away by a running command meanwhile, with what was in it.
                Err(error) if is_gone(&error) => {
                    descent.pop();
                    continue;
                }
                dir => dir.map_err(io)?,
            };
            let metadata = match describe(dir, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                described => described.map_err(io)?,
            };
            room = room
                .checked_sub(relative.as_bytes().len() as u64)
                .ok_or_else(|| limit(format!("its paths have more than {NAMES} bytes")))?;
            let is_dir = metadata.is_dir();
            entries.push(DirEntry::new(relative.clone(), metadata));
            if !options.recursive || !is_dir {
                continue;
            }
            if depth >= DEPTH {
                let why = format!("more than {DEPTH} directories one below the other");
                return Err(limit(why));
            }
            let opened = dir.open_dir(&name);
            match opened.and_then(|dir| Ok((dir.names_within(left)?, dir))) {
                Ok((names, dir)) => {
                    let names = names.ok_or_else(too_many)?;
                    left -= names.len() as u64;
                    descent.push(name, dir, (relative, names));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(io(error)),
            }
        }
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Ok(entries)
    }

    /// Describes an entry. See [`Sandbox::metadata`](sandbox_core::Sandbox::metadata).
    ///
    /// # Errors
    /// Those of that method.
    pub fn metadata(&self, path: &GuestPath, options: &MetadataOptions) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        let flags = match options.follow {
            true => OFlags::PATH,
            false => OFlags::PATH | OFlags::NOFOLLOW,
        };
        self.open(path, flags)
            .and_then(|found| {
                let stat = fstat(&found)?;
                metadata(&stat, || readlinkat(&found, c"", Vec::new()))
            })
            .map_err(|error| at(error, OP, path))
    }

    /// Removes an entry. See [`Sandbox::remove`](sandbox_core::Sandbox::remove).
    ///
    /// # Errors
    /// Those of that method.
    pub fn remove(&self, path: &GuestPath, options: &RemoveOptions) -> Result<()> {
        options.settle(self.try_remove(path, options))
    }

    fn try_remove(&self, path: &GuestPath, options: &RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let io = |error| at(error, OP, path);
        let (dir, name) = self.parent(path, OP)?;
        if !dir.stat(&name).map_err(io)?.is_dir() {
            return dir.remove_file(&name).map_err(io);
        }
        match dir.remove_dir(&name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                match options.recursive {
                    true => dir.remove_all(&name).map_err(io),
                    false => Err(io(error).with_hint("use RemoveOptions::recursive")),
                }
            }
            removed => removed.map_err(io),
        }
    }

    /// Makes a directory. See [`Sandbox::create_dir`](sandbox_core::Sandbox::create_dir).
    ///
    /// # Errors
    /// Those of that method.
    pub fn create_dir(&self, path: &GuestPath, options: &CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        let io = |error| at(error, OP, path);
        let mode = options.mode.bits();
        if options.recursive {
            return match self.make_all(path, mode) {
                Ok(_) => Ok(()),
                Err(_) if self.is_something_else(path) => Err(refused(
                    ErrorKind::AlreadyExists,
                    OP,
                    path,
                    "something that is not a directory is there",
                )),
                Err(error) => Err(io(error)),
            };
        }
        if *path == GuestPath::root() {
            return Err(io(io::ErrorKind::AlreadyExists.into()));
        }
        let (dir, name) = self.parent(path, OP)?;
        dir.make_dir(&name)
            .and_then(|()| dir.set_mode_of(&name, mode))
            .map_err(io)
    }

    /// Whether an entry that is no directory has this path.
    fn is_something_else(&self, path: &GuestPath) -> bool {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW)
            .is_ok_and(|found| {
                fstat(&found).is_ok_and(|stat| kind_of(&stat) != FileKind::Directory)
            })
    }

    /// Renames an entry. See [`Sandbox::rename`](sandbox_core::Sandbox::rename).
    ///
    /// # Errors
    /// Those of that method.
    pub fn rename(&self, from: &GuestPath, to: &GuestPath, options: &RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let (source, old) = self.parent(from, OP)?;
        let stat = source.stat(&old).map_err(|error| at(error, OP, from))?;
        if stat.is_dir() && from != to && to.strip_prefix(from).is_some() {
            let why = "a directory can't be moved into itself";
            return Err(refused(ErrorKind::InvalidInput, OP, to, why));
        }
        let (target, new) = self.parent(to, OP)?;
        let renamed = match options.replace {
            true => source.rename(&old, &target, &new),
            false => source.rename_only_new(&old, &target, &new),
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => at(error, OP, from),
            io::ErrorKind::AlreadyExists if !options.replace => {
                at(error, OP, to).with_hint("use RenameOptions::replace")
            }
            io::ErrorKind::AlreadyExists => {
                let why = "a directory that is not empty is there";
                refused(ErrorKind::DirectoryNotEmpty, OP, to, why).with_source(error)
            }
            _ => at(error, OP, to),
        })
    }
}

/// Describes an entry of a directory, a link itself.
fn describe(dir: &Dir, name: &OsStr) -> io::Result<Metadata> {
    let stat = statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    metadata(&stat, || readlinkat(dir.fd(), name, Vec::new()))
}

fn metadata(
    stat: &Stat,
    target: impl FnOnce() -> rustix::io::Result<std::ffi::CString>,
) -> io::Result<Metadata> {
    let kind = kind_of(stat);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut metadata =
        Metadata::new(kind, size, Mode::new(stat.st_mode & 0o7777)).owner(stat.st_uid, stat.st_gid);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    if let Some(modified) = system_time(stat.st_mtime, nanos) {
        metadata = metadata.modified(modified);
    }
    Ok(match kind {
        FileKind::Symlink => metadata.link_target(target()?.into_bytes()),
        _ => metadata,
    })
}
