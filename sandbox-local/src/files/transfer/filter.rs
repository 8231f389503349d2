//! The ignore files of a directory, read by descriptor.
//!
//! Invariant: no link is followed and nothing but a regular file opened. What the patterns mean is
//! `sandbox-transfer`'s affair.

use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use sandbox_transfer::{IgnoreFiles, MAX_IGNORE_FILE};

use super::super::resolve::{open_same_mount, reopen};
use super::super::stat::stat_fd;

/// Reads those of this directory, which has this path relative to the top.
pub(super) fn ignore_files(dir: BorrowedFd<'_>, path: &[u8]) -> IgnoreFiles {
    IgnoreFiles::read(path, |name| read(dir, name.as_bytes()))
}

fn read(dir: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let file = open_same_mount(dir, name, OFlags::PATH).ok()?;
    if !stat_fd(&file).ok()?.is_file() {
        return None;
    }
    let file = std::fs::File::from(reopen(&file, OFlags::RDONLY).ok()?);
    let mut text = Vec::new();
    file.take(MAX_IGNORE_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}
