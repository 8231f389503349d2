//! Directories of the host that cases bring files in from and out to.
//!
//! Invariant: none outlives its case. A transfer whose future was dropped may still write when the case
//! ends, so that a directory which can't be removed then is removed once the sandboxes are closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
