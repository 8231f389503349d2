//! Copies a layer that is still being written, for a fork of a sandbox that is busy.
//!
//! A layer is more than files: overlayfs records deletions as character devices 0:0 and opaque
//! directories as `user.overlay.*` attributes; both are carried over. The guest's processes are
//! stopped meanwhile, which their list shows afterwards; should they run all the same, the copy is
//! of no use, but harms nothing.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::guest_user::GuestUser;
use crate::walk::{self, At, Cancel, Cursor, DIR_READ, Limits, Modes, Mounts, Stop, Visitor};

/// Source of the layer that is copied.
pub(crate) enum From {
    /// On the host's disk.
    Path(PathBuf),
    /// In the sandbox's mount namespace, where only a descriptor leads; opened for reading.
    Opened(OwnedFd),
}

/// Bytes of a file that are copied before the next look at whether the copy is still wanted.
const CHUNK: u64 = 16 << 20;

/// Limit of files with several names that are remembered before all of their names were met.
const LINKED: usize = 1 << 20;

/// Opens the top of a layer.
pub(crate) fn open_top(path: &Path, guest_user: Option<GuestUser>) -> Result<Cursor, Stop> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(Cursor::layer(&top, modes(guest_user))?)
}

/// Opens the top of a layer that may be on disk or not.
pub(crate) fn open(from: &From, guest_user: Option<GuestUser>) -> Result<Cursor, Stop> {
    match from {
        From::Path(path) => open_top(path, guest_user),
        From::Opened(top) => Ok(Cursor::layer(top, modes(guest_user))?),
    }
}

/// Root needs no rights on what a guest has closed to itself.
fn modes(guest_user: Option<GuestUser>) -> Modes {
    match guest_user {
        Some(_) => Modes::Keep,
        None => Modes::Guard,
    }
}

/// Copies everything in the directory `from` into the empty layer `to`.
///
/// # Errors
/// [`Stop::Changed`] if something moved meanwhile, [`Stop::Limit`] for a tree beyond the limits.
pub(crate) fn layer(
    from: &From,
    to: &Path,
    guest_user: Option<GuestUser>,
    limits: Limits,
    cancel: &Cancel,
) -> Result<(), Stop> {
    let mut source = open(from, guest_user)?;
    let target = rustix::fs::open(to, DIR_READ | OFlags::CLOEXEC, Mode::empty())?;
    let mut copier = Copier {
        guest_user,
        open_up: modes(guest_user) == Modes::Guard,
        target: Cursor::new(target, DIR_READ, Mounts::StayOut),
        stats: Vec::new(),
        links: Links::beside(to),
        attributes: Attributes::default(),
        cancel,
    };
    walk::walk(&mut source, limits, cancel, &mut copier)
}

struct Copier<'a> {
    guest_user: Option<GuestUser>,
    open_up: bool,
    /// At the copy of the directory where the walk is.
    target: Cursor,
    /// Metadata of the directories that the walk is in, from the top.
    stats: Vec<Stat>,
    links: Links,
    attributes: Attributes,
    cancel: &'a Cancel,
}

impl Visitor for Copier<'_> {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn enter(&mut self, source: &mut Cursor, name: Option<&[u8]>) -> Result<bool, Stop> {
        if let Some(name) = name {
            rustix::fs::mkdirat(self.target.current()?, name, Mode::RWXU)?;
            self.target.push(name)?;
        }
        self.stats.push(source.stat()?);
        let copy = self.target.current()?;
        self.attributes.copy(source.current()?, copy)?;
        Ok(true)
    }

    /// The copy of a directory is finished when it is full: creating entries changes its times.
    fn leave(&mut self, _source: &mut Cursor) -> Result<(), Stop> {
        if let Some(stat) = self.stats.pop() {
            finish(self.target.current()?, &stat, self.guest_user)?;
        }
        self.target.pop();
        Ok(())
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        let stat = match walk::stat_at(at.dir, at.name) {
            Err(Errno::NOENT) => return Err(Stop::Changed),
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            let copy = self.target.current()?;
            if self.links.link(&stat, copy, at.name)? {
                return Ok(false);
            }
        }
        self.single(at, &stat)?;
        if stat.st_nlink > 1 {
            let copy = self.target.current()?;
            self.links.remember(&stat, copy, at.name)?;
        }
        Ok(false)
    }
}

impl Copier<'_> {
    /// Copies an entry other than a directory.
    fn single(&mut self, at: &At<'_>, stat: &Stat) -> Result<(), Stop> {
        let target = self.target.current()?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let from = walk::open_file(at.dir, at.name, stat, self.open_up)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let to = rustix::fs::openat(target, at.name, flags, mode)?;
                if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                    content(from.as_fd(), to.as_fd(), stat.st_size as u64, self.cancel)?;
                }
                self.attributes.copy(from.as_fd(), to.as_fd())?;
                finish(to.as_fd(), stat, self.guest_user)?;
            }
            FileType::Symlink => {
                let link = match rustix::fs::readlinkat(at.dir, at.name, Vec::new()) {
                    Err(Errno::INVAL | Errno::NOENT) => return Err(Stop::Changed),
                    link => link?,
                };
                rustix::fs::symlinkat(&*link, target, at.name)?;
                own(target, at.name, self.guest_user)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice) => {
                // The only device that a guest's layer can have is overlayfs's mark of a deletion.
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(target, at.name, kind, mode, stat.st_rdev)?;
                own(target, at.name, self.guest_user)?;
            }
            // A socket means nothing without its process.
            _ => {}
        }
        Ok(())
    }
}

