//! State on the host's disk: one directory per provider, with a lease, layers and work
//! directories.
//!
//! ```text
//! STATE_DIR/base/            base layers that wait for the next provider, see `handed_on.rs`
//! STATE_DIR/p-<random>/     one provider in one host process
//! STATE_DIR/k-<id>/         one lasting sandbox, its forks with it
//!     lease                 flock'd for as long as a process uses it
//!     base                  its base layer, if that is handed on
//!     kept                  of a lasting sandbox: its record, see `lasting/record.rs`
//!     mnt/                  empty; every sandbox mounts its root here, in its own namespace
//!     outside/<kind>-<n>    what was made elsewhere: links to it, see `journal.rs`
//!     layers/<n>/           a layer: files of a sandbox, frozen or being written
//!     images/               empty; root's sandboxes mount the cache of images here
//!     work/<n>/             overlayfs's own, a fresh one for every mount
//! ```
//!
//! One lease covers all sandboxes of a provider: they live and die with its process, and layers are
//! shared between forks. A lasting sandbox has a directory and a lease of its own, so that another
//! process can take it up; without its record it is as dead as any other. Must never remove a
//! directory whose lease is held, nor a layer that a record names.

pub(crate) mod base;
mod collect;
pub(crate) mod compact;
pub(crate) mod copy;
pub(crate) mod difference;
mod found;
pub(crate) mod group;
mod guests;
mod handed_on;
mod janitor;
mod journal;
mod layer;
mod settings;
mod spare;
pub(crate) mod stack;

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use sandbox_core::backend::FileLock;

pub(crate) use collect::open_lease;
pub(crate) use guests::{Guest, translated};
pub(crate) use janitor::{Mark, Removed};
pub(crate) use journal::{Journal, Kind, Record};
pub(crate) use layer::{Layer, WorkDir};

use crate::guest_user::GuestUser;
use crate::random;
use guests::Guests;
use janitor::Janitor;
use spare::Spares;

/// The name of the lease in a provider's directory.
const LEASE: &CStr = c"lease";

/// The name of the journal's directory there.
const OUTSIDE: &str = "outside";

/// The name of the directory there on which the cache of images is mounted.
pub(crate) const IMAGES: &str = "images";

/// The directory of one provider. Dropping the last reference removes it, in the background.
#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    guest_user: Option<GuestUser>,
    next: AtomicU32,
    spares: Spares,
    /// Source of users for runs, as root.
    guests: Option<Guests>,
    janitor: Janitor,
    journal: Arc<Journal>,
    /// Names of the layers that stay when nothing uses them: those of the record of a lasting
    /// sandbox. While there is one, the directory stays too.
    kept: Mutex<Option<Vec<String>>>,
    /// The name of the base layer, if it is handed on when nothing uses it any more.
    base: OnceLock<String>,
    /// Held open until the directory is gone: the lock on it is the lease.
    lease: Option<FileLock>,
}

impl State {
    /// Makes the directory and starts collecting what dead processes left beside it.
    ///
    /// With a guest user (root only) the directory belongs to it, so that a sandbox's set-up, which
    /// runs as that guest_user, can reach its layers.
    pub(crate) fn create(root: &Path, guest_user: Option<GuestUser>) -> io::Result<Arc<Self>> {
        Self::create_as(root, &format!("p-{}", random::hex()?), guest_user)
    }

    /// Makes a directory of this name.
    pub(crate) fn create_as(
        root: &Path,
        name: &str,
        guest_user: Option<GuestUser>,
    ) -> io::Result<Arc<Self>> {
        prepare_root(root)?;
        spread(root);
        // Under another name until the lease is held: a collector must not take it for dead.
        let making = collect::making(root)?;
        let fresh = root.join(format!("new-{name}"));
        let dir = root.join(name);
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let lease = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(fresh.join("lease"))?;
        // New, and under a name that nothing looks for: the lock is free.
        let lease = FileLock::exclusive(lease)?;
        for sub in ["mnt", "layers", "work", IMAGES] {
            DirBuilder::new().mode(0o700).create(fresh.join(sub))?;
            guest_user.map_or(Ok(()), |guest_user| guest_user.own(&fresh.join(sub)))?;
        }
        for many in ["layers", "work"] {
            spread(&fresh.join(many));
        }
        Journal::make(&fresh.join(OUTSIDE))?;
        guest_user.map_or(Ok(()), |guest_user| guest_user.own(&fresh))?;
        fs::rename(&fresh, &dir)?;
        drop(making);
        // ext4 places a directory by its name: providers that all begin with the same ones would
        // all come to lie in the same groups. Half of all numbers are left to count up to.
        let mut start = [0; 4];
        rustix::rand::getrandom(&mut start, rustix::rand::GetRandomFlags::empty())?;
        let start = u32::from_ne_bytes(start) / 2;
        Self::of_dir(dir, lease, start, guest_user)
    }

