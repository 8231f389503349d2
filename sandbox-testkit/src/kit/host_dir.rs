//! Directories of the host that cases bring files in from and out to.
//!
//! Invariant: none outlives its case. A transfer whose future was dropped may still write when the case
//! ends, so that a directory which can't be removed then is removed once the sandboxes are closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Directories of one case that could not be removed yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<Mutex<Vec<PathBuf>>>);

impl Late {
    fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, path: PathBuf) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.push(path);
    }

    /// Removes them, as often as it takes.
    pub(crate) async fn remove(&self) {
        loop {
            for path in self.take() {
                if remove(&path).is_err() {
                    self.add(path);
                }
            }
            let left = !self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty();
            if !left {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An empty directory of the host; removed with everything in it when its case is over.
#[derive(Debug)]
pub struct HostDir {
    path: PathBuf,
    late: Late,
}

impl HostDir {
    pub(crate) fn new(late: &Late) -> io::Result<Self> {
        Ok(Self {
            path: TempDir::with_prefix("sandbox-testkit-")?.keep(),
            late: late.clone(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for HostDir {
    fn drop(&mut self) {
        if remove(&self.path).is_err() {
            self.late.add(std::mem::take(&mut self.path));
        }
    }
}

/// A directory of the host for a test's own use: what a backend keeps there, for example.
///
/// Dropping it removes it, and blocks while something that the test has dropped is still removing or
/// writing its own part of it, for at most 30 seconds.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// An empty one in the temporary directory, which only this user may enter.
    ///
    /// # Errors
    /// If none can be made there.
    pub fn new() -> io::Result<Self> {
        Ok(Self::of(TempDir::with_prefix("sandbox-testkit-")?.keep()))
    }

    /// Takes over a directory that is there.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let start = Instant::now();
        while remove(&self.path).is_err() && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Removes a directory, also what a guest closed to its owner; it may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match sandbox_transfer::remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if path.symlink_metadata().is_ok() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_waits_for_what_still_writes_to_it() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        let (began, begun) = std::sync::mpsc::channel();
        let at = path.clone();
        let writer = std::thread::spawn(move || {
            for number in 0..2000 {
                let _ = std::fs::create_dir(at.join(number.to_string()));
                let _ = began.send(());
            }
        });
        begun.recv().unwrap();
        drop(scratch);
        writer.join().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_is_still_written_to_goes_once_that_has_stopped() {
        let late = Late::default();
        let dir = HostDir::new(&late).unwrap();
        let path = dir.path().to_owned();
        std::fs::create_dir(path.join("out")).unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (began, begun) = std::sync::mpsc::channel::<()>();
        let out = path.join("out");
        let writer = std::thread::spawn(move || {
            let mut number = 0_u64;
            while stopped.try_recv().is_err() {
                let _ = std::fs::create_dir(&out);
                let _ = std::fs::write(out.join(number.to_string()), "x");
                number += 1;
                let _ = began.send(());
            }
        });
        begun.recv().unwrap();
        drop(dir);
        stop.send(()).unwrap();
        writer.join().unwrap();
        late.remove().await;
        assert!(!path.exists());
    }
}
