//! Metadata of an entry, by `statx`: the kind, the size, and whether something is mounted on it.
//!
//! Invariant: a link is described itself, and nothing is opened to describe it.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp, fstatfs, readlinkat,
    statx,
};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{FileKind, Metadata, Mode};

use super::owners::Owners;

/// An entry as it was at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) kind: FileKind,
    pub(super) size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    /// User and group as the host sees them.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: StatxTimestamp,
    /// Which filesystem it is on.
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    /// Which mount it is on.
    pub(super) mount: u64,
    /// Whether it is the top of a mount.
    pub(super) mounted: bool,
}

impl Stat {
    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// The permission bits that are carried between host and guest.
    pub(super) fn permissions(&self) -> u32 {
        self.mode & 0o777
    }

    pub(super) fn metadata(&self) -> Metadata {
        let metadata = Metadata::new(self.kind, self.size, Mode::new(self.mode));
        match time(self.modified) {
            Some(modified) => metadata.modified(modified),
            None => metadata,
        }
    }
}

/// Describes the entry of this name in a directory.
pub(super) fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Sys<Stat> {
    stat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Does what [`stat_at`] does, with `None` for an entry that does not exist.
pub(super) fn find_at(dir: impl AsFd, name: &[u8]) -> Sys<Option<Stat>> {
    match stat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Describes what a descriptor refers to.
pub(super) fn stat_fd(fd: impl AsFd) -> Sys<Stat> {
    stat(fd, c"", AtFlags::EMPTY_PATH)
}

/// Describes an entry of a directory with its owner and a link's target.
pub(super) fn metadata_at(
    dir: impl AsFd,
    name: &std::ffi::CStr,
    stat: &Stat,
    owners: Owners,
) -> Sys<Metadata> {
    let metadata = stat
        .metadata()
        .owner(owners.uid(stat.uid), owners.gid(stat.gid));
    if stat.kind != FileKind::Symlink {
        return Ok(metadata);
    }
    Ok(metadata.link_target(readlinkat(dir, name, Vec::new())?.into_bytes()))
}

fn stat(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Sys<Stat> {
    let found = statx(
        dir,
        name,
        flags | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?;
    Ok(Stat {
        kind: kind(&found),
        size: found.stx_size,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        modified: found.stx_mtime,
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        mount: found.stx_mnt_id,
        // A kernel that can't tell (before 5.8) must not make a mount point look like none.
        mounted: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            || !found
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT),
    })
}

fn kind(found: &Statx) -> FileKind {
    match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::Device,
    }
}

fn time(stamp: StatxTimestamp) -> Option<SystemTime> {
    let whole = Duration::from_secs(stamp.tv_sec.unsigned_abs());
    let base = if stamp.tv_sec < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(stamp.tv_nsec.into()))
}

/// Whether this is on a filesystem that the kernel makes up: its files have no true size, and
/// reading or opening one can block or do something.
pub(super) fn is_made_up(fd: impl AsFd) -> Sys<bool> {
    const MADE_UP: [u32; 12] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0x6265_6570, // configfs
        0x6165_676c, // pstore
        0xcafe_4a11, // bpf
        0x1cd1,      // devpts
        0x4249_4e4d, // binfmt_misc
    ];
    // The field's type and sign differ between architectures; magic numbers are 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = fstatfs(fd)?.f_type as u32;
    Ok(MADE_UP.contains(&magic))
}
