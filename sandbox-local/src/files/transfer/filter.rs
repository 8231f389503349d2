//! The ignore files of a directory, read by descriptor.
//!
//! Invariant: no link is followed and nothing but a regular file opened. What the patterns mean is
//! `sandbox-transfer`'s affair.

use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sandbox_core::Result;
use sandbox_transfer::{IgnoreFiles, MAX_IGNORE_FILE};

use super::super::place::Place;
use super::super::resolve::{open_same_mount, reopen};
use super::super::stat::stat_fd;

/// Reads those of this directory, which has this path relative to the top.
pub(super) fn ignore_files(dir: BorrowedFd<'_>, path: &[u8], place: &Place) -> Result<IgnoreFiles> {
    IgnoreFiles::read(path, place.operation(), |name| {
        read(dir, name.as_bytes()).map_err(|errno| {
            let at = [path, b"/", name.as_bytes()].concat();
            let at = at.strip_prefix(b"/").unwrap_or(&at);
            IgnoreFiles::unreadable(place.fail(errno, at))
        })
    })
}

fn read(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Option<Vec<u8>>, Errno> {
    // Mostly there is none; a directory that can't be entered gives nothing else either.
    let Ok(file) = open_same_mount(dir, name, OFlags::PATH) else {
        return Ok(None);
    };
    if !stat_fd(&file)?.is_file() {
        return Ok(None);
    }
    let file = std::fs::File::from(reopen(&file, OFlags::RDONLY)?);
    let mut text = Vec::new();
    let read = file.take(MAX_IGNORE_FILE + 1).read_to_end(&mut text);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some(text))
}
