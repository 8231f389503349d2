//! Merges frozen layers into one, so that chains of forks stay shallow.
//!
//! The merged layer means the same above any base as the layers did: deletions and opaque
//! directories stay marked. Files are hard links to those of the layers, so no content is copied;
//! the cost is one link per entry that was changed since the base. Frozen layers are never
//! written, which is what makes sharing their files safe. (Directories that the guest closed to
//! itself are opened for the moment; see `walk::Modes`. One merge at a time, so that none takes
//! such a mode for the guest's.)

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, XattrFlags};
use rustix::io::Errno;

use super::Layer;
use super::copy;
use crate::guest_user::GuestUser;
use crate::walk::{Cancel, Cursor, DIR_READ, Limits, Mounts, Names, Stop, stat_at};

const OPAQUE: &CStr = c"user.overlay.opaque";

/// Fills the empty layer `to` with what `layers` (topmost first) amount to.
///
/// # Errors
/// [`Stop::Limit`] for a tree beyond the limits.
pub(crate) fn merge(
    layers: &[Arc<Layer>],
    to: &Layer,
    guest_user: Option<GuestUser>,
    limits: Limits,
    cancel: &Cancel,
) -> Result<(), Stop> {
    let sources = layers.iter().map(|layer| {
        // Every layer has one, and descriptors are few.
        Ok(copy::open_top(layer.path(), guest_user)?.narrow())
    });
    let sources = sources.collect::<Result<Vec<_>, Stop>>()?;
    let flags = DIR_READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let out = rustix::fs::open(to.path(), flags, Mode::empty())?;
    Merge {
        sources,
        out: Cursor::new(out, DIR_READ, Mounts::StayOut),
        pending: Names::default(),
        levels: Vec::new(),
        entries: 0,
        guest_user,
        limits,
        cancel,
    }
    .run()
}

struct Merge<'a> {
    /// Each at the directory at work, if it takes part in it.
    sources: Vec<Cursor>,
    out: Cursor,
    /// Directories that wait for their turn.
    pending: Names,
    levels: Vec<Level>,
    entries: u64,
    guest_user: Option<GuestUser>,
    limits: Limits,
    cancel: &'a Cancel,
}

/// A directory that is being merged.
struct Level {
    /// The layers that have a part in it, topmost first.
    layers: Vec<usize>,
    /// Number of directories that waited when it was entered.
    waiting: usize,
}

impl Merge<'_> {
    fn run(mut self) -> Result<(), Stop> {
        let all = (0..self.sources.len()).collect();
        self.read(all)?;
        while let Some(level) = self.levels.last() {
            if self.pending.count() == level.waiting {
                self.leave()?;
            } else {
                let name = self.pending.pop();
                self.enter(&name)?;
            }
        }
        Ok(())
    }

    /// Goes into a directory, in each layer that has a part in it.
    fn enter(&mut self, name: &[u8]) -> Result<(), Stop> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let mut layers = Vec::new();
        let mut hides_what_is_below = false;
        for layer in &level.layers {
            let Some(source) = self.sources.get_mut(*layer) else {
                continue;
            };
            match source.push(name) {
                Ok(()) => layers.push(*layer),
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    hides_what_is_below = true;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
            if is_opaque(source.current()?)? {
                hides_what_is_below = true;
                break;
            }
        }
        self.limits.check_depth(self.levels.len())?;
        rustix::fs::mkdirat(self.out.current()?, name, Mode::RWXU)?;
        self.out.push(name)?;
        if hides_what_is_below {
            let made = self.out.current()?;
            rustix::fs::fsetxattr(made, OPAQUE, b"y", XattrFlags::empty())?;
        }
        self.read(layers)
    }

    /// Puts the entries of the directory at work in place, and notes the directories among them.
    fn read(&mut self, layers: Vec<usize>) -> Result<(), Stop> {
        self.levels.push(Level {
            layers: layers.clone(),
            waiting: self.pending.count(),
        });
        let mut buffer = Vec::with_capacity(32 << 10);
        for (index, layer) in layers.iter().enumerate() {
            let Some(source) = self.sources.get_mut(*layer) else {
                continue;
            };
            let dir = source.current()?.try_clone_to_owned()?;
            rustix::fs::seek(&dir, SeekFrom::Start(0))?;
            let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    let above = layers.get(..index).unwrap_or_default();
                    self.entry(dir.as_fd(), name, above)?;
                }
            }
        }
        Ok(())
    }

    /// Puts an entry of a layer in place, unless a layer above has one of its name.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, above: &[usize]) -> Result<(), Stop> {
        self.cancel.check()?;
        self.entries += 1;
        self.limits.check(self.entries)?;
        for layer in above {
            if let Some(source) = self.sources.get_mut(*layer) {
                match stat_at(source.current()?, name) {
                    Ok(_) => return Ok(()),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        let stat = stat_at(dir, name)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.pending.push(name.to_bytes(), self.limits.names)
        } else {
            let out = self.out.current()?;
            Ok(rustix::fs::linkat(dir, name, out, name, AtFlags::empty())?)
        }
    }

    /// Finishes a directory: filling it needs and changes its mode and times.
    fn leave(&mut self) -> Result<(), Stop> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        let top = level.layers.first();
        if let Some(top) = top.and_then(|layer| self.sources.get_mut(*layer)) {
            copy::same_directory(top, self.out.current()?, self.guest_user)?;
        }
        for layer in level.layers {
            if let Some(source) = self.sources.get_mut(layer) {
                source.pop();
            }
        }
        self.out.pop();
        Ok(())
    }
}

pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Stop> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE, value.as_mut_slice()) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
