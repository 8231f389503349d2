//! A directory of the host as a guest's whole tree, for backends whose sandboxes keep their files
//! on the host.
//!
//! Every path is the guest's, absolute, and is resolved by the kernel below the directory
//! (`openat2(2)` with `RESOLVE_IN_ROOT`); what is done then is done by descriptor and single names.
//! It must never resolve a guest's path by name on the host, open anything but a regular file or a
//! directory, or follow a link outside. Everything here blocks: call it where blocking is allowed.

mod batch;
mod files;
mod transfer;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};

use crate::sys::{Dir, random};

/// Number of times that a path is looked up: the kernel asks for another try while a directory on
/// the way is renamed, which a guest can do all the time.
const TRIES: usize = 256;

/// Permission bits of directories that are made on the way to an entry.
const PARENT: u32 = 0o755;

/// The tree of a guest in a directory of the host.
///
/// The directory has two parts: [`root`](Self::root), which the guest gets as its `/` (or as a part
/// of it), and a place beside it where files are staged and which the guest must not see. Both are
/// on one filesystem, so that a staged file comes into place by one rename.
///
/// Paths are the guest's and absolute ([`GuestPath::resolve`]); `..` has no meaning left in them.
/// Links are followed within the tree: an absolute one starts at the tree's root. The guest may
/// change the tree at the same time, in any way. Files that the tree makes belong to this process's
/// user, and what this user may not read or write is refused with
/// [`PermissionDenied`](ErrorKind::PermissionDenied).
///
/// Errors name operation and path; the sandbox is the caller's to add
/// ([`Error::with_sandbox`]).
///
/// ```
/// use sandbox_core::{FileBatch, GuestPath, ListOptions, ReadOptions};
/// use sandbox_transfer::GuestTree;
/// # let dir = tempfile::tempdir()?;
/// let tree = GuestTree::create(dir.path())?;
/// let workdir = GuestPath::from("/workspace");
/// tree.write(&FileBatch::new().file("src/main.rs", "fn main() {}\n"), &workdir)?;
/// let path = GuestPath::from("src/main.rs").resolve(&workdir, sandbox_core::Operation::ReadFile)?;
/// assert_eq!(tree.read(&path, &ReadOptions::default())?, "fn main() {}\n");
/// assert_eq!(tree.list(&workdir, &ListOptions::new().recursive(true))?.len(), 2);
/// assert!(tree.root().join("workspace/src/main.rs").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GuestTree {
    root: PathBuf,
    /// Path at which the guest sees the root.
    seen_at: GuestPath,
    top: Dir,
    stage: Dir,
}

impl GuestTree {
    /// An empty tree in an existing, empty directory.
    ///
    /// # Errors
    /// What the host says, with its path.
    pub fn create(dir: &Path) -> Result<Self> {
        let host = |error: io::Error| Error::from_io(error, Operation::Create).with_host_path(dir);
        let full = std::path::absolute(dir).map_err(host)?;
        let opened = Dir::open(&full).map_err(host)?;
        let [root, stage] = ["root", "stage"].map(OsStr::new);
        opened.make_dir(root).map_err(host)?;
        opened.set_mode_of(root, PARENT).map_err(host)?;
        opened.make_dir(stage).map_err(host)?;
        Ok(Self {
            top: opened.open_dir(root).map_err(host)?,
            stage: opened.open_dir(stage).map_err(host)?,
            root: full.join(root),
            seen_at: GuestPath::root(),
        })
    }

    /// Sets where the guest sees the root, for one that has it at another place than `/`: a path
    /// that is not below it is [`NotFound`](ErrorKind::NotFound). Absolute links start at the
    /// tree's root all the same.
    #[must_use]
    pub fn seen_at(mut self, path: GuestPath) -> Self {
        self.seen_at = path;
        self
    }

    /// The directory of the host that is the guest's root, to be mounted for its commands.
    ///
    /// Do not look for a guest's path below it by name: a link can lead out.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a directory at a path, and if not, why.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`NotADirectory`](ErrorKind::NotADirectory).
    pub fn check_dir(&self, path: &GuestPath, operation: Operation) -> Result<()> {
        self.dir(path)
            .map(drop)
            .map_err(|error| at(error, operation, path))
    }

