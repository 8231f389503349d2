//! Copies a layer that is still being written, for a fork of a sandbox that is busy.
//!
//! A layer is more than files: overlayfs records deletions as character devices 0:0 and opaque
//! directories as `user.overlay.*` attributes; both are carried over. The guest's processes are
//! stopped meanwhile. Must never follow a link: the guest wrote this tree.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::identity::Identity;
use crate::layers::lent::Lent;

/// Where the layer is that is copied.
pub(crate) enum From {
    /// On the host's disk.
    Path(PathBuf),
    /// In the sandbox's mount namespace, where only a descriptor leads; opened for reading.
    Opened(OwnedFd),
}

/// Copies everything in the directory `from` into the empty directory `to`.
pub(crate) fn layer(from: From, to: &Path, identity: Option<Identity>) -> io::Result<()> {
    let mut lent = Lent::new(identity);
    let from = match from {
        From::Path(path) => lent.open_top(&path)?,
        From::Opened(top) => lent.take_top(top)?,
    };
    let to = rustix::fs::open(to, DIR, Mode::empty())?;
    let mut copier = Copier {
        identity,
        links: HashMap::new(),
    };
    copier.directory(from.as_fd(), to.as_fd(), &mut lent)
}

pub(crate) const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Copier {
    identity: Option<Identity>,
    /// Files with several names: where the first copy is, by device and inode.
    links: HashMap<(u64, u64), CString>,
}

impl Copier {
    /// Walks with an explicit stack of paths relative to the tops, each resolved again without
    /// following links: a tree may be deeper than there are descriptors or stack.
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        lent: &mut Lent,
    ) -> io::Result<()> {
        self.attributes(from, to)?;
        let top = lent.true_stat(from)?;
        let mut stack = vec![Vec::new()];
        // Times are set last, deepest first: creating entries changes them.
        let mut done: Vec<(Vec<u8>, Stat)> = Vec::new();
        while let Some(path) = stack.pop() {
            let source = descend(from, &path)?;
            let target = descend(to, &path)?;
            for entry in Dir::read_from(&source)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_bytes() == b"." || name.to_bytes() == b".." {
                    continue;
                }
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.to_bytes());
                let stat = rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    rustix::fs::mkdirat(&target, name, Mode::RWXU)?;
                    let inner = lent.open_dir(0, &below, source.as_fd(), name, &stat)?;
                    let copy = rustix::fs::openat(&target, name, DIR, Mode::empty())?;
                    self.attributes(inner.as_fd(), copy.as_fd())?;
                    done.push((below.clone(), stat));
                    stack.push(below);
                } else {
                    let places = (source.as_fd(), to, target.as_fd());
                    self.entry(places, name, &below, &stat, lent)?;
                }
            }
        }
        for (path, stat) in done.iter().rev() {
            let copy = descend(to, path)?;
            self.finish(copy.as_fd(), stat)?;
        }
        self.finish(to, &top)
    }

    /// One entry that is no directory; the places are its directory, the top of the copy and the
    /// directory there.
    fn entry(
        &mut self,
        (source, top, target): (BorrowedFd<'_>, BorrowedFd<'_>, BorrowedFd<'_>),
        name: &CStr,
        path: &[u8],
        stat: &Stat,
        lent: &Lent,
    ) -> io::Result<()> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                rustix::fs::linkat(top, first, target, name, AtFlags::empty())?;
                return Ok(());
            }
            self.links.insert(key, CString::new(path)?);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let from = lent.file(source, name, stat)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
                if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                    content(from.as_fd(), to.as_fd(), stat.st_size as u64)?;
                }
                self.attributes(from.as_fd(), to.as_fd())?;
                self.finish(to.as_fd(), stat)
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(&*link, target, name)?;
                self.own(target, name)
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice) => {
                // The only device that a guest's layer can have is overlayfs's mark of a deletion.
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
                self.own(target, name)
            }
            // A socket without its process is nothing.
            _ => Ok(()),
        }
    }

    fn own(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let Some(identity) = self.identity else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        Ok(rustix::fs::chownat(
            dir,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Owner, then mode (a change of owner clears bits of it), then times.
    fn finish(&self, file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        if let Some(identity) = self.identity {
            let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let time = |seconds, nanoseconds: u64| rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as i64,
        };
        rustix::fs::futimens(
            file,
            &Timestamps {
                last_access: time(stat.st_atime, stat.st_atime_nsec),
                last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
            },
        )?;
        Ok(())
    }

    /// Copies extended attributes, overlayfs's own among them.
    fn attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        let mut names = vec![0u8; 64 << 10];
        let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut value = vec![0u8; 64 << 10];
        let ours =
            |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        for name in names[..length].split(|b| *b == 0).filter(ours) {
            let name = OsStr::from_bytes(name);
            let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
            rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// Gives a directory the attributes, owner, mode and times of another.
pub(crate) fn same_directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    lent: &Lent,
    identity: Option<Identity>,
) -> io::Result<()> {
    let copier = Copier {
        identity,
        links: HashMap::new(),
    };
    copier.attributes(from, to)?;
    copier.finish(to, &lent.true_stat(from)?)
}

/// Copies what a file holds and leaves its holes: a guest can make a file of any size for nothing,
/// and must not get the host to fill its disk with it.
fn content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        let mut reader = File::from(from.try_clone_to_owned()?);
        let mut writer = File::from(to.try_clone_to_owned()?);
        reader.seek(io::SeekFrom::Start(start))?;
        writer.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut reader.take(end - start), &mut writer)?;
        at = end;
    }
    Ok(())
}

/// Opens a directory below `top`, one component at a time so that any depth fits.
pub(crate) fn descend(top: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let mut at = rustix::fs::openat(top, c".", DIR, Mode::empty())?;
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        at = rustix::fs::openat(&at, part, DIR, Mode::empty())?;
    }
    Ok(at)
}
