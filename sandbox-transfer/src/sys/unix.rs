//! Directories by descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawMode, Timespec, Timestamps, chmodat, fchmod, fstat,
    futimens, mkdirat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use sandbox_core::FileKind;

use super::{Stat, system_time};
use crate::since_epoch;

/// A directory that is open for use of its entries, not necessarily for reading its list.
#[cfg(target_os = "linux")]
const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The name of an entry as bytes.
pub(crate) fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

/// A name for an entry of the host, or `None` if the host cannot have it.
pub(crate) fn name(bytes: &[u8]) -> Option<OsString> {
    let sound =
        !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|b| matches!(b, b'/' | 0));
    sound.then(|| OsString::from_vec(bytes.to_vec()))
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl Dir {
    /// Opens a directory of the host by its path; links in it are followed, as they are the
    /// caller's.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, DIR, Mode::empty())?))
    }

    pub(crate) fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        let dir = openat(&self.0, name, DIR | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self(dir))
    }

    /// The directory that a descriptor stands for.
    #[cfg(target_os = "linux")]
    pub(crate) fn from_fd(dir: OwnedFd) -> Self {
        Self(dir)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    fn list(&self) -> io::Result<rustix::fs::Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.0, c".", flags, Mode::empty())?;
        Ok(rustix::fs::Dir::new(dir)?)
    }

    /// The names of all entries, in any order.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        self.names_at_most(usize::MAX)
    }

    /// The names of all entries, in any order; `None` if there are more than so many. Reads no more
    /// than it must.
    pub(crate) fn names_within(&self, most: u64) -> io::Result<Option<Vec<OsString>>> {
        let one_more = usize::try_from(most.saturating_add(1)).unwrap_or(usize::MAX);
        let names = self.names_at_most(one_more)?;
        Ok((names.len() as u64 <= most).then_some(names))
    }

    /// The names of so many entries at most, in any order.
    pub(crate) fn names_at_most(&self, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in self.list()? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            names.push(OsString::from_vec(name.to_vec()));
            if names.len() >= most {
                break;
            }
        }
        Ok(names)
    }

    /// Whether there is no entry in it. Reads no more than it must.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        for entry in self.list()? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(stat_of(&statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Metadata of the directory itself.
    pub(crate) fn stat_self(&self) -> io::Result<Stat> {
        Ok(stat_of(&fstat(&self.0)?))
    }

    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    pub(crate) fn make_dir(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(mkdirat(&self.0, name, Mode::RWXU)?)
    }

    /// Makes a file for writing that must be new.
    pub(crate) fn create_file(&self, name: &OsStr) -> io::Result<File> {
        super::super::fault::point()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(openat(&self.0, name, flags, mode)?.into())
    }

    /// Opens a regular file for reading; `None` if it is something else by now. A FIFO is not
    /// waited for.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<Option<(File, Stat)>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
            file => file?,
        };
        let stat = stat_of(&fstat(&file)?);
        Ok((stat.kind == FileKind::File).then(|| (file.into(), stat)))
    }

    pub(crate) fn symlink(&self, target: &[u8], name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(symlinkat(target, &self.0, name)?)
    }

    /// Renames; a file or link that has the new name is replaced, an empty directory by a
    /// directory.
    pub(crate) fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(renameat(&self.0, name, &to.0, new)?)
    }

    /// Renames an entry of this directory to a name that must be new.
    pub(crate) fn rename_new(&self, name: &OsStr, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            use rustix::fs::{RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(&self.0, name, &self.0, new, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                done => return Ok(done?),
            }
        }
        // Where the platform or the filesystem can't: an empty directory takes the name first.
        mkdirat(&self.0, new, Mode::RWXU)?;
        let renamed = renameat(&self.0, name, &self.0, new);
        if renamed.is_err() {
            let _ = unlinkat(&self.0, new, AtFlags::REMOVEDIR);
        }
        Ok(renamed?)
    }

    /// Renames an entry, a directory too, to a name of another directory that must be new.
    #[cfg(target_os = "linux")]
    pub(crate) fn rename_only_new(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        super::super::fault::point()?;
        let flags = RenameFlags::NOREPLACE;
        Ok(renameat_with(&self.0, name, &to.0, new, flags)?)
    }

    /// Gives a file or link a second name, in another directory.
    #[cfg(target_os = "linux")]
    pub(crate) fn link(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(rustix::fs::linkat(
            &self.0,
            name,
            &to.0,
            new,
            AtFlags::empty(),
        )?)
    }

    /// Renames a file or link of this directory to a name of another one that must be new.
    pub(crate) fn rename_new_to(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            use rustix::fs::{RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(&self.0, name, &to.0, new, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                done => return Ok(done?),
            }
        }
        // A second name replaces nothing either.
        rustix::fs::linkat(&self.0, name, &to.0, new, AtFlags::empty())?;
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Exchanges an entry with one of another directory at once; `Unsupported` where the platform
    /// or the filesystem can't.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    pub(crate) fn exchange_with(&self, one: &OsStr, to: &Self, other: &OsStr) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        use rustix::io::Errno;
        super::super::fault::exchange()?;
        match renameat_with(&self.0, one, &to.0, other, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            done => Ok(done?),
        }
    }

    /// Exchanges an entry with one of another directory at once; `Unsupported` where the platform
    /// or the filesystem can't.
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    pub(crate) fn exchange_with(&self, _: &OsStr, _: &Self, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Exchanges two entries at once; `Unsupported` where the platform or the filesystem can't.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    pub(crate) fn exchange(&self, one: &OsStr, other: &OsStr) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        use rustix::io::Errno;
        super::super::fault::exchange()?;
        match renameat_with(&self.0, one, &self.0, other, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            done => Ok(done?),
        }
    }

    /// Exchanges two entries at once; `Unsupported` where the platform or the filesystem can't.
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    pub(crate) fn exchange(&self, _: &OsStr, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Sets the permission bits of an entry that is not a link.
    pub(crate) fn set_mode_of(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        // Where the platform can't keep from following, the entry was made by this process.
        let mode = Mode::from_raw_mode(mode as RawMode);
        match chmodat(&self.0, name, mode, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                match openat(&self.0, name, flags, Mode::empty()) {
                    Ok(entry) => Ok(fchmod(entry, mode)?),
                    Err(rustix::io::Errno::ACCESS) => {
                        Ok(chmodat(&self.0, name, mode, AtFlags::empty())?)
                    }
                    Err(error) => Err(error.into()),
                }
            }
            done => Ok(done?),
        }
    }

    /// Lets the owner write to this directory; gives the mode that it had, if it was shut.
    pub(crate) fn open_up(&self) -> io::Result<Option<u32>> {
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let mode = fstat(&self.0)?.st_mode as u32 & 0o7777;
        // Only the owner can: for others, what is made in it says why.
        let opened = mode & 0o200 == 0 && self.shut(mode | 0o200).is_ok();
        Ok(opened.then_some(mode))
    }

    /// Gives this directory back the mode that it had.
    pub(crate) fn shut(&self, mode: u32) -> io::Result<()> {
        // By its own name: the descriptor is for paths alone.
        let mode = Mode::from_raw_mode(mode as RawMode);
        Ok(chmodat(&self.0, c".", mode, AtFlags::empty())?)
    }

    /// Sets the modification time of an entry, of a link itself. What the filesystem can't keep is
    /// clamped or left: a time costs a rebuild at most.
    pub(crate) fn set_time_of(&self, name: &OsStr, modified: SystemTime) {
        let times = timestamps(modified);
        let _ = utimensat(&self.0, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// Gives a file its permission bits and modification time.
pub(crate) fn finish_file(file: &File, mode: u32, modified: Option<SystemTime>) -> io::Result<()> {
    if let Some(modified) = modified {
        let _ = futimens(file, &timestamps(modified));
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode as RawMode & 0o777))?)
}

fn timestamps(modified: SystemTime) -> Timestamps {
    let (tv_sec, nanoseconds) = since_epoch(modified);
    let modified = Timespec {
        tv_sec,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// The kind of what was described.
pub(crate) fn kind_of(stat: &rustix::fs::Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode as RawMode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::Device,
    }
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let kind = kind_of(stat);
    // The fields' types differ between platforms.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Stat {
        kind,
        mode: stat.st_mode as u32 & 0o777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: system_time(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
    }
}
