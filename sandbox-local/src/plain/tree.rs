//! The directory that a plain sandbox lives in, and the way from guest paths to host paths.
//!
//! A guest path *is* a host path here, confined to the sandbox's directory. The confinement is
//! against mistakes: it looks before it acts, so that a hostile process can race it. It must never
//! be taken for a security boundary.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};
use tempfile::TempDir;

use super::os;

/// A sandbox's directory: `root/{workspace,home,tmp}` and, beside the root, a staging place.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Removed by [`Tree::remove`]; dropping it removes what is left.
    dir: TempDir,
    root: PathBuf,
    stage: PathBuf,
    guest_root: GuestPath,
    staged: AtomicU64,
}

/// A resolved path: as the guest says it and where it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) guest: GuestPath,
    pub(super) host: PathBuf,
}

impl Tree {
    /// A fresh directory below `base`, with nothing in its root.
    pub(crate) fn empty(prefix: &str, base: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(base)?;
        let canonical = os::canonical(dir.path())?;
        let (root, stage) = (canonical.join("root"), canonical.join("stage"));
        std::fs::create_dir(&root)?;
        std::fs::create_dir(&stage)?;
        Ok(Self {
            guest_root: guest_path(&root),
            dir,
            root,
            stage,
            staged: AtomicU64::new(0),
        })
    }

    /// A fresh directory below `base` with the usual subdirectories.
    pub(crate) fn create(prefix: &str, base: &Path) -> io::Result<Self> {
        let tree = Self::empty(prefix, base)?;
        for name in ["workspace", "home", "tmp"] {
            std::fs::create_dir(tree.root.join(name))?;
        }
        Ok(tree)
    }

    /// The name that tells this directory from others.
    pub(crate) fn id(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        name.trim_start_matches("sandbox-").to_owned()
    }

    /// The directory that the root and the staging place are in.
    #[cfg(target_os = "linux")]
    pub(crate) fn dir(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// The guest's root on the host.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The guest's root as the guest says it.
    pub(crate) fn guest_root(&self) -> &GuestPath {
        &self.guest_root
    }

    /// A name that nothing has yet, on the same filesystem as the root.
    pub(super) fn stage(&self) -> PathBuf {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        self.stage.join(number.to_string())
    }

    /// Finds the place of a path. Its parents are followed through links and must stay in the
    /// sandbox; it itself is not looked at.
    pub(super) fn place(
        &self,
        path: &GuestPath,
        workdir: &GuestPath,
        op: Operation,
    ) -> Result<Place> {
        let place = self.lexical(path.resolve(workdir, op)?, op)?;
        if place.host != self.root {
            let mut parent = place.host.parent();
            while let Some(existing) = parent {
                match os::canonical(existing) {
                    Ok(real) if real.starts_with(&self.root) => break,
                    Ok(_) => return Err(outside(op, &place.guest)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => parent = existing.parent(),
                    Err(e) => return Err(failed(e, op, &place.guest)),
                }
            }
        }
        Ok(place)
    }

    /// Finds the place of a path after following every link, which must stay in the sandbox.
    pub(super) fn follow(
        &self,
        path: &GuestPath,
        workdir: &GuestPath,
        op: Operation,
    ) -> Result<Place> {
        let mut place = self.lexical(path.resolve(workdir, op)?, op)?;
        let real = os::canonical(&place.host).map_err(|e| failed(e, op, &place.guest))?;
        if !real.starts_with(&self.root) {
            return Err(outside(op, &place.guest));
        }
        place.host = real;
        Ok(place)
    }

    /// The host path of a resolved guest path.
    pub(super) fn lexical(&self, guest: GuestPath, op: Operation) -> Result<Place> {
        let Some(below) = guest.strip_prefix(&self.guest_root) else {
            return Err(outside(op, &guest));
        };
        let mut host = self.root.clone();
        for part in below.components() {
            let Some(name) = os::name(part) else {
                return Err(Error::new(ErrorKind::InvalidInput, op)
                    .with_message("the host cannot have this name")
                    .with_path(guest));
            };
            host.push(name);
        }
        Ok(Place { guest, host })
    }

    /// Removes everything, whatever modes the guest has left.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_tree(self.dir.path())
    }
}

/// A host path as the guest says it: with slashes, and one in front.
pub(super) fn guest_path(host: &Path) -> GuestPath {
    let mut bytes = os::bytes(host.as_os_str());
    if cfg!(windows) {
        for byte in &mut bytes {
            if *byte == b'\\' {
                *byte = b'/';
            }
        }
        bytes.insert(0, b'/');
    }
    GuestPath::new(bytes)
}

/// An I/O error on a path of the guest.
pub(super) fn failed(error: io::Error, op: Operation, path: &GuestPath) -> Error {
    Error::from_io(error, op).with_path(path)
}

fn outside(op: Operation, path: &GuestPath) -> Error {
    Error::new(ErrorKind::PermissionDenied, op)
        .with_message("the path is outside of the sandbox's directory")
        .with_path(path)
        .with_hint("use paths relative to the workdir, or below the sandbox's root")
}

/// Removes a directory tree, also one with directories that may not be entered. `Ok` if it is gone
/// already.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            unlock(path);
            match std::fs::remove_dir_all(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        }
        Ok(()) => Ok(()),
    }
}

/// Lets the owner into every directory below. What fails here fails again in the removal.
fn unlock(path: &Path) {
    let _ = os::set_mode(path, sandbox_core::Mode::new(0o700));
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}
