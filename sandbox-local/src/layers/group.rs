//! Removal of a sandbox's control group, with the one below it.
//!
//! Must never signal a process: a group that has one is busy.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The group below a sandbox's own that is frozen while it is copied.
pub(crate) fn inner(group: &Path) -> PathBuf {
    group.join("guests")
}

/// Removes a sandbox's group, once it is empty, and what is below it.
pub(crate) fn remove(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        result => return result,
    }
    // Processes, or the inner one.
    match fs::remove_dir(inner(group)) {
        // As it was without one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::ErrorKind::ResourceBusy.into())
        }
        Err(error) => Err(error),
        Ok(()) => fs::remove_dir(group),
    }
}
