//! Merges frozen layers into one, so that chains of forks stay shallow.
//!
//! The merged layer means the same above any base as the layers did: deletions and opaque
//! directories stay marked. Files are hard links to those of the layers, so no content is copied;
//! the cost is one link per entry that was changed since the base. Frozen layers are never
//! written, which is what makes sharing their files safe. (Directories that the guest closed to
//! itself are opened for the moment; see `lent.rs`. One merge at a time, so that none takes what
//! another lent for the truth.)

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;

use crate::identity::Identity;
use crate::layers::Layer;
use crate::layers::copy;
use crate::layers::lent::Lent;

const OPAQUE: &CStr = c"user.overlay.opaque";

/// Fills the empty layer `to` with what `layers` (topmost first) amount to.
pub(crate) fn merge(
    layers: &[std::sync::Arc<Layer>],
    to: &Layer,
    identity: Option<Identity>,
) -> io::Result<()> {
    let mut lent = Lent::new(identity);
    let tops = layers.iter().map(|layer| lent.open_top(layer.path()));
    let tops = tops.collect::<Result<Vec<_>, _>>()?;
    let out = rustix::fs::open(to.path(), copy::DIR, Mode::empty())?;
    Merge {
        tops: &tops,
        out: out.as_fd(),
        lent,
        identity,
    }
    .run()?;
    Ok(())
}

struct Merge<'a> {
    tops: &'a [OwnedFd],
    out: BorrowedFd<'a>,
    lent: Lent,
    identity: Option<Identity>,
}

/// A directory still to be merged: its path, and the layers (by index) that take part in it.
struct Pending {
    path: Vec<u8>,
    layers: Vec<usize>,
}

impl Merge<'_> {
    /// An explicit stack of relative paths: a tree may be deeper than there are descriptors.
    fn run(mut self) -> io::Result<()> {
        let mut stack = vec![Pending {
            path: Vec::new(),
            layers: (0..self.tops.len()).collect(),
        }];
        let mut directories: Vec<(Vec<u8>, usize)> = Vec::new();
        while let Some(pending) = stack.pop() {
            let out = copy::descend(self.out, &pending.path)?;
            let mut sources = Vec::with_capacity(pending.layers.len());
            for layer in &pending.layers {
                sources.push((
                    *layer,
                    copy::descend(self.tops[*layer].as_fd(), &pending.path)?,
                ));
            }
            for name in names(&sources)? {
                if let Some((below, top)) = self.name(&pending, &sources, out.as_fd(), &name)? {
                    directories.push((below.path.clone(), top));
                    stack.push(below);
                }
            }
        }
        // Modes and times last, deepest first: filling a directory needs and changes them.
        for (path, top) in directories.iter().rev() {
            let from = copy::descend(self.tops[*top].as_fd(), path)?;
            let to = copy::descend(self.out, path)?;
            copy::same_directory(from.as_fd(), to.as_fd(), &self.lent, self.identity)?;
        }
        match self.tops.first() {
            Some(top) => copy::same_directory(top.as_fd(), self.out, &self.lent, self.identity),
            None => Ok(()),
        }
    }

    /// Puts one name in place; gives a directory back to be merged, with its topmost layer.
    fn name(
        &mut self,
        pending: &Pending,
        sources: &[(usize, OwnedFd)],
        out: BorrowedFd<'_>,
        name: &CString,
    ) -> io::Result<Option<(Pending, usize)>> {
        let mut path = pending.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let mut taking_part = Vec::new();
        let mut hides_what_is_below = false;
        for (layer, dir) in sources {
            let Some(stat) = stat(dir.as_fd(), name)? else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if taking_part.is_empty() {
                    rustix::fs::linkat(dir, name, out, name, AtFlags::empty())?;
                    return Ok(None);
                }
                hides_what_is_below = true;
                break;
            }
            taking_part.push(*layer);
            let found = self
                .lent
                .open_dir(*layer, &path, dir.as_fd(), name, &stat)?;
            if is_opaque(found.as_fd())? {
                hides_what_is_below = true;
                break;
            }
        }
        let Some(top) = taking_part.first().copied() else {
            return Ok(None);
        };
        rustix::fs::mkdirat(out, name, Mode::RWXU)?;
        if hides_what_is_below {
            let made = rustix::fs::openat(out, name, copy::DIR, Mode::empty())?;
            rustix::fs::fsetxattr(&made, OPAQUE, b"y", XattrFlags::empty())?;
        }
        Ok(Some((
            Pending {
                path,
                layers: taking_part,
            },
            top,
        )))
    }
}

fn names(sources: &[(usize, OwnedFd)]) -> io::Result<BTreeSet<CString>> {
    let mut names = BTreeSet::new();
    for (_, dir) in sources {
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_owned();
            if name.to_bytes() != b"." && name.to_bytes() != b".." {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

fn stat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE, value.as_mut_slice()) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
