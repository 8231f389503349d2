//! A frozen layer, packed into the archive of an image's layer.
//!
//! overlayfs's marks become those of the image specification: a device 0:0 becomes `.wh.NAME`, an
//! opaque directory has `.wh..wh..opq`. Holes stay holes, names of one file stay names of one file.
//! Must never pack overlayfs's own attributes, a device or a socket.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use sandbox_oci::{Blob, BlobWriter};
use sandbox_transfer::{PackEntry, PackKind, Packer};

use crate::guest_user::GuestUser;
use crate::layers::copy;
use crate::walk::{self, At, Cancel, Cursor, Limits, Stop, Visitor};

/// A file with a hole of this size or more is packed without it.
const HOLES: u64 = 1 << 20;

/// Limit of files with several names.
const LINKED: usize = 1 << 20;

/// Packs a layer into a blob.
///
/// # Errors
/// [`Stop::Limit`] for a tree beyond the limits.
pub(super) fn layer(
    layer: &Path,
    out: BlobWriter,
    guest_user: Option<GuestUser>,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Blob, Stop> {
    let mut source = copy::open_top(layer, guest_user)?;
    let mut visitor = Packing {
        packer: Packer::new(out, HOLES),
        path: Vec::new(),
        lengths: Vec::new(),
        links: HashMap::new(),
        names: 0,
        limits,
        open_up: guest_user.is_none(),
        cancel,
    };
    walk::walk(&mut source, limits, cancel, &mut visitor)?;
    Ok(visitor.packer.finish()?.finish()?)
}

struct Packing<'a> {
    packer: Packer<BlobWriter>,
    /// Path of the directory where the walk is, with a `/` at its end unless it is empty.
    path: Vec<u8>,
    /// Lengths of the paths above.
    lengths: Vec<usize>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Bytes of those.
    names: usize,
    limits: Limits,
    open_up: bool,
    cancel: &'a Cancel,
}

impl Visitor for Packing<'_> {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn enter(&mut self, cursor: &mut Cursor, name: Option<&[u8]>) -> Result<bool, Stop> {
        self.lengths.push(self.path.len());
        if let Some(name) = name {
            self.path.extend_from_slice(name);
            self.path.push(b'/');
        }
        let stat = cursor.stat()?;
        let (xattrs, is_opaque) = attributes(cursor.current()?)?;
        let top = b"./";
        let path: &[u8] = if self.path.is_empty() {
            top
        } else {
            &self.path
        };
        self.packer
            .add(entry(path, &stat, &xattrs, PackKind::Directory))?;
        if is_opaque {
            let path = [&self.path[..], b".wh..wh..opq"].concat();
            self.packer.add(entry(&path, &stat, &[], PackKind::Empty))?;
        }
        Ok(true)
    }

    fn leave(&mut self, _cursor: &mut Cursor) -> Result<(), Stop> {
        if let Some(length) = self.lengths.pop() {
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        self.cancel.check()?;
        let stat = match walk::stat_at(at.dir, at.name) {
            Err(Errno::NOENT) => return Err(Stop::Changed),
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return Ok(true);
        }
        let name = at.name.to_bytes();
        if name.starts_with(b".wh.") {
            // It would be taken for a deletion.
            tracing::warn!("a file whose name begins with .wh. is not in the snapshot");
            return Ok(false);
        }
        let path = [&self.path[..], name].concat();
        if stat.st_nlink > 1 && kind != FileType::CharacterDevice {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let kind = PackKind::HardLink(first);
                self.packer.add(entry(&path, &stat, &[], kind))?;
                return Ok(false);
            }
            self.names += path.len();
            if self.links.len() >= LINKED || self.names > self.limits.names {
                return Err(Stop::Limit {
                    what: "files with several names",
                    limit: LINKED as u64,
                });
            }
            self.links.insert(key, path.clone());
        }
        match kind {
            FileType::RegularFile => {
                let from = walk::open_file(at.dir, at.name, &stat, self.open_up)?;
                let (xattrs, _) = attributes(from.as_fd())?;
                let file = File::from(from.as_fd().try_clone_to_owned()?);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let kind = PackKind::File(&file, size);
                self.packer.add(entry(&path, &stat, &xattrs, kind))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at.dir, at.name, Vec::new())?;
                let kind = PackKind::Symlink(target.as_bytes());
                self.packer.add(entry(&path, &stat, &[], kind))?;
            }
            FileType::Fifo => {
                self.packer.add(entry(&path, &stat, &[], PackKind::Fifo))?;
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let path = [&self.path[..], b".wh.", name].concat();
                self.packer.add(entry(&path, &stat, &[], PackKind::Empty))?;
            }
            // A socket means nothing without its process, and a guest has no device.
            _ => {}
        }
        Ok(false)
    }
}

fn entry<'a>(
    path: &'a [u8],
    stat: &Stat,
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
    kind: PackKind<'a>,
) -> PackEntry<'a> {
    PackEntry {
        path,
        mode: stat.st_mode & 0o7777,
        modified: modified(stat),
        xattrs,
        kind,
    }
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs());
    match stat.st_mtime < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    }
}

/// A file's own attributes, and whether it is a directory that hides those below.
#[allow(clippy::type_complexity, reason = "pairs, and a flag")]
fn attributes(file: BorrowedFd<'_>) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, bool), Stop> {
    let mut names = [0_u8; 4096];
    let length = match rustix::fs::flistxattr(file, names.as_mut_slice()) {
        Ok(length) => length,
        // More than an image's filesystem would take.
        Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok((Vec::new(), false)),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    let mut is_opaque = false;
    for name in names.get(..length).unwrap_or_default().split(|b| *b == 0) {
        if !name.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(length);
        if name == b"user.overlay.opaque" {
            is_opaque = value == b"y";
        } else if !name.starts_with(b"user.overlay.") && std::str::from_utf8(name).is_ok() {
            found.push((name.to_vec(), value));
        }
    }
    Ok((found, is_opaque))
}
