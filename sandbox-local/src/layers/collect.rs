//! Collects what providers left whose process is dead.
//!
//! The lock on the lease tells: a process id would lie, since they are reused. The lease goes last,
//! so that a collection that is cut short is taken up by the next one.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sandbox_core::backend::FileLock;

use super::{LEASE, OUTSIDE, handed_on, journal};
use crate::lasting::record::{self, KEPT, LASTING};
use crate::walk;

/// Held, shared, by a provider from before its directory has a name until its lease is locked.
pub(super) fn making(root: &Path) -> io::Result<FileLock> {
    FileLock::shared(File::open(root)?)
}

/// Removes what dead providers left in `root`, except `own`.
pub(super) fn dead(root: &Path, own: &Path) {
    // Without it, what has no lease may be about to get one.
    let none_is_made = File::open(root).and_then(FileLock::try_exclusive);
    let none_is_made = none_is_made.ok().flatten();
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        let begun = name.starts_with("new-");
        let lasting = name.starts_with(LASTING);
        if path == own || !(begun || lasting || name.starts_with("p-")) {
            continue;
        }
        // Not even its lease is tried: it would look as if the sandbox were open.
        if lasting && path.join(KEPT).symlink_metadata().is_ok() && !record::has_expired(&path) {
            continue;
        }
        if begun && none_is_made.is_none() {
            continue;
        }
        match open_lease(&path) {
            Ok(lease) => {
                // Held until the directory is gone: another collector then leaves it alone.
                let Ok(Some(lease)) = FileLock::try_exclusive(lease) else {
                    continue;
                };
                if lasting && !record::forget_if_expired(&path) {
                    continue;
                }
                dead.push((path, Some(lease)));
            }
            // A directory has its name only once its lease is locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => dead.push((path, None)),
            // The lock on one that can't be opened now may be held.
            Err(_) => {}
        }
    }
    // The next provider need not wait for what follows.
    drop(none_is_made);
    for (path, _lease) in dead {
        match provider(&path, Some(LEASE)) {
            Ok(()) => tracing::info!(path = %path.display(), "collected a dead provider"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be collected"),
        }
    }
}

/// Opens a lease. What another user could have put in its place must not hold up the collection: a
/// FIFO is opened at once, and a link not followed.
pub(crate) fn open_lease(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lease = rustix::fs::open(dir.join("lease"), flags, Mode::empty())?;
    Ok(File::from(lease))
}

/// Removes what a dead provider left outside, then its directory.
fn provider(path: &Path, last: Option<&CStr>) -> io::Result<()> {
    journal::collect(&path.join(OUTSIDE))?;
    handed_on::hand_on(path);
    walk::remove(path, last, None).map(drop)
}
