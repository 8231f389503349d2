//! Locks on files, between processes: leases of directories, journals and logs.
//!
//! Must never leave the release of a lock to the closing of its file.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};

/// Lock on an open file, which no other process and no other opening of the file gets against it.
///
/// Dropping it gives the lock up at once. Closing the file alone does not: while another thread
/// starts a process, that process has a copy of every descriptor until it executes its program, and
/// a lock lasts as long as any copy. A process that ends, however it ends, gives up its locks.
///
/// Platform: `flock` (see `flock(2)`) on Unix, `LockFileEx` on Windows. Other programs are kept out
/// only if they lock the file too.
///
/// ```
/// use sandbox_core::backend::FileLock;
/// # let path = std::env::temp_dir().join(format!("file-lock-{}", std::process::id()));
/// let open = || std::fs::File::create(&path);
/// let lock = FileLock::try_exclusive(open()?)?.expect("it is free");
/// assert!(FileLock::try_exclusive(open()?)?.is_none());
/// drop(lock);
/// assert!(FileLock::try_shared(open()?)?.is_some());
/// # std::fs::remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks a file for one holder. Blocks until the others have given it up.
    ///
    /// # Errors
    /// The file system has no locks, or the wait was interrupted.
    pub fn exclusive(file: File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }

    /// Locks a file for any number of holders. Blocks until one that has it alone gives it up.
    ///
    /// # Errors
    /// The file system has no locks, or the wait was interrupted.
    pub fn shared(file: File) -> io::Result<Self> {
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// Locks a file for one holder; `None` if another has it.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        Self::tried(file.try_lock(), file)
    }

    /// Locks a file for any number of holders; `None` if another has it alone.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_shared(file: File) -> io::Result<Option<Self>> {
        Self::tried(file.try_lock_shared(), file)
    }

    fn tried(tried: Result<(), TryLockError>, file: File) -> io::Result<Option<Self>> {
        match tried {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for FileLock {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // It fails where the lock is gone already.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_holds_nothing_once_the_lock_is_dropped() {
        let dir = std::env::temp_dir();
        let path = dir.join(format!("sandbox-file-lock-{}", std::process::id()));
        let open = || File::create(&path).unwrap();
        let lock = FileLock::try_exclusive(open()).unwrap().unwrap();
        // As a process has it that is about to execute its program.
        let copy = lock.try_clone().unwrap();
        assert!(FileLock::try_shared(open()).unwrap().is_none());
        drop(lock);
        let shared = FileLock::try_shared(open()).unwrap().unwrap();
        assert!(FileLock::try_exclusive(open()).unwrap().is_none());
        assert!(FileLock::try_shared(open()).unwrap().is_some());
        drop((shared, copy));
        std::fs::remove_file(path).unwrap();
    }
}