/// Copies of files that have several names, each under a number in a directory beside the copy:
/// by the path of its first name one might be too deep for the kernel to find.
struct Links {
    path: PathBuf,
    dir: Option<OwnedFd>,
    known: HashMap<(u64, u64), Known>,
    next: u64,
}

struct Known {
    number: u64,
    /// Number of its names that were not met yet.
    left: u64,
}

impl Links {
    fn beside(copy: &Path) -> Self {
        let mut path = copy.as_os_str().to_owned();
        path.push("-links");
        Self {
            path: path.into(),
            dir: None,
            known: HashMap::new(),
            next: 0,
        }
    }

    fn dir(&mut self) -> Result<BorrowedFd<'_>, Stop> {
        if self.dir.is_none() {
            std::fs::create_dir(&self.path)?;
            let flags = DIR_READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.dir = Some(rustix::fs::open(&self.path, flags, Mode::empty())?);
        }
        match &self.dir {
            Some(dir) => Ok(dir.as_fd()),
            None => Err(Errno::BADF.into()),
        }
    }

    /// Gives the copy of a file another name, if there is a copy that can have one more.
    fn link(&mut self, stat: &Stat, target: BorrowedFd<'_>, name: &CStr) -> Result<bool, Stop> {
        let key = (stat.st_dev, stat.st_ino);
        let Some(known) = self.known.get_mut(&key) else {
            return Ok(false);
        };
        known.left = known.left.saturating_sub(1);
        let (number, last) = (known.number.to_string(), known.left == 0);
        let dir = self.dir()?;
        let linked = rustix::fs::linkat(dir, &*number, target, name, AtFlags::empty());
        if last || linked.is_err() {
            rustix::fs::unlinkat(dir, &*number, AtFlags::empty())?;
            self.known.remove(&key);
        }
        match linked {
            // More names than this filesystem gives a file: another copy takes the rest.
            Err(Errno::MLINK) => Ok(false),
            linked => Ok(linked.map(|()| true)?),
        }
    }

    /// Keeps the copy of a file for its other names.
    fn remember(&mut self, stat: &Stat, target: BorrowedFd<'_>, name: &CStr) -> Result<(), Stop> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
            return Ok(());
        }
        if self.known.len() >= LINKED {
            return Err(Stop::Limit {
                what: "files with several names",
                limit: LINKED as u64,
            });
        }
        let number = self.next;
        self.next += 1;
        let staged = number.to_string();
        rustix::fs::linkat(target, name, self.dir()?, &*staged, AtFlags::empty())?;
        #[allow(
            clippy::useless_conversion,
            reason = "it has 32 bits on other architectures"
        )]
        let left = u64::from(stat.st_nlink).saturating_sub(1);
        let key = (stat.st_dev, stat.st_ino);
        self.known.insert(key, Known { number, left });
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        for known in self.known.values() {
            let _ = rustix::fs::unlinkat(&dir, known.number.to_string(), AtFlags::empty());
        }
        // What stays is removed with the provider's directory.
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn own(dir: BorrowedFd<'_>, name: &CStr, guest_user: Option<GuestUser>) -> Result<(), Stop> {
    let Some(guest_user) = guest_user else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(guest_user.uid), Gid::from_raw(guest_user.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?)
}

/// Owner, then mode (a change of owner clears bits of it), then times.
fn finish(file: BorrowedFd<'_>, stat: &Stat, guest_user: Option<GuestUser>) -> Result<(), Stop> {
    if let Some(guest_user) = guest_user {
        let (uid, gid) = (Uid::from_raw(guest_user.uid), Gid::from_raw(guest_user.gid));
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
struct Attributes {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Attributes {
    fn default() -> Self {
        // The most that the kernel gives of either.
        Self {
            names: vec![0; 64 << 10],
            value: vec![0; 64 << 10],
        }
    }
}

impl Attributes {
    fn copy(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Stop> {
        let Self { names, value } = self;
        let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let ours =
            |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        let names = names.get(..length).unwrap_or_default();
        for name in names.split(|b| *b == 0).filter(ours) {
            let name = OsStr::from_bytes(name);
            let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
            let value = value.get(..length).unwrap_or_default();
            rustix::fs::fsetxattr(to, name, value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// Gives a directory the attributes, owner, mode and times of the one where a walk is.
pub(crate) fn same_directory(
    from: &mut Cursor,
    to: BorrowedFd<'_>,
    guest_user: Option<GuestUser>,
) -> Result<(), Stop> {
    let stat = from.stat()?;
    Attributes::default().copy(from.current()?, to)?;
    finish(to, &stat, guest_user)
}

/// Copies what a file holds and leaves its holes: a guest can make a file of any size for nothing,
/// and must not get the host to fill its disk with it.
fn content(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    cancel: &Cancel,
) -> Result<(), Stop> {
    rustix::fs::ftruncate(to, size)?;
    let mut reader = File::from(from.try_clone_to_owned()?);
    let mut writer = File::from(to.try_clone_to_owned()?);
    let mut at = 0;
    while at < size {
        cancel.check()?;
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        let end = end.min(start.saturating_add(CHUNK));
        if end <= start {
            break;
        }
        reader.seek(io::SeekFrom::Start(start))?;
        writer.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut (&mut reader).take(end - start), &mut writer)?;
        at = end;
    }
    Ok(())
}
