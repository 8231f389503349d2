//! The names in a sandbox's `/dev`, and the tmpfs with them that root makes once for all of its
//! sandboxes.
//!
//! Must never have a device that is not on the list.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

/// Devices of the host that a sandbox has.
pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Links, each with its target.
pub(super) const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Of the tmpfs. Its pages can't be written by a guest.
const OPTIONS: &[(&str, &str)] = &[("mode", "0755"), ("size", "65536"), ("nr_inodes", "64")];

/// Mount points in `/dev`, and a directory that stays empty.
pub(super) const PTS: &str = "pts";
pub(super) const SHM: &str = "shm";
pub(super) const MQUEUE: &str = "mqueue";
pub(super) const EMPTY: &str = ".empty";
pub(super) const DIRECTORIES: [&str; 4] = [PTS, SHM, MQUEUE, EMPTY];

/// Source that hides a file that no guest needs.
pub(super) const NO_FILE: &str = "/dev/null";
pub(super) const NO_DIRECTORY: &str = "/dev/.empty";

/// Makes the tmpfs that root mounts, mounted nowhere. Fails where devices can't be made, as in most
/// containers, and with kernels before 6.15, which don't clone such a mount.
pub(crate) fn make() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tmpfs = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for name in DEVICES {
        let device = rustix::fs::stat(Path::new("/dev").join(name))?.st_rdev;
        let kind = FileType::CharacterDevice;
        mknodat(&tmpfs, *name, kind, Mode::empty(), device)?;
        // Whatever the mask of this process is.
        chmodat(&tmpfs, *name, Mode::from_raw_mode(0o666), AtFlags::empty())?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&tmpfs, "null", flags, Mode::empty())?;
    for (name, target) in LINKS {
        symlinkat(*target, &tmpfs, *name)?;
    }
    for name in DIRECTORIES {
        mkdirat(&tmpfs, name, Mode::empty())?;
        chmodat(&tmpfs, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    }
    clone(tmpfs.as_fd())?;
    Ok(tmpfs)
}

/// Another mount of the tmpfs, for one sandbox.
pub(super) fn clone(tmpfs: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(tmpfs, "", flags)
}
