//! Directories of the host by handle, the same on every platform.
//!
//! A [`Dir`] stands for a directory whatever it is renamed to; names are single entries of it, and
//! no operation follows a link. On platforms without descriptor-relative calls it is a path, and a
//! rename at the same time can mislead it.

#[cfg(not(unix))]
mod paths;
#[cfg(unix)]
mod unix;

use std::ffi::OsString;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox_core::FileKind;

#[cfg(not(unix))]
pub(crate) use paths::{Dir, bytes, finish_file, name};
#[cfg(target_os = "linux")]
pub(crate) use unix::kind_of;
#[cfg(unix)]
pub(crate) use unix::{Dir, bytes, finish_file, name};

/// Kind, mode, size and time of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    pub(crate) kind: FileKind,
    /// Permission bits, without setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) modified: Option<SystemTime>,
}

impl Stat {
    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// Levels of a tree that are removed with a descriptor each; what is deeper is moved up first.
const MAX_DEPTH: usize = 200;

/// Names that a removal has in memory: a directory may have any number.
const AT_ONCE: usize = if cfg!(test) { 50 } else { 100_000 };

/// Names that it reads of a directory, however many it has in memory.
const LEAST: usize = if cfg!(test) { 5 } else { 1_000 };

impl Dir {
    /// Removes the entry `name` with all that is in it. Directories that their owner has shut are
    /// opened first. No link is followed.
    pub(crate) fn remove_all(&self, name: &OsString) -> io::Result<()> {
        let found = match self.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if !found.is_dir() {
            return self.remove_file(name);
        }
        let top = self.open_usable(name)?;
        // The directories that the removal is in, with what is to be looked at next in each.
        let mut levels = vec![(name.clone(), Vec::new(), top.try_clone()?)];
        loop {
            let depth = levels.len();
            let pending: usize = levels.iter().map(|(_, names, _)| names.len()).sum();
            let Some((_, names, dir)) = levels.last_mut() else {
                return Ok(());
            };
            if names.is_empty() {
                *names = dir.names_at_most(AT_ONCE.saturating_sub(pending).max(LEAST))?;
            }
            let Some(name) = names.pop() else {
                let Some((name, ..)) = levels.pop() else {
                    return Ok(());
                };
                match levels.last() {
                    Some((.., above)) => above.remove_dir(&name)?,
                    None => self.remove_dir(&name)?,
                }
                continue;
            };
            let found = match dir.stat(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?,
            };
            if !found.is_dir() {
                dir.remove_file(&name)?;
            } else if dir.remove_dir(&name).is_err() {
                let inner = dir.open_usable(&name)?;
                if depth < MAX_DEPTH {
                    levels.push((name, Vec::new(), inner));
                    continue;
                }
                // It is met there in its turn.
                let new = OsString::from(format!(".deep-{:016x}", random()));
                dir.rename(&name, &top, &new)?;
            }
        }
    }

    /// Opens a directory that is to be emptied.
    fn open_usable(&self, name: &OsString) -> io::Result<Self> {
        if self.stat(name)?.mode & 0o700 != 0o700 {
            // Whether that was allowed shows when the directory is used.
            let _ = self.set_mode_of(name, 0o700);
        }
        self.open_dir(name)
    }
}

/// A number that cannot be guessed.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Seconds and nanoseconds since 1970 as a time, if it can be one.
pub(crate) fn system_time(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)?
    } else {
        UNIX_EPOCH.checked_add(whole)?
    };
    whole.checked_add(Duration::from_nanos(nanos.into()))
}
