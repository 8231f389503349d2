//! A layer's archive, put into a directory that overlayfs can stack on those below it.
//!
//! What an archive means depends on what is below: a path may lead through a link of a lower layer,
//! and a hard link name a file of one. So names are resolved in the merged tree, and what they lead
//! through is made in this layer as overlayfs would copy it up. Deletions become character devices
//! 0:0, and directories that hide those below get an attribute; both are what a mount with
//! `userxattr` reads, and an ordinary user may make them.
//!
//! Must never let the kernel follow a link, make a device, or set an attribute that the kernel gives
//! a meaning.
//!
//! References: OCI image specification, "Image Layer Filesystem Changeset";
//! Documentation/filesystems/overlayfs.rst.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, FileKind, GuestPath, Result};
use sandbox_transfer::sparse::{self, CopyError};
use sandbox_transfer::{ArchiveEntry, ArchiveKind, read_layer, since_epoch};

use crate::fault::{self, ImageFault, malformed};
use crate::image::Limits;
use crate::merged::{
    DIR, Links, Merged, OPAQUE, follow, is_dir, is_whiteout, proc_path, split, stat_at,
};

/// The longest path of an entry, in bytes, as in the kernel.
const PATH: usize = 4096;

/// The most directories one below the other, links followed.
const DEPTH: usize = 2048;

/// Attribute that keeps an owner which an ordinary user can't set, as fuse-overlayfs has it.
const OWNER: &str = "user.containers.override_stat";

/// Counts of what was put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Devices, sockets and attributes that were left out.
    pub(crate) skipped: u64,
}

/// Unpacks an archive into the empty directory `top`, with the layers below it. As root, everything
/// is given to `owner`.
pub(crate) fn unpack(
    archive: impl Read,
    top: OwnedFd,
    below: &Merged,
    owner: Option<(u32, u32)>,
    limits: &Limits,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker {
        top,
        below,
        owner,
        limits,
        done: Unpacked::default(),
        dirs: BTreeMap::new(),
        names: 0,
        looked: 0,
        opaque: BTreeSet::new(),
        current: None,
    };
    let kept = unpacker.keep(&[], 0o755, None);
    kept.map_err(|fault| fault.told(GuestPath::root()))?;
    read_layer(archive, |mut entry| {
        let path = GuestPath::from(&entry.path[..]);
        let placed = unpacker.entry(&mut entry);
        placed.map_err(|fault| fault.told(path))
    })
    .map_err(|error| match fault::carried(&error) {
        // A budget that was used up between two entries.
        Some(fault @ ImageFault::Limit { .. }) if error.kind() != ErrorKind::LimitExceeded => {
            fault.into_error()
        }
        _ => error,
    })?;
    unpacker.finish().map_err(|fault| match fault {
        Fault::Io(error) => fault::io(error, "a layer could not be finished"),
        Fault::Image(error) => error,
    })?;
    Ok(unpacker.done)
}

/// Why an entry could not be put in place.
enum Fault {
    Io(io::Error),
    Image(Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Image(error)
    }
}

impl Fault {
    fn told(self, path: GuestPath) -> Error {
        match self {
            Self::Image(error) => error.with_path(path),
            Self::Io(error) => {
                let what = match error.kind() {
                    io::ErrorKind::NotADirectory => {
                        return malformed(
                            "an entry lies below another one that is not a directory",
                        )
                        .with_path(path);
                    }
                    _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                        return malformed("a path leads through too many links").with_path(path);
                    }
                    _ => "an entry of a layer can't be put in place",
                };
                fault::io(error, what).with_path(path)
            }
        }
    }
}

type Step<T> = std::result::Result<T, Fault>;

/// Mode and time of a directory, set when everything is in it.
#[derive(Clone, Copy)]
struct Finish {
    mode: u32,
    modified: Option<Timespec>,
}

