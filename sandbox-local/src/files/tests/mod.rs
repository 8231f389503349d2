//! Tests of the file operations on a temporary directory that plays the guest's root.
//!
//! Nothing here may skip: what needs root says so in its name and needs a host that runs it as
//! root to mean anything.

// Rounds and times are what these tests have to say.
#![allow(clippy::print_stdout)]

mod bench;
mod dirs;
mod export;
mod guest_user;
mod import;
mod limits;
mod list;
mod mounts;
mod race;
mod read;
mod remove;
mod write;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox_core::{
    DirEntry, Error, ErrorKind, FileBatch, GuestPath, ListOptions, RemoveOptions, Result,
};

use super::GuestRoot;
use crate::walk::Cancel;

/// Calls that are not to be ended early.
impl GuestRoot {
    fn list(&self, path: &GuestPath, options: &ListOptions) -> Result<Vec<DirEntry>> {
        self.list_until(path, options, Cancel::default())
    }

    fn remove(&self, path: &GuestPath, options: &RemoveOptions) -> Result<()> {
        self.remove_until(path, options, Cancel::default())
    }
}

/// A guest's root with room beside it for what must not be touched.
struct Fixture {
    dir: tempfile::TempDir,
    guest: GuestRoot,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Also what a test closed to its owner, which `TempDir` leaves.
        let _ = sandbox_transfer::remove_tree(self.dir.path());
    }
}

impl Fixture {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// In memory where there is such a place: for what does the same thing very often.
    fn fast() -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()))
    }

    fn at(dir: tempfile::TempDir) -> Self {
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("host")).unwrap();
        let guest = GuestRoot::new(open_root(&dir.path().join("root")), None);
        Self { dir, guest }
    }

    /// The host's path of something in the guest.
    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    /// A path beside the guest's root.
    fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join("host").join(path)
    }

    fn put(&self, path: &str, content: &str) {
        put(&self.root(path), content);
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root(path)).ok()
    }

    fn write(&self, batch: FileBatch) -> Result<(), Error> {
        self.guest
            .write(&batch.resolve(&GuestPath::root()).unwrap())
    }

    /// Names in a directory of the guest, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        names(&self.root(path))
    }
}

fn open_root(path: &Path) -> std::os::fd::OwnedFd {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mkfifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

fn path(path: &str) -> GuestPath {
    GuestPath::from(path)
}

/// Asserts the kind and that the error names the guest path.
#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, at: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(error.path(), Some(&path(at)), "{error:?}");
    error
}
