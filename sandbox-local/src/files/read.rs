//! Reading a file whole.
//!
//! Invariant: only a regular file is opened, and never more than the limit and a byte is read,
//! whatever size the file claims.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::OFlags;
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, ReadOptions, Result};

use super::GuestRoot;
use super::place::Place;
use super::resolve::reopen;
use super::stat::{Stat, is_made_up, stat_fd};

impl GuestRoot {
    /// A regular file, not opened yet.
    pub(super) fn regular(&self, path: &GuestPath, place: &Place) -> Result<(OwnedFd, Stat)> {
        let handle = self.open(path, OFlags::PATH).map_err(place.failed())?;
        let stat = stat_fd(&handle).map_err(place.failed())?;
        if stat.is_dir() {
            return Err(place.error(ErrorKind::IsADirectory, b"", "is a directory"));
        }
        if !stat.is_file() {
            return Err(place.error(ErrorKind::NotARegularFile, b"", "not a regular file"));
        }
        if is_made_up(&handle).map_err(place.failed())? {
            return Err(place
                .error(
                    ErrorKind::NotARegularFile,
                    b"",
                    "a file that the kernel makes up",
                )
                .with_hint("run a command in the sandbox to read it"));
        }
        Ok((handle, stat))
    }

    /// See [`Sandbox::read_file`](sandbox_core::Sandbox::read_file). Files of procfs, sysfs and
    /// the like count as no regular files.
    pub(crate) fn read(&self, path: &GuestPath, options: &ReadOptions) -> Result<Bytes> {
        let place = Place::guest(Operation::ReadFile, path);
        let _guest = self.as_guest(Operation::ReadFile)?;
        let (handle, stat) = self.regular(path, &place)?;
        if stat.size > options.limit {
            return Err(too_large(&place, options.limit));
        }
        let file = reopen(&handle, OFlags::RDONLY).map_err(place.failed())?;
        // One byte more than the file has, so that its end is seen without growing the buffer.
        let room = usize::try_from(stat.size).unwrap_or(usize::MAX - 1) + 1;
        let mut content = Vec::new();
        content.try_reserve_exact(room).map_err(|_| {
            place.error(
                ErrorKind::LimitExceeded,
                b"",
                format!("no memory for {} bytes", stat.size),
            )
        })?;
        File::from(file)
            .take(options.limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| Error::from_io(error, Operation::ReadFile).with_path(path))?;
        if content.len() as u64 > options.limit {
            return Err(too_large(&place, options.limit));
        }
        Ok(content.into())
    }
}

fn too_large(place: &Place, limit: u64) -> Error {
    place
        .error(
            ErrorKind::LimitExceeded,
            b"",
            format!("the file is larger than the limit of {limit} bytes"),
        )
        .with_hint("raise the limit, or read a part of it with a command")
}