    /// Opens what is at a path, for its place only; a link at its end is followed.
    fn find(&self, path: &GuestPath) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// Opens the directory at a path.
    fn dir(&self, path: &GuestPath) -> io::Result<Dir> {
        let found = self.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Dir::from_fd(found))
    }

    fn open(&self, path: &GuestPath, flags: OFlags) -> io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = path.strip_prefix(&self.seen_at).ok_or(Errno::NOENT)?;
        let path = match path.as_bytes() {
            b"" => b".",
            path => path,
        };
        let mut found = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            let flags = flags | OFlags::CLOEXEC;
            found = openat2(self.top.fd(), path, flags, Mode::empty(), how);
            if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        Ok(found?)
    }

    /// Opens the directory above an entry, and gives the entry's name.
    fn parent(&self, path: &GuestPath, operation: Operation) -> Result<(Dir, OsString)> {
        let (above, name) = split(path, operation)?;
        let dir = self
            .dir(&above)
            .map_err(|error| at(error, operation, path))?;
        Ok((dir, name))
    }

    /// Opens a directory, which is made with those above it where they are missing. Gives the ones
    /// that were made, the outermost first.
    fn make_all(&self, path: &GuestPath, mode: u32) -> io::Result<(Dir, Vec<Made>)> {
        let mut missing = Vec::new();
        let mut above = path.clone();
        let mut dir = loop {
            match self.dir(&above) {
                Ok(dir) => break dir,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(error) => {
                    let (Some(parent), Some(name)) = (above.parent(), above.file_name()) else {
                        return Err(error);
                    };
                    missing.push(OsStr::from_bytes(name).to_owned());
                    above = parent;
                }
            }
        };
        let mut made = Vec::new();
        while let Some(name) = missing.pop() {
            let mode = if missing.is_empty() { mode } else { PARENT };
            match dir
                .make_dir(&name)
                .and_then(|()| dir.set_mode_of(&name, mode))
            {
                Ok(()) => made.push(Made {
                    dir: dir.try_clone()?,
                    name: name.clone(),
                }),
                // Made by another at the same time, unless it is a link that leads nowhere.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            dir = dir.open_dir(&name)?;
        }
        Ok((dir, made))
    }

    /// A name for a staged file that no other has.
    fn staged(&self) -> OsString {
        format!("{:016x}{:016x}", random(), random()).into()
    }
}

/// A directory that was made, to be taken back.
#[derive(Debug)]
struct Made {
    dir: Dir,
    name: OsString,
}

/// Taken from a transfer so that it ends early: [`Cancel::on_drop`] for one whose future is
/// dropped.
///
/// ```
/// use sandbox_transfer::Cancel;
/// let cancel = Cancel::new();
/// let guard = cancel.on_drop();
/// drop(guard);
/// assert!(cancel.is_set());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the transfers that have it, soon.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guard that sets it when it is dropped.
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    fn check(&self, operation: Operation) -> Result<()> {
        match self.is_set() {
            true => {
                Err(Error::new(ErrorKind::Other, operation).with_message("given up by the caller"))
            }
            false => Ok(()),
        }
    }
}

/// The guard of [`Cancel::on_drop`].
#[derive(Debug)]
#[must_use = "dropping it ends the transfer"]
pub struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The error of the host as one about the guest's path.
fn at(error: io::Error, operation: Operation, path: &GuestPath) -> Error {
    // A chain of links that does not end, or a link where none may be.
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return Error::new(ErrorKind::InvalidInput, operation)
            .with_message("links lead in a circle, or one is in the way")
            .with_path(path)
            .with_source(error);
    }
    Error::from_io(error, operation).with_path(path)
}

/// The directory above an entry and its name.
fn split(path: &GuestPath, operation: Operation) -> Result<(GuestPath, OsString)> {
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Ok((above, OsStr::from_bytes(name).to_owned())),
        _ => Err(Error::new(ErrorKind::InvalidInput, operation)
            .with_message("not possible for the root directory")
            .with_path(path)),
    }
}

/// The host's path of an open descriptor, whatever its name is by now.
fn own_path(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens for use what a descriptor was opened for the place of. It was seen to be a regular file.
fn reopen(file: &OwnedFd, flags: OFlags) -> io::Result<File> {
    // Without blocking, for a file whose lease the guest holds.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(openat(CWD, own_path(file), flags, Mode::empty())?.into())
}
