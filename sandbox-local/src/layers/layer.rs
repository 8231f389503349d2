//! One directory of files in an overlay: being written by one sandbox, or frozen and shared.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sandbox_oci::CachedLayer;

use super::{IMAGES, Mark, Removed, State};
use crate::guest_user::GuestUser;
use crate::walk::{self, At, Cancel, Cursor, Limits, Modes, Stop, Visitor};

/// A layer on disk. Dropping the last reference removes it, in the background.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    path: PathBuf,
    state: Arc<State>,
    /// Asked for only when nothing is written any more.
    small: OnceLock<bool>,
    /// Layer of an image that it is a link to: held in use.
    cached: Option<Arc<CachedLayer>>,
}

/// Names of a layer and of its first work directory, made in advance: directories that exist, are empty
/// and belong to the guest.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) layer: String,
    pub(super) work: String,
}

/// The most entries of a small layer.
const SMALL: u64 = 1024;

impl Layer {
    /// An empty layer that the guest may write.
    pub(crate) fn create(state: &Arc<State>) -> io::Result<Arc<Self>> {
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        make(&path, 0o755, state.guest_user)?;
        Ok(Arc::new(Self {
            name,
            path,
            state: state.clone(),
            small: OnceLock::new(),
            cached: None,
        }))
    }

    /// A layer that is there already: one that was kept.
    pub(crate) fn kept(state: &Arc<State>, name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            path: state.layers_dir().join(name),
            state: state.clone(),
            small: OnceLock::new(),
            cached: None,
        })
    }

    /// Directories that were made in advance.
    pub(super) fn of_pair(state: &Arc<State>, pair: Pair) -> (Arc<Self>, WorkDir) {
        let layers = state.layers_dir();
        let work = WorkDir {
            path: layers.join(&pair.work),
            relative: pair.work,
            state: state.clone(),
        };
        let layer = Self {
            path: layers.join(&pair.layer),
            name: pair.layer,
            state: state.clone(),
            small: OnceLock::new(),
            cached: None,
        };
        (Arc::new(layer), work)
    }

    /// Sets the mode of its top.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }

    /// A layer that is a directory of the host, only read: a link to it. The directory itself
    /// stays when the layer goes.
    pub(crate) fn link(state: &Arc<State>, host: &Path) -> io::Result<Arc<Self>> {
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        std::os::unix::fs::symlink(host, &path)?;
        Ok(Arc::new(Self {
            name,
            path,
            state: state.clone(),
            small: OnceLock::new(),
            cached: None,
        }))
    }

    /// A layer of an image in the cache, only read: a link to it. For root the link leads to where a
    /// sandbox mounts the cache, and nowhere on the host.
    pub(crate) fn cached(
        state: &Arc<State>,
        cached: Arc<CachedLayer>,
        guest_user: Option<GuestUser>,
    ) -> io::Result<Arc<Self>> {
        let place = match guest_user {
            None => std::path::absolute(&cached.root)?,
            Some(_) => Path::new("..")
                .join(IMAGES)
                .join(cached.chain.hex())
                .join("root"),
        };
        let name = state.number().to_string();
        let path = state.layers_dir().join(&name);
        std::os::unix::fs::symlink(place, &path)?;
        Ok(Arc::new(Self {
            name,
            path,
            state: state.clone(),
            small: OnceLock::new(),
            cached: Some(cached),
        }))
    }

    /// Name relative to the layers' directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Path on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Path by which the host finds the layer's files: the link to one of an image leads nowhere for it
    /// where each guest has a user of its own.
    pub(crate) fn on_host(&self, guest_user: Option<GuestUser>) -> &Path {
        match (&self.cached, guest_user) {
            (Some(cached), Some(_)) => &cached.root,
            _ => &self.path,
        }
    }

    /// Whether this frozen layer has only a few entries. What can't be looked into counts as empty.
    pub(crate) fn is_small(&self) -> bool {
        *self.small.get_or_init(|| few_below(&self.path))
    }

    /// Room on disk of the files in it, in bytes.
    pub(crate) fn bytes(&self, limits: Limits, cancel: &Cancel) -> Result<u64, Stop> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let mut cursor = Cursor::layer(&top, Modes::Keep)?;
        let mut size = Size(0);
        walk::walk(&mut cursor, limits, cancel, &mut size)?;
        Ok(size.0)
    }

    /// Resolves when everything that was given up since then is removed.
    pub(crate) fn settled(state: &Arc<State>, since: Mark) -> Removed {
        state.janitor.settled(since)
    }
}

/// Whether there are few entries in a directory and all below it.
fn few_below(top: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let limits = Limits {
        entries: SMALL,
        ..Limits::DEFAULT
    };
    let top = rustix::fs::open(top, flags, Mode::empty());
    let counted = top
        .and_then(|top| Cursor::layer(&top, Modes::Keep))
        .map_err(Stop::from)
        .and_then(|mut cursor| walk::walk(&mut cursor, limits, &Cancel::default(), &mut Count));
    !matches!(counted, Err(Stop::Limit { .. }))
}

/// Sums the room of files.
struct Size(u64);

impl Visitor for Size {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        const BLOCK: u64 = 512; // st_blocks counts in this.
        let stat = match walk::stat_at(at.dir, at.name) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(true);
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.0 = self.0.saturating_add(blocks.saturating_mul(BLOCK));
        Ok(false)
    }

    fn closed(&mut self, _cursor: &Cursor, _name: &[u8], _errno: Errno) -> Result<(), Stop> {
        Ok(())
    }
}

/// Only lets the walk count.
struct Count;

impl Visitor for Count {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        let stat = walk::stat_at(at.dir, at.name)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn closed(&mut self, _cursor: &Cursor, _name: &[u8], _errno: Errno) -> Result<(), Stop> {
        Ok(())
    }
}

/// Makes a directory of this mode, whatever the process's mask, that belongs to the guest.
pub(super) fn make(path: &Path, mode: u32, guest_user: Option<GuestUser>) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    guest_user.map_or(Ok(()), |guest_user| guest_user.own(path))
}

/// A work directory of one mount; overlayfs refuses one that was used by a volatile mount. Dropping
/// it removes it, in the background.
#[derive(Debug)]
pub(crate) struct WorkDir {
    relative: String,
    path: PathBuf,
    state: Arc<State>,
}

impl WorkDir {
    /// Path relative to the layers' directory.
    pub(crate) fn relative(&self) -> &str {
        &self.relative
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        self.state.janitor.remove(self.path.clone());
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.state.remove_layer(&self.name, &self.path);
    }
}