    /// The state in a directory whose lease is held.
    fn of_dir(
        dir: PathBuf,
        lease: FileLock,
        start: u32,
        guest_user: Option<GuestUser>,
    ) -> io::Result<Arc<Self>> {
        let root = dir.parent().unwrap_or(&dir).to_owned();
        let janitor = Janitor::start(root, dir.clone())?;
        let guests = guest_user.map(|guest_user| Guests::new(&dir, guest_user));
        let journal = Arc::new(Journal::at(dir.join(OUTSIDE)));
        let state = Arc::new(Self {
            dir,
            guest_user,
            next: AtomicU32::new(start),
            spares: Spares::default(),
            guests,
            janitor,
            journal,
            kept: Mutex::default(),
            base: OnceLock::new(),
            lease: Some(lease),
        });
        state.janitor.prepare(Arc::downgrade(&state));
        Ok(state)
    }

    /// Takes up the directory of a lasting sandbox whose lease is held now, with the layers that its
    /// record names; what else is in it is removed in the background. Blocks.
    ///
    /// # Errors
    /// What the process before made elsewhere can't be removed, or a layer is missing.
    pub(crate) fn take_up(
        dir: PathBuf,
        lease: FileLock,
        layers: Vec<String>,
    ) -> io::Result<Arc<Self>> {
        journal::collect(&dir.join(OUTSIDE))?;
        // Of a process that was killed.
        handed_on::hand_on(&dir);
        let guest_user = match rustix::process::geteuid().is_root() {
            true => Some(GuestUser::owner_of(&dir)?),
            false => None,
        };
        for layer in &layers {
            if !fs::symlink_metadata(dir.join("layers").join(layer))?.is_dir() {
                let message = format!("its layer {layer} is not a directory");
                return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
            }
        }
        let mut left = Vec::new();
        let mut last: u32 = 0;
        for many in ["layers", "work"] {
            for entry in fs::read_dir(dir.join(many))? {
                let entry = entry?;
                let name = entry.file_name().into_string().unwrap_or_default();
                last = last.max(name.parse().unwrap_or(0));
                if many == "work" || !layers.contains(&name) {
                    left.push(entry.path());
                }
            }
        }
        let state = Self::of_dir(dir, lease, last.wrapping_add(1), guest_user)?;
        *state.kept() = Some(layers);
        for path in left {
            state.janitor.remove(path);
        }
        Ok(state)
    }

    /// The user to which the directory belongs, as root.
    pub(crate) fn owner(&self) -> Option<GuestUser> {
        self.guest_user
    }

    /// Directory of this state.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of the layers that stay, held: nothing is removed meanwhile.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Option<Vec<String>>> {
        // It is replaced whole: a panic elsewhere leaves it valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a layer that nothing uses any more, unless it is kept.
    fn remove_layer(&self, name: &str, path: &Path) {
        let kept = self.kept();
        let stays = |kept: &Vec<String>| kept.iter().any(|kept| kept == name);
        if kept.as_ref().is_some_and(stays) {
            return;
        }
        if self.base.get().is_some_and(|base| base == name) {
            self.janitor.hand_on(self.dir.clone());
        }
        self.janitor.remove(path.to_owned());
    }

    /// Whether no process of a guest runs as the owner of the layers.
    fn is_closed_to_guests(&self) -> bool {
        self.guests.as_ref().is_none_or(Guests::translates)
    }

    /// The directory of the layers; overlay mounts name them relative to it.
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// Gives the next run of a sandbox its user; as an ordinary user, `None`: it is that user.
    pub(crate) fn guest(&self) -> io::Result<Option<Guest>> {
        self.guests
            .as_ref()
            .map(|guests| guests.next(&self.dir))
            .transpose()
    }

    /// Makes the cache of images part of what is made ahead of time for the users of later runs.
    pub(crate) fn show_images(&self, dir: &Path, owner: (u32, u32)) {
        if let Some(guests) = &self.guests {
            guests.show_images(dir, owner);
        }
    }

    /// Returns the place where every user can reach this directory: the state directory.
    pub(crate) fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Journal of what is made outside of this directory.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// A moment to wait from with [`Layer::settled`].
    pub(crate) fn mark(&self) -> Mark {
        self.janitor.mark()
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let lease = self.lease.take();
        if self.kept().is_some() {
            return self.janitor.release(lease);
        }
        self.janitor.remove_last(self.dir.clone(), lease);
    }
}

/// Creates the state directory, or checks that no other user could have put it there.
fn prepare_root(root: &Path) -> io::Result<()> {
    let euid = rustix::process::geteuid();
    // As root, sandboxes run as other users who have to get through.
    let mode = if euid.is_root() { 0o711 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(root)?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(root)?;
    let why = if !found.is_dir() {
        "it is not a directory (a link is not followed)".to_owned()
    } else if found.uid() != euid.as_raw() {
        format!("it belongs to user {}, this process to {euid}", found.uid())
    } else if found.mode() & 0o022 != 0 {
        "it may be written by others than its owner; take that away with `chmod go-w`".to_owned()
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Asks the filesystem to put the directories made in this one apart from each other (`chattr +T`,
/// ext2/3/4 only; others refuse).
///
/// ext4 puts a directory's files into the block group of its parent, and looking for a free inode
/// there it passes each that was freed in the last minutes. All sandboxes in one group would make a
/// new file cost a millisecond, instead of 20 µs, after one of them with some thousand was closed.
fn spread(dir: &Path) {
    let Ok(dir) = File::open(dir) else { return };
    if let Ok(flags) = ioctl_getflags(&dir) {
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}