struct Unpacker<'a> {
    top: OwnedFd,
    below: &'a Merged,
    owner: Option<(u32, u32)>,
    limits: &'a Limits,
    done: Unpacked,
    /// Directories of this layer by their real path.
    dirs: BTreeMap<Vec<Vec<u8>>, Finish>,
    /// Bytes of the paths above.
    names: u64,
    /// Names that were looked up in this layer.
    looked: u64,
    /// Those that hide what is below.
    opaque: BTreeSet<Vec<Vec<u8>>>,
    /// The directory of the last entry: as the archive named it, its real path, open.
    current: Option<(Vec<u8>, Vec<Vec<u8>>, OwnedFd)>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut ArchiveEntry<'_>) -> Step<()> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(limit("entries in one layer", self.limits.entries));
        }
        if entry.path.len() > PATH {
            return Err(limit("bytes in the path of one entry", PATH as u64));
        }
        let mut parts = split(&entry.path);
        let Some(name) = parts.pop() else {
            if entry.kind == ArchiveKind::Directory {
                self.keep(&[], entry.mode, entry.attributes.modified.map(timespec))?;
            }
            return Ok(());
        };
        // What aufs kept for itself.
        let of_aufs = |part: &Vec<u8>| part.starts_with(b".wh.");
        if parts.iter().any(of_aufs) {
            self.done.skipped += 1;
            return Ok(());
        }
        let parent = parts.join(&b'/');
        let (real, dir) = match self.current.take() {
            Some((named, real, dir)) if named == parent => (real, dir),
            _ => self.enter(&parts)?,
        };
        let mut path = real.clone();
        path.push(name.clone());
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            self.delete(&real, dir.as_fd(), hidden)?;
        } else {
            self.place(entry, dir.as_fd(), &name, path)?;
        }
        // A directory or link that was replaced may be what this led through.
        self.current = Some((parent, real, dir));
        if matches!(entry.kind, ArchiveKind::Symlink | ArchiveKind::HardLink) {
            self.current = None;
        }
        Ok(())
    }

    /// A deletion, or a directory that hides those below.
    fn delete(&mut self, real: &[Vec<u8>], dir: BorrowedFd<'_>, name: &[u8]) -> Step<()> {
        if name == b".wh..opq" {
            self.hide(real.to_vec(), dir)?;
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(malformed("a deletion names nothing").into());
        }
        if name.starts_with(b".wh.") {
            self.done.skipped += 1;
            return Ok(());
        }
        let mut path = real.to_vec();
        path.push(name.to_vec());
        match stat_at(dir, name)? {
            // Of this layer: it stays, and what is below it does not show.
            Some(stat) if is_dir(&stat) => {
                let dir = rustix::fs::openat(dir, name, DIR, Mode::empty())?;
                self.hide(path, dir.as_fd())?;
            }
            Some(_) => {}
            None => {
                if self.lower(&path)?.is_some() {
                    let kind = FileType::CharacterDevice;
                    rustix::fs::mknodat(dir, name, kind, Mode::empty(), 0)?;
                    self.own_at(dir, name)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a directory of this layer hide those below it.
    fn hide(&mut self, path: Vec<Vec<u8>>, dir: BorrowedFd<'_>) -> io::Result<()> {
        rustix::fs::setxattr(&*proc_path(dir), OPAQUE, b"y", XattrFlags::empty())?;
        self.opaque.insert(path);
        Ok(())
    }

    /// Counts names that are looked up: few bytes of an archive can ask for very many.
    fn look(&mut self, names: usize) -> Step<()> {
        self.looked += names as u64;
        if self.looked + self.below.looked() > self.limits.lookups {
            return Err(limit("names looked up for one layer", self.limits.lookups));
        }
        Ok(())
    }

    /// Finds an entry of the layers below.
    fn lower(&mut self, path: &[Vec<u8>]) -> Step<Option<crate::merged::Found>> {
        self.look(path.len())?;
        let hides = |length| {
            let above = path.get(..length).unwrap_or_default();
            self.opaque.contains(above)
        };
        if !self.opaque.is_empty() && (0..path.len()).any(hides) {
            return Ok(None);
        }
        Ok(self.below.find(path)?)
    }

    /// Opens a directory of the merged tree in this layer; what is missing of it is made.
    fn enter(&mut self, parts: &[Vec<u8>]) -> Step<(Vec<Vec<u8>>, OwnedFd)> {
        let mut links = Links::default();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut left: Vec<Vec<u8>> = parts.iter().rev().cloned().collect();
        let mut at = self.top.try_clone()?;
        while let Some(part) = left.pop() {
            if real.len() > DEPTH {
                return Err(limit("directories one below the other", DEPTH as u64));
            }
            self.look(1)?;
            if part == b".." {
                real.pop();
                at = self.open(&real)?;
                continue;
            }
            real.push(part.clone());
            let target = match stat_at(at.as_fd(), &part)? {
                Some(stat) if is_dir(&stat) => None,
                Some(stat) if is_link(&stat) => {
                    Some(rustix::fs::readlinkat(&at, &*part, Vec::new())?)
                }
                Some(stat) if is_whiteout(&stat) => {
                    rustix::fs::unlinkat(&at, &*part, AtFlags::empty())?;
                    self.make(at.as_fd(), &part, &real, 0o755, None)?;
                    let dir = rustix::fs::openat(&at, &*part, DIR, Mode::empty())?;
                    self.hide(real.clone(), dir.as_fd())?;
                    None
                }
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => match self.lower(&real)? {
                    Some(found) if is_dir(&found.stat) => {
                        let time = time_of(&found.stat);
                        let mode = found.stat.st_mode & 0o7777;
                        self.make(at.as_fd(), &part, &real, mode, Some(time))?;
                        None
                    }
                    Some(found) if is_link(&found.stat) => {
                        Some(rustix::fs::readlinkat(&found.dir, &*part, Vec::new())?)
                    }
                    Some(_) => return Err(Errno::NOTDIR.into()),
                    None => {
                        self.make(at.as_fd(), &part, &real, 0o755, None)?;
                        None
                    }
                },
            };
            match target {
                None => at = rustix::fs::openat(&at, &*part, DIR, Mode::empty())?,
                Some(target) => {
                    links.one_more()?;
                    follow(&mut real, &mut left, target.as_bytes());
                    at = self.open(&real)?;
                }
            }
        }
        Ok((real, at))
    }

    /// Opens a directory of this layer, name by name.
    fn open(&mut self, real: &[Vec<u8>]) -> Step<OwnedFd> {
        self.look(real.len())?;
        let mut at = self.top.try_clone()?;
        for part in real {
            at = rustix::fs::openat(&at, &**part, DIR, Mode::empty())?;
        }
        Ok(at)
    }

    fn make(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[Vec<u8>],
        mode: u32,
        modified: Option<Timespec>,
    ) -> Step<()> {
        rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
        self.keep(path, mode, modified)
    }

    /// Remembers what a directory is to be like in the end.
    fn keep(&mut self, path: &[Vec<u8>], mode: u32, modified: Option<Timespec>) -> Step<()> {
        let finish = Finish { mode, modified };
        if let Some(known) = self.dirs.get_mut(path) {
            *known = finish;
            return Ok(());
        }
        // Each name has a vector of its own.
        let cost = path.iter().map(|part| part.len() as u64 + 24).sum::<u64>() + 64;
        self.names += cost;
        if self.names > self.limits.names {
            return Err(limit("bytes of names of directories", self.limits.names));
        }
        self.dirs.insert(path.to_vec(), finish);
        Ok(())
    }

    fn place(
        &mut self,
        entry: &mut ArchiveEntry<'_>,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<Vec<u8>>,
    ) -> Step<()> {
        match entry.kind {
            ArchiveKind::Directory => self.directory(entry, dir, name, path),
            ArchiveKind::File => {
                self.clear(dir, name, &path)?;
                self.file(entry, dir, name)
            }
            ArchiveKind::Symlink => {
                self.clear(dir, name, &path)?;
                rustix::fs::symlinkat(&*entry.link, dir, name)?;
                self.own_at(dir, name)?;
                self.date(dir, name, entry.attributes.modified);
                Ok(())
            }
            ArchiveKind::HardLink => self.link(&entry.link, dir, name, &path),
            ArchiveKind::Special(FileKind::Fifo) => {
                self.clear(dir, name, &path)?;
                let mode = Mode::from_raw_mode(entry.mode & 0o7777);
                rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0)?;
                self.own_at(dir, name)?;
                // The process's mask took bits away.
                rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
                self.date(dir, name, entry.attributes.modified);
                Ok(())
            }
            _ => {
                self.done.skipped += 1;
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        entry: &ArchiveEntry<'_>,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<Vec<u8>>,
    ) -> Step<()> {
        let found = stat_at(dir, name)?;
        let (is_there, hides) = match &found {
            Some(stat) if is_dir(stat) => (true, false),
            Some(stat) => {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                (false, is_whiteout(stat))
            }
            None => (false, false),
        };
        let modified = entry.attributes.modified.map(timespec);
        match is_there {
            true => self.keep(&path, entry.mode, modified)?,
            false => self.make(dir, name, &path, entry.mode, modified)?,
        }
        let opened = rustix::fs::openat(dir, name, DIR, Mode::empty())?;
        if hides {
            self.hide(path, opened.as_fd())?;
        }
        let attributes = self.attributes(entry);
        for (name, value) in attributes {
            let at = proc_path(opened.as_fd());
            if rustix::fs::setxattr(&*at, &*name, &value, XattrFlags::empty()).is_err() {
                self.done.skipped += 1;
            }
        }
        Ok(())
    }

    fn file(&mut self, entry: &mut ArchiveEntry<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Step<()> {
        let file = create(dir, name)?;
        let left = self.limits.bytes.saturating_sub(self.done.bytes);
        let written = sparse::write(entry.content, &file, left).map_err(|error| match error {
            CopyError::Read(error) => Fault::Image(match fault::carried(&error) {
                Some(fault) => fault.into_error(),
                None => {
                    malformed(format!("a file's content can't be read: {error}")).with_source(error)
                }
            }),
            CopyError::Write(error) => Fault::Io(error),
            _ => limit("bytes in one layer, uncompressed", self.limits.bytes),
        })?;
        self.done.bytes += written;
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        for (name, value) in self.attributes(entry) {
            if rustix::fs::fsetxattr(&file, &*name, &value, XattrFlags::empty()).is_err() {
                self.done.skipped += 1;
            }
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777))?;
        if let Some(modified) = entry.attributes.modified {
            // What the filesystem can't keep costs a rebuild at most.
            let _ = rustix::fs::futimens(&file, &times(timespec(modified)));
        }
        Ok(())
    }

    /// The attributes of an entry that are taken over, its owner among them.
    fn attributes(&mut self, entry: &ArchiveEntry<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut taken = Vec::new();
        for (name, value) in &entry.xattrs {
            let is_plain = name.starts_with(b"user.")
                && !name.starts_with(b"user.overlay.")
                && name != OWNER.as_bytes();
            match is_plain {
                true => taken.push((name.clone(), value.clone())),
                false => self.done.skipped += 1,
            }
        }
        if entry.owner != (0, 0) {
            let (uid, gid) = entry.owner;
            let value = format!("{uid}:{gid}:0{:o}", entry.mode & 0o7777);
            taken.push((OWNER.into(), value.into_bytes()));
        }
        taken
    }

    /// Gives a file another name; one of a layer below is copied into this one first.
    fn link(
        &mut self,
        target: &[u8],
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[Vec<u8>],
    ) -> Step<()> {
        let mut parts = split(target);
        let missing = || malformed("a hard link names no file of the image");
        let last = parts.pop().ok_or_else(missing)?;
        let (mut real, from) = self.enter(&parts)?;
        real.push(last.clone());
        if real == path {
            return Ok(());
        }
        match stat_at(from.as_fd(), &last)? {
            Some(stat) if is_dir(&stat) || is_whiteout(&stat) => return Err(missing().into()),
            Some(_) => {}
            None => {
                let found = self.lower(&real)?.ok_or_else(missing)?;
                self.copy_up(&found, from.as_fd(), &last)?;
            }
        }
        self.clear(dir, name, path)?;
        rustix::fs::linkat(&from, &*last, dir, name, AtFlags::empty())?;
        Ok(())
    }

    /// Copies a file or link of a layer below into this one.
    fn copy_up(
        &mut self,
        found: &crate::merged::Found,
        dir: BorrowedFd<'_>,
        name: &[u8],
    ) -> Step<()> {
        let stat = &found.stat;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = rustix::fs::openat(&found.dir, name, flags, Mode::empty())?;
                let to = create(dir, name)?;
                if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                    let left = self.limits.bytes.saturating_sub(self.done.bytes);
                    let copied = sparse::write(&mut File::from(from.try_clone()?), &to, left);
                    self.done.bytes += copied.map_err(|error| match error {
                        CopyError::Read(error) | CopyError::Write(error) => Fault::Io(error),
                        _ => limit("bytes in one layer, uncompressed", self.limits.bytes),
                    })?;
                }
                if let Some((uid, gid)) = self.owner {
                    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                    rustix::fs::fchown(&to, Some(uid), Some(gid))?;
                }
                let mut value = [0_u8; 64];
                if let Ok(length) = rustix::fs::fgetxattr(&from, OWNER, value.as_mut_slice()) {
                    let value = value.get(..length).unwrap_or_default();
                    rustix::fs::fsetxattr(&to, OWNER, value, XattrFlags::empty())?;
                }
                rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                rustix::fs::futimens(&to, &times(time_of(stat)))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found.dir, name, Vec::new())?;
                rustix::fs::symlinkat(&*target, dir, name)?;
                self.own_at(dir, name)?;
            }
            _ => return Err(malformed("a hard link names neither a file nor a link").into()),
        }
        Ok(())
    }

    /// Removes what this layer has at a place.
    fn clear(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[Vec<u8>]) -> Step<()> {
        match stat_at(dir, name)? {
            None => Ok(()),
            Some(stat) if is_dir(&stat) => {
                self.current = None;
                // What is below it comes right after it, in order.
                while let Some(below) = self.opaque.range(path.to_vec()..).next()
                    && below.starts_with(path)
                {
                    let below = below.clone();
                    self.opaque.remove(&below);
                }
                while let Some((below, _)) = self.dirs.range(path.to_vec()..).next()
                    && below.starts_with(path)
                {
                    let below = below.clone();
                    self.dirs.remove(&below);
                }
                // By the directory's path in /proc: whatever lies there is this process's own.
                use std::os::unix::ffi::OsStrExt as _;
                let at = std::path::PathBuf::from(proc_path(dir));
                let at = at.join(std::ffi::OsStr::from_bytes(name));
                Ok(sandbox_transfer::remove_tree(&at)?)
            }
            Some(_) => Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?),
        }
    }

    fn own_at(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?)
    }

    fn date(&self, dir: BorrowedFd<'_>, name: &[u8], modified: Option<SystemTime>) {
        if let Some(modified) = modified {
            let times = times(timespec(modified));
            let _ = rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    /// Gives the directories their owner, mode and time, the deepest first.
    fn finish(&mut self) -> Step<()> {
        for (path, finish) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let dir = match path.split_last() {
                None => self.top.try_clone()?,
                Some((name, parents)) => {
                    let parent = self.open(parents)?;
                    rustix::fs::openat(&parent, &**name, DIR, Mode::empty())?
                }
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&dir, ".", flags, Mode::empty())?;
            if let Some((uid, gid)) = self.owner {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::fchown(&dir, Some(uid), Some(gid))?;
            }
            if let Some(modified) = finish.modified {
                let _ = rustix::fs::futimens(&dir, &times(modified));
            }
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(finish.mode & 0o7777))?;
        }
        Ok(())
    }
}

fn create(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(rustix::fs::openat(dir, name, flags, mode)?))
}

fn limit(what: &'static str, limit: u64) -> Fault {
    Fault::Image(ImageFault::Limit { what, limit }.into_error())
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn time_of(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

fn timespec(time: SystemTime) -> Timespec {
    let (tv_sec, nanoseconds) = since_epoch(time);
    Timespec {
        tv_sec,
        tv_nsec: nanoseconds.into(),
    }
}
