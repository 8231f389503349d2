//! Collects the directories of providers whose process is dead.
//!
//! Dead is who does not hold the lock on the lease: a process id would lie, since they are reused.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::remove;

/// A provider that is being made has its lease within this time.
const BEING_MADE: Duration = Duration::from_secs(3600);

/// Removes what dead providers left in `root`, except `own`.
pub(super) fn dead(root: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if path == own || !(name.starts_with("p-") || name.starts_with("new-")) {
            continue;
        }
        // Not even locked: who makes it is about to.
        if name.starts_with("new-") && is_young(&path) {
            continue;
        }
        match File::open(path.join("lease")) {
            Ok(lease) => {
                // Held until the directory is gone: another collector then leaves it alone.
                if flock(lease.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
                    continue;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !is_young(&path) => {}
            // Somebody may hold the lock on one that cannot be opened now.
            Err(_) => continue,
        }
        match remove::tree(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "collected a dead provider"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be collected"),
        }
    }
}

fn is_young(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < BEING_MADE))
}
